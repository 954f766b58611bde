/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one thread did: a point for each change of its state, with the sums up to there, so that the
 * time between any two is a subtraction.
 */
#ifndef K8S_TRACING_SCHEDULER_HISTORY_H
#define K8S_TRACING_SCHEDULER_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum thread_state {
	STATE_UNKNOWN,
	STATE_RUNNING,
	STATE_WAITING, /* for a CPU */
	STATE_THROTTLED,
	STATE_BLOCKED,
	STATES
};

struct point {
	int64_t time_ns;
	int64_t running_ns; /* the sums until then */
	int64_t waiting_ns;
	int64_t throttled_ns;
	uint32_t unknowns; /* how often its state was not known */
	uint8_t state;	   /* from then on */
};

struct history {
	struct point *points;
	size_t count, capacity;
};

void history_free(struct history *history);

/* The last point; it is there. */
static inline const struct point *history_last(const struct history *history)
{
	return history->points + history->count - 1;
}

/* The state is another one from then on: 0, or -1 without memory. Time does not go back. */
int history_add(struct history *history, int64_t time_ns, enum thread_state state);

/* The state has been another one since the last point. */
void history_amend(struct history *history, enum thread_state state);

/* The sums and the state at that time: false if it is not known so far back. */
bool history_sums(const struct history *history, int64_t time_ns, struct point *sums);

/* The same if it ran since the last point, though that says that it waited. False if more is known.
 */
bool history_ran_after_all(const struct history *history, int64_t time_ns, struct point *sums);

/* Forget what was before that time, but for the state then. Return how many points are gone. */
size_t history_forget(struct history *history, int64_t before_ns);

#endif
