/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LTTng-UST provider "k8s_tracing": what an application records and what the relay reads.
 *
 * A span is two events, so that what was running when a process was killed is known from the first.
 * Byte sequences named "attributes" and "resource" hold OTLP protobuf fields exactly as they stand
 * in the message they end up in (see otlp.h): the relay checks them and copies them, nobody decodes
 * them.
 *
 * trace_id_high/low, span_id, parent_span_id and op_name are the names that Trace Compass reads.
 */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER k8s_tracing

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./tracepoints.h"

#if !defined(K8S_TRACING_TRACEPOINTS_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define K8S_TRACING_TRACEPOINTS_H

#include <lttng/tracepoint.h>
#include <stdint.h>

#include "emit.h"

/*
 * OTLP bytes go as 64-bit words: babeltrace2 decodes a sequence element by element, at 37 ns each
 * (docs/decisions.md). The last word is filled up with zeros, which no protobuf field begins with.
 */
#define K8S_TRACING_OTLP_BYTES(field, bytes, size)                                         \
	lttng_ust_field_sequence_hex(uint64_t, field, (const uint64_t *)(bytes), uint32_t, \
				     ((size) + 7) / 8)

/* clang-format off */
LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, start_span,
	LTTNG_UST_TP_ARGS(const struct k8s_tracing_start *, s, uint64_t, instance),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, trace_id_high, s->trace_id_high)
		lttng_ust_field_integer_hex(uint64_t, trace_id_low, s->trace_id_low)
		lttng_ust_field_integer_hex(uint64_t, span_id, s->span_id)
		lttng_ust_field_integer_hex(uint64_t, parent_span_id, s->parent_span_id)
		lttng_ust_field_integer_hex(uint64_t, instance_id, instance)
		lttng_ust_field_integer(int64_t, start_time, s->start_time_ns)
		lttng_ust_field_integer(uint16_t, scope_id, s->scope_id)
		lttng_ust_field_integer(uint8_t, kind, s->kind)
		lttng_ust_field_integer_hex(uint8_t, flags, s->flags)
		lttng_ust_field_string(op_name, s->name)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, end_span,
	LTTNG_UST_TP_ARGS(const struct k8s_tracing_end *, e),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, trace_id_low, e->trace_id_low)
		lttng_ust_field_integer_hex(uint64_t, span_id, e->span_id)
		lttng_ust_field_integer(int64_t, end_time, e->end_time_ns)
		lttng_ust_field_integer(uint8_t, status, e->status)
		lttng_ust_field_integer(uint16_t, dropped_attributes, e->dropped_attributes)
		lttng_ust_field_integer(uint16_t, dropped_events, e->dropped_events)
		lttng_ust_field_integer(uint16_t, dropped_links, e->dropped_links)
		lttng_ust_field_string(op_name, e->name)
		lttng_ust_field_string(status_message, e->status_message)
		K8S_TRACING_OTLP_BYTES(attributes, e->attributes, e->attributes_size)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, span_event,
	LTTNG_UST_TP_ARGS(const struct k8s_tracing_event *, e),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, span_id, e->span_id)
		lttng_ust_field_integer(int64_t, time, e->time_ns)
		lttng_ust_field_integer(uint16_t, dropped_attributes, e->dropped_attributes)
		lttng_ust_field_string(name, e->name)
		K8S_TRACING_OTLP_BYTES(attributes, e->attributes, e->attributes_size)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, span_link,
	LTTNG_UST_TP_ARGS(const struct k8s_tracing_link *, l),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, span_id, l->span_id)
		lttng_ust_field_integer_hex(uint64_t, linked_trace_id_high, l->linked_trace_id_high)
		lttng_ust_field_integer_hex(uint64_t, linked_trace_id_low, l->linked_trace_id_low)
		lttng_ust_field_integer_hex(uint64_t, linked_span_id, l->linked_span_id)
		lttng_ust_field_integer_hex(uint8_t, flags, l->flags)
		lttng_ust_field_integer(uint16_t, dropped_attributes, l->dropped_attributes)
		K8S_TRACING_OTLP_BYTES(attributes, l->attributes, l->attributes_size)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, process,
	LTTNG_UST_TP_ARGS(uint64_t, instance, int32_t, process_id, const uint8_t *, bytes, uint32_t, size),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, instance_id, instance)
		lttng_ust_field_integer(int32_t, pid, process_id)
		K8S_TRACING_OTLP_BYTES(resource, bytes, size)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	k8s_tracing, scope,
	LTTNG_UST_TP_ARGS(uint64_t, instance, uint16_t, id, const char *, scope_name, const char *, scope_version),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer_hex(uint64_t, instance_id, instance)
		lttng_ust_field_integer(uint16_t, scope_id, id)
		lttng_ust_field_string(name, scope_name)
		lttng_ust_field_string(version, scope_version)
	)
)
/* clang-format on */

#endif /* K8S_TRACING_TRACEPOINTS_H */

#include <lttng/tracepoint-event.h>
