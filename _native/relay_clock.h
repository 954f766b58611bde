/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How old things are.
 *
 * The times of traces cannot say: they stand still where nobody records, and another session, or
 * the one after a reboot, may have another idea of the time of day, to which LTTng's clock is set
 * once. So ages are counted by a clock of the relay's own, which each chunk moves on by the time
 * that it covers.
 */
#ifndef K8S_TRACING_RELAY_CLOCK_H
#define K8S_TRACING_RELAY_CLOCK_H

#include <stdint.h>

/*
 * No chunk moves it further, so that setting the time of day, which can make a chunk look years
 * long, does not make everything old. Longer ones (a node that was suspended) count for that.
 */
#define CLOCK_STEP_MAX_NS (600 * INT64_C(1000000000))

struct relay_clock {
	int64_t now_ns;	     /* since the first chunk; it stands still within one */
	int64_t first_ns;    /* of the trace's times in this chunk; 0: there is none */
	int64_t latest_ns;   /* likewise */
	int64_t previous_ns; /* the latest of the chunk before */
};

/* A trace folder has times from `first_ns` to `latest_ns`; 0: it has none. */
static inline void clock_see(struct relay_clock *clock, int64_t first_ns, int64_t latest_ns)
{
	if (!latest_ns)
		return;
	if (!clock->first_ns || first_ns < clock->first_ns)
		clock->first_ns = first_ns;
	if (latest_ns > clock->latest_ns)
		clock->latest_ns = latest_ns;
}

/* The chunk is over; if nothing in it has a time, that is how long it was. */
static inline void clock_end_chunk(struct relay_clock *clock, int64_t duration_ns)
{
	int64_t step_ns = duration_ns;

	if (clock->latest_ns) {
		if (clock->previous_ns && clock->previous_ns <= clock->latest_ns)
			step_ns = clock->latest_ns - clock->previous_ns;
		else
			step_ns = clock->latest_ns - clock->first_ns;
		clock->previous_ns = clock->latest_ns;
	}
	if (step_ns < 0)
		step_ns = 0;
	if (step_ns > CLOCK_STEP_MAX_NS)
		step_ns = CLOCK_STEP_MAX_NS;
	if (!clock->latest_ns && clock->previous_ns)
		clock->previous_ns += step_ns;
	clock->now_ns += step_ns;
	clock->first_ns = 0;
	clock->latest_ns = 0;
}

#endif
