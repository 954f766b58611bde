// SPDX-License-Identifier: Apache-2.0
#include "relay_loss.h"

#include <stdlib.h>
#include <string.h>

#define MANY 4096

int loss_init(struct loss *loss)
{
	*loss = (struct loss){0};
	return table_init(&loss->buffers);
}

void loss_free(struct loss *loss)
{
	struct table *table = &loss->buffers;

	for (size_t i = 0; table->entries && i <= table->mask; i++)
		free(table->entries[i].value);
	table_free(table);
}

/* FNV-1a. */
static uint64_t hash(uint64_t hash, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size--)
		hash = (hash ^ *at++) * 0x100000001b3;
	return hash;
}

struct buffer_loss *loss_get(struct loss *loss, uint64_t key)
{
	struct buffer_loss *buffer = table_get(&loss->buffers, key);

	if (buffer)
		return buffer;
	buffer = calloc(1, sizeof(*buffer));
	if (!buffer)
		return NULL;
	buffer->key = key;
	if (table_add(&loss->buffers, key, buffer) < 0) {
		free(buffer);
		return NULL;
	}
	return buffer;
}

struct buffer_loss *loss_buffer(struct loss *loss, const void *trace, size_t size, const char *file)
{
	uint64_t key = hash(hash(0xcbf29ce484222325, trace, size), file, strlen(file));
	struct buffer_loss *buffer = loss_get(loss, key);

	if (buffer)
		buffer->chunk = loss->chunk;
	return buffer;
}

/* How far a counter of that many bits went on; 0 if it went back. */
static uint64_t step(struct counter *counter, uint64_t from, uint64_t to, uint32_t bits)
{
	uint64_t mask = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX;
	uint64_t ahead = (to - from) & mask;

	counter->known = true;
	counter->value = to;
	return ahead <= mask / 2 ? ahead : 0;
}

uint64_t loss_packets(struct buffer_loss *buffer, uint64_t number, uint32_t bits)
{
	struct counter *counter = &buffer->packets;

	return step(counter, counter->known ? counter->value + 1 : number, number, bits);
}

uint64_t loss_discarded(struct buffer_loss *buffer, uint64_t count, uint32_t bits, bool first)
{
	struct counter *counter = &buffer->discarded;

	return step(counter, counter->known ? counter->value : first ? 0 : count, count, bits);
}

void loss_end_chunk(struct loss *loss)
{
	struct table *table = &loss->buffers;

	for (size_t i = 0; table->count > MANY && i <= table->mask;) {
		struct buffer_loss *buffer = table->entries[i].value;

		if (!buffer || buffer->chunk == loss->chunk) {
			i++;
			continue;
		}
		table_remove(table, buffer->key); /* another one may move to here */
		free(buffer);
	}
	loss->chunk++;
}
