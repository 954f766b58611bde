// SPDX-License-Identifier: Apache-2.0
#include "relay_table.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define FIRST_SIZE 1024

static size_t home(const struct table *table, uint64_t key)
{
	uint64_t hash = (key ^ table->secret) * 0x9e3779b97f4a7c15;

	hash = (hash ^ (hash >> 32)) * (table->secret | 1);
	return (hash >> 32) & table->mask;
}

static size_t find(const struct table *table, uint64_t key)
{
	size_t at = home(table, key);

	while (table->entries[at].value && table->entries[at].key != key)
		at = (at + 1) & table->mask;
	return at;
}

static int resize(struct table *table, size_t size)
{
	struct table_entry *old = table->entries;
	size_t old_size = old ? table->mask + 1 : 0;

	table->entries = calloc(size, sizeof(*table->entries));
	if (!table->entries) {
		table->entries = old;
		return -1;
	}
	table->mask = size - 1;
	for (size_t i = 0; i < old_size; i++) {
		if (old[i].value)
			table->entries[find(table, old[i].key)] = old[i];
	}
	free(old);
	return 0;
}

int table_init(struct table *table)
{
	*table = (struct table){0};
	if (getrandom(&table->secret, sizeof(table->secret), GRND_NONBLOCK) < 0)
		table->secret = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15;
	return resize(table, FIRST_SIZE);
}

void table_free(struct table *table)
{
	free(table->entries);
	*table = (struct table){0};
}

void *table_get(const struct table *table, uint64_t key)
{
	return table->entries[find(table, key)].value;
}

int table_add(struct table *table, uint64_t key, void *value)
{
	/* At most half full: linear probing stays short. */
	if (2 * (table->count + 1) > table->mask && resize(table, 2 * (table->mask + 1)) < 0)
		return -1;
	table->entries[find(table, key)] = (struct table_entry){.key = key, .value = value};
	table->count++;
	return 0;
}

/* Is `at` on the way from `from` (excluded) round to `to`? */
static int between(size_t from, size_t at, size_t to)
{
	return from <= to ? from < at && at <= to : from < at || at <= to;
}

void table_remove(struct table *table, uint64_t key)
{
	size_t hole = find(table, key);
	size_t at = hole;

	if (!table->entries[hole].value)
		return;
	table->count--;
	/* Move up whoever would no longer be found across the hole. */
	for (;;) {
		table->entries[hole].value = NULL;
		do {
			at = (at + 1) & table->mask;
			if (!table->entries[at].value)
				return;
		} while (between(hole, home(table, table->entries[at].key), at));
		table->entries[hole] = table->entries[at];
		hole = at;
	}
}
