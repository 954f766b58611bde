// SPDX-License-Identifier: Apache-2.0
#include "relay_encode.h"

#include "otlp.h"
#include "relay_validate.h"

#define TEXT_MAX 16384 /* bytes of a name or a status message that are kept */
#define FIELDS_MAX \
	(1024 * 1024) /* bytes of a span; what comes after is dropped, and counted in the span */

#define KIND_LAST 5   /* consumer */
#define STATUS_LAST 2 /* error */

/* Tag of field 16, fixed32: the one that takes two bytes. */
static const uint8_t span_flags_tag[2] = {0x85, 0x01};

/* The attribute k8s_tracing.unfinished=true, as a Span field. */
static const uint8_t unfinished_attribute[] =
	"\x4a\x1c\x0a\x16k8s_tracing.unfinished\x12\x02\x10\x01";

/* The head of the attribute k8s_tracing.lost_events, a KeyValue whose value follows. */
static const uint8_t lost_events_key[] = "\x0a\x17k8s_tracing.lost_events";

/* The status of one that cannot end any more: error, and this message. */
static const uint8_t gone_status[] = "\x7a\x27\x12\x23process ended before the span ended\x18\x02";

#define FIXED_FIELDS_MAX 320 /* bytes of a span's fields of fixed size, with room to spare */

static size_t text_size(const char *text)
{
	return strnlen(text, TEXT_MAX);
}

/* A length-delimited field of a text that may be anything. */
static uint8_t *put_text(uint8_t *at, uint8_t tag, const char *text)
{
	size_t size = text_size(text);

	if (!utf8_valid((const uint8_t *)text, size)) {
		uint8_t repaired[UTF8_REPAIRED_MAX(TEXT_MAX)];

		size = utf8_copy_repaired(repaired, (const uint8_t *)text, size);
		return put_length_field(at, tag, repaired, size);
	}
	return put_length_field(at, tag, text, size);
}

static size_t text_field_max(const char *text)
{
	return 1 + LENGTH_MAX + UTF8_REPAIRED_MAX(text_size(text));
}

static uint8_t *put_fixed32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	return put_bytes(at, &value, sizeof(value));
}

static int encode_name(struct span *span, const char *name)
{
	size_t start = span->fields.size;
	uint8_t *at = bytes_extend(&span->fields, text_field_max(name));

	if (!at)
		return -1;
	bytes_end_at(&span->fields, put_text(at, OTLP_SPAN_NAME, name));
	span->name_at = start;
	span->name_size = span->fields.size - start;
	return 0;
}

/* Take the start's name out, for the end has another one. */
static void forget_name(struct span *span)
{
	size_t behind = span->fields.size - span->name_at - span->name_size;
	uint8_t *at;

	if (!span->name_size)
		return;
	at = span->fields.data + span->name_at;
	memmove(at, at + span->name_size, behind);
	span->fields.size -= span->name_size;
}

int encode_start(struct span *span, const struct k8s_tracing_start *start, int64_t now_ns)
{
	span->trace_id_high = start->trace_id_high;
	span->trace_id_low = start->trace_id_low;
	span->parent_span_id = start->parent_span_id;
	span->start_ns = start->start_time_ns > 0 ? start->start_time_ns : now_ns;
	span->scope_id = start->scope_id;
	span->kind = start->kind <= KIND_LAST ? start->kind : 0;
	span->flags = start->flags;
	return span->renamed ? 0 : encode_name(span, start->name);
}

static uint8_t *put_status(uint8_t *at, uint8_t status, const char *message)
{
	uint8_t body[1 + LENGTH_MAX + UTF8_REPAIRED_MAX(TEXT_MAX) + 2];
	uint8_t *end = body;

	if (status == 0 || status > STATUS_LAST)
		return at;
	if (*message)
		end = put_text(end, OTLP_STATUS_MESSAGE, message);
	end = put_count(end, OTLP_STATUS_CODE, status);
	return put_length_field(at, OTLP_SPAN_STATUS, body, end - body);
}

static bool fits(const struct span *span, size_t size)
{
	return span->fields.size + size <= FIELDS_MAX;
}

int encode_end(struct span *span, const struct k8s_tracing_end *end, int64_t now_ns)
{
	uint32_t attributes_size = fits(span, end->attributes_size) ? end->attributes_size : 0;
	uint8_t *at;

	span->end = SPAN_ENDED;
	span->ended_at_ns = now_ns;
	span->trace_id_low = end->trace_id_low;
	span->end_ns = end->end_time_ns > 0 ? end->end_time_ns : now_ns;
	span->dropped_attributes += end->dropped_attributes;
	span->dropped_attributes += attributes_size < end->attributes_size;
	span->dropped_events += end->dropped_events;
	span->dropped_links += end->dropped_links;
	if (*end->name) {
		forget_name(span);
		span->renamed = true;
		if (encode_name(span, end->name) < 0)
			return -1;
	}
	at = bytes_extend(&span->fields, attributes_size + text_field_max(end->status_message) + 1 +
						 LENGTH_MAX + 2);
	if (!at)
		return -1;
	at = put_bytes(at, end->attributes, attributes_size);
	bytes_end_at(&span->fields, put_status(at, end->status, end->status_message));
	return 0;
}

/* Write a field of a message whose size is not known before: the body first, then it moves behind
 * its length. */
static uint8_t *close_field(uint8_t *field, uint8_t *body, uint8_t tag, const uint8_t *end)
{
	size_t size = end - body;
	uint8_t *at = put_length(field, tag, size);

	memmove(at, body, size);
	return at + size;
}

int encode_event(struct span *span, const struct k8s_tracing_event *event, int64_t now_ns)
{
	size_t size = 1 + LENGTH_MAX + 9 + text_field_max(event->name) + event->attributes_size +
		      1 + LENGTH_MAX;
	uint64_t time_ns = event->time_ns > 0 ? event->time_ns : now_ns;
	uint8_t *field, *body, *at;

	if (!fits(span, size)) {
		span->dropped_events++;
		return 0;
	}
	field = bytes_extend(&span->fields, size);
	if (!field)
		return -1;
	body = field + 1 + LENGTH_MAX;
	at = put_fixed64(body, OTLP_EVENT_TIME, time_ns);
	at = put_text(at, OTLP_EVENT_NAME, event->name);
	at = put_bytes(at, event->attributes, event->attributes_size);
	at = put_count(at, OTLP_EVENT_DROPPED_ATTRIBUTES, event->dropped_attributes);
	bytes_end_at(&span->fields, close_field(field, body, OTLP_SPAN_EVENTS, at));
	if (time_ns < span->last_event_ns)
		span->events_disordered = true;
	span->last_event_ns = time_ns;
	return 0;
}

int encode_link(struct span *span, const struct k8s_tracing_link *link)
{
	size_t size = 1 + LENGTH_MAX + 18 + 10 + link->attributes_size + 1 + LENGTH_MAX + 5;
	uint8_t *field, *body, *at;

	if (!fits(span, size)) {
		span->dropped_links++;
		return 0;
	}
	field = bytes_extend(&span->fields, size);
	if (!field)
		return -1;
	body = field + 1 + LENGTH_MAX;
	at = put_length(body, OTLP_LINK_TRACE_ID, 16);
	at = put_id(put_id(at, link->linked_trace_id_high), link->linked_trace_id_low);
	at = put_id(put_length(at, OTLP_LINK_SPAN_ID, 8), link->linked_span_id);
	at = put_bytes(at, link->attributes, link->attributes_size);
	at = put_count(at, OTLP_LINK_DROPPED_ATTRIBUTES, link->dropped_attributes);
	*at++ = OTLP_LINK_FLAGS;
	at = put_fixed32(at, link->flags);
	bytes_end_at(&span->fields, close_field(field, body, OTLP_SPAN_LINKS, at));
	return 0;
}

struct field {
	uint64_t time_ns;
	const uint8_t *at;
	size_t size;
};

/* The field that stands there, written by us or checked: tags of one byte, all length-delimited. */
static struct field field_at(const uint8_t *at)
{
	uint64_t size;
	const uint8_t *body = take_length(at + 1, &size);
	struct field field = {.at = at, .size = body + size - at};

	if (*at == OTLP_SPAN_EVENTS) {
		memcpy(&field.time_ns, body + 1, sizeof(field.time_ns));
		field.time_ns = le64toh(field.time_ns);
	}
	return field;
}

/* The end of the field of ours that stands there; NULL if it is none, whatever the bytes are. */
static const uint8_t *checked_field_end(const uint8_t *at, const uint8_t *end)
{
	static const uint8_t tags[] = {OTLP_SPAN_NAME,	      OTLP_SPAN_ATTRIBUTES,
				       OTLP_SPAN_TRACE_STATE, OTLP_SPAN_EVENTS,
				       OTLP_SPAN_LINKS,	      OTLP_SPAN_STATUS};
	uint64_t size;
	const uint8_t *body = take_length_within(at + 1, end, &size);

	if (!body || !memchr(tags, *at, sizeof(tags)))
		return NULL;
	if (*at == OTLP_SPAN_EVENTS && (size < 9 || *body != OTLP_EVENT_TIME))
		return NULL;
	return body + size;
}

bool encode_wrote(const struct span *span)
{
	const uint8_t *start = span->fields.data;
	const uint8_t *end = start + span->fields.size;
	bool named = !span->name_size;
	const uint8_t *next;

	for (const uint8_t *at = start; at < end; at = next) {
		next = checked_field_end(at, end);
		if (!next)
			return false;
		named |= *at == OTLP_SPAN_NAME && at - start == span->name_at &&
			 next - at == span->name_size;
	}
	return named;
}

static int by_time(const void *a, const void *b)
{
	const struct field *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	return x->at < y->at ? -1 : 1; /* keep the order of what comes at the same time */
}

/* Copy the fields so that the span events stand in the order of time. */
static int put_sorted(uint8_t *to, const struct span *span)
{
	const uint8_t *end = span->fields.data + span->fields.size;
	struct bytes fields = {0};
	size_t count;

	for (const uint8_t *at = span->fields.data; at < end;) {
		struct field field = field_at(at);
		uint8_t *slot = bytes_extend(&fields, sizeof(field));

		if (!slot) {
			bytes_free(&fields);
			return -1;
		}
		memcpy(slot, &field, sizeof(field));
		at += field.size;
	}
	count = fields.size / sizeof(struct field);
	qsort(fields.data, count, sizeof(struct field), by_time);
	for (size_t i = 0; i < count; i++) {
		const struct field *field = (const struct field *)fields.data + i;

		to = put_bytes(to, field->at, field->size);
	}
	bytes_free(&fields);
	return 0;
}

static uint8_t *put_lost_events(uint8_t *at, uint64_t count)
{
	size_t key = sizeof(lost_events_key) - 1;
	size_t value = 1 + varint_size(count);

	at = put_length(at, OTLP_SPAN_ATTRIBUTES, key + length_field_size(value));
	at = put_bytes(at, lost_events_key, key);
	at = put_length(at, OTLP_VALUE, value);
	return put_count(at, OTLP_INT_VALUE, count);
}

static uint8_t *put_fixed_fields(uint8_t *at, const struct span *span)
{
	int64_t end_ns = span->end_ns > span->start_ns ? span->end_ns : span->start_ns;

	at = put_length(at, OTLP_SPAN_TRACE_ID, 16);
	at = put_id(put_id(at, span->trace_id_high), span->trace_id_low);
	at = put_id(put_length(at, OTLP_SPAN_SPAN_ID, 8), span->span_id);
	if (span->parent_span_id)
		at = put_id(put_length(at, OTLP_SPAN_PARENT_SPAN_ID, 8), span->parent_span_id);
	at = put_count(at, OTLP_SPAN_KIND, span->kind);
	at = put_fixed64(at, OTLP_SPAN_START_TIME, span->start_ns);
	at = put_fixed64(at, OTLP_SPAN_END_TIME, end_ns);
	if (span->end != SPAN_ENDED)
		at = put_bytes(at, unfinished_attribute, sizeof(unfinished_attribute) - 1);
	if (span->lost_events)
		at = put_lost_events(at, span->lost_events);
	if (span->end == SPAN_PROCESS_GONE)
		at = put_bytes(at, gone_status, sizeof(gone_status) - 1);
	at = put_count(at, OTLP_SPAN_DROPPED_ATTRIBUTES, span->dropped_attributes);
	at = put_count(at, OTLP_SPAN_DROPPED_EVENTS, span->dropped_events);
	at = put_count(at, OTLP_SPAN_DROPPED_LINKS, span->dropped_links);
	at = put_bytes(at, span_flags_tag, sizeof(span_flags_tag));
	return put_fixed32(at, span->flags);
}

int encode_span(struct bytes *to, struct span *span)
{
	uint8_t *at;

	to->size = 0;
	at = bytes_extend(to, FIXED_FIELDS_MAX + span->fields.size);
	if (!at)
		return -1;
	at = put_fixed_fields(at, span);
	if (!span->events_disordered)
		put_bytes(at, span->fields.data, span->fields.size);
	else if (put_sorted(at, span) < 0)
		return -1;
	bytes_end_at(to, at + span->fields.size);
	return 0;
}
