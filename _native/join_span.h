/* SPDX-License-Identifier: Apache-2.0 */
/* What of an encoded OTLP span the join looks at. */
#ifndef K8S_TRACING_JOIN_SPAN_H
#define K8S_TRACING_JOIN_SPAN_H

#include "join_flows.h"

struct seen_span {
	uint64_t trace_id_high, trace_id_low;
	uint64_t span_id;
	uint64_t parent_span_id;
	int64_t start_ns, end_ns;
	uint8_t kind;
	struct place local, peer;
};

/* Read Span fields; false if they are none. */
bool seen_span_read(const uint8_t *at, const uint8_t *end, struct seen_span *span);

/* Whom a CLIENT span asked for, which is not where its packets went; within the span. */
struct asked {
	const uint8_t *host; /* NULL: unknown */
	size_t host_size;
	uint16_t port; /* 0: unknown */
};

/* One field of a message: where it begins, its number and wire type, and its content if it has one.
 */
struct wire_field {
	const uint8_t *at, *after;
	uint64_t tag;
	const uint8_t *body; /* of a length-delimited one */
	uint64_t size;
	uint64_t value; /* of another one */
};

/* Take the field at `*at`, which moves behind it; false at the end, or where the bytes are no
 * field. */
bool wire_take(const uint8_t **at, const uint8_t *end, struct wire_field *field);

/* By `server.*`, or else by the URL. */
void asked_read(const struct wire_field *span, struct asked *asked);

/* The `k8s.namespace.name` of a ResourceSpans' resource; false if it has none. */
bool namespace_read(const struct wire_field *resource_spans, struct wire_field *text);

/* An address as text; false, and 16 zeros, if it is none. */
bool address_read(const struct wire_field *text, uint8_t *address);

#endif
