/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's CPU quota: when it was used up, and when there was a new one.
 *
 * No tracepoint tells of throttling. What there is: the timer that refills a quota at the end of
 * each period (its address is all that tells whose it is), and the cgroup's cpu.stat, which counts
 * periods, and those of them at whose end somebody was throttled.
 */
#ifndef K8S_TRACING_SCHEDULER_QUOTA_H
#define K8S_TRACING_SCHEDULER_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUOTA_READINGS 8
#define QUOTA_CANDIDATES_MAX 256

/* What cpu.stat said. */
struct reading {
	int64_t begin_ns, end_ns; /* when it was read: between these two */
	int64_t periods;
	int64_t throttled_periods;
	int64_t throttled_ns;
};

/* A timer went off. */
struct firing {
	int64_t time_ns;
	uint64_t timer;
};

/* Between these, somebody was throttled, and nobody knows when. */
struct doubt {
	int64_t begin_ns, end_ns;
};

#define DOUBTS 256

struct quota {
	int fd;					 /* of cpu.stat; -1: there is none */
	struct reading readings[QUOTA_READINGS]; /* the newest last */
	size_t reading_count;
	uint64_t timer; /* 0: not known yet; then it is one of these */
	uint64_t *candidates;
	size_t candidate_count;
	bool has_candidates;
	int64_t refilled_ns; /* the last time */
	struct doubt doubts[DOUBTS];
	size_t doubt_count;
};

void quota_init(struct quota *quota, const char *cpu_stat);
void quota_free(struct quota *quota);

/* Read cpu.stat. */
void quota_read(struct quota *quota);

/*
 * Learn from the timers that went off (in the order of time, none missing since the reading before
 * the last two) which one is the quota's. Return 0, or -1 without memory.
 */
int quota_learn(struct quota *quota, const struct firing *firings, size_t count);

/* Is it this quota's timer of its period, or (then `slack`) the one that gives back slack? */
bool quota_has_timer(const struct quota *quota, uint64_t timer, bool slack);

/* Was somebody throttled until the timer went off at that time? */
bool quota_was_used_up(const struct quota *quota, int64_t time_ns, bool slack);

/* Between these two, was somebody throttled, and it is not known when? */
bool quota_is_doubtful(const struct quota *quota, int64_t begin_ns, int64_t end_ns);

/* So far back readings may be needed. */
int64_t quota_needs_since(const struct quota *quota);

#endif
