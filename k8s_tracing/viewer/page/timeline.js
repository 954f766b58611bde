// SPDX-License-Identifier: Apache-2.0
/** The rows of a trace, as a tree grid: spans, and under some of them their details. */

import { detail } from "./detail.js";
import { el } from "./dom.js";
import { spanRow } from "./rows.js";
import { VirtualList } from "./virtual.js";

/** @typedef {import("./trace.js").Span} Span */
/** @typedef {{key: string, fixed: boolean, span: Span, row: number}} Line */

const ROW_PX = 28;

export class Timeline {
  /**
   * @param {import("./view.js").View} view
   * @param {HTMLElement} axis the time line's axis, which stands above the rows
   */
  constructor(view, axis) {
    this.view = view;
    this.axis = axis;
    this.content = el("div", { className: "content", role: "rowgroup" });
    this.scroller = el(
      "div",
      { className: "scroller", role: "treegrid", "aria-label": "Spans", "aria-colcount": "2" },
      this.content,
    );
    this.grid = el("div", { className: "grid" }, this.head(axis), this.scroller);
    /** @type {Line[]} */
    this.lines = [];
    const on = {
      toggle: (/** @type {Span} */ span) => this.toggle(span),
      open: (/** @type {Span} */ span) => this.open(span),
      reveal: (/** @type {Span} */ span) => this.goTo(span),
      focus: (/** @type {Span} */ span) => this.noteFocus(span),
    };
    /** @type {VirtualList<Line>} */
    this.list = new VirtualList(this.scroller, this.content, ROW_PX, (line) =>
      line.fixed ? spanRow(view, line.span, line.row, on) : detail(view, line.span),
    );
    view.addEventListener("rows", () => this.show());
    view.addEventListener("time", () => this.show());
    view.addEventListener("look", () => this.show());
    this.grid.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** @param {HTMLElement} axis */
  head(axis) {
    const { view } = this;
    const button = (
      /** @type {string} */ sign,
      /** @type {string} */ title,
      /** @type {() => void} */ work,
    ) =>
      el(
        "button",
        {
          type: "button",
          className: "quiet",
          title,
          "aria-label": title,
          onClick: () => (work(), view.changed("rows")),
        },
        sign,
      );
    const splitter = el("div", {
      className: "splitter",
      role: "separator",
      tabIndex: 0,
      "aria-orientation": "vertical",
      "aria-label": "Width of the names",
      "aria-valuenow": "34",
      "aria-valuemin": "10",
      "aria-valuemax": "80",
    });
    const resize = (/** @type {number} */ percent) => {
      const width = Math.min(Math.max(percent, 10), 80);
      this.grid.style.setProperty("--names", `${width}%`);
      splitter.setAttribute("aria-valuenow", String(Math.round(width)));
    };
    splitter.addEventListener("pointerdown", (event) => splitter.setPointerCapture(event.pointerId));
    splitter.addEventListener("pointermove", (event) => {
      const box = this.grid.getBoundingClientRect();
      if (splitter.hasPointerCapture(event.pointerId)) resize((100 * (event.clientX - box.left)) / box.width);
    });
    splitter.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      resize(Number(splitter.getAttribute("aria-valuenow")) + step);
    });
    return el(
      "div",
      { className: "grid-head" },
      el(
        "div",
        { className: "names-head" },
        el("span", { className: "title" }, "Service & operation"),
        button("⊞", "Expand one level (o)", () => view.tree.expandLevel()),
        button("⊟", "Collapse one level (p)", () => view.tree.collapseLevel()),
        button("⇊", "Expand all ([)", () => view.tree.expandAll()),
        button("⇈", "Collapse all (])", () => view.tree.collapseAll()),
        splitter,
      ),
      axis,
    );
  }

  /** Draws again. Rows are few; details, which somebody may be reading, stay as they are. */
  show() {
    const { view } = this;
    const hadFocus =
      this.content.contains(document.activeElement) && document.activeElement?.getAttribute("role") === "row";
    view.width = this.axis.clientWidth || view.width;
    this.lines = [];
    let row = 0;
    for (const span of view.tree.rows()) {
      this.lines.push({ key: `row ${span.index}`, fixed: true, span, row: row++ });
      if (view.open.has(span))
        this.lines.push({ key: `detail ${span.index} ${span.shift}`, fixed: false, span, row });
    }
    if (view.focus && !this.lines.some((line) => line.span === view.focus))
      view.focus = this.visibleAncestor(view.focus);
    this.list.pinned = view.focus ? `row ${view.focus.index}` : "";
    this.scroller.setAttribute("aria-rowcount", String(row));
    this.list.show(this.lines);
    if (hadFocus) this.focusRow(view.focus);
  }

  /** @param {Span} span */
  visibleAncestor(span) {
    const visible = new Set(this.lines.map((line) => line.span));
    for (let at = span.parent; at; at = at.parent) if (visible.has(at)) return at;
    return null;
  }

  /** @param {Span} span */
  lineOf(span) {
    return this.lines.findIndex((line) => line.fixed && line.span === span);
  }

  /** @param {Span} span */
  noteFocus(span) {
    if (this.view.focus === span) return;
    for (const row of this.content.querySelectorAll('[role="row"][tabindex="0"]'))
      row.setAttribute("tabindex", "-1");
    this.view.focus = span;
    this.list.pinned = `row ${span.index}`;
    this.list.drawn.get(this.list.pinned)?.setAttribute("tabindex", "0");
  }

  /** @param {Span | null} span */
  focusRow(span) {
    if (!span) return;
    const index = this.lineOf(span);
    if (index < 0) return;
    this.noteFocus(span);
    this.list.reveal(index);
    this.list.update();
    this.list.drawn.get(`row ${span.index}`)?.focus({ preventScroll: true });
  }

  /** @param {Span} span @param {boolean} [collapse] */
  toggle(span, collapse) {
    this.view.tree.toggle(span, collapse);
    this.view.changed("rows");
  }

  /** @param {Span} span */
  open(span) {
    if (!this.view.open.delete(span)) this.view.open.add(span);
    this.noteFocus(span);
    this.view.changed("rows");
  }

  /** Brings a span into sight and gives it the focus. @param {Span | null | undefined} span */
  goTo(span) {
    if (!span) return;
    this.view.tree.reveal(span);
    this.view.changed("rows");
    this.focusRow(span);
  }

  /** As in any tree: the arrows go through it. @param {KeyboardEvent} event */
  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const row =
      event.target instanceof HTMLElement && event.target.matches('[role="row"]') ? event.target : null;
    const span = this.view.focus;
    if (!row || !span) return;
    const spans = this.lines.filter((line) => line.fixed).map((line) => line.span);
    const at = spans.indexOf(span);
    const { tree } = this.view;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: () => this.focusRow(spans[Math.min(at + 1, spans.length - 1)]),
      ArrowUp: () => this.focusRow(spans[Math.max(at - 1, 0)]),
      Home: () => this.focusRow(spans[0]),
      End: () => this.focusRow(spans[spans.length - 1]),
      Enter: () => this.open(span),
      " ": () => this.open(span),
      ArrowRight: () =>
        tree.isCollapsed(span)
          ? this.toggle(span, false)
          : span.children.length && this.focusRow(spans[at + 1]),
      ArrowLeft: () =>
        span.children.length && !tree.isCollapsed(span)
          ? this.toggle(span, true)
          : this.focusRow(span.parent),
    };
    const work = keys[event.key];
    if (!work) return;
    event.preventDefault();
    event.stopPropagation();
    work();
  }
}
