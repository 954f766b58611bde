// SPDX-License-Identifier: Apache-2.0
/** What is asked of the server: Jaeger's query API, and what this viewer has beside it. */

/** An answer that is no data, with words for the reader. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status 0: there was no answer */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} the answer's `data` */
async function get(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { headers: { accept: "application/json" }, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The viewer does not answer. Is it still running?", 0);
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok || !body) {
    const said = body?.errors?.[0]?.msg ?? body?.message;
    throw new ApiError(
      said ? String(said) : `The viewer answered ${answer.status} ${answer.statusText}`.trim(),
      answer.status,
    );
  }
  return body.data;
}

/** @returns {Promise<string[]>} */
export const services = async () => (await get("/api/services")) ?? [];

/** @param {string} service @returns {Promise<string[]>} */
export const operations = async (service) =>
  (await get(`/api/services/${encodeURIComponent(service)}/operations`)) ?? [];

/**
 * A trace in a list; times are µs.
 * @typedef {{id: string, service: string, name: string, start: number, duration: number, spans: number, errors: number,
 *   unfinished: number, services: {name: string, spans: number}[]}} Summary
 */

/** @param {URLSearchParams} query @param {AbortSignal} [signal] @returns {Promise<Summary[]>} */
export async function search(query, signal) {
  return ((await get(`/api/trace-summaries?${query}`, signal)) ?? []).map(toSummary);
}

/**
 * @param {string} id
 * @returns {Promise<Summary | null>} null: it has not arrived
 */
export async function summary(id) {
  const [found] = await get(`/api/trace-summaries/${encodeURIComponent(id)}`).catch(() => []);
  return found ? toSummary(found) : null;
}

/** @param {any} one @returns {Summary} */
function toSummary(one) {
  return {
    id: String(one.traceID),
    service: String(one.root?.serviceName ?? ""),
    name: String(one.root?.operationName ?? ""),
    start: one.startTime,
    duration: one.duration,
    spans: one.spans,
    errors: one.errors,
    unfinished: one.unfinished,
    services: one.services ?? [],
  };
}

/** @param {string} id @returns {Promise<any>} */
export async function trace(id) {
  const found = await get(`/api/traces/${encodeURIComponent(id)}`);
  if (!found?.length) throw new ApiError(`There is no trace ${id}.`, 404);
  return found[0];
}

/** @param {string} id @returns {Promise<any>} */
export const criticalPath = (id) => get(`/api/traces/${encodeURIComponent(id)}/critical-path`);

/** @param {number} lookbackMs @returns {Promise<import("./graph.js").Dependency[]>} */
export const dependencies = async (lookbackMs) =>
  (await get(`/api/dependencies?endTs=${Date.now()}&lookback=${lookbackMs}`)) ?? [];

/**
 * Calls back when traces have arrived or grown, at most once in `everyMs`.
 *
 * A tab that nobody sees does not listen: a browser has six connections to a server for all of its tabs, and open tabs would
 * use them up. When it is seen again it is told of what it may have missed.
 * @param {(grown: Map<string, number> | null) => void} onNews the spans that each trace has now; null: it may be any
 * @param {(connected: boolean) => void} onState
 * @param {number} everyMs
 * @returns {() => void} ends it
 */
export function live(onNews, onState, everyMs) {
  /** @type {EventSource | null} */
  let source = null;
  /** @type {Map<string, number> | null} */
  let grown = new Map();
  let timer = 0;
  const tell = () => {
    timer ||= window.setTimeout(() => {
      const news = grown;
      timer = 0;
      grown = new Map();
      onNews(news);
    }, everyMs);
  };
  const missed = () => {
    grown = null;
    tell();
  };
  const listen = () => {
    source = new EventSource("/api/live");
    source.addEventListener("trace", (event) => {
      const { traceID, spans } = JSON.parse(event.data);
      grown?.set(traceID, spans);
      tell();
    });
    source.addEventListener("missed", missed);
    source.addEventListener("open", () => onState(true));
    source.addEventListener("error", () => onState(false));
  };
  const onVisibility = () => {
    source?.close();
    source = null;
    if (document.hidden) return;
    listen();
    missed();
  };
  if (!document.hidden) listen();
  document.addEventListener("visibilitychange", onVisibility);
  return () => {
    document.removeEventListener("visibilitychange", onVisibility);
    clearTimeout(timer);
    source?.close();
  };
}
