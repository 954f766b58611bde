// SPDX-License-Identifier: Apache-2.0
#include "relay_pool.h"

#define BLOCK_SPANS 256
#define KEPT_CAPACITY 1024 /* bytes of an unused span that are not given back */

struct span_block {
	struct span_block *next;
	struct span spans[BLOCK_SPANS];
};

int pool_init(struct pool *pool)
{
	*pool = (struct pool){0};
	return table_init(&pool->by_id);
}

void pool_free(struct pool *pool)
{
	while (pool->blocks) {
		struct span_block *block = pool->blocks;

		pool->blocks = block->next;
		for (size_t i = 0; i < BLOCK_SPANS; i++)
			bytes_free(&block->spans[i].fields);
		free(block);
	}
	table_free(&pool->by_id);
}

static int add_block(struct pool *pool)
{
	struct span_block *block = calloc(1, sizeof(*block));

	if (!block)
		return -1;
	block->next = pool->blocks;
	pool->blocks = block;
	for (size_t i = 0; i < BLOCK_SPANS; i++) {
		block->spans[i].next = pool->unused;
		pool->unused = block->spans + i;
	}
	return 0;
}

static void append(struct span_list *list, struct span *span)
{
	span->list = list;
	span->next = NULL;
	span->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = span;
	list->last = span;
	list->count++;
}

static void unlink_span(struct span *span)
{
	struct span_list *list = span->list;

	*(span->previous ? &span->previous->next : &list->first) = span->next;
	*(span->next ? &span->next->previous : &list->last) = span->previous;
	list->count--;
}

struct span *pool_get(const struct pool *pool, uint64_t span_id)
{
	return table_get(&pool->by_id, span_id);
}

struct span *pool_add(struct pool *pool, uint64_t span_id, struct span_list *list)
{
	struct bytes fields;
	struct span *span;

	if (!pool->unused && add_block(pool) < 0)
		return NULL;
	span = pool->unused;
	if (table_add(&pool->by_id, span_id, span) < 0)
		return NULL;
	pool->unused = span->next;
	fields = span->fields;
	fields.size = 0;
	*span = (struct span){.span_id = span_id, .fields = fields};
	append(list, span);
	pool->memory_bytes += sizeof(*span) + fields.capacity;
	return span;
}

void pool_remove(struct pool *pool, struct span *span)
{
	pool->memory_bytes -= sizeof(*span) + span->fields.capacity;
	table_remove(&pool->by_id, span->span_id);
	unlink_span(span);
	if (span->fields.capacity > KEPT_CAPACITY)
		bytes_free(&span->fields);
	span->next = pool->unused;
	pool->unused = span;
}

void pool_move(struct span *span, struct span_list *list)
{
	unlink_span(span);
	append(list, span);
}

void pool_count_growth(struct pool *pool, const struct span *span, size_t capacity_before)
{
	pool->memory_bytes += span->fields.capacity - capacity_before;
}
