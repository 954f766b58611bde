// SPDX-License-Identifier: Apache-2.0
/**
 * Services and their colours, which are classes `svc-0` to `svc-11` in base.css: a service keeps its colour
 * from page to page.
 */

export const COLORS = 12;

const STORED = "service-colors";
/** More services than a reader tells apart, and few enough for the browser's store. */
const MOST = 500;

/** FNV-1a, 32 bits. @param {string} text */
function hash(text) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/**
 * Gives those that have no colour yet one: what their name asks for, or the next of those that are used
 * least.
 * @param {Iterable<string>} services
 * @param {Map<string, number>} known is added to
 */
export function assign(services, known) {
  const used = Array(COLORS).fill(0);
  for (const color of known.values()) used[color]++;
  for (const service of [...new Set(services)].sort()) {
    if (known.has(service)) continue;
    const least = Math.min(...used);
    let color = hash(service) % COLORS;
    while (used[color] > least) color = (color + 5) % COLORS;
    used[color]++;
    known.set(service, color);
  }
}

/** @returns {Map<string, number>} */
function stored() {
  try {
    const entries = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    return new Map(
      entries.filter(
        (/** @type {any} */ [, color]) => Number.isInteger(color) && color >= 0 && color < COLORS,
      ),
    );
  } catch {
    return new Map();
  }
}

/**
 * The class of each service's colour.
 * @param {Iterable<string>} services
 * @returns {Map<string, string>}
 */
export function colorsOf(services) {
  const names = [...services];
  const known = stored();
  const before = known.size;
  if (before > MOST) known.clear();
  assign(names, known);
  if (known.size !== before) localStorage.setItem(STORED, JSON.stringify([...known]));
  return new Map(names.map((name) => [name, `svc-${known.get(name)}`]));
}
