/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's events, by tracefs: two instances of our own (a buffer for each CPU), one for what
 * happens to the threads that are followed, one for the timers of quotas; merged by time.
 */
#ifndef K8S_TRACING_SCHEDULER_TRACE_H
#define K8S_TRACING_SCHEDULER_TRACE_H

#include <stdbool.h>
#include <stddef.h>

#include "dataplane.h"

struct trace_ring {
	uint32_t cpu;
	int fd;
	uint8_t *page; /* that was read last */
	const uint8_t *at, *end;
	int64_t page_ns; /* the time of what was read last in it */
	int64_t latest_ns;
	struct scheduler_event event; /* the next one */
	bool has_event;
};

/* Where the fields of the tracepoints are, and as much of them as is read; an id of 0: none. */
struct trace_layout {
	uint16_t switch_id, waking_id, fork_id, exit_id, timer_id;
	uint32_t prev, prev_state, next, switch_size;
	uint32_t woken, waking_size;
	uint32_t child, clone_flags, fork_size;
	uint32_t ended, exit_size;
	uint32_t timer, function, timer_size;
};

struct trace {
	int tracefs;	   /* -1: not opened */
	char names[2][64]; /* of the instances, below tracefs; "": not made */
	int event_pid;	   /* where threads are written that are to be followed */
	struct trace_ring *rings;
	size_t count;
	size_t *order; /* the rings that have an event, the earliest first */
	size_t ordered;
	struct trace_layout layout;
	uint64_t period_timer, slack_timer; /* the functions; 0: not known */
	uint64_t lost;
	char error[256];
};

void trace_init(struct trace *trace);
/* Return 0, or -1; then `error` says why. */
int trace_open(struct trace *trace, const char *proc, uint64_t buffer_bytes);
int trace_start(struct trace *trace);
void trace_close(struct trace *trace);

/* Events of this thread, and of those that it makes, are to come. */
void trace_follow(const struct trace *trace, int32_t thread);

/* Merge what there is up to that time; events that come later are not older. */
void trace_begin(struct trace *trace, int64_t until_ns);
/* The next one; false: that was all. */
bool trace_next(struct trace *trace, int64_t until_ns, struct scheduler_event *event);

#endif
