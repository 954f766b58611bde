// SPDX-License-Identifier: Apache-2.0
/**
 * Elements made of data. Text only ever becomes a text node, and a link leads to http or https: that is what
 * keeps whatever came in a span from being more than text. The server's content security policy is the
 * second wall.
 */

/** @typedef {Node | string | number | null | undefined | false} Child */

const PROPERTIES = new Set([
  "className",
  "checked",
  "value",
  "disabled",
  "hidden",
  "tabIndex",
  "title",
  "type",
  "name",
  "open",
  "htmlFor",
]);

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props] properties, `on…` listeners, `style` as an object, anything else as an attribute
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  fill(node, props, children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag @param {Record<string, any>} [props] @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function svg(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  const { className, ...rest } = props;
  fill(node, className ? { class: className, ...rest } : rest, children);
  return node;
}

/** @param {any} node @param {Record<string, any>} props @param {(Child | Child[])[]} children */
function fill(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2).toLowerCase(), value);
    else if (key === "style") setStyle(node, value);
    else if (PROPERTIES.has(key) && key in node && node.namespaceURI !== SVG) node[key] = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false)
      node.append(child instanceof Node ? child : String(child));
  }
}

/**
 * The policy allows styles that a script sets, and no style attribute.
 * @param {HTMLElement} node
 * @param {Record<string, string>} style
 */
function setStyle(node, style) {
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
}

/** A link to another site, or its text where it is not http or https. @param {string} url @returns {Node} */
export function outside(url) {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (!parsed || !["http:", "https:"].includes(parsed.protocol)) return document.createTextNode(url);
  return el("a", { href: parsed.href, target: "_blank", rel: "noopener noreferrer" }, url);
}

/** Tells a screen reader. @param {string} text */
export function announce(text) {
  const status = document.getElementById("status");
  if (status) status.textContent = text;
}

/** A function that runs at most once a frame. @param {() => void} work @returns {() => void} */
export function onceAFrame(work) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      work();
    });
  };
}

/** Is somebody typing? @param {EventTarget | null} target */
export function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && /** @type {any} */ (target).type !== "checkbox"))
  );
}
