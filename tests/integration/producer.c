// SPDX-License-Identifier: Apache-2.0
/*
 * Records spans with consecutive ids, and nothing else: what the agent's tests count.
 *
 *     producer FIRST COUNT INTERVAL_US [hold | open | crash]
 *
 * With "hold" it stays when it is through, until its standard input ends; with "open" it ends its
 * spans only then. With "crash" it dies in the middle of one more event: between LTTng's reserve
 * and its commit, while attributes are copied from where no memory is. PRODUCER_SERVICE is its
 * service's name, of 60 characters at most.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "emit.h"

static void identify(void)
{
	/* Resource.attributes[0] = KeyValue{key: "service.name", value: {string_value: SERVICE}} */
	const char *service = getenv("PRODUCER_SERVICE") ? getenv("PRODUCER_SERVICE") : "producer";
	size_t length = strlen(service);
	uint8_t bytes[128];
	uint8_t *at = bytes;

	if (length > 60)
		exit(2);
	*at++ = 0x0a;
	*at++ = 2 + 12 + 2 + 2 + length;
	*at++ = 0x0a;
	*at++ = 12;
	memcpy(at, "service.name", 12);
	at += 12;
	*at++ = 0x12;
	*at++ = 2 + length;
	*at++ = 0x0a;
	*at++ = length;
	memcpy(at, service, length);
	at += length;
	uint64_t instance_id = 0;

	/* Not of the process id, which is 1 in every container. */
	if (getrandom(&instance_id, sizeof(instance_id), 0) < 0)
		exit(2);
	k8s_tracing_set_process(instance_id | 1, bytes, at - bytes);
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

static void crash(void)
{
	struct k8s_tracing_end end = {
		.name = "",
		.status_message = "",
		.attributes = (const uint8_t *)8,
		.attributes_size = 64,
	};

	k8s_tracing_end_span(&end);
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
	if (argc > 4 && !strcmp(argv[4], "crash"))
		crash();
	if (hold || open)
		wait_for_end_of_input();
	for (uint64_t i = 0; open && i < count; i++)
		end_span(first + i);
	return 0;
}
