// SPDX-License-Identifier: Apache-2.0
/** Above the time line: what trace it is, its figures, what is unusual of it, and finding in it. */

import { el } from "./dom.js";
import { dateTime, duration, percent, plural } from "./format.js";
import { applyShifts, clockShifts } from "./skew.js";
import { titleOf } from "./trace.js";

/** @typedef {import("./trace.js").Span} Span */
/** @typedef {import("./view.js").View} View */

/**
 * @param {View} view
 * @param {(span: Span | null) => void} goTo
 * @returns {{element: HTMLElement, findInput: HTMLInputElement, step: (by: number) => void, nextError: () => void, togglePath: () => void}}
 */
export function traceHeader(view, goTo) {
  const { trace } = view;
  const { service, name } = titleOf(trace);
  const nextError = () => goTo(view.tree.next(view.focus, 1, (span) => span.error));
  const find = findBox(view, goTo);
  const path = el(
    "button",
    {
      type: "button",
      className: "toggle-button",
      title: "Show what the request was waiting for (c)",
      onClick: () => togglePath(),
    },
    el("span", { className: "path-key", "aria-hidden": "true" }),
    "Critical path",
  );
  const togglePath = () => {
    view.showPath = !view.showPath;
    view.changed("look");
  };
  const summary = el("p", { className: "path-summary" });
  const follow = () => {
    path.disabled = !view.path.size;
    path.setAttribute("aria-pressed", String(view.showPath && view.path.size > 0));
    summary.replaceChildren(...(view.showPath ? pathSummary(view) : []));
  };
  view.addEventListener("look", follow);
  follow();

  const element = el(
    "header",
    { className: "trace-header" },
    el(
      "div",
      { className: "title-line" },
      el(
        "h1",
        {},
        el("span", { className: "service-name" }, service),
        " ",
        el("span", { className: "op" }, name),
        " ",
        el("code", { className: "id", title: trace.id }, trace.id.slice(0, 7)),
      ),
      el("span", { className: "space" }),
      find.element,
      path,
      el(
        "a",
        { className: "button", href: `/trace/${encodeURIComponent(trace.id)}...`, "data-route": true },
        "Compare",
      ),
      el(
        "a",
        {
          className: "button",
          href: `/api/traces/${encodeURIComponent(trace.id)}`,
          title: "This trace as Jaeger's JSON",
        },
        "JSON",
      ),
    ),
    el(
      "div",
      { className: "facts" },
      fact("Start", dateTime(trace.start)),
      fact("Duration", duration(trace.duration)),
      fact("Services", String(trace.services.size)),
      fact("Depth", String(trace.depth)),
      fact("Total spans", trace.spans.length.toLocaleString("en")),
      trace.errors
        ? el(
            "button",
            {
              type: "button",
              className: "badge error",
              title: "Go to the next error (e)",
              onClick: nextError,
            },
            `${plural(trace.errors, "error")} ▸`,
          )
        : null,
      trace.unfinished
        ? el(
            "button",
            {
              type: "button",
              className: "badge warn",
              title: "Go to the next unfinished span",
              onClick: () => goTo(view.tree.next(view.focus, 1, (span) => span.unfinished)),
            },
            `${trace.unfinished} unfinished ▸`,
          )
        : null,
      trace.lost
        ? el(
            "span",
            {
              className: "badge warn",
              title: "LTTng's buffers were full: spans of this trace may be missing",
            },
            "events lost",
          )
        : null,
      summary,
    ),
    clocks(view, goTo),
    ...trace.warnings.map((text) => el("p", { className: "notice warn" }, text)),
    legend(view),
  );
  return { element, findInput: find.input, step: find.step, nextError, togglePath };
}

/** @param {string} name @param {string} value */
const fact = (name, value) => el("span", { className: "fact" }, el("span", {}, name), el("b", {}, value));

/** Who has most of the critical path. @param {View} view @returns {Node[]} */
function pathSummary(view) {
  /** @type {Map<string, number>} */
  const shares = new Map();
  let whole = 0;
  for (const span of view.trace.spans) {
    for (const [from, to] of view.path.get(span.id) ?? []) {
      shares.set(span.service, (shares.get(span.service) ?? 0) + to - from);
      whole += to - from;
    }
  }
  if (!whole) return [];
  const sorted = [...shares].sort((a, b) => b[1] - a[1]).slice(0, 4);
  return [
    el("span", { className: "hint" }, "Critical path"),
    ...sorted.map(([service, us]) =>
      el(
        "span",
        { className: `badge service ${view.colors.get(service)}` },
        service,
        " ",
        el("b", {}, percent(us / whole)),
      ),
    ),
  ];
}

/** @param {View} view @param {(span: Span | null) => void} goTo */
function findBox(view, goTo) {
  const count = el("span", { className: "count", role: "status" });
  const input = el("input", {
    type: "search",
    placeholder: "Find…  /",
    "aria-label": "Find in this trace",
    value: view.text,
    onInput: () => view.find(input.value),
    onKeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
      else if (event.key === "Escape") {
        input.value = "";
        view.find("");
        input.blur();
      } else return;
      event.preventDefault();
    },
  });
  const step = (/** @type {number} */ by) => {
    const focusInput = document.activeElement === input;
    goTo(view.tree.next(view.focus, by, (span) => view.found.has(span)));
    if (focusInput) input.focus();
  };
  const button = (/** @type {string} */ sign, /** @type {string} */ title, /** @type {number} */ by) =>
    el(
      "button",
      { type: "button", className: "quiet", title, "aria-label": title, onClick: () => step(by) },
      sign,
    );
  const only = el(
    "button",
    {
      type: "button",
      className: "quiet",
      title: "Show only matches and the way to them",
      "aria-label": "Only matches",
      "aria-pressed": "false",
      onClick: () => ((view.onlyFound = !view.onlyFound), view.filter()),
    },
    "Only",
  );
  view.addEventListener("rows", () => {
    count.textContent = view.text.trim() ? `${view.found.size}` : "";
    only.setAttribute("aria-pressed", String(view.onlyFound));
    if (input.value !== view.text) input.value = view.text;
  });
  return {
    element: el(
      "div",
      { className: "find", role: "search" },
      input,
      count,
      button("↑", "Previous match (b)", -1),
      button("↓", "Next match (f)", 1),
      only,
    ),
    input,
    step,
  };
}

/**
 * Says that clocks differ. Nothing is moved unless it is asked for.
 * @param {View} view
 * @param {(span: Span | null) => void} goTo
 */
function clocks(view, goTo) {
  const early = [...view.skews].filter(([, skew]) => skew.before > 0).length;
  if (!early) return null;
  const shifts = clockShifts(view.trace);
  const said = el("span");
  const button = el("button", {
    type: "button",
    onClick: () => {
      view.adjusted = !view.adjusted;
      applyShifts(view.trace, view.adjusted ? shifts : new Map());
      view.zoom(0, view.trace.duration);
      follow();
    },
  });
  const follow = () => {
    const nodes = [...shifts].map(
      ([node, us]) => `${node} by ${duration(Math.abs(us))} ${us > 0 ? "later" : "earlier"}`,
    );
    said.textContent = view.adjusted
      ? `Clocks are adjusted: ${nodes.join(", ")}. This is a guess from which spans must lie within which.`
      : `${plural(early, "span")} ${early === 1 ? "starts" : "start"} before ${early === 1 ? "its" : "their"} parent: the clocks of their nodes differ. Times are shown as recorded.`;
    button.textContent = view.adjusted ? "Show as recorded" : "Adjust clocks";
    button.setAttribute("aria-pressed", String(view.adjusted));
  };
  follow();
  const show = el(
    "button",
    {
      type: "button",
      onClick: () => goTo(view.tree.next(view.focus, 1, (span) => (view.skews.get(span)?.before ?? 0) > 0)),
    },
    "Next ▸",
  );
  return el("p", { className: "notice skew" }, said, " ", show, shifts.size ? button : null);
}

/** What the strips in the bars mean, where a span has any. @param {View} view */
function legend(view) {
  /** @type {Map<string, Map<string, string>>} */
  const groups = new Map();
  for (const group of view.trace.spans.flatMap((span) => span.parts)) {
    const labels = groups.get(group.label) ?? new Map();
    groups.set(group.label, labels);
    for (const part of group.parts) labels.set(part.label, part.style);
  }
  if (!groups.size) return null;
  return el(
    "div",
    { className: "legend" },
    ...[...groups].map(([label, parts]) =>
      el(
        "span",
        {},
        el("b", {}, `${label}: `),
        ...[...parts].map(([text, style]) =>
          el("span", { className: "item" }, el("span", { className: `key ${style}` }), text),
        ),
      ),
    ),
    groups.has("Container")
      ? el("span", { className: "hint" }, "the container's are shares of a span's time, not moments")
      : null,
  );
}
