// SPDX-License-Identifier: Apache-2.0
/*
 * The C limit: what one span costs whoever calls the provider from a C loop, as nobody can be faster than that with
 * the same events. Prints the nanoseconds per span of each round.
 */
#include "emit.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void one_span(uint64_t id)
{
	k8s_tracing_start_span(&(struct k8s_tracing_start){
		.trace_id_high = 1,
		.trace_id_low = id,
		.span_id = id,
		.name = "GET /dispatch",
		.kind = 1,
		.flags = 3,
	});
	k8s_tracing_end_span(&(struct k8s_tracing_end){
		.trace_id_low = id,
		.span_id = id,
		.name = "",
		.status_message = "",
	});
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 5;
	int spans = argc > 2 ? atoi(argv[2]) : 10000;
	const struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
	uint64_t id = 0;

	if (k8s_tracing_set_process(1, NULL, 0))
		return 1;
	for (int round = 0; round < rounds; round++) {
		double begin = now_ns();

		for (int i = 0; i < spans; i++)
			one_span(++id);
		printf("%f\n", (now_ns() - begin) / spans);
		nanosleep(&pause, NULL); /* the consumer daemon empties the buffers */
	}
	return k8s_tracing_recording() ? 0 : 2;
}
