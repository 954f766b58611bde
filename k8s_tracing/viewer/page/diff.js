// SPDX-License-Identifier: Apache-2.0
/**
 * Two traces laid over each other. Spans are the same where the way to them is: service, kind and name of
 * each ancestor. Those of one parent that are the same, ten calls of one service for instance, make one row.
 * Nothing here touches the document.
 */

/** @typedef {import("./trace.js").Span} Span */
/**
 * @typedef {object} Row
 * @property {string} service
 * @property {string} name
 * @property {number} depth
 * @property {[Span[], Span[]]} spans of the one and of the other trace
 * @property {[number, number]} time µs, the sum over `spans`
 * @property {"only-a" | "only-b" | "slower" | "faster" | "same"} verdict of the other against the one
 * @property {number} delta µs
 */

/** What is less than both of these apart is called the same. */
const SHARE = 0.1;
const LEAST_US = 1000;

/** @param {Span} span */
const keyOf = (span) => JSON.stringify([span.service, span.kind, span.name]);

/** @param {Span[]} spans @returns {Map<string, Span[]>} */
function grouped(spans) {
  const groups = new Map();
  for (const span of spans) {
    const key = keyOf(span);
    if (groups.has(key)) groups.get(key).push(span);
    else groups.set(key, [span]);
  }
  return groups;
}

/**
 * The keys of both in an order that keeps each one's own as far as it can.
 * @param {string[]} a
 * @param {string[]} b
 */
function merged(a, b) {
  const inB = new Set(b);
  const done = new Set();
  const keys = [];
  let at = 0;
  for (const key of a) {
    if (inB.has(key)) {
      for (; at < b.length && b[at] !== key; at++) {
        if (!done.has(b[at]) && !a.includes(b[at])) (keys.push(b[at]), done.add(b[at]));
      }
    }
    if (!done.has(key)) (keys.push(key), done.add(key));
  }
  for (const key of b) if (!done.has(key)) (keys.push(key), done.add(key));
  return keys;
}

/** @param {Span[]} spans */
const sum = (spans) => spans.reduce((total, span) => total + span.end - span.start, 0);

/** @param {Span[]} a @param {Span[]} b @param {number} depth @returns {Row} */
function toRow(a, b, depth) {
  const { service, name } = a[0] ?? b[0];
  const time = /** @type {[number, number]} */ ([sum(a), sum(b)]);
  const delta = time[1] - time[0];
  const apart = Math.abs(delta) > LEAST_US && Math.abs(delta) > SHARE * time[0];
  const verdict = !b.length
    ? "only-a"
    : !a.length
      ? "only-b"
      : !apart
        ? "same"
        : delta > 0
          ? "slower"
          : "faster";
  return { service, name, depth, spans: [a, b], time, verdict, delta };
}

/**
 * @param {import("./trace.js").Trace} a
 * @param {import("./trace.js").Trace} b
 * @returns {Row[]} depth first
 */
export function diff(a, b) {
  const rows = [];
  /** @type {{a: Span[], b: Span[], depth: number}[]} */
  const todo = [];
  /** @param {Span[]} left @param {Span[]} right @param {number} depth */
  const push = (left, right, depth) => {
    const [inA, inB] = [grouped(left), grouped(right)];
    const keys = merged([...inA.keys()], [...inB.keys()]);
    for (const key of keys.reverse()) todo.push({ a: inA.get(key) ?? [], b: inB.get(key) ?? [], depth });
  };
  push(a.roots, b.roots, 0);
  for (let next = todo.pop(); next; next = todo.pop()) {
    rows.push(toRow(next.a, next.b, next.depth));
    push(
      next.a.flatMap((span) => span.children),
      next.b.flatMap((span) => span.children),
      next.depth + 1,
    );
  }
  return rows;
}
