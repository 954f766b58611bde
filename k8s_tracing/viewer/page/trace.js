// SPDX-License-Identifier: Apache-2.0
/**
 * Jaeger's JSON of one trace made into a tree. Nothing here touches the document.
 *
 * Times are microseconds. Everything that came in a span stays data: it is only ever shown as text.
 */

import { partsOf } from "./parts.js";

/** @typedef {{key: string, type?: string, value: unknown}} Tag */
/** @typedef {{name: string, time: number, tags: Tag[]}} SpanEvent */
/** @typedef {{traceID: string, spanID: string, type: string}} Reference */
/** @typedef {{id: string, service: string, tags: Tag[], node: string}} Process */
/**
 * @typedef {object} Span
 * @property {number} index its place in `Trace.spans`, which is the order of the rows
 * @property {string} id
 * @property {string} name
 * @property {string} service
 * @property {string} kind
 * @property {Process} process
 * @property {number} start µs from the trace's start
 * @property {number} end
 * @property {number} recordedStart as recorded, µs since the Unix epoch
 * @property {number} shift µs by which adjusted clocks moved it
 * @property {Tag[]} tags
 * @property {SpanEvent[]} events
 * @property {Reference[]} links references other than to its parent
 * @property {string[]} warnings
 * @property {Span | null} parent
 * @property {string} missingParent the id of a parent that is not in the trace, or ""
 * @property {Span[]} children by start
 * @property {number} depth
 * @property {number} after the index of the first row after its subtree
 * @property {boolean} error
 * @property {number} errorsBelow errors in its subtree, itself left out
 * @property {boolean} unfinished
 * @property {number} lost events that LTTng discarded in its process meanwhile
 * @property {import("./parts.js").PartGroup[]} parts
 */
/**
 * @typedef {object} Trace
 * @property {string} id
 * @property {Span[]} spans depth first
 * @property {Span[]} roots
 * @property {number} start µs since the Unix epoch
 * @property {number} duration
 * @property {Map<string, number>} services how many spans each has, in order of appearance
 * @property {number} depth
 * @property {number} errors
 * @property {number} unfinished
 * @property {number} lost how many spans have lost events
 * @property {string[]} warnings
 */

/** @param {Tag[]} tags @param {string} key @returns {unknown} */
export function tagOf(tags, key) {
  return tags.find((tag) => tag.key === key)?.value;
}

/** @param {Tag[]} tags @param {string} key */
const isTrue = (tags, key) => ["true", true].includes(/** @type {any} */ (tagOf(tags, key)));

/** What tells whose clock it was. @param {string} id @param {any} raw @returns {Process} */
function toProcess(id, raw) {
  const tags = raw?.tags ?? [];
  const node =
    tagOf(tags, "k8s.node.name") ??
    tagOf(tags, "host.id") ??
    tagOf(tags, "host.name") ??
    tagOf(tags, "hostname");
  return {
    id,
    service: String(raw?.serviceName || "unknown_service"),
    tags,
    node: node === undefined ? "" : String(node),
  };
}

/** @param {any} raw @param {any} log @returns {SpanEvent} */
function toEvent(raw, log) {
  const fields = /** @type {Tag[]} */ (log.fields ?? []);
  const name = fields.find((field) => field.key === "event");
  return {
    name: name ? String(name.value) : "",
    time: Number(log.timestamp),
    tags: fields.filter((field) => field !== name),
  };
}

/** @param {any} raw @param {Map<string, Process>} processes @returns {Span} */
function toSpan(raw, processes) {
  const tags = raw.tags ?? [];
  const process = processes.get(raw.processID) ?? toProcess(String(raw.processID), raw.process);
  const lost = Number(tagOf(tags, "k8s_tracing.lost_events") ?? 0);
  return {
    index: 0,
    id: String(raw.spanID),
    name: String(raw.operationName ?? ""),
    service: process.service,
    kind: String(tagOf(tags, "span.kind") ?? "internal"),
    process,
    start: Number(raw.startTime),
    end: Number(raw.startTime) + Math.max(Number(raw.duration) || 0, 0),
    recordedStart: Number(raw.startTime),
    shift: 0,
    tags,
    events: (raw.logs ?? [])
      .map((/** @type {any} */ log) => toEvent(raw, log))
      .sort((/** @type {SpanEvent} */ a, /** @type {SpanEvent} */ b) => a.time - b.time),
    links: [],
    warnings: (raw.warnings ?? []).map(String),
    parent: null,
    missingParent: "",
    children: [],
    depth: 0,
    after: 0,
    error: isTrue(tags, "error") || tagOf(tags, "otel.status_code") === "ERROR",
    errorsBelow: 0,
    unfinished: isTrue(tags, "k8s_tracing.unfinished"),
    lost: Number.isFinite(lost) ? lost : 0,
    parts: partsOf(tags),
  };
}

/**
 * Gives each span its parent; what points elsewhere is a link.
 * @param {any} raw
 * @param {Span} span
 * @param {Map<string, Span>} byId
 */
function connect(raw, span, byId) {
  const references = /** @type {any[]} */ (raw.references ?? []);
  const own = references.filter((ref) => ref.traceID === raw.traceID);
  const chosen =
    own.find((ref) => ref.refType === "CHILD_OF") ??
    own.find((ref) => ref.spanID === raw.parentSpanID) ??
    (raw.parentSpanID ? undefined : own[0]);
  const parentId = chosen ? String(chosen.spanID) : String(raw.parentSpanID ?? "");
  if (parentId) {
    const parent = byId.get(parentId);
    if (parent && parent !== span) span.parent = parent;
    else span.missingParent = parentId;
    // The server says it, too.
    if (span.missingParent) span.warnings = span.warnings.filter((text) => !text.includes(parentId));
  }
  span.links = references
    .filter((ref) => ref !== chosen)
    .map((ref) => ({ traceID: String(ref.traceID), spanID: String(ref.spanID), type: String(ref.refType) }));
}

/** @param {Span} a @param {Span} b */
const byStart = (a, b) => a.start - b.start || b.end - a.end;

/**
 * The roots and then all spans depth first. Parents in a ring, which only a fault makes, are cut open at the
 * first to start: no span may vanish from the page.
 * @param {Span[]} spans
 */
function ordered(spans) {
  const sorted = [...spans].sort(byStart);
  for (const span of sorted) span.parent?.children.push(span);
  const roots = [];
  const seen = new Set();
  /** @type {Span[]} */
  const rows = [];
  for (const start of [...sorted.filter((span) => !span.parent), ...sorted]) {
    if (seen.has(start)) continue;
    if (start.parent) {
      start.parent.children = start.parent.children.filter((child) => child !== start);
      start.missingParent = start.parent.id;
      start.warnings.push("Its parents form a ring.");
      start.parent = null;
    }
    roots.push(start);
    const todo = [start];
    for (let span = todo.pop(); span; span = todo.pop()) {
      seen.add(span);
      span.index = rows.length;
      span.depth = span.parent ? span.parent.depth + 1 : 0;
      rows.push(span);
      for (let i = span.children.length - 1; i >= 0; i--) todo.push(span.children[i]);
    }
  }
  return { roots: roots.sort((a, b) => a.index - b.index), rows };
}

/**
 * @param {any} data one trace of Jaeger's `/api/traces`
 * @returns {Trace}
 */
export function toTrace(data) {
  const processes = new Map(
    Object.entries(data.processes ?? {}).map(([id, raw]) => [id, toProcess(id, raw)]),
  );
  const spans = /** @type {Span[]} */ (data.spans.map((/** @type {any} */ raw) => toSpan(raw, processes)));
  const byId = new Map();
  for (const span of spans) if (!byId.has(span.id)) byId.set(span.id, span);
  spans.forEach((span, i) => connect(data.spans[i], span, byId));
  const { roots, rows } = ordered(spans);

  const start = rows.reduce((least, span) => Math.min(least, span.start), Infinity);
  const services = new Map();
  for (const span of rows) {
    span.start -= start;
    span.end -= start;
    services.set(span.service, (services.get(span.service) ?? 0) + 1);
  }
  for (let i = rows.length - 1; i >= 0; i--) {
    const span = rows[i];
    span.after = span.children.length ? span.children[span.children.length - 1].after : i + 1;
    if (span.parent) span.parent.errorsBelow += span.errorsBelow + (span.error ? 1 : 0);
  }
  return {
    id: String(data.traceID),
    spans: rows,
    roots,
    start: rows.length ? start : 0,
    duration: rows.reduce((most, span) => Math.max(most, span.end), 0),
    services,
    depth: rows.reduce((most, span) => Math.max(most, span.depth + 1), 0),
    errors: rows.filter((span) => span.error).length,
    unfinished: rows.filter((span) => span.unfinished).length,
    lost: rows.filter((span) => span.lost).length,
    warnings: (data.warnings ?? []).map(String),
  };
}

/** `frontend: GET /dispatch`, of the first root. @param {Trace} trace */
export function titleOf(trace) {
  const root = trace.roots[0];
  return root ? { service: root.service, name: root.name } : { service: "", name: "(no spans)" };
}
