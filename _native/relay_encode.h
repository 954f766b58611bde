/* SPDX-License-Identifier: Apache-2.0 */
/* One span: what its events said, and the OTLP Span made of it. */
#ifndef K8S_TRACING_RELAY_ENCODE_H
#define K8S_TRACING_RELAY_ENCODE_H

#include <stdbool.h>

#include "emit.h"
#include "relay_bytes.h"
#include "relay_cpu.h"

struct process;
struct span_list;

/* A span that is handed out has ended, or why it is handed out all the same. */
enum span_end {
	SPAN_OPEN,
	SPAN_ENDED,
	SPAN_UNFINISHED,
	SPAN_PROCESS_GONE,
};

struct span {
	struct span *previous, *next;
	struct span_list *list;
	struct process *process; /* NULL: not started */
	uint64_t trace_id_high;
	uint64_t trace_id_low;
	uint64_t span_id;
	uint64_t parent_span_id;
	int64_t start_ns;
	int64_t end_ns;
	int64_t ended_at_ns;   /* when the end was recorded, whatever time it gives */
	int64_t started_at_ns; /* when the start was recorded */
	int64_t since_ns;    /* by the relay's clock: when it started, then when it was reported */
	uint64_t chunk;	     /* where the first of its events was, then where it was complete */
	struct bytes fields; /* Span fields of any size: name, attributes, events, links, status */
	uint32_t name_at;    /* the name's field in `fields` */
	uint32_t name_size;  /* 0: none yet */
	uint64_t last_event_ns;
	uint64_t lost_events; /* to be handed out with */
	uint32_t details;     /* events and links seen */
	uint32_t dropped_attributes;
	uint32_t dropped_events;
	uint32_t dropped_links;
	uint16_t scope_id;
	uint8_t kind;
	uint8_t flags;
	enum span_end end;
	bool renamed;
	bool events_disordered;
	struct span_cpu cpu;
};

/* Take down what an event says. Return 0, or -1 without memory. */
int encode_start(struct span *span, const struct k8s_tracing_start *start, int64_t now_ns);
int encode_end(struct span *span, const struct k8s_tracing_end *end, int64_t now_ns);
int encode_event(struct span *span, const struct k8s_tracing_event *event, int64_t now_ns);
int encode_link(struct span *span, const struct k8s_tracing_link *link);

/* Are the bytes of a span that somebody else has put together such as are written here? */
bool encode_wrote(const struct span *span);

/* Write the Span fields of it all. Return 0, or -1 without memory. */
int encode_span(struct bytes *to, struct span *span);

#endif
