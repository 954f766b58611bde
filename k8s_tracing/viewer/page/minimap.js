// SPDX-License-Identifier: Apache-2.0
/**
 * The whole trace, small, with what the time line shows of it. Dragging over it, or over the axis, chooses a
 * part.
 */

import { el, onceAFrame } from "./dom.js";
import { duration } from "./format.js";

/** @typedef {import("./view.js").View} View */

const HEIGHT = 56;
/** A drag of fewer pixels is a click. */
const CLICK_PX = 4;

/** @param {View} view @returns {{element: HTMLElement, axis: HTMLElement, end: () => void}} */
export function minimap(view) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const before = el("div", { className: "outside" });
  const after = el("div", { className: "outside" });
  const handles = [0, 1].map((side) => handle(view, side));
  const reset = el(
    "button",
    {
      type: "button",
      className: "reset",
      title: "Show the whole trace (0)",
      onClick: () => view.zoom(0, view.trace.duration),
    },
    "Reset zoom",
  );
  const choice = el("div", { className: "choice", hidden: true });
  const marks = el("div", { className: "marks" });
  const picture = el("div", { className: "picture" }, canvas, before, after, choice, ...handles);
  const element = el("div", { className: "minimap" }, marks, picture, reset);
  const axisChoice = el("div", { className: "choice", hidden: true });
  const axisMarks = el("div", { className: "marks" });
  const axis = el("div", { className: "axis-time", title: "Drag to zoom" }, axisMarks, axisChoice);

  const follow = () => {
    const whole = Math.max(view.trace.duration, 1);
    const [from, to] = [(100 * view.from) / whole, (100 * view.to) / whole];
    before.style.width = `${from}%`;
    after.style.left = `${to}%`;
    after.style.width = `${100 - to}%`;
    handles.forEach((one, side) => {
      one.style.left = `${side ? to : from}%`;
      one.setAttribute("aria-valuenow", String(Math.round(side ? view.to : view.from)));
      one.setAttribute("aria-valuetext", duration(side ? view.to : view.from));
    });
    reset.hidden = !view.isZoomed;
    fillMarks(marks, 0, whole);
    fillMarks(axisMarks, view.from, view.to);
  };
  const draw = onceAFrame(() => paint(canvas, view));
  const resized = new ResizeObserver(draw);
  resized.observe(picture);
  view.addEventListener("time", follow);
  view.addEventListener("look", draw);
  document.addEventListener("theme", draw);
  drag(picture, choice, (a, b) => view.zoom(a * view.trace.duration, b * view.trace.duration));
  drag(axis, axisChoice, (a, b) => {
    const length = view.to - view.from;
    view.zoom(view.from + a * length, view.from + b * length);
  });
  follow();
  return {
    element,
    axis,
    end: () => {
      resized.disconnect();
      document.removeEventListener("theme", draw);
    },
  };
}

/** @param {HTMLElement} marks @param {number} from @param {number} to */
function fillMarks(marks, from, to) {
  marks.replaceChildren(
    ...[0, 0.25, 0.5, 0.75, 1].map((share) =>
      el(
        "span",
        { style: { left: `${share * 100}%` } },
        from + share * (to - from) ? duration(from + share * (to - from)) : "0",
      ),
    ),
  );
}

/** @param {HTMLCanvasElement} canvas @param {View} view */
function paint(canvas, view) {
  const context = canvas.getContext("2d");
  const width = canvas.clientWidth;
  if (!context || !width) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  context.scale(ratio, ratio);
  const { spans, duration: whole } = view.trace;
  const step = (HEIGHT - 4) / Math.max(spans.length, 1);
  const colors = new Map();
  for (const [service, name] of view.colors) colors.set(service, colorOf(canvas, name));
  spans.forEach((span, i) => {
    context.fillStyle = colors.get(span.service);
    const left = (span.start / Math.max(whole, 1)) * width;
    context.fillRect(
      left,
      2 + i * step,
      Math.max(((span.end - span.start) / Math.max(whole, 1)) * width, 1),
      Math.max(Math.min(step - 0.4, 6), 0.8),
    );
  });
}

/** A canvas knows no variables of CSS. @param {HTMLElement} place @param {string} name */
function colorOf(place, name) {
  const probe = el("span", { className: `probe ${name}`, hidden: true });
  place.parentElement?.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** @param {View} view @param {number} side 0: where the shown part begins, 1: where it ends */
function handle(view, side) {
  /** @param {number} us */
  const move = (us) =>
    side ? view.zoom(view.from, Math.max(us, view.from + 1)) : view.zoom(Math.min(us, view.to - 1), view.to);
  const knob = el("div", {
    className: "handle",
    role: "slider",
    tabIndex: 0,
    "aria-label": side ? "End of the shown time" : "Start of the shown time",
    "aria-valuemin": "0",
    "aria-valuemax": String(Math.round(view.trace.duration)),
    onKeydown: (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      move((side ? view.to : view.from) + (step * view.trace.duration) / (event.shiftKey ? 10 : 50));
    },
    onPointerdown: (/** @type {PointerEvent} */ event) => {
      event.stopPropagation();
      knob.setPointerCapture(event.pointerId);
    },
    onPointermove: (/** @type {PointerEvent} */ event) => {
      if (!knob.hasPointerCapture(event.pointerId)) return;
      const box = /** @type {HTMLElement} */ (knob.parentElement).getBoundingClientRect();
      move(((event.clientX - box.left) / box.width) * view.trace.duration);
    },
  });
  return knob;
}

/**
 * @param {HTMLElement} area
 * @param {HTMLElement} choice
 * @param {(from: number, to: number) => void} onChoice shares of the area's width
 */
function drag(area, choice, onChoice) {
  let start = NaN;
  const share = (/** @type {PointerEvent} */ event) => {
    const box = area.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  area.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = share(event);
    area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => {
    if (Number.isNaN(start)) return;
    const now = share(event);
    choice.hidden = false;
    choice.style.left = `${Math.min(start, now) * 100}%`;
    choice.style.width = `${Math.abs(now - start) * 100}%`;
  });
  const stop = (/** @type {PointerEvent} */ event, /** @type {boolean} */ take) => {
    const [from, to] = [start, share(event)].sort((a, b) => a - b);
    start = NaN;
    choice.hidden = true;
    if (take && (to - from) * area.clientWidth >= CLICK_PX) onChoice(from, to);
  };
  area.addEventListener("pointerup", (event) => !Number.isNaN(start) && stop(event, true));
  area.addEventListener("pointercancel", (event) => stop(event, false));
}
