// SPDX-License-Identifier: Apache-2.0
/** Which page a path shows, links between pages without a reload, and what stands above all pages. */

import { comparePage } from "./compare.js";
import { dependenciesPage } from "./dependencies.js";
import { el, isTyping } from "./dom.js";
import { showHelp } from "./help.js";
import { searchPage } from "./search.js";
import { tracePage } from "./trace-page.js";

/** What a page gives back: called before the next page is shown. @typedef {(() => void) | void} Leave */
/** @typedef {(box: HTMLElement, url: URL) => Leave | Promise<Leave>} Page */

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
/** @type {Leave} */
let leave;
let shown = 0;

/** Jaeger's paths. @param {URL} url @returns {[string, Page]} */
function pageOf(url) {
  const path = url.pathname.replace(/\/+$/, "");
  if (/^\/trace\/[^/]+\.\.\.[^/]*$/.test(path) || path === "/compare") return ["compare", comparePage];
  if (/^\/trace\/[^/]+$/.test(path)) return ["trace", tracePage];
  if (path === "/dependencies") return ["dependencies", dependenciesPage];
  if (["", "/search"].includes(path)) return ["search", searchPage];
  return ["", notFound];
}

/** @type {Page} */
function notFound(target, url) {
  target.replaceChildren(el("p", { className: "message" }, `There is no page ${url.pathname}.`));
}

async function show() {
  const url = new URL(location.href);
  const turn = ++shown;
  const [name, page] = pageOf(url);
  leave?.();
  leave = undefined;
  // A page that is left while it loads goes on in a box that is shown no more.
  const box = el("div", { className: "page" });
  main.replaceChildren(box);
  main.className = `page-${name || "none"}`;
  document.title = "k8s_tracing";
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.getAttribute("data-page") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const left = await page(box, url);
  if (turn === shown) leave = left;
  else left?.();
}

/** Goes to a path of this page. @param {string} path */
function go(path) {
  history.pushState(null, "", path);
  void show();
}

document.addEventListener("click", (event) => {
  if (
    event.defaultPrevented ||
    event.button ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return;
  const link = event.target instanceof Element && event.target.closest("a[data-route]");
  if (!link) return;
  event.preventDefault();
  go(link.getAttribute("href") ?? "/");
});
document.addEventListener("again", () => void show());
document.addEventListener("go", (event) => go(/** @type {CustomEvent<string>} */ (event).detail));
window.addEventListener("popstate", () => void show());

document.querySelector(".lookup")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const input = /** @type {HTMLFormElement} */ (event.target).elements.namedItem("id");
  const id = input instanceof HTMLInputElement ? input.value.trim() : "";
  if (id) go(`/trace/${encodeURIComponent(id)}`);
});

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  document.dispatchEvent(new Event("theme"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  document.dispatchEvent(new Event("theme")),
);

document.getElementById("help")?.addEventListener("click", showHelp);
document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !isTyping(event.target)) showHelp();
});

void show();
