// SPDX-License-Identifier: Apache-2.0
/** Two traces side by side, on one scale of time: what only one of them has, and what got slower. */

import * as api from "./api.js";
import { colorsOf } from "./colors.js";
import { diff } from "./diff.js";
import { el } from "./dom.js";
import { dateTime, duration, plural } from "./format.js";
import { joined } from "./intervals.js";
import { titleOf, toTrace } from "./trace.js";
import { VirtualList } from "./virtual.js";

/** @typedef {import("./trace.js").Trace} Trace */
/** @typedef {import("./diff.js").Row} Row */

const ROW_PX = 28;
/** A side is about as wide; closer than a pixel of it, bars are one. */
const LEAST_PX = 600;
const VERDICTS = {
  "only-a": "only in A",
  "only-b": "only in B",
  slower: "slower",
  faster: "faster",
  same: "same",
};

/** Jaeger's path: `/trace/{a}...{b}`. @type {import("./main.js").Page} */
export async function comparePage(box, url) {
  document.title = "Compare · k8s_tracing";
  const path = /^\/trace\/(.*)$/.exec(url.pathname)?.[1] ?? "";
  const [a, b] = path.split("...").map((id) => decodeURIComponent(id ?? ""));
  const form = el("form", {
    className: "toolbar compare-form",
    onSubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const [left, right] = inputs.map((input) => encodeURIComponent(input.value.trim()));
      document.dispatchEvent(new CustomEvent("go", { detail: `/trace/${left}...${right}` }));
    },
  });
  const inputs = [a, b].map((id, i) =>
    el("input", {
      value: id ?? "",
      name: "AB"[i],
      placeholder: "trace ID",
      required: true,
      spellcheck: "false",
      autocomplete: "off",
      "aria-label": `Trace ${"AB"[i]}`,
    }),
  );
  form.append(
    el("h1", {}, "Compare"),
    el("label", { className: "side-a" }, el("b", {}, "A "), inputs[0]),
    el(
      "button",
      {
        type: "button",
        className: "quiet",
        title: "The other way round",
        "aria-label": "Swap A and B",
        onClick: () => (
          ([inputs[0].value, inputs[1].value] = [inputs[1].value, inputs[0].value]),
          form.requestSubmit()
        ),
      },
      "⇄",
    ),
    el("label", { className: "side-b" }, el("b", {}, "B "), inputs[1]),
    el("button", { type: "submit" }, "Compare"),
  );
  const content = el("div", { className: "compare" });
  box.append(form, content);
  if (!a || !b) {
    content.append(
      el("p", { className: "message" }, "Give two trace ids, or choose two traces in a search's results."),
    );
    return undefined;
  }
  try {
    const traces = /** @type {[Trace, Trace]} */ (
      (await Promise.all([api.trace(a), api.trace(b)])).map(toTrace)
    );
    return show(content, traces);
  } catch (error) {
    content.append(
      el("p", { className: "message error", role: "alert" }, String(/** @type {Error} */ (error).message)),
    );
  }
  return undefined;
}

/** @param {HTMLElement} content @param {[Trace, Trace]} traces */
function show(content, traces) {
  const rows = diff(...traces);
  const colors = colorsOf(traces.flatMap((trace) => [...trace.services.keys()]));
  const whole = Math.max(traces[0].duration, traces[1].duration, 1);
  let changesOnly = false;
  const body = el("div", { className: "content" });
  const scroller = el(
    "div",
    { className: "scroller", role: "rowgroup", tabIndex: 0, "aria-label": "Rows" },
    body,
  );
  /** @type {VirtualList<Row & {key: string, fixed: boolean}>} */
  const list = new VirtualList(scroller, body, ROW_PX, (row) => line(row, traces, whole, colors));
  const draw = () => {
    const wanted = changesOnly ? withAncestors(rows) : rows;
    list.show(wanted.map((row) => ({ ...row, key: String(rows.indexOf(row)), fixed: true })));
  };
  const counts = Object.entries(VERDICTS).map(([verdict, text]) => {
    const count = rows.filter((row) => row.verdict === verdict).length;
    return count ? el("span", { className: `badge verdict ${verdict}` }, `${count} ${text}`) : null;
  });
  const toggle = el("input", { type: "checkbox", onChange: () => ((changesOnly = toggle.checked), draw()) });
  content.append(
    el("div", { className: "compare-heads" }, ...traces.map((trace, i) => head(trace, i, traces))),
    el(
      "div",
      { className: "toolbar" },
      ...counts,
      el("span", { className: "space" }),
      el("label", {}, toggle, " Differences only"),
    ),
    el(
      "div",
      {
        className: "grid",
        role: "table",
        "aria-label": "Both traces, row by row",
        "aria-rowcount": rows.length,
      },
      el(
        "div",
        { className: "compare-row head", role: "row" },
        ...["Service & operation", "A", "B", "B − A"].map((text) =>
          el("div", { role: "columnheader" }, text),
        ),
      ),
      scroller,
    ),
  );
  draw();
  return () => list.end();
}

/** @param {Row[]} rows */
function withAncestors(rows) {
  const kept = [];
  let wanted = -1;
  for (let i = rows.length - 1; i >= 0; i--) {
    const row = rows[i];
    if (row.verdict !== "same" || row.depth === wanted) {
      kept.push(row);
      wanted = row.depth - 1;
    }
  }
  return kept.reverse();
}

/** @param {Trace} trace @param {number} i @param {Trace[]} traces */
function head(trace, i, traces) {
  const { service, name } = titleOf(trace);
  const change = i ? trace.duration - traces[0].duration : 0;
  return el(
    "a",
    {
      className: `compare-head side-${"ab"[i]}`,
      href: `/trace/${encodeURIComponent(trace.id)}`,
      "data-route": true,
    },
    el("b", { className: "letter" }, "AB"[i]),
    el(
      "span",
      {},
      el("strong", {}, service),
      " ",
      name,
      " ",
      el("code", { className: "id" }, trace.id.slice(0, 7)),
    ),
    el(
      "span",
      { className: "hint" },
      `${dateTime(trace.start)} · ${duration(trace.duration)}${i && change ? ` (${signed(change)})` : ""} · ${plural(trace.spans.length, "span")}${trace.errors ? ` · ${plural(trace.errors, "error")}` : ""}`,
    ),
  );
}

/** @param {import("./trace.js").Span[]} spans @param {string} className @param {number} whole µs */
function bars(spans, className, whole) {
  const parts = joined(
    spans.map((span) => [span.start, span.end]),
    whole / LEAST_PX,
  );
  return parts.map(([from, to]) =>
    el("span", {
      className,
      style: { left: `${(100 * from) / whole}%`, width: `${(100 * (to - from)) / whole}%` },
    }),
  );
}

/** @param {number} us */
const signed = (us) => (us > 0 ? `+${duration(us)}` : duration(us));

/** @param {Row} row @param {Trace[]} traces @param {number} whole @param {Map<string, string>} colors */
function line(row, traces, whole, colors) {
  const count = Math.max(row.spans[0].length, row.spans[1].length);
  const times = row.spans.map((spans, i) =>
    el(
      "div",
      {
        role: "cell",
        className: "time-cell",
        title: spans.length
          ? `${plural(spans.length, "span")}, ${duration(row.time[i])} together`
          : "not in this trace",
      },
      bars(
        spans.filter((span) => !span.error),
        "bar",
        whole,
      ),
      bars(
        spans.filter((span) => span.error),
        "bar error",
        whole,
      ),
      el(
        "span",
        { className: "sum" },
        spans.length
          ? `${spans.length > 1 ? `${spans.length} × ` : ""}${duration(row.time[i] / spans.length)}`
          : "—",
      ),
    ),
  );
  return el(
    "div",
    { className: `compare-row ${row.verdict} ${colors.get(row.service) ?? ""}`, role: "row" },
    el(
      "div",
      { role: "cell", className: "name-cell", title: `${row.service}: ${row.name}` },
      el("span", { className: "indent", style: { "--depth": String(Math.min(row.depth, 16)) } }),
      el("span", { className: "edge" }),
      el(
        "span",
        { className: "names" },
        el("strong", {}, row.service),
        " ",
        el("span", { className: "op" }, row.name),
        count > 1
          ? el(
              "span",
              { className: "hint" },
              ` × ${row.spans[0].length === row.spans[1].length ? count : `${row.spans[0].length} / ${row.spans[1].length}`}`,
            )
          : null,
      ),
    ),
    ...times,
    el(
      "div",
      { role: "cell", className: `delta ${row.verdict}` },
      row.verdict.startsWith("only") || row.verdict === "same"
        ? VERDICTS[row.verdict]
        : `${signed(row.delta)}`,
    ),
  );
}
