// SPDX-License-Identifier: Apache-2.0
/** One row of the time line: the span's place in the tree, and its bar. */

import { el } from "./dom.js";
import { duration, percent, plural } from "./format.js";

/** @typedef {import("./trace.js").Span} Span */
/** @typedef {import("./view.js").View} View */

/** Beyond this depth the steps of the tree become smaller, or a deep trace would have no room for names. */
const STEPS = 16;
const LABEL_PX = 68;
/** In the title of an event's mark. */
const MOST_NAMES = 8;

/**
 * @param {View} view @param {Span} span @param {number} index of the row
 * @param {{toggle: (span: Span) => void, open: (span: Span) => void, reveal: (span: Span) => void, focus: (span: Span) => void}} on
 * @returns {HTMLElement}
 */
export function spanRow(view, span, index, on) {
  const collapsed = view.tree.isCollapsed(span);
  const siblings = span.parent?.children ?? view.trace.roots;
  const classes = ["row", view.colors.get(span.service) ?? ""];
  if (view.open.has(span)) classes.push("open");
  if (view.text.trim()) classes.push(view.found.has(span) ? "found" : "not-found");
  if (span.error) classes.push("has-error");
  const row = el(
    "div",
    {
      role: "row",
      className: classes.join(" "),
      tabIndex: view.focus === span || (!view.focus && index === 0) ? 0 : -1,
      "aria-level": span.depth + 1,
      "aria-rowindex": index + 1,
      "aria-setsize": siblings.length,
      "aria-posinset": siblings.indexOf(span) + 1,
      "aria-expanded": span.children.length ? String(!collapsed) : undefined,
      "aria-selected": String(view.open.has(span)),
      "data-span": span.id,
      onClick: () => on.open(span),
      onFocus: () => on.focus(span),
    },
    nameCell(view, span, collapsed, on),
    timeCell(view, span),
  );
  return row;
}

/**
 * @param {View} view
 * @param {Span} span
 * @param {boolean} collapsed
 * @param {{toggle: (span: Span) => void, reveal: (span: Span) => void}} on
 */
function nameCell(view, span, collapsed, on) {
  const stepped = view.trace.depth > STEPS ? STEPS / view.trace.depth : 1;
  const toggle = span.children.length
    ? el(
        "button",
        {
          type: "button",
          className: "toggle",
          tabIndex: -1,
          title: `${collapsed ? "Expand" : "Collapse"} ${plural(span.after - span.index - 1, "span")}`,
          "aria-label": `${collapsed ? "Expand" : "Collapse"} ${span.name}`,
          onClick: (/** @type {Event} */ event) => {
            event.stopPropagation();
            on.toggle(span);
          },
        },
        el("span", { className: "arrow", "aria-hidden": "true" }, collapsed ? "▸" : "▾"),
        el("span", { "aria-hidden": "true" }, String(span.children.length)),
      )
    : el("span", { className: "toggle leaf" });
  const newService = span.parent?.service !== span.service;
  return el(
    "div",
    { role: "gridcell", className: "name-cell", title: `${span.service}: ${span.name}` },
    el("span", { className: "indent", style: { "--depth": String(span.depth * stepped) } }),
    toggle,
    el("span", { className: "edge" }),
    ...marks(view, span, collapsed, on),
    el(
      "span",
      { className: "names" },
      newService
        ? el("strong", {}, span.service)
        : el("span", { className: "visually-hidden" }, span.service),
      " ",
      el("span", { className: "op" }, span.name || "(no name)"),
    ),
  );
}

/**
 * What is unusual, each with words for who does not see the mark.
 * @param {View} view
 * @param {Span} span
 * @param {boolean} collapsed
 * @param {{reveal: (span: Span) => void}} on
 */
function marks(view, span, collapsed, on) {
  const found = [];
  if (span.error) found.push(mark("error", "!", "error"));
  if (collapsed && span.errorsBelow) {
    found.push(
      el(
        "button",
        {
          type: "button",
          className: "mark error below",
          tabIndex: -1,
          title: `${plural(span.errorsBelow, "error")} below: show the first`,
          "aria-label": `${plural(span.errorsBelow, "error")} below: show the first`,
          onClick: (/** @type {Event} */ event) => {
            event.stopPropagation();
            on.reveal(
              /** @type {Span} */ (
                view.trace.spans.slice(span.index + 1, span.after).find((one) => one.error)
              ),
            );
          },
        },
        "!",
      ),
    );
  }
  if (span.unfinished) found.push(mark("warn", "…", "unfinished: its end was never recorded"));
  const skew = view.skews.get(span);
  if (skew)
    found.push(
      mark(
        "skew",
        "◷",
        skew.before
          ? `starts ${duration(skew.before)} before its parent`
          : `ends ${duration(skew.after)} after its parent`,
      ),
    );
  if (span.lost) found.push(mark("warn", "≠", `${plural(span.lost, "event")} of its process lost meanwhile`));
  if (span.missingParent) found.push(mark("warn", "?", "its parent is not in this trace"));
  if (span.links.length) found.push(mark("link", "↗", plural(span.links.length, "link")));
  return found;
}

/** @param {string} style @param {string} sign @param {string} words */
const mark = (style, sign, words) =>
  el(
    "span",
    { className: `mark ${style}`, title: words },
    el("span", { "aria-hidden": "true" }, sign),
    el("span", { className: "visually-hidden" }, `${words}; `),
  );

/** @param {View} view @param {Span} span */
function timeCell(view, span) {
  const [left, right] = [view.share(span.start), view.share(span.end)];
  const cell = el("div", { role: "gridcell", className: "time-cell" });
  const classes = ["bar"];
  if (span.unfinished) classes.push("unfinished");
  if (right >= 0 && left <= 1) {
    // Both ends are cut to what is in sight, or a bar at a close zoom would be millions of pixels wide.
    const [from, to] = [Math.max(left, -0.01), Math.min(right, 1.01)];
    cell.append(
      el(
        "div",
        { className: classes.join(" "), style: at(from, to) },
        ...strips(view, span, left, right, from, to),
      ),
    );
    for (const [start, end] of view.pathOf(span)) {
      const [a, b] = [Math.max(view.share(start), -0.01), Math.min(view.share(end), 1.01)];
      if (b > 0 && a < 1)
        cell.append(
          el("div", { className: "path", style: at(a, b), title: `critical path: ${duration(end - start)}` }),
        );
    }
    const early = view.skews.get(span)?.before && span.parent ? view.share(span.parent.start) : 0;
    if (early > from && early <= 1)
      cell.append(
        el("div", { className: "early", title: "before its parent began", style: at(from, early) }),
      );
    cell.append(...eventMarks(view, span));
  }
  cell.append(label(span, left, right, LABEL_PX / view.width));
  return cell;
}

/** One mark for all events of a pixel. @param {View} view @param {Span} span */
function eventMarks(view, span) {
  /** @type {Map<number, string[]>} */
  const names = new Map();
  for (const event of span.events) {
    const share = view.share(event.time - span.recordedStart + span.start);
    const pixel = Math.round(share * view.width);
    if (share >= 0 && share <= 1)
      names.set(pixel, [...(names.get(pixel) ?? []).slice(0, MOST_NAMES), event.name]);
  }
  return [...names].map(([pixel, some]) =>
    el("div", {
      className: "event",
      title: some.join(", "),
      style: { left: `${(100 * pixel) / view.width}%` },
    }),
  );
}

/** @param {number} from @param {number} to */
const at = (from, to) => ({ left: `${from * 100}%`, width: `${(to - from) * 100}%` });

/**
 * What the span's time went to, as strips in its bar. A container's are shares, not moments: of CPU times
 * nobody recorded when.
 * @param {View} view @param {Span} span @param {number} left @param {number} right @param {number} from @param {number} to
 */
function strips(view, span, left, right, from, to) {
  const whole = Math.max(span.end - span.start, 1);
  return span.parts.map((group) => {
    let used = 0;
    const scale = Math.max(group.total, whole);
    const pieces = group.parts.map((part) => {
      const [a, b] = [used / scale, (used += part.us) / scale].map((share) => left + (right - left) * share);
      const [x, y] = [Math.max(a, from), Math.min(b, to)];
      if (y <= x) return null;
      return el("span", {
        className: `part ${part.style}`,
        title: `${group.label}: ${part.label} ${duration(part.us)} (${percent(part.us / whole)})`,
        style: { left: `${((x - from) / (to - from)) * 100}%`, width: `${((y - x) / (to - from)) * 100}%` },
      });
    });
    return el("span", { className: "strip" }, pieces);
  });
}

/**
 * The duration beside the bar, on the side that has room.
 * @param {Span} span
 * @param {number} left
 * @param {number} right
 * @param {number} room what it takes, as a share of the row
 */
function label(span, left, right, room) {
  const text = span.unfinished ? `≥ ${duration(span.end - span.start)}` : duration(span.end - span.start);
  if (right < 0) return el("span", { className: "label", style: { left: "4px" } }, `◂ ${text}`);
  if (left > 1) return el("span", { className: "label", style: { right: "4px" } }, `${text} ▸`);
  if (right < 1 - room)
    return el("span", { className: "label", style: { left: `calc(${right * 100}% + 6px)` } }, text);
  if (left > room)
    return el("span", { className: "label", style: { right: `calc(${(1 - left) * 100}% + 6px)` } }, text);
  return el("span", { className: "label inside", style: { right: "8px" } }, text);
}
