// SPDX-License-Identifier: Apache-2.0
/**
 * What the parts of the trace page share: the trace, what of it is shown, and who wants to know when that
 * changes.
 */

import { colorsOf } from "./colors.js";
import { joined } from "./intervals.js";
import { skewOf } from "./skew.js";
import { find, Tree } from "./tree.js";

/** @typedef {import("./trace.js").Span} Span */

/** A zoom is never narrower than this part of the trace, or a microsecond. */
const NARROWEST = 1e-6;

export class View extends EventTarget {
  /** @param {import("./trace.js").Trace} trace */
  constructor(trace) {
    super();
    this.trace = trace;
    this.tree = new Tree(trace);
    this.colors = colorsOf(trace.services.keys());
    this.from = 0;
    this.to = Math.max(trace.duration, 1);
    /** @type {Set<Span>} spans whose details are open */
    this.open = new Set();
    /** @type {Span | null} the row that has, or last had, the focus */
    this.focus = null;
    this.text = "";
    /** @type {Set<Span>} */
    this.found = new Set();
    this.onlyFound = false;
    /** @type {Map<string, [number, number][]>} by span id, µs from the span's recorded start */
    this.path = new Map();
    this.showPath = true;
    /** @type {Map<Span, import("./skew.js").Skew>} */
    this.skews = new Map();
    for (const span of trace.spans) {
      const skew = skewOf(span);
      if (skew) this.skews.set(span, skew);
    }
    this.adjusted = false;
    /** Of the time line, px. */
    this.width = 800;
  }

  /**
   * `rows`: which rows there are; `time`: what of the time; `look`: how they look.
   * @param {"rows" | "time" | "look"} what
   */
  changed(what) {
    this.dispatchEvent(new Event(what));
  }

  /** Shows a part of the time. @param {number} from µs from the trace's start @param {number} to */
  zoom(from, to) {
    const whole = Math.max(this.trace.duration, 1);
    const length = Math.min(Math.max(to - from, whole * NARROWEST, 1), whole);
    this.from = Math.min(Math.max(from, 0), whole - length);
    this.to = this.from + length;
    this.changed("time");
  }

  get isZoomed() {
    return this.from > 0 || this.to < Math.max(this.trace.duration, 1);
  }

  /** Where in the shown time a moment lies: 0 is its start, 1 its end. @param {number} us */
  share(us) {
    return (us - this.from) / (this.to - this.from);
  }

  /** @param {string} text */
  find(text) {
    this.text = text;
    this.found = find(this.trace, text);
    this.filter();
  }

  filter() {
    this.tree.filter(this.onlyFound && this.text.trim() ? this.found : null);
    this.changed("rows");
  }

  /**
   * The parts of a row's time that are on the critical path: of what is collapsed in it, too.
   * @param {Span} span
   * @returns {[number, number][]} µs from the trace's start
   */
  pathOf(span) {
    if (!this.showPath || !this.path.size) return [];
    const spans = this.tree.isCollapsed(span) ? this.trace.spans.slice(span.index, span.after) : [span];
    const parts = spans.flatMap((one) =>
      (this.path.get(one.id) ?? []).map(
        ([from, to]) => /** @type {[number, number]} */ ([one.start + from, one.start + to]),
      ),
    );
    return joined(parts, this.pixel);
  }

  /** How long a pixel of the time line is, µs. */
  get pixel() {
    return (this.to - this.from) / this.width;
  }
}
