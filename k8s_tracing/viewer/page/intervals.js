// SPDX-License-Identifier: Apache-2.0
/**
 * Spans of time as they are drawn: what lies closer than a pixel is one, or ten thousand calls would be as
 * many elements.
 */

/** @typedef {[number, number]} Interval */

/**
 * @param {Interval[]} intervals in any order
 * @param {number} gap what is not further apart becomes one
 * @returns {Interval[]} by start, with more than `gap` between two
 */
export function joined(intervals, gap) {
  /** @type {Interval[]} */
  const result = [];
  for (const [from, to] of [...intervals].sort((a, b) => a[0] - b[0])) {
    const last = result[result.length - 1];
    if (last && from - last[1] <= gap) last[1] = Math.max(last[1], to);
    else result.push([from, to]);
  }
  return result;
}
