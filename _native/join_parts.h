/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the join share. */
#ifndef K8S_TRACING_JOIN_PARTS_H
#define K8S_TRACING_JOIN_PARTS_H

#include "join_span.h"

#define SECOND_NS INT64_C(1000000000)

/* A CLIENT span that was seen, or the parent that a SERVER span waits for. */
struct recent {
	uint64_t span_id; /* 0: free */
	uint64_t trace_id_high, trace_id_low;
	int64_t start_ns, end_ns;
	uint64_t serial; /* of the flow that waits for it */
};

struct recents {
	struct recent *ring;
	struct table by_id;
	size_t next;
};

/* Fields to add to a span of the request. */
struct addition {
	const uint8_t *span; /* its content */
	size_t at, size;     /* in `added` */
};

struct join {
	struct flows flows;
	struct recents clients, waiting;
	struct table backends; /* struct known_backend, by their endpoint */
	struct bytes added;
	struct bytes additions; /* struct addition, in the order of the request */
	struct bytes made;	/* ResourceSpans fields of the Services' own spans */
	uint64_t made_spans;
	struct bytes scope_spans, resource_spans, result;
	struct join_stats stats;
	uint64_t random;
	int64_t latest_ns;
};

/* Make the Service's span of a flow, below that span if it is not 0. Return 0, or -1 without
 * memory. */
int join_make_span(struct join *join, const struct known_flow *known, uint64_t parent_span_id);

/*
 * Note what was added for a span whose content that is: from `at` to the end of `added`. Return 0,
 * or -1 without memory.
 */
int join_note(struct join *join, const uint8_t *content, size_t at);

/*
 * A CLIENT span in these ResourceSpans whose connection no conntrack told of: it is said if its
 * endpoint was chosen elsewhere. Return 0, or -1 without memory.
 */
int join_unobserved(struct join *join, const struct seen_span *span, const struct wire_field *field,
		    const struct wire_field *resource_spans);
void backends_free(struct table *backends);

/* Copy the request, with all that was added to its spans. Return 0, or -1 without memory. */
int join_copy_request(struct join *join, const uint8_t *at, const uint8_t *end);

#endif
