// SPDX-License-Identifier: Apache-2.0
/** The form of the search page; the URL's parameters are its content. */

import * as api from "./api.js";
import { el } from "./dom.js";
import { parseDuration } from "./format.js";
import { formatTags, parseTags } from "./tags.js";

const LOOKBACKS = {
  "5m": "5 minutes",
  "15m": "15 minutes",
  "1h": "hour",
  "3h": "3 hours",
  "12h": "12 hours",
  "1d": "day",
  "2d": "2 days",
  "7d": "week",
};

/** @param {string} name @param {string} label @param {HTMLElement} input @param {string} [hint] */
function field(name, label, input, hint) {
  input.id = `field-${name}`;
  input.setAttribute("name", name);
  const error = el("span", { className: "field-error", id: `error-${name}`, role: "alert" });
  input.setAttribute("aria-describedby", error.id);
  return el(
    "div",
    { className: "field" },
    el("label", { htmlFor: input.id }, label, hint ? el("span", { className: "hint" }, hint) : null),
    input,
    error,
  );
}

/** @param {[string, string][]} options @param {string} chosen */
function choice(options, chosen) {
  const select = el("select", {}, ...options.map(([value, label]) => el("option", { value }, label)));
  select.value = chosen;
  return select;
}

/** `datetime-local` knows no zone: it is the reader's. @param {string | null} us */
const toLocal = (us) => {
  if (!us || !Number.isFinite(Number(us))) return "";
  const date = new Date(Number(us) / 1000);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
};
/** @param {string} local */
const fromLocal = (local) => String(new Date(local).getTime() * 1000);

/** @param {string | null} json */
function tagsText(json) {
  try {
    return json ? formatTags(JSON.parse(json)) : "";
  } catch {
    return json ?? "";
  }
}

/**
 * @param {URLSearchParams} params
 * @param {(next: URLSearchParams) => void} onSearch
 * @returns {Promise<HTMLElement>}
 */
export async function searchForm(params, onSearch) {
  const service = el("select");
  const operation = el("select");
  const tags = el("input", {
    value: tagsText(params.get("tags")),
    placeholder: "error=true http.route=/dispatch",
    autocomplete: "off",
    spellcheck: "false",
  });
  const least = el("input", {
    value: params.get("minDuration") ?? "",
    placeholder: "1.2s, 100ms",
    autocomplete: "off",
  });
  const most = el("input", {
    value: params.get("maxDuration") ?? "",
    placeholder: "1.2s, 100ms",
    autocomplete: "off",
  });
  const lookback = choice(
    [
      ...Object.entries(LOOKBACKS).map(
        ([value, label]) => /** @type {[string, string]} */ ([value, `Last ${label}`]),
      ),
      ["custom", "Custom range"],
    ],
    params.get("lookback") ?? "1h",
  );
  if (!lookback.value) lookback.value = "1h";
  const start = el("input", { type: "datetime-local", step: "1", value: toLocal(params.get("start")) });
  const end = el("input", { type: "datetime-local", step: "1", value: toLocal(params.get("end")) });
  const limit = el("input", { type: "number", min: "1", max: "1500", value: params.get("limit") ?? "20" });
  const range = el("div", { className: "pair" }, field("start", "From", start), field("end", "To", end));

  const fillOperations = async () => {
    const names = service.value ? await api.operations(service.value).catch(() => []) : [];
    const before = operation.value || (params.get("operation") ?? "");
    operation.replaceChildren(
      el("option", { value: "" }, "all"),
      ...[...names].sort().map((name) => el("option", { value: name }, name)),
    );
    operation.value = names.includes(before) ? before : "";
    operation.disabled = !service.value;
  };
  const names = await api.services().catch(() => /** @type {string[]} */ ([]));
  const wanted = params.get("service") ?? "";
  if (wanted && !names.includes(wanted)) names.push(wanted);
  service.append(
    el("option", { value: "" }, "all services"),
    ...[...names].sort().map((name) => el("option", { value: name }, name)),
  );
  service.value = wanted;
  service.addEventListener("change", () => {
    operation.value = "";
    void fillOperations();
  });
  await fillOperations();
  const onLookback = () => {
    range.hidden = lookback.value !== "custom";
    if (!range.hidden && !start.value)
      [start.value, end.value] = [
        toLocal(String((Date.now() - 3600e3) * 1000)),
        toLocal(String(Date.now() * 1000)),
      ];
  };
  lookback.addEventListener("change", onLookback);
  onLookback();

  /** @param {HTMLElement} input @param {string} message */
  const complain = (input, message) => {
    const place = form.querySelector(`#error-${input.getAttribute("name")}`);
    if (place) place.textContent = message;
    input.setAttribute("aria-invalid", String(Boolean(message)));
    if (message) input.focus();
    return Boolean(message);
  };
  const read = () => {
    const next = new URLSearchParams();
    if (service.value) next.set("service", service.value);
    if (operation.value) next.set("operation", operation.value);
    try {
      const parsed = parseTags(tags.value);
      if (Object.keys(parsed).length) next.set("tags", JSON.stringify(parsed));
      complain(tags, "");
    } catch (error) {
      return complain(tags, /** @type {Error} */ (error).message) ? null : null;
    }
    for (const input of [least, most]) {
      const text = input.value.trim();
      if (complain(input, text && Number.isNaN(parseDuration(text)) ? "Write 1.2s, 100ms or 500us." : ""))
        return null;
      if (text) next.set(input.name, text.replace(/\s+/g, ""));
    }
    next.set("lookback", lookback.value);
    if (lookback.value === "custom") {
      if (
        complain(start, start.value ? "" : "Give a time.") ||
        complain(end, end.value ? "" : "Give a time.")
      )
        return null;
      next.set("start", fromLocal(start.value));
      next.set("end", fromLocal(end.value));
    }
    next.set("limit", limit.value || "20");
    return next;
  };

  const form = el(
    "form",
    {
      className: "search-form",
      "aria-label": "Find traces",
      noValidate: true,
      onSubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        const next = read();
        if (next) onSearch(next);
      },
    },
    field("service", "Service", service, ` (${names.length})`),
    field("operation", "Operation", operation),
    field("tags", "Tags", tags, " key=value, in any span"),
    field("lookback", "Time", lookback),
    range,
    el(
      "div",
      { className: "pair" },
      field("minDuration", "Min duration", least),
      field("maxDuration", "Max duration", most),
    ),
    field("limit", "Limit of results", limit),
    el("button", { type: "submit", className: "primary" }, "Find traces"),
  );
  // On a narrow screen the form would hide what it finds.
  const wide = matchMedia("(min-width: 800px)").matches;
  return el("details", { className: "side", open: wide }, el("summary", {}, "Find traces"), form);
}
