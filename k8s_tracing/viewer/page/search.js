// SPDX-License-Identifier: Apache-2.0
/**
 * The search page. All of a search is in the URL, with Jaeger's parameters, so that it can be sent and gone
 * back to.
 */

import * as api from "./api.js";
import { announce, el } from "./dom.js";
import { plural } from "./format.js";
import { resultList, SORTS } from "./results.js";
import { scatter } from "./scatter.js";
import { searchForm } from "./search-form.js";

const LIVE_EVERY_MS = 1000;
const DEFAULTS = { lookback: "1h", limit: "20" };

/** The API's query for a page's URL; what is not there has its default. @param {URLSearchParams} params */
export function toQuery(params) {
  const query = new URLSearchParams();
  for (const name of ["service", "operation", "tags", "minDuration", "maxDuration", "limit"]) {
    const value = params.get(name);
    if (value && !(name === "operation" && value === "all")) query.set(name, value);
  }
  if (!query.has("limit")) query.set("limit", DEFAULTS.limit);
  const lookback = params.get("lookback") || DEFAULTS.lookback;
  const [start, end] = lookback === "custom" ? [params.get("start"), params.get("end")] : recent(lookback);
  if (start) query.set("start", start);
  if (end) query.set("end", end);
  return query;
}

/** @param {string} lookback `5m`, `2h`, `1d` @returns {[string, string]} µs since the Unix epoch */
function recent(lookback) {
  const match = /^(\d+)([smhdw])$/.exec(lookback) ?? ["", "1", "h"];
  const seconds =
    Number(match[1]) * { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }[/** @type {"h"} */ (match[2])];
  // A clock of another node may be ahead of this one's.
  return [String((Date.now() - seconds * 1000) * 1000), String((Date.now() + 60_000) * 1000)];
}

/** @type {import("./main.js").Page} */
export async function searchPage(box, url) {
  document.title = "Search · k8s_tracing";
  const params = url.searchParams;
  const results = el("section", { className: "results", "aria-label": "Results" });
  const state = {
    sort: params.get("sort") ?? "recent",
    live: params.get("lookback") !== "custom",
    chosen: new Set(),
  };

  const form = await searchForm(params, (next) => {
    if (state.sort !== "recent") next.set("sort", state.sort);
    document.dispatchEvent(new CustomEvent("go", { detail: `/search?${next}` }));
  });
  box.append(form, results);

  /** @type {api.Summary[]} */
  let traces = [];
  /** @type {Set<string>} */
  let known = new Set();
  let isFirst = true;
  const draw = (fresh = new Set()) => {
    results.replaceChildren(...view(traces, state, fresh, draw, connected));
  };
  let connected = false;
  const ask = async () => {
    try {
      traces = await api.search(toQuery(params));
    } catch (error) {
      results.replaceChildren(
        el("p", { className: "message error", role: "alert" }, String(/** @type {Error} */ (error).message)),
      );
      return;
    }
    const fresh = isFirst
      ? new Set()
      : new Set(traces.map((trace) => trace.id).filter((id) => !known.has(id)));
    if (isFirst) announce(`${plural(traces.length, "trace")} found`);
    else if (fresh.size) announce(`${plural(fresh.size, "new trace")}`);
    known = new Set(traces.map((trace) => trace.id));
    isFirst = false;
    draw(fresh);
  };
  results.append(el("p", { className: "message" }, "Searching…"));
  await ask();
  return api.live(
    () => state.live && void ask(),
    (open) => {
      if (open === connected) return;
      connected = open;
      document.querySelector(".live-dot")?.classList.toggle("on", open);
    },
    LIVE_EVERY_MS,
  );
}

/**
 * @param {api.Summary[]} traces
 * @param {{sort: string, live: boolean, chosen: Set<string>}} state
 * @param {Set<string>} fresh ids that were not there a moment ago
 * @param {() => void} redraw
 * @param {boolean} connected
 * @returns {Node[]}
 */
function view(traces, state, fresh, redraw, connected) {
  const sorted = [...traces].sort((SORTS[state.sort] ?? SORTS.recent).compare);
  const compare = el("a", { className: "button", "data-route": true });
  const onChoice = () => {
    const [a, b] = state.chosen;
    compare.textContent = b ? "Compare these two" : a ? "Compare with…" : "Compare";
    compare.toggleAttribute("inert", !b);
    compare.setAttribute("aria-disabled", String(!b));
    if (b) compare.href = `/trace/${encodeURIComponent(a)}...${encodeURIComponent(b)}`;
    else compare.removeAttribute("href");
  };
  onChoice();
  const sort = el(
    "select",
    {
      "aria-label": "Sort",
      onChange: (/** @type {any} */ event) => {
        state.sort = event.target.value;
        const here = new URL(location.href);
        here.searchParams.set("sort", state.sort);
        history.replaceState(null, "", here);
        redraw();
      },
    },
    ...Object.entries(SORTS).map(([name, { label }]) => el("option", { value: name }, label)),
  );
  sort.value = SORTS[state.sort] ? state.sort : "recent";
  const live = el(
    "label",
    { className: "live", title: "New traces appear by themselves" },
    el("input", {
      type: "checkbox",
      checked: state.live,
      onChange: (/** @type {any} */ event) => (state.live = event.target.checked),
    }),
    el("span", { className: `live-dot ${connected ? "on" : ""}`, "aria-hidden": "true" }),
    "Live",
  );
  const bar = el(
    "div",
    { className: "toolbar" },
    el("h1", {}, traces.length ? plural(traces.length, "trace") : "No traces"),
    el("span", { className: "space" }),
    live,
    compare,
    el("label", {}, "Sort ", sort),
  );
  if (!traces.length) {
    const hint =
      "Nothing fits this search yet. Try a longer time, fewer tags, or wait: with Live on, traces appear here as they arrive.";
    return [bar, el("p", { className: "message" }, hint)];
  }
  return [scatter(traces), bar, resultList(sorted, state.chosen, fresh, onChoice)];
}
