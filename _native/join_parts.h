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

/* A virtual IP and port of Services. */
struct virtual_place {
	struct virtual_place *next; /* with the same hash */
	struct place place;
	uint64_t backends;   /* that it leads to */
	struct bytes fields; /* Span fields of its requests */
};

/* What conntrack said when it was asked for a connection. */
struct answer {
	struct place local, peer;
	struct place endpoint; /* where it is sent to; no port: nowhere else, conntrack does not
				  know it */
	int64_t asked_ns;      /* 0: free */
	int64_t began_ns;      /* 0: unknown */
	bool proves_nothing;
};

struct asking {
	int fd; /* -1: nobody can be asked */
	int64_t kept_ns;
	bool is_stamped;
	int64_t now_ns; /* of the request in hand; 0: its connections are not asked for */
	struct answer *answers;
	uint32_t number;	/* of the last question */
	int64_t second;		/* of the last question, */
	unsigned int in_second; /* and how many there were in it */
};

struct join {
	struct flows flows;
	struct recents clients, waiting;
	struct table backends; /* struct known_backend, by their endpoint */
	struct table virtuals; /* struct virtual_place */
	struct asking asking;
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

/* A backend leads on from that virtual IP, or does no longer. Return 0, or -1 without memory. */
int virtuals_add(struct join *join, const uint8_t *address, const struct backend *backend);
void virtuals_remove(struct join *join, const uint8_t *address, uint16_t port);
/* NULL: it is no Service's. */
const struct virtual_place *virtuals_get(const struct join *join, const struct place *place);
void virtuals_free(struct table *virtuals);

/* Add what the Service there says of the endpoint. Return 0, or -1 without memory. */
int join_add_endpoint(struct join *join, const struct place *virtual, const struct place *endpoint);

/* Add that nobody saw the endpoint chosen, and count it. Return 0, or -1 without memory. */
int join_add_decision(struct join *join);

int asking_init(struct asking *asking);

/*
 * A CLIENT span that is connected to a virtual IP, by a connection that no flow tells of: conntrack
 * is asked for it. Return 0, or -1 without memory.
 */
int join_asked(struct join *join, const struct seen_span *span, const struct wire_field *field);

/* Copy the request, with all that was added to its spans. Return 0, or -1 without memory. */
int join_copy_request(struct join *join, const uint8_t *at, const uint8_t *end);

#endif
