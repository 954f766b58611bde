// SPDX-License-Identifier: Apache-2.0
/**
 * Which spans of a trace have a row: what is collapsed, and what a filter leaves. Nothing here touches the
 * document.
 */

/** @typedef {import("./trace.js").Span} Span */

export class Tree {
  /** @param {import("./trace.js").Trace} trace */
  constructor(trace) {
    this.trace = trace;
    /** @type {Set<Span>} */
    this.collapsed = new Set();
    /** @type {Set<Span> | null} the spans that a filter leaves, with their ancestors */
    this.only = null;
  }

  /** The spans that have a row, in order. @returns {Span[]} */
  rows() {
    const { spans } = this.trace;
    const rows = [];
    for (let i = 0; i < spans.length;) {
      const span = spans[i];
      const hidden = this.only && !this.only.has(span);
      if (!hidden) rows.push(span);
      i = hidden || (this.collapsed.has(span) && !this.only) ? span.after : i + 1;
    }
    return rows;
  }

  /** @param {Span} span */
  isCollapsed(span) {
    return this.collapsed.has(span) && !this.only;
  }

  /** @param {Span} span @param {boolean} [collapse] */
  toggle(span, collapse = !this.collapsed.has(span)) {
    if (collapse && span.children.length) this.collapsed.add(span);
    else this.collapsed.delete(span);
  }

  collapseAll() {
    this.collapsed = new Set(this.trace.spans.filter((span) => span.children.length));
  }

  expandAll() {
    this.collapsed.clear();
  }

  /** Collapses the deepest level that is open. */
  collapseLevel() {
    const open = this.rows().filter((span) => span.children.length && !this.collapsed.has(span));
    const deepest = open.reduce((most, span) => Math.max(most, span.depth), -1);
    for (const span of open) if (span.depth === deepest) this.collapsed.add(span);
  }

  /** Expands the highest level that is collapsed. */
  expandLevel() {
    const shut = this.rows().filter((span) => this.collapsed.has(span));
    const highest = shut.reduce((least, span) => Math.min(least, span.depth), Infinity);
    for (const span of shut) if (span.depth === highest) this.collapsed.delete(span);
  }

  /** Expands what a span is hidden in. @param {Span} span */
  reveal(span) {
    for (let at = span.parent; at; at = at.parent) this.collapsed.delete(at);
  }

  /** Leaves only these spans and the way to them; null: all. @param {Iterable<Span> | null} spans */
  filter(spans) {
    this.only = spans && new Set();
    for (const span of spans ?? []) {
      for (let at = /** @type {Span | null} */ (span); at && !this.only?.has(at); at = at.parent)
        this.only?.add(at);
    }
  }

  /**
   * The next span after (or before) one for which a test holds, around the end.
   * @param {Span | null} from
   * @param {number} step 1 or -1
   * @param {(span: Span) => boolean} test
   * @returns {Span | null}
   */
  next(from, step, test) {
    const { spans } = this.trace;
    const count = spans.length;
    const start = from ? from.index : step > 0 ? -1 : count;
    for (let i = 1; i <= count; i++) {
      const span = spans[(((start + i * step) % count) + count) % count];
      if (test(span)) return span;
    }
    return null;
  }
}

/**
 * The spans in which every word of a text is found: in its name, service, kind, ids, attributes, events or
 * process.
 * @param {import("./trace.js").Trace} trace
 * @param {string} text
 * @returns {Set<Span>}
 */
export function find(trace, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return new Set();
  /** @type {Map<unknown, string>} */
  const processes = new Map();
  return new Set(
    trace.spans.filter((span) => {
      let process = processes.get(span.process);
      if (process === undefined) {
        process = textOf(span.process.tags);
        processes.set(span.process, process);
      }
      const events = span.events.map((event) => `${event.name}\n${textOf(event.tags)}`).join("\n");
      const own =
        `${span.service}\n${span.name}\n${span.kind}\n${span.id}\n${textOf(span.tags)}\n${events}`.toLowerCase();
      return words.every((word) => own.includes(word) || process?.includes(word));
    }),
  );
}

/** @param {import("./trace.js").Tag[]} tags */
const textOf = (tags) =>
  tags
    .map((tag) => `${tag.key}=${tag.value}`)
    .join("\n")
    .toLowerCase();
