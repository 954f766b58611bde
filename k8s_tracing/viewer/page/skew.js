// SPDX-License-Identifier: Apache-2.0
/**
 * Clocks of nodes that differ: found and said, and put right only when asked to.
 *
 * A span that starts before its parent shows it. A server's span that ends after the client's that called it
 * may show it, too, or the server went on working. What recorded spans with one clock is a node, or where
 * that is unknown, a process.
 */

/** @typedef {import("./trace.js").Span} Span */
/** @typedef {{before: number, after: number, explanation: string}} Skew both in µs */

/** Jaeger's JSON has whole microseconds: what is rounded is not skewed. */
const ROUNDING_US = 1;

/** @param {Span} span */
const clockOf = (span) => span.process.node || `process ${span.process.id}`;

/** @param {Span} span @returns {boolean} */
const isRemoteCall = (span) => span.kind === "server" && span.parent?.kind === "client";

/** @param {Span} span @returns {Skew | null} */
export function skewOf(span) {
  const parent = span.parent;
  if (!parent) return null;
  const before = parent.start - span.start;
  const after = span.end - parent.end;
  const isBefore = before > ROUNDING_US;
  const isAfter = after > ROUNDING_US && isRemoteCall(span) && !span.unfinished && !parent.unfinished;
  if (!isBefore && !isAfter) return null;
  const apart = clockOf(span) !== clockOf(parent);
  return {
    before: Math.max(before, 0),
    after: Math.max(after, 0),
    explanation: apart
      ? `Clocks: ${nameOf(span)} and ${nameOf(parent)} recorded this span and its parent, and their clocks differ` +
        (isBefore ? "." : ", or the work went on after the answer.")
      : "Both were recorded with one clock: the times that were given are wrong" +
        (isBefore ? "." : ", or the work went on after the answer."),
  };
}

/** @param {Span} span */
const nameOf = (span) => (span.process.node ? `node ${span.process.node}` : `service ${span.service}`);

/**
 * By how much each node's clock has to be moved, relative to that of the first root's node.
 *
 * A child that runs within its parent says between which limits: it must neither start before nor end after
 * it. Those limits of all calls between two nodes together are what a clock is put right by, and if no shift
 * at all is within them, none is made.
 * @param {import("./trace.js").Trace} trace
 * @returns {Map<string, number>} µs for each node whose clock has to be moved
 */
export function clockShifts(trace) {
  /** @type {Map<string, Map<string, [number, number]>>} */
  const limits = new Map();
  for (const span of trace.spans) {
    const parent = span.parent;
    if (!parent || span.unfinished || parent.unfinished || clockOf(span) === clockOf(parent)) continue;
    const low = parent.recordedStart - span.recordedStart;
    const high = low + (parent.end - parent.start) - (span.end - span.start);
    if (high >= low) narrow(limits, clockOf(parent), clockOf(span), low, high);
  }
  /** @type {Map<string, number>} */
  const shifts = new Map();
  for (const root of trace.roots) {
    if (!shifts.has(clockOf(root))) shifts.set(clockOf(root), 0);
    const todo = [clockOf(root)];
    for (let from = todo.pop(); from !== undefined; from = todo.pop()) {
      for (const [to, [low, high]] of limits.get(from) ?? []) {
        if (shifts.has(to)) continue;
        const base = shifts.get(from) ?? 0;
        const fits = low + base <= ROUNDING_US && high + base >= -ROUNDING_US;
        shifts.set(to, fits ? 0 : Math.round(base + (low + high) / 2));
        todo.push(to);
      }
    }
  }
  return new Map([...shifts].filter(([, shift]) => shift !== 0));
}

/**
 * Narrows the limits between two nodes; those that no shift can keep are left to the first calls.
 * @param {Map<string, Map<string, [number, number]>>} limits
 * @param {string} from
 * @param {string} to
 * @param {number} low
 * @param {number} high
 */
function narrow(limits, from, to, low, high) {
  const ofFrom = limits.get(from) ?? new Map();
  limits.set(from, ofFrom);
  const [oldLow, oldHigh] = ofFrom.get(to) ?? [-Infinity, Infinity];
  const next = [Math.max(low, oldLow), Math.min(high, oldHigh)];
  if (next[0] <= next[1]) ofFrom.set(to, next);
}

/**
 * Moves spans by their nodes' shifts, or back to what was recorded.
 * @param {import("./trace.js").Trace} trace
 * @param {Map<string, number>} shifts empty: as recorded
 */
export function applyShifts(trace, shifts) {
  let first = Infinity;
  for (const span of trace.spans)
    first = Math.min(first, span.recordedStart + (shifts.get(clockOf(span)) ?? 0));
  trace.duration = 0;
  for (const span of trace.spans) {
    const length = span.end - span.start;
    span.shift = shifts.get(clockOf(span)) ?? 0;
    span.start = span.recordedStart + span.shift - first;
    span.end = span.start + length;
    trace.duration = Math.max(trace.duration, span.end);
  }
  if (trace.spans.length) trace.start = first;
}
