/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table from a number to a pointer: open addressing, linear probing, no tombstones. */
#ifndef K8S_TRACING_RELAY_TABLE_H
#define K8S_TRACING_RELAY_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_entry {
	uint64_t key;
	void *value; /* NULL: free */
};

struct table {
	struct table_entry *entries;
	size_t mask; /* number of entries - 1 */
	size_t count;
	uint64_t secret; /* the keys come from strangers, who must not choose where they collide */
};

/* Return 0, or -1 without memory. */
int table_init(struct table *table);
void table_free(struct table *table);

void *table_get(const struct table *table, uint64_t key);

/* The key must not be there yet. Return 0, or -1 without memory. */
int table_add(struct table *table, uint64_t key, void *value);
void table_remove(struct table *table, uint64_t key);

#endif
