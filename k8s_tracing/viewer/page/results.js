// SPDX-License-Identifier: Apache-2.0
/** The list of found traces. */

import { colorsOf } from "./colors.js";
import { el } from "./dom.js";
import { ago, dateTime, duration, plural } from "./format.js";

/** @typedef {import("./api.js").Summary} Trace */

/** @type {Record<string, {label: string, compare: (a: Trace, b: Trace) => number}>} */
export const SORTS = {
  recent: { label: "Most recent", compare: (a, b) => b.start - a.start },
  longest: { label: "Longest first", compare: (a, b) => b.duration - a.duration },
  shortest: { label: "Shortest first", compare: (a, b) => a.duration - b.duration },
  most: { label: "Most spans", compare: (a, b) => b.spans - a.spans },
  least: { label: "Least spans", compare: (a, b) => a.spans - b.spans },
  errors: { label: "Most errors", compare: (a, b) => b.errors - a.errors || b.start - a.start },
};

/**
 * @param {Trace[]} traces
 * @param {Set<string>} chosen ids to compare, two at most
 * @param {Set<string>} fresh
 * @param {() => void} onChoice
 */
export function resultList(traces, chosen, fresh, onChoice) {
  const longest = Math.max(...traces.map((trace) => trace.duration), 1);
  const colors = colorsOf(traces.flatMap((trace) => trace.services.map((one) => one.name)));
  return el(
    "ol",
    { className: "traces" },
    ...traces.map((trace) => item(trace, longest, colors, chosen, fresh.has(trace.id), onChoice)),
  );
}

/**
 * @param {Trace} trace
 * @param {number} longest
 * @param {Map<string, string>} colors
 * @param {Set<string>} chosen
 * @param {boolean} isFresh
 * @param {() => void} onChoice
 */
function item(trace, longest, colors, chosen, isFresh, onChoice) {
  const { service, name } = trace;
  const box = el("input", {
    type: "checkbox",
    checked: chosen.has(trace.id),
    "aria-label": `Choose to compare: ${service} ${name}`,
    onChange: () => {
      if (!box.checked) chosen.delete(trace.id);
      else {
        chosen.add(trace.id);
        // The third choice takes the place of the first.
        const first = [...chosen][0];
        if (chosen.size > 2) {
          chosen.delete(first);
          for (const other of document.querySelectorAll(".traces input:checked")) {
            if (/** @type {HTMLInputElement} */ (other).value === first)
              /** @type {HTMLInputElement} */ (other).checked = false;
          }
        }
      }
      onChoice();
    },
  });
  box.value = trace.id;
  const notes = [];
  if (trace.errors) notes.push(el("span", { className: "badge error" }, plural(trace.errors, "error")));
  if (trace.unfinished) notes.push(el("span", { className: "badge warn" }, `${trace.unfinished} unfinished`));
  return el(
    "li",
    { className: isFresh ? "trace-item fresh" : "trace-item", "data-trace": trace.id },
    box,
    el(
      "a",
      { href: `/trace/${encodeURIComponent(trace.id)}`, "data-route": true },
      el(
        "span",
        { className: "line" },
        el("span", { className: "share", style: { width: `${(100 * trace.duration) / longest}%` } }),
        el("strong", {}, service),
        el("span", { className: "name" }, name || "(no name)"),
        el("code", { className: "id" }, trace.id.slice(0, 7)),
        el("span", { className: "space" }),
        el("span", { className: "duration" }, duration(trace.duration)),
      ),
      el(
        "span",
        { className: "line second" },
        el("span", { className: "badge plain" }, plural(trace.spans, "span")),
        ...notes,
        ...trace.services.map((one) =>
          el(
            "span",
            { className: `badge service ${colors.get(one.name)}` },
            one.name,
            " ",
            el("b", {}, String(one.spans)),
          ),
        ),
        el("span", { className: "space" }),
        el(
          "time",
          { title: dateTime(trace.start) },
          `${dateTime(trace.start).slice(0, 19)} · ${ago(trace.start, Date.now() * 1000)}`,
        ),
      ),
    ),
  );
}
