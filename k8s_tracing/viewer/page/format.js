// SPDX-License-Identifier: Apache-2.0
/** Numbers and times as people read them. Times are microseconds, as in Jaeger's JSON. */

/** @type {[string, number][]} */
const UNITS = [
  ["d", 86_400e6],
  ["h", 3600e6],
  ["m", 60e6],
  ["s", 1e6],
  ["ms", 1e3],
  ["µs", 1],
];

/**
 * Three digits and the unit that suits: `712 ms`, `1.23 s`, `2m 5s`.
 * @param {number} us
 * @returns {string}
 */
export function duration(us) {
  if (!Number.isFinite(us)) return "?";
  if (us < 0) return `−${duration(-us)}`;
  if (us === 0) return "0 µs";
  if (us >= 59_999_500) {
    const seconds = Math.round(us / 1e6);
    const at = seconds >= 86_400 ? 0 : seconds >= 3600 ? 1 : 2;
    const [big, small] = [UNITS[at], UNITS[at + 1]];
    const whole = Math.floor((seconds * 1e6) / big[1]);
    const rest = Math.floor((seconds * 1e6 - whole * big[1]) / small[1]);
    return rest ? `${whole}${big[0]} ${rest}${small[0]}` : `${whole}${big[0]}`;
  }
  // What would be rounded up to 1000 of the smaller unit is already one of the next.
  for (const [unit, size] of UNITS.slice(3)) {
    const value = us / size;
    if (value >= 0.9995) return `${digits(value)} ${unit}`;
  }
  return `${digits(us * 1000)} ns`;
}

/** @param {number} value @returns {string} */
function digits(value) {
  if (value >= 99.95) return String(Math.round(value));
  return String(Number(value >= 9.995 ? value.toFixed(1) : value.toFixed(2)));
}

/**
 * What a person types for a duration, `1.2s`, `100ms`, `500us`, in µs; NaN where it is none.
 * @param {string} text
 */
export function parseDuration(text) {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|μs|ms|s|m|h)\s*$/.exec(text);
  if (!match) return NaN;
  const sizes = { ns: 1e-3, us: 1, µs: 1, μs: 1, ms: 1e3, s: 1e6, m: 60e6, h: 3600e6 };
  return Number(match[1]) * sizes[/** @type {keyof typeof sizes} */ (match[2])];
}

/**
 * Round times for an axis's marks: at most `count` steps of 1, 2 or 5 times a power of ten.
 * @param {number} from @param {number} to @param {number} count
 * @returns {number[]}
 */
export function ticks(from, to, count) {
  const span = to - from;
  if (!(span > 0) || count < 1) return [from];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.9999) ?? 10);
  const marks = [];
  for (let at = Math.ceil(from / step - 1e-9); at * step <= to + step * 1e-9; at++) marks.push(at * step);
  return marks;
}

const two = (/** @type {number} */ n) => String(n).padStart(2, "0");

/**
 * Local time of day with milliseconds, `14:03:09.120`.
 * @param {number} us since the Unix epoch
 */
export function clock(us) {
  const date = new Date(us / 1000);
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** Local date and time, `2026-11-22 14:03:09.120`. @param {number} us since the Unix epoch */
export function dateTime(us) {
  const date = new Date(us / 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(us)}`;
}

/** `3 minutes ago`. @param {number} us since the Unix epoch @param {number} nowUs */
export function ago(us, nowUs) {
  const s = Math.round((nowUs - us) / 1e6);
  if (s < 5) return "just now";
  for (const [name, size] of /** @type {[string, number][]} */ ([
    ["day", 86_400],
    ["hour", 3600],
    ["minute", 60],
    ["second", 1],
  ])) {
    if (s >= size) return `${plural(Math.floor(s / size), name)} ago`;
  }
  return "just now";
}

/** `1 span`, `1,234 spans`. @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A share of one as `12.3 %`. @param {number} share */
export function percent(share) {
  const value = share * 100;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${Number(value.toFixed(1))} %`;
}
