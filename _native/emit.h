/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain C functions that fire the tracepoints of tracepoints.h, and the process's identity that
 * goes with them.
 *
 * They live in the provider's shared object, which is loaded at run time and is the only thing here
 * that needs liblttng-ust. The extension module finds them through `k8s_tracing_provider`, Python
 * through lttng.cdef.txt.
 *
 * Calls that take a span must not run at the same time as one another (the GIL sees to it): a lock
 * would cost as much as the tracepoint.
 */
#ifndef K8S_TRACING_EMIT_H
#define K8S_TRACING_EMIT_H

#include <stdint.h>

/* Changes when a struct below does: the extension and the provider may come from different builds.
 */
#define K8S_TRACING_PROVIDER_ABI 1

/*
 * Times are nanoseconds since the Unix epoch; 0 stands for "now", the event's own time.
 * Attributes are OTLP fields, followed by zeros up to the next multiple of K8S_TRACING_WORD bytes.
 */
#define K8S_TRACING_WORD 8

struct k8s_tracing_start {
	uint64_t trace_id_high;
	uint64_t trace_id_low;
	uint64_t span_id;
	uint64_t parent_span_id; /* 0: none */
	int64_t start_time_ns;
	const char *name;
	uint16_t scope_id;
	uint8_t kind;  /* OTLP's SpanKind: 1 internal, 2 server, 3 client, 4 producer, 5 consumer */
	uint8_t flags; /* W3C trace flags */
};

struct k8s_tracing_end {
	uint64_t trace_id_low;
	uint64_t span_id;
	int64_t end_time_ns;
	const char *name; /* the new name of a span that was renamed, else "" */
	const char *status_message;
	const uint8_t *attributes; /* OTLP Span fields */
	uint32_t attributes_size;
	uint16_t dropped_attributes;
	uint16_t dropped_events;
	uint16_t dropped_links;
	uint8_t status; /* OTLP's StatusCode: 0 unset, 1 ok, 2 error */
};

struct k8s_tracing_event {
	uint64_t span_id;
	int64_t time_ns;
	const char *name;
	const uint8_t *attributes; /* OTLP Span.Event fields */
	uint32_t attributes_size;
	uint16_t dropped_attributes;
};

struct k8s_tracing_link {
	uint64_t span_id;
	uint64_t linked_trace_id_high;
	uint64_t linked_trace_id_low;
	uint64_t linked_span_id;
	const uint8_t *attributes; /* OTLP Span.Link fields */
	uint32_t attributes_size;
	uint16_t dropped_attributes;
	uint8_t flags;
};

struct k8s_tracing_provider {
	uint32_t abi;
	int (*recording)(void);
	void (*start_span)(const struct k8s_tracing_start *start);
	void (*end_span)(const struct k8s_tracing_end *end);
	void (*span_event)(const struct k8s_tracing_event *event);
	void (*span_link)(const struct k8s_tracing_link *link);
};

extern const struct k8s_tracing_provider k8s_tracing_provider;

/* Is a session recording our spans? A load and a branch. */
int k8s_tracing_recording(void);

/* To be called only while k8s_tracing_recording(), which whoever makes a span has asked anyway. */
void k8s_tracing_start_span(const struct k8s_tracing_start *start);
void k8s_tracing_end_span(const struct k8s_tracing_end *end);
void k8s_tracing_span_event(const struct k8s_tracing_event *event);
void k8s_tracing_span_link(const struct k8s_tracing_link *link);

/*
 * Who records: sent now, when a session starts recording, and at least every 10 s while spans flow,
 * so that whoever reads from the middle still learns it. The bytes (OTLP Resource fields) are
 * copied. Return 0, or -1 without memory.
 */
int k8s_tracing_set_process(uint64_t instance_id, const uint8_t *resource, uint32_t size);
int k8s_tracing_add_scope(uint16_t scope_id, const char *name, const char *version);

/*
 * LTTng is told of a fork (lttng/ust-fork.h) from within fork() itself: its locks are held
 * meanwhile, and a thread that got the GIL in between would wait for one of them with its first
 * event, for ever. To be called once; 0 or an error number.
 */
int k8s_tracing_handle_forks(void);
/* And only of one that this thread said would follow: a child that execs another program at once is
 * none of LTTng's. */
void k8s_tracing_fork_follows(void);

#endif
