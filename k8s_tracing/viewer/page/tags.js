// SPDX-License-Identifier: Apache-2.0
/**
 * The search form's tags: `error=true http.route="/a b"`, as in logfmt, to the JSON of Jaeger's API and back.
 */

/**
 * @param {string} text
 * @returns {Record<string, string>}
 * @throws {Error} with what is wrong, for the reader
 */
export function parseTags(text) {
  /** @type {Record<string, string>} */
  const tags = Object.create(null);
  const token = /\s*([^\s="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)/y;
  let at = 0;
  while (text.slice(at).trim()) {
    token.lastIndex = at;
    const match = token.exec(text);
    if (!match) {
      throw new Error(`Tags are written key=value; this is not: ${text.slice(at).trim()}`);
    }
    const raw = match[2];
    tags[match[1]] = raw.startsWith('"') ? raw.slice(1, -1).replace(/\\(.)/g, "$1") : raw;
    at = token.lastIndex;
  }
  return tags;
}

/** @param {Record<string, unknown>} tags @returns {string} */
export function formatTags(tags) {
  return Object.entries(tags)
    .map(([key, value]) => {
      const plain = String(value);
      const quoted = /[\s"\\]/.test(plain) || !plain;
      return `${key}=${quoted ? `"${plain.replace(/(["\\])/g, "\\$1")}"` : plain}`;
    })
    .join(" ");
}
