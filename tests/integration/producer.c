// SPDX-License-Identifier: Apache-2.0
/*
 * Records spans with consecutive ids, and nothing else: what the agent's tests count.
 *
 *     producer FIRST COUNT INTERVAL_US [hold | open]
 *
 * With "hold" it stays when it is through, until its standard input ends; with "open" it ends its
 * spans only then.
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

static void start_span(uint64_t id)
{
	struct k8s_tracing_start start = {
		.trace_id_high = 1,
		.trace_id_low = id,
		.span_id = id,
		.name = "work",
		.scope_id = 1,
		.kind = 1,
		.flags = 1,
	};

	k8s_tracing_start_span(&start);
}

static void end_span(uint64_t id)
{
	struct k8s_tracing_end end = {
		.trace_id_low = id,
		.span_id = id,
		.name = "",
		.status_message = "",
	};

	k8s_tracing_end_span(&end);
}

static void wait_for_end_of_input(void)
{
	while (getchar() != EOF)
		;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	uint64_t first = strtoull(argv[1], NULL, 10);
	uint64_t count = strtoull(argv[2], NULL, 10);
	long interval_us = atol(argv[3]);
	int hold = argc > 4 && strcmp(argv[4], "hold") == 0;
	int open = argc > 4 && strcmp(argv[4], "open") == 0;

	identify();
	for (uint64_t i = 0; i < count; i++) {
		start_span(first + i);
		if (!open)
			end_span(first + i);
		if (interval_us)
			usleep(interval_us);
	}
	puts("done");
	fflush(stdout);
	if (hold || open)
		wait_for_end_of_input();
	for (uint64_t i = 0; open && i < count; i++)
		end_span(first + i);
	return 0;
}
