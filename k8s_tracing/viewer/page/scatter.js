// SPDX-License-Identifier: Apache-2.0
/** Durations of traces over time, one dot a trace. A dot is a link. */

import { el, svg } from "./dom.js";
import { clock, duration, plural, ticks } from "./format.js";

const HEIGHT = 190;

/** @param {import("./api.js").Summary[]} traces @returns {HTMLElement} */
export function scatter(traces) {
  // The drawing is as wide as its place, or a narrow screen would shrink its letters.
  const narrow = window.innerWidth < 800;
  const width = narrow ? 380 : 1000;
  const plot = { left: 64, right: width - 20, top: 12, bottom: HEIGHT - 26 };
  const starts = traces.map((trace) => trace.start);
  let [from, to] = [Math.min(...starts), Math.max(...starts)];
  const pad = Math.max((to - from) * 0.04, 500_000);
  [from, to] = [from - pad, to + pad];
  const most = Math.max(...traces.map((trace) => trace.duration), 1);
  const marksY = ticks(0, most * 1.08, 4);
  const top = Math.max(most * 1.08, marksY[marksY.length - 1]);
  const x = (/** @type {number} */ us) => plot.left + ((us - from) / (to - from)) * (plot.right - plot.left);
  const y = (/** @type {number} */ us) => plot.bottom - (us / top) * (plot.bottom - plot.top);
  const size = Math.max(...traces.map((trace) => trace.spans));
  const zone = new Date().getTimezoneOffset() * 60e6;
  const marksX = ticks(from - zone, to - zone, narrow ? 3 : 6).map((us) => us + zone);
  const withMs = to - from < 5e6;

  const dots = traces.map((trace) => {
    const { service, name } = trace;
    const label = `${service}: ${name}, ${duration(trace.duration)}, ${plural(trace.spans, "span")}${trace.errors ? `, ${plural(trace.errors, "error")}` : ""}`;
    const radius = 3.5 + 4.5 * Math.sqrt(trace.spans / size);
    return svg(
      "a",
      {
        href: `/trace/${encodeURIComponent(trace.id)}`,
        "data-route": true,
        "aria-label": label,
        "data-trace": trace.id,
      },
      svg("title", {}, label),
      svg("circle", {
        cx: x(trace.start),
        cy: y(trace.duration),
        r: radius,
        className: trace.errors ? "dot error" : "dot",
      }),
    );
  });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": "Durations of the traces over time" },
    ...marksY.map((us) =>
      svg("line", { x1: plot.left, x2: plot.right, y1: y(us), y2: y(us), className: "grid" }),
    ),
    ...marksY.map((us) =>
      svg("text", { x: plot.left - 8, y: y(us) + 4, className: "tick end" }, us ? duration(us) : "0"),
    ),
    ...marksX.map((us) =>
      svg(
        "text",
        { x: x(us), y: HEIGHT - 6, className: "tick middle" },
        withMs ? clock(us).slice(0, 10) : clock(us).slice(0, 8),
      ),
    ),
    ...dots,
  );
  return el("div", { className: "scatter" }, drawing);
}
