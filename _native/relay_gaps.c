// SPDX-License-Identifier: Apache-2.0
#include "relay_gaps.h"

#include <stdlib.h>
#include <string.h>

void gaps_free(struct gaps *gaps)
{
	for (size_t i = 0; i < gaps->buffers_count; i++)
		free(gaps->buffers[i].name);
	free(gaps->buffers);
	*gaps = (struct gaps){0};
}

/* FNV-1a. */
uint64_t gaps_key(const char *name)
{
	uint64_t key = 0xcbf29ce484222325;

	for (; *name; name++)
		key = (key ^ (uint8_t)*name) * 0x100000001b3;
	return key;
}

struct lossy_buffers *gaps_count(struct gaps *gaps, const char *name)
{
	struct lossy_buffers *buffers;

	for (size_t i = 0; i < gaps->buffers_count; i++) {
		if (strcmp(gaps->buffers[i].name, name) == 0)
			return gaps->buffers + i;
	}
	if (gaps->buffers_count >= BUFFERS_MAX && *name)
		return gaps_count(gaps, "");
	buffers = realloc(gaps->buffers, (gaps->buffers_count + 1) * sizeof(*buffers));
	if (!buffers)
		return NULL;
	gaps->buffers = buffers;
	buffers += gaps->buffers_count;
	*buffers = (struct lossy_buffers){.key = gaps_key(name), .name = strdup(name)};
	if (!buffers->name)
		return NULL;
	gaps->buffers_count++;
	return buffers;
}

void gaps_add(struct gaps *gaps, const char *name, uint64_t events, int64_t begin_ns,
	      int64_t end_ns, int64_t until_ns)
{
	struct lossy_buffers *buffers = gaps_count(gaps, name);

	if (buffers) {
		buffers->lost_events += events;
		buffers->gaps++;
		if (buffers->until_ns < until_ns)
			buffers->until_ns = until_ns;
	}
	gaps->gaps[gaps->count++ % GAPS_MAX] = (struct gap){
		.buffers = gaps_key(name),
		.begin_ns = begin_ns,
		.end_ns = end_ns,
		.events = events ? events : 1,
	};
	if (gaps->end_ns < end_ns)
		gaps->end_ns = end_ns;
}

uint64_t gaps_between(const struct gaps *gaps, uint64_t buffers, int64_t begin_ns, int64_t end_ns)
{
	size_t count = gaps->count < GAPS_MAX ? gaps->count : GAPS_MAX;
	uint64_t events = 0;

	if (begin_ns > gaps->end_ns)
		return 0;
	for (size_t i = 0; i < count; i++) {
		const struct gap *gap = gaps->gaps + i;

		if (gap->buffers == buffers && gap->begin_ns < end_ns && gap->end_ns >= begin_ns)
			events += gap->events;
	}
	return events;
}

int64_t gaps_until(const struct gaps *gaps, uint64_t buffers)
{
	int64_t others_ns = 0;

	for (size_t i = 0; i < gaps->buffers_count; i++) {
		if (gaps->buffers[i].key == buffers)
			return gaps->buffers[i].until_ns;
		if (!*gaps->buffers[i].name)
			others_ns = gaps->buffers[i].until_ns;
	}
	return others_ns;
}
