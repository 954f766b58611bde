// SPDX-License-Identifier: Apache-2.0
/** Which service calls which: a drawing, and the same as a table. */

import * as api from "./api.js";
import { colorsOf } from "./colors.js";
import { el, svg } from "./dom.js";
import { plural } from "./format.js";
import { layOut } from "./graph.js";

const BOX = { width: 150, height: 44, gapX: 130, gapY: 34, margin: 24 };
/** @type {[string, string, number][]} */
const LOOKBACKS = [
  ["1h", "hour", 3600e3],
  ["6h", "6 hours", 6 * 3600e3],
  ["1d", "day", 86_400e3],
  ["7d", "week", 7 * 86_400e3],
];

/** @type {import("./main.js").Page} */
export async function dependenciesPage(box, url) {
  document.title = "Dependencies · k8s_tracing";
  const [chosen, , lookbackMs] =
    LOOKBACKS.find(([name]) => name === url.searchParams.get("lookback")) ?? LOOKBACKS[2];
  const select = el(
    "select",
    {
      "aria-label": "Time",
      onChange: () =>
        document.dispatchEvent(new CustomEvent("go", { detail: `/dependencies?lookback=${select.value}` })),
    },
    ...LOOKBACKS.map(([name, label]) => el("option", { value: name }, `Last ${label}`)),
  );
  select.value = chosen;
  const content = el("div");
  box.append(
    el(
      "div",
      { className: "toolbar" },
      el("h1", {}, "Service dependencies"),
      el("span", { className: "space" }),
      select,
    ),
    content,
  );
  try {
    const found = await api.dependencies(lookbackMs);
    content.append(
      ...(found.length
        ? [drawing(found), asTable(found)]
        : [el("p", { className: "message" }, "No service has called another in this time.")]),
    );
  } catch (error) {
    content.append(
      el("p", { className: "message error", role: "alert" }, String(/** @type {Error} */ (error).message)),
    );
  }
}

/** @param {import("./graph.js").Dependency[]} dependencies */
function drawing(dependencies) {
  const layout = layOut(dependencies);
  const colors = colorsOf(layout.nodes.keys());
  const tallest = Math.max(...layout.layers.map((layer) => layer.length));
  const height = tallest * (BOX.height + BOX.gapY) - BOX.gapY + 2 * BOX.margin;
  const width = layout.layers.length * (BOX.width + BOX.gapX) - BOX.gapX + 2 * BOX.margin;
  const most = Math.max(...dependencies.map((edge) => edge.callCount), 1);
  /** @param {string} name */
  const place = (name) => {
    const node = layout.nodes.get(name);
    const [layer, index] = [node?.layer ?? 0, node?.place ?? 0];
    const used = layout.layers[layer].length * (BOX.height + BOX.gapY) - BOX.gapY;
    return {
      x: BOX.margin + layer * (BOX.width + BOX.gapX),
      y: (height - used) / 2 + index * (BOX.height + BOX.gapY),
    };
  };
  const edges = layout.edges.map((edge) => {
    const [from, to] = [place(edge.parent), place(edge.child)];
    const forward = to.x > from.x;
    const start = {
      x: forward ? from.x + BOX.width : from.x + BOX.width / 2,
      y: forward ? from.y + BOX.height / 2 : from.y,
    };
    const end = {
      x: forward ? to.x - 4 : to.x + BOX.width / 2,
      y: forward ? to.y + BOX.height / 2 : to.y - 4,
    };
    const bend = forward ? (end.x - start.x) / 2 : 0;
    const lift = forward ? 0 : -BOX.gapY;
    const curve = `M ${start.x} ${start.y} C ${start.x + bend} ${start.y + lift}, ${end.x - bend} ${end.y + lift}, ${end.x} ${end.y}`;
    // Where the number stands: a way back has its own near its start, for others cross its middle.
    const along = (
      /** @type {number} */ a,
      /** @type {number} */ b,
      /** @type {number} */ c,
      /** @type {number} */ d,
      t = forward ? 0.5 : 0.12,
    ) => a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t ** 2 * (1 - t) + d * t ** 3;
    return svg(
      "g",
      { className: "edge" },
      svg("path", {
        d: curve,
        "marker-end": "url(#arrow)",
        "stroke-width": 1.2 + 2 * (edge.callCount / most),
      }),
      svg(
        "text",
        {
          x: along(start.x, start.x + bend, end.x - bend, end.x),
          y: along(start.y, start.y + lift, end.y + lift, end.y) - 6,
        },
        edge.callCount.toLocaleString("en"),
      ),
      svg("title", {}, `${edge.parent} called ${edge.child} ${plural(edge.callCount, "time")}`),
    );
  });
  const nodes = [...layout.nodes.keys()].map((name) => {
    const { x, y } = place(name);
    const own = layout.self.get(name);
    return svg(
      "a",
      {
        href: `/search?service=${encodeURIComponent(name)}`,
        "data-route": true,
        className: colors.get(name),
      },
      svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 6, className: "box" }),
      svg("rect", { x, y, width: 6, height: BOX.height, rx: 3, className: "edge-mark" }),
      svg(
        "text",
        { x: x + BOX.width / 2, y: y + (own ? 19 : BOX.height / 2 + 5), className: "node" },
        name.length > 18 ? `${name.slice(0, 17)}…` : name,
      ),
      own
        ? svg(
            "text",
            { x: x + BOX.width / 2, y: y + 35, className: "own" },
            `${own.toLocaleString("en")} within`,
          )
        : null,
      svg("title", {}, `Traces of ${name}`),
    );
  });
  const arrow = svg(
    "marker",
    {
      id: "arrow",
      viewBox: "0 0 10 10",
      refX: 8,
      refY: 5,
      markerWidth: 9,
      markerHeight: 9,
      markerUnits: "userSpaceOnUse",
      orient: "auto",
    },
    svg("path", { d: "M 0 0 L 10 5 L 0 10 z" }),
  );
  return el(
    "div",
    { className: "graph" },
    svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        width,
        height,
        role: "group",
        "aria-label": "Which service calls which; the table below says the same",
      },
      svg("defs", {}, arrow),
      ...edges,
      ...nodes,
    ),
  );
}

/** @param {import("./graph.js").Dependency[]} dependencies */
function asTable(dependencies) {
  const rows = [...dependencies].sort((a, b) => b.callCount - a.callCount);
  return el(
    "table",
    { className: "data-table" },
    el(
      "thead",
      {},
      el("tr", {}, ...["Caller", "Called", "Calls"].map((name) => el("th", { scope: "col" }, name))),
    ),
    el(
      "tbody",
      {},
      ...rows.map((row) =>
        el(
          "tr",
          {},
          el("td", {}, row.parent),
          el("td", {}, row.child),
          el("td", { className: "number" }, row.callCount.toLocaleString("en")),
        ),
      ),
    ),
  );
}
