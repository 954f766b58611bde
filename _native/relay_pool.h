/* SPDX-License-Identifier: Apache-2.0 */
/* The spans in memory: where they lie, which list each is in, and how to find one by its id. */
#ifndef K8S_TRACING_RELAY_POOL_H
#define K8S_TRACING_RELAY_POOL_H

#include "relay_encode.h"
#include "relay_table.h"

struct span_list {
	struct span *first;
	struct span *last;
	uint64_t count;
};

struct pool {
	struct table by_id;
	struct span *unused;
	struct span_block *blocks;
	uint64_t memory_bytes; /* of the spans in lists */
};

/* Return 0, or -1 without memory. */
int pool_init(struct pool *pool);
void pool_free(struct pool *pool);

/* NULL: there is none. */
struct span *pool_get(const struct pool *pool, uint64_t span_id);

/* A new span at the end of a list, of which nothing but its id is known. The id must not be there
 * yet. NULL without memory. */
struct span *pool_add(struct pool *pool, uint64_t span_id, struct span_list *list);
void pool_remove(struct pool *pool, struct span *span);

/* To the end of another list. */
void pool_move(struct span *span, struct span_list *list);

/* What was written into a span counts. */
void pool_count_growth(struct pool *pool, const struct span *span, size_t capacity_before);

#endif
