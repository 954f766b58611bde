// SPDX-License-Identifier: Apache-2.0
/*
 * Records events that are not ours, from several threads: what the relay has to read past.
 *
 *     foreign THREADS COUNT
 */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "foreign_events.h"

#include <pthread.h>
#include <stdlib.h>

static long count;

static void *record(void *first)
{
	static const uint16_t numbers[] = {1, 256, 65535, 7, 8};
	static const char *const texts[] = {"abc", "\"quoted\"\t\\", "four",
					    "a longer text than that"};

	for (long i = (long)first; i < (long)first + count; i++) {
		lttng_ust_tracepoint(foreign, everything, i, texts[i % 4], numbers, i % 4);
		lttng_ust_tracepoint(foreign, nothing);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[1]) : 0;
	pthread_t thread[64];

	if (threads < 1 || threads > 64)
		return 2;
	count = atol(argv[2]);
	for (long i = 0; i < threads; i++)
		pthread_create(thread + i, NULL, record, (void *)(i * 1000));
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	return 0;
}
