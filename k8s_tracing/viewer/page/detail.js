// SPDX-License-Identifier: Apache-2.0
/** All of one span, under its row. */

import { el, outside } from "./dom.js";
import { clock, dateTime, duration, percent, plural } from "./format.js";

/** @typedef {import("./trace.js").Span} Span */
/** @typedef {import("./trace.js").Tag} Tag */

/** More events than this are folded. */
const MANY_EVENTS = 12;

/** @param {import("./view.js").View} view @param {Span} span @returns {HTMLElement} */
export function detail(view, span) {
  const here = `/trace/${encodeURIComponent(view.trace.id)}?span=${encodeURIComponent(span.id)}`;
  const own = Math.max(span.end - span.start, 0);
  return el(
    "div",
    { className: `detail ${view.colors.get(span.service) ?? ""}`, role: "row" },
    el(
      "div",
      { role: "gridcell", "aria-colspan": "2", className: "detail-box" },
      el(
        "header",
        {},
        el("h2", {}, span.name || "(no name)"),
        fact("Service", span.service),
        fact("Kind", span.kind),
        fact(span.unfinished ? "Seen for" : "Duration", duration(own)),
        fact("Start", duration(span.start), `${dateTime(span.recordedStart)}, as recorded`),
        fact("Without children", duration(ownTime(span))),
        fact("Span ID", span.id),
        el(
          "a",
          { href: here, "data-route": true, className: "deep", title: "The address of this span" },
          "Link",
        ),
      ),
      ...notices(view, span),
      ...span.parts.map((group) => split(span, group)),
      section("Attributes", span.tags.length, true, () => table(span.tags)),
      span.events.length
        ? section("Events", span.events.length, span.events.length <= MANY_EVENTS, () => eventList(span))
        : null,
      span.links.length ? section("Links", span.links.length, true, () => linkList(span)) : null,
      section("Process", span.process.tags.length, false, () => table(span.process.tags)),
    ),
  );
}

/** @param {string} name @param {string} value @param {string} [title] */
const fact = (name, value, title) =>
  el("span", { className: "fact", title: title ?? "" }, el("span", {}, name), el("b", {}, value));

/** Its time less that in which a child ran. @param {Span} span */
function ownTime(span) {
  let [covered, until] = [0, span.start];
  for (const child of span.children) {
    const [from, to] = [Math.max(child.start, until), Math.min(child.end, span.end)];
    if (to > from) [covered, until] = [covered + to - from, to];
  }
  return span.end - span.start - covered;
}

/** @param {import("./view.js").View} view @param {Span} span */
function notices(view, span) {
  /** @type {Node[]} */
  const found = [];
  const say = (/** @type {string} */ style, /** @type {string} */ text) =>
    found.push(el("p", { className: `notice ${style}` }, text));
  if (span.unfinished)
    say(
      "warn",
      "Unfinished: its process ended, or has not come to the span's end yet. The bar ends where the last was heard of it.",
    );
  const skew = view.skews.get(span);
  if (skew) {
    const what = [
      skew.before ? `starts ${duration(skew.before)} before its parent` : "",
      skew.after ? `ends ${duration(skew.after)} after its parent` : "",
    ].filter(Boolean);
    say("skew", `As recorded, it ${what.join(" and ")}. ${skew.explanation}`);
  }
  if (span.shift)
    say(
      "skew",
      `Shown ${duration(Math.abs(span.shift))} ${span.shift > 0 ? "later" : "earlier"} than recorded, because clocks are adjusted.`,
    );
  if (span.lost)
    say(
      "warn",
      `${plural(span.lost, "event")} of its process did not fit LTTng's buffers while it ran: spans below it may be missing.`,
    );
  if (span.missingParent)
    say(
      "warn",
      `Its parent ${span.missingParent} is not in this trace: not recorded, lost, or still on its way.`,
    );
  for (const warning of span.warnings) say("warn", warning);
  return found;
}

/** @param {Span} span @param {import("./parts.js").PartGroup} group */
function split(span, group) {
  const whole = Math.max(span.end - span.start, group.total, 1);
  return el(
    "figure",
    { className: "split" },
    el("figcaption", {}, `${group.label}: where ${duration(span.end - span.start)} went`),
    el(
      "div",
      {
        className: "strip big",
        role: "img",
        "aria-label": group.parts.map((part) => `${part.label} ${duration(part.us)}`).join(", "),
      },
      share(group, whole),
    ),
    el(
      "ul",
      {},
      group.parts.map((part) =>
        el(
          "li",
          {},
          el("span", { className: `key ${part.style}` }),
          `${part.label} `,
          el("b", {}, duration(part.us)),
          ` ${percent(part.us / whole)}`,
        ),
      ),
    ),
  );
}

/** @param {import("./parts.js").PartGroup} group @param {number} whole */
function share(group, whole) {
  let used = 0;
  return group.parts.map((part) => {
    const left = used / whole;
    used += part.us;
    return el("span", {
      className: `part ${part.style}`,
      style: { left: `${left * 100}%`, width: `${(100 * part.us) / whole}%` },
    });
  });
}

/**
 * Its content is made when it is first opened.
 * @param {string} title
 * @param {number} count
 * @param {boolean} open
 * @param {() => Node} content
 */
function section(title, count, open, content) {
  const box = el(
    "details",
    { className: "part-of-span", open: open && count > 0 },
    el("summary", {}, title, " ", el("span", { className: "count" }, String(count))),
  );
  if (box.open) box.append(content());
  else box.addEventListener("toggle", () => box.append(content()), { once: true });
  return box;
}

/** @param {Tag[]} tags */
function table(tags) {
  const sorted = [...tags].sort((a, b) => (a.key < b.key ? -1 : 1));
  return el(
    "table",
    { className: "tags" },
    el(
      "tbody",
      {},
      ...sorted.map((tag) =>
        el("tr", {}, el("th", { scope: "row" }, tag.key), el("td", {}, value(tag.value))),
      ),
    ),
  );
}

/** @param {unknown} data @returns {Node} */
function value(data) {
  if (typeof data !== "string") return el("code", {}, JSON.stringify(data) ?? "");
  if (/^https?:\/\/\S+$/.test(data)) return outside(data);
  if (/^\s*[[{]/.test(data)) {
    try {
      return el("pre", {}, JSON.stringify(JSON.parse(data), null, 2));
    } catch {
      // It only looked like JSON: then it is a text as others are.
    }
  }
  return data.includes("\n") ? el("pre", {}, data) : el("span", {}, data);
}

/** @param {Span} span */
function eventList(span) {
  return el(
    "ol",
    { className: "events" },
    ...span.events.map((event) =>
      el(
        "li",
        {},
        el("time", { title: clock(event.time) }, duration(event.time - span.recordedStart + span.start)),
        el("div", {}, el("b", {}, event.name || "(event)"), event.tags.length ? table(event.tags) : null),
      ),
    ),
  );
}

/** @param {Span} span */
function linkList(span) {
  return el(
    "ul",
    { className: "links" },
    ...span.links.map((link) =>
      el(
        "li",
        {},
        el(
          "a",
          {
            href: `/trace/${encodeURIComponent(link.traceID)}?span=${encodeURIComponent(link.spanID)}`,
            "data-route": true,
          },
          `trace ${link.traceID.slice(0, 7)}, span ${link.spanID}`,
        ),
        el("span", { className: "hint" }, ` ${link.type.toLowerCase().replaceAll("_", " ")}`),
      ),
    ),
  );
}
