// SPDX-License-Identifier: Apache-2.0
/**
 * Where a span's time went, from its attributes `k8s_tracing.<group>.<part>_ns`.
 *
 * The CPU split of a container is the group `cpu`; what a proxy did is the group `ingress`. Parts with names
 * that are not known here are drawn as well, after those that are.
 */

/** @typedef {{name: string, label: string, us: number, style: string}} Part */
/** @typedef {{group: string, label: string, parts: Part[], total: number}} PartGroup */

const KEY = /^k8s_tracing\.([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)_ns$/;

/**
 * The order in which parts are drawn, and the name of their look in parts.css.
 * @type {Record<string, [string, [string, string, string][]]>}
 */
const KNOWN = {
  cpu: [
    "Container",
    [
      ["running", "on CPU", "running"],
      ["run_queue", "run queue", "waiting"],
      ["throttled", "throttled", "throttled"],
      ["blocked", "blocked", "blocked"],
    ],
  ],
  // In the order in which a proxy comes to them: they are moments, too.
  ingress: [
    "Ingress",
    [
      ["receive", "receiving the request", "one"],
      ["queue", "queue", "waiting"],
      ["connect", "connecting", "two"],
      ["first_byte", "waiting for the first byte", "blocked"],
      ["transfer", "transfer", "three"],
    ],
  ],
  // A connection's handshake, as the node saw it.
  service: [
    "Service",
    [
      ["syn_ack", "endpoint's answer", "two"],
      ["ack", "client's acknowledgement", "three"],
    ],
  ],
};
const OTHERS = ["one", "two", "three", "blocked"];

/**
 * @param {{key: string, value: unknown}[]} tags
 * @returns {PartGroup[]}
 */
export function partsOf(tags) {
  /** @type {Map<string, Map<string, number>>} */
  const found = new Map();
  for (const tag of tags) {
    const match = KEY.exec(tag.key);
    const us = Number(tag.value) / 1000;
    if (!match || !(us >= 0) || !Number.isFinite(us)) continue;
    if (!found.has(match[1])) found.set(match[1], new Map());
    found.get(match[1])?.set(match[2], us);
  }
  return [...found].map(([group, values]) => toGroup(group, values));
}

/** @param {string} group @param {Map<string, number>} values @returns {PartGroup} */
function toGroup(group, values) {
  const [label, known] = Object.hasOwn(KNOWN, group) ? KNOWN[group] : [group, []];
  const parts = [];
  for (const [name, text, style] of known) {
    const us = values.get(name);
    if (us !== undefined) parts.push({ name, label: text, us, style });
    values.delete(name);
  }
  let other = 0;
  for (const [name, us] of values) {
    parts.push({ name, label: name.replaceAll("_", " "), us, style: OTHERS[other++ % OTHERS.length] });
  }
  return { group, label, parts, total: parts.reduce((sum, part) => sum + part.us, 0) };
}
