/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished spans, encoded, and the requests made of them.
 *
 * A span is encoded once, into the bytes of its scope. It stays there while its process or its
 * scope was not announced, until that happens or until it has waited long enough.
 */
#ifndef K8S_TRACING_RELAY_OUTPUT_H
#define K8S_TRACING_RELAY_OUTPUT_H

#include "relay.h"
#include "relay_process.h"

struct request {
	struct request *next;
	struct bytes bytes;
	uint64_t spans;
};

struct output {
	struct processes processes;
	struct process *pending;       /* the processes that have spans in no request yet */
	uint64_t pending_bytes;	       /* of these spans */
	uint64_t ready_bytes;	       /* of those that do not wait */
	struct request *first, **last; /* full ones, in order */
	struct request *handed;	       /* the one that the caller reads */
	struct bytes scratch;
	struct bytes spare; /* a request's that was handed out, for the next one */
	const struct relay_clock *clock;
	const struct relay_options *options;
	struct relay_stats *stats;
};

/* Functions that return an int return 0, or -1 without memory. */
int output_init(struct output *output, const struct relay_clock *clock,
		const struct relay_options *options, struct relay_stats *stats);
void output_free(struct output *output);

/* What `process` and `scope` events say. The resource is Resource fields that were checked. */
int output_process(struct output *output, uint64_t instance_id, const struct relay_origin *origin,
		   const uint8_t *resource, size_t size, int64_t now_ns);
int output_scope(struct output *output, uint64_t instance_id, uint16_t scope_id, const char *name,
		 const char *version, int64_t now_ns);

/* The resource of a process is this one; NULL: what it announced. */
int output_identify(struct output *output, struct process *process, const uint8_t *resource,
		    size_t size);

/* Add a finished span (Span fields); if it fills a request, make that. */
int output_add(struct output *output, struct process *process, uint16_t scope_id,
	       const struct bytes *span);

/* A saved state's process, with what waits in its scopes, was added. Return -1 if that is not what
 * it says it is. */
int output_restored(struct output *output, struct process *process);

/* Make requests of all that can go out, and of what has waited for that long. */
int output_flush(struct output *output, int64_t wait_ns);

/* The next request, valid until the next call: 1, or 0 when there is none. */
int output_take(struct output *output, struct relay_request *request);

#endif
