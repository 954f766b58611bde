// SPDX-License-Identifier: Apache-2.0
/*
 * Records spans with consecutive ids, and nothing else: what the agent's tests count.
 *
 *     producer FIRST COUNT INTERVAL_US [hold]
 *
 * With "hold" it stays when it is through, until its standard input ends.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emit.h"

static const char SERVICE[] = "producer";

static void identify(void)
{
	/* Resource.attributes[0] = KeyValue{key: "service.name", value: {string_value: SERVICE}} */
	uint8_t bytes[64];
	uint8_t *at = bytes;

	*at++ = 0x0a;
	*at++ = 2 + 12 + 2 + 2 + sizeof(SERVICE) - 1;
	*at++ = 0x0a;
	*at++ = 12;
	memcpy(at, "service.name", 12);
	at += 12;
	*at++ = 0x12;
	*at++ = 2 + sizeof(SERVICE) - 1;
	*at++ = 0x0a;
	*at++ = sizeof(SERVICE) - 1;
	memcpy(at, SERVICE, sizeof(SERVICE) - 1);
	at += sizeof(SERVICE) - 1;
	k8s_tracing_set_process((uint64_t)getpid() << 32 | 1, bytes, at - bytes);
	k8s_tracing_add_scope(1, "test", "1");
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	uint64_t first = strtoull(argv[1], NULL, 10);
	uint64_t count = strtoull(argv[2], NULL, 10);
	long interval_us = atol(argv[3]);

	identify();
	for (uint64_t i = 0; i < count; i++) {
		struct k8s_tracing_start start = {
			.trace_id_high = 1,
			.trace_id_low = first + i,
			.span_id = first + i,
			.name = "work",
			.scope_id = 1,
			.kind = 1,
			.flags = 1,
		};
		struct k8s_tracing_end end = {
			.trace_id_low = start.trace_id_low,
			.span_id = start.span_id,
			.name = "",
			.status_message = "",
		};

		k8s_tracing_start_span(&start);
		k8s_tracing_end_span(&end);
		if (interval_us)
			usleep(interval_us);
	}
	puts("done");
	fflush(stdout);
	if (argc > 4)
		while (getchar() != EOF)
			;
	return 0;
}
