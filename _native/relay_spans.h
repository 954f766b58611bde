/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pairing of the events of a span, by its id, whatever order they come in.
 *
 * Within one trace folder events come in the order of time. Between folders, and from one chunk to
 * the next, they need not: a rotation visits the buffers of the CPUs one after another, so what
 * happened about then may be found in either chunk. Hence what comes without a start waits for two
 * more chunks, and spans that ended about the time of a rotation wait for one more chunk before
 * they go out, for the sake of their span events and links.
 */
#ifndef K8S_TRACING_RELAY_SPANS_H
#define K8S_TRACING_RELAY_SPANS_H

#include "emit.h"
#include "relay_clock.h"
#include "relay_gaps.h"
#include "relay_output.h"
#include "relay_pool.h"

struct spans {
	struct pool pool;
	struct span_list open;	   /* started, not ended; oldest first, like all of these */
	struct span_list orphans;  /* not started yet */
	struct span_list finished; /* in this folder */
	struct span_list held;	   /* until the next chunk was read */
	struct span_list reported; /* open, and handed out as unfinished; the longest ago first */
	uint64_t chunk;		   /* the number of the one that is read */
	int64_t first_ns;	   /* the first time seen in this folder; 0: none yet */
	int64_t last_ns;	   /* the latest */
	bool processes_gone;	   /* some are, since the last chunk */
	struct bytes buffers_name; /* of this folder's buffers, and */
	uint64_t buffers;	   /* the key of that */
	struct gaps gaps;
	struct cpu cpu;
	struct bytes scratch;
	struct output *output;
	const struct relay_clock *clock;
	const struct relay_options *options;
	struct relay_stats *stats;
};

/* Functions that return an int return 0, or -1 without memory. */
int spans_init(struct spans *spans, struct output *output, const struct relay_clock *clock,
	       const struct relay_options *options, struct relay_stats *stats);
void spans_free(struct spans *spans);

/* A trace folder begins; its buffers are known by that name. */
int spans_begin_folder(struct spans *spans, const char *buffers);

/* The events. Bytes named attributes must have been checked; `now_ns` is the event's own time.
 * `moment` is what it takes to tell the span what its thread did; NULL: it is not told. */
int spans_start(struct spans *spans, const struct k8s_tracing_start *start, uint64_t instance_id,
		int64_t now_ns, const struct cpu_moment *moment);
int spans_end(struct spans *spans, const struct k8s_tracing_end *end, int64_t now_ns,
	      const struct cpu_moment *moment);
int spans_event(struct spans *spans, const struct k8s_tracing_event *event, int64_t now_ns);
int spans_link(struct spans *spans, const struct k8s_tracing_link *link, int64_t now_ns);

/* Nothing in this folder will be older than that. */
void spans_see(struct spans *spans, int64_t now_ns);

/* LTTng lost so many events of this folder's (0: it does not know how many), at some time between
 * these two; the second is `until` by the trace's clock. What was running then is marked, and not
 * told what its thread did. */
void spans_lost(struct spans *spans, uint64_t events, int64_t begin_ns, int64_t end_ns,
		uint64_t until);

/* A trace folder, or all folders of a chunk, were read to their end. */
int spans_end_folder(struct spans *spans);
int spans_end_chunk(struct spans *spans);

/* The process has ended, and no chunk after the next one has anything of it. */
void spans_process_gone(struct spans *spans, struct process *process);

/* Hand out all that is finished; if asked, report what is open as unfinished and drop what never
 * started. */
int spans_finish(struct spans *spans, bool unfinished);

#endif
