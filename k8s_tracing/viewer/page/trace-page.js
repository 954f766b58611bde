// SPDX-License-Identifier: Apache-2.0
/** The page of one trace. What is found, zoomed and chosen is in the URL. */

import * as api from "./api.js";
import { el, isTyping } from "./dom.js";
import { plural } from "./format.js";
import { minimap } from "./minimap.js";
import { Timeline } from "./timeline.js";
import { titleOf, toTrace } from "./trace.js";
import { traceHeader } from "./trace-header.js";
import { View } from "./view.js";

/** What arrived is looked for this often at most. */
const GROWS_EVERY_MS = 1000;

/** @type {import("./main.js").Page} */
export async function tracePage(box, url) {
  const id = decodeURIComponent(url.pathname.split("/")[2]);
  box.append(el("p", { className: "message" }, "Loading the trace…"));
  let trace;
  try {
    trace = toTrace(await api.trace(id));
  } catch (error) {
    const hint =
      error instanceof api.ApiError && error.status === 404
        ? " It may still be on its way, or so old that it was dropped."
        : "";
    box.replaceChildren(
      el(
        "p",
        { className: "message error", role: "alert" },
        String(/** @type {Error} */ (error).message) + hint,
      ),
    );
    return awaitArrival(id, error);
  }
  const { service, name } = titleOf(trace);
  document.title = `${service}: ${name} · k8s_tracing`;
  const view = new View(trace);
  const map = minimap(view);
  const timeline = new Timeline(view, map.axis);
  const header = traceHeader(view, (span) => timeline.goTo(span));
  const news = el("div");
  box.replaceChildren(header.element, news, map.element, timeline.grid);
  restore(view, timeline, url.searchParams);
  for (const what of ["rows", "time"]) view.addEventListener(what, () => remember(view));
  const onKey = keys(view, timeline, header);
  document.addEventListener("keydown", onKey);
  void loadPath(view);
  const end = follow(view, news);
  return () => {
    end();
    document.removeEventListener("keydown", onKey);
    map.end();
    timeline.list.end();
  };
}

/**
 * A link may be quicker than the trace.
 * @param {string} id
 * @param {unknown} error
 * @returns {import("./main.js").Leave}
 */
function awaitArrival(id, error) {
  if (!(error instanceof api.ApiError) || error.status !== 404) return undefined;
  const look = async () => {
    if (await api.summary(id)) document.dispatchEvent(new Event("again"));
  };
  return api.live(look, (connected) => connected && void look(), GROWS_EVERY_MS);
}

/**
 * A trace that was just made comes in parts. A reader who has not touched it yet sees it grow; any other is asked first.
 * @param {View} view
 * @param {HTMLElement} place where the question stands
 * @returns {() => void} ends it
 */
function follow(view, place) {
  const again = () => document.dispatchEvent(new Event("again"));
  let asked = false;
  const look = async () => {
    const now = await api.summary(view.trace.id);
    const more = (now?.spans ?? 0) - view.trace.spans.length;
    if (more <= 0) return;
    const touched = view.open.size || view.focus || view.isZoomed || view.text || view.tree.collapsed.size;
    if (!touched && !asked) return again();
    asked = true;
    place.replaceChildren(
      el(
        "p",
        { className: "notice", role: "status" },
        `${plural(more, "more span")} arrived. `,
        el("button", { type: "button", onClick: again }, "Show"),
      ),
    );
  };
  const id = view.trace.id.padStart(32, "0");
  return api.live(
    (grown) => void ((!grown || grown.has(id)) && look()),
    (connected) => connected && void look(),
    GROWS_EVERY_MS,
  );
}

/** @param {View} view */
async function loadPath(view) {
  const sections = await api.criticalPath(view.trace.id).catch(() => []);
  const spans = new Map(view.trace.spans.map((span) => [span.id, span]));
  for (const section of sections ?? []) {
    const span = spans.get(section.spanID);
    if (!span) continue;
    const [from, to] = [section.startNs, section.endNs].map(
      (ns) => Number(BigInt(ns) - BigInt(span.recordedStart) * 1000n) / 1000,
    );
    const parts = view.path.get(span.id) ?? [];
    parts.push([from, to]);
    view.path.set(span.id, parts);
  }
  view.changed("look");
}

/**
 * What the URL says: `uiFind` is Jaeger's name.
 * @param {View} view
 * @param {Timeline} timeline
 * @param {URLSearchParams} params
 */
function restore(view, timeline, params) {
  const [from, to] = (params.get("view") ?? "").split("-").map(Number);
  if (to > from) view.zoom(from, to);
  view.find(params.get("uiFind") ?? "");
  const wanted = params.get("span");
  const span = wanted && view.trace.spans.find((one) => one.id === wanted);
  if (span) {
    view.open.add(span);
    timeline.goTo(span);
  } else if (view.found.size) timeline.goTo(view.trace.spans.find((one) => view.found.has(one)));
}

/** @param {View} view */
function remember(view) {
  const url = new URL(location.href);
  if (view.text) url.searchParams.set("uiFind", view.text);
  else url.searchParams.delete("uiFind");
  if (view.isZoomed) url.searchParams.set("view", `${Math.round(view.from)}-${Math.round(view.to)}`);
  else url.searchParams.delete("view");
  const open = [...view.open].pop();
  if (open) url.searchParams.set("span", open.id);
  else url.searchParams.delete("span");
  if (url.href !== location.href) history.replaceState(null, "", url);
}

/**
 * Jaeger's keys. The arrows move through time, and in the rows, which take them first, through the tree.
 * @param {View} view @param {Timeline} timeline @param {ReturnType<typeof traceHeader>} header
 */
function keys(view, timeline, header) {
  const pan = (/** @type {number} */ share) => {
    const by = (view.to - view.from) * share;
    view.zoom(view.from + by, view.to + by);
  };
  const scale = (/** @type {number} */ factor) => {
    const [middle, half] = [(view.from + view.to) / 2, ((view.to - view.from) * factor) / 2];
    view.zoom(middle - half, middle + half);
  };
  const levels = (/** @type {() => void} */ work) => () => {
    work();
    view.changed("rows");
  };
  const find = () => {
    header.findInput.focus();
    header.findInput.select();
  };
  const page = (/** @type {number} */ by) => () =>
    timeline.scroller.scrollBy({ top: by * timeline.scroller.clientHeight * 0.9 });
  /** @type {Record<string, (fast: boolean) => void>} */
  const work = {
    "/": find,
    "ctrl+b": find,
    f: () => (view.found.size ? header.step(1) : find()),
    b: () => header.step(-1),
    e: header.nextError,
    c: header.togglePath,
    s: page(1),
    w: page(-1),
    "[": levels(() => view.tree.expandAll()),
    "]": levels(() => view.tree.collapseAll()),
    o: levels(() => view.tree.expandLevel()),
    p: levels(() => view.tree.collapseLevel()),
    Escape: () => view.find(""),
    0: () => view.zoom(0, view.trace.duration),
    ArrowLeft: (fast) => pan(fast ? -0.5 : -0.1),
    ArrowRight: (fast) => pan(fast ? 0.5 : 0.1),
    a: (fast) => pan(fast ? -0.5 : -0.1),
    d: (fast) => pan(fast ? 0.5 : 0.1),
    ArrowUp: (fast) => scale(fast ? 0.5 : 0.8),
    ArrowDown: (fast) => scale(fast ? 2 : 1.25),
  };
  return (/** @type {KeyboardEvent} */ event) => {
    if (
      event.defaultPrevented ||
      event.altKey ||
      event.metaKey ||
      isTyping(event.target) ||
      document.querySelector("dialog[open]")
    )
      return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const todo = work[event.ctrlKey ? `ctrl+${key}` : key];
    if (!todo) return;
    event.preventDefault();
    todo(event.shiftKey);
  };
}
