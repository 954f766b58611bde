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
    throw new ApiError(said ? String(said) : `The viewer answered ${answer.status} ${answer.statusText}`.trim(), answer.status);
  }
  return body.data;
}

/** @returns {Promise<string[]>} */
export const services = async () => (await get("/api/services")) ?? [];

/** @param {string} service @returns {Promise<string[]>} */
export const operations = async (service) => (await get(`/api/services/${encodeURIComponent(service)}/operations`)) ?? [];

/**
 * A trace in a list; times are µs.
 * @typedef {{id: string, service: string, name: string, start: number, duration: number, spans: number, errors: number,
 *   unfinished: number, services: {name: string, spans: number}[]}} Summary
 */

/** @param {URLSearchParams} query @param {AbortSignal} [signal] @returns {Promise<Summary[]>} */
export async function search(query, signal) {
  const found = (await get(`/api/trace-summaries?${query}`, signal)) ?? [];
  return found.map((/** @type {any} */ one) => ({
    id: String(one.traceID),
    service: String(one.root?.serviceName ?? ""),
    name: String(one.root?.operationName ?? ""),
    start: one.startTime,
    duration: one.duration,
    spans: one.spans,
    errors: one.errors,
    unfinished: one.unfinished,
    services: one.services ?? [],
  }));
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
export const dependencies = async (lookbackMs) => (await get(`/api/dependencies?endTs=${Date.now()}&lookback=${lookbackMs}`)) ?? [];

/**
 * Calls back when traces have arrived, at most once in `everyMs`.
 * @param {() => void} onTraces
 * @param {(connected: boolean) => void} onState
 * @param {number} everyMs
 * @returns {() => void} ends it
 */
export function live(onTraces, onState, everyMs) {
  const source = new EventSource("/api/live");
  let timer = 0;
  const arrived = () => {
    timer ||= window.setTimeout(() => {
      timer = 0;
      onTraces();
    }, everyMs);
  };
  for (const news of ["trace", "missed"]) source.addEventListener(news, arrived);
  source.addEventListener("open", () => onState(true));
  source.addEventListener("error", () => onState(false));
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
