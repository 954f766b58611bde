// SPDX-License-Identifier: Apache-2.0
#include "relay_release.h"

/* A rotation takes about 20 us for each CPU's buffer, unless the machine is too busy to go on with
 * it. */
#define ROTATION_NS (10 * INT64_C(1000000))

/* Ends and span events whose start comes neither in this chunk nor in that many more have none. */
#define ORPHAN_CHUNKS 2

int spans_init(struct spans *spans, struct output *output, const struct relay_clock *clock,
	       const struct relay_options *options, struct relay_stats *stats)
{
	*spans = (struct spans){
		.output = output,
		.clock = clock,
		.options = options,
		.stats = stats,
	};
	if (cpu_init(&spans->cpu, options) < 0)
		return -1;
	return pool_init(&spans->pool);
}

void spans_free(struct spans *spans)
{
	cpu_free(&spans->cpu);
	pool_free(&spans->pool);
	gaps_free(&spans->gaps);
	bytes_free(&spans->buffers_name);
	bytes_free(&spans->scratch);
}

static struct span *new_span(struct spans *spans, uint64_t id, struct span_list *list)
{
	struct span *span = pool_add(&spans->pool, id, list);

	if (span)
		span->chunk = spans->chunk;
	return span;
}

void spans_see(struct spans *spans, int64_t now_ns)
{
	if (!spans->first_ns)
		spans->first_ns = now_ns;
	if (spans->last_ns < now_ns)
		spans->last_ns = now_ns;
}

void spans_lost(struct spans *spans, uint64_t events, int64_t begin_ns, int64_t end_ns,
		uint64_t until)
{
	spans->stats->discarded_events += events;
	gaps_add(&spans->gaps, (const char *)spans->buffers_name.data, events, begin_ns, end_ns,
		 spans->cpu.follows ? (int64_t)until : 0);
}

int spans_begin_folder(struct spans *spans, const char *buffers)
{
	size_t size = strlen(buffers) + 1;

	spans->buffers_name.size = 0;
	if (!bytes_extend(&spans->buffers_name, size))
		return -1;
	put_bytes(spans->buffers_name.data, buffers, size);
	spans->buffers = gaps_key(buffers);
	return 0;
}

static int finished(struct spans *spans, struct span *span)
{
	span->chunk = spans->chunk;
	pool_move(span, &spans->finished);
	return release_until(spans, &spans->finished, spans->last_ns - ROTATION_NS);
}

int spans_start(struct spans *spans, const struct k8s_tracing_start *start, uint64_t instance_id,
		int64_t now_ns, const struct cpu_moment *moment)
{
	struct span *span = pool_get(&spans->pool, start->span_id);
	struct process *process;
	size_t capacity;

	spans_see(spans, now_ns);
	if (!start->span_id || !(start->trace_id_high | start->trace_id_low)) {
		spans->stats->invalid_events++;
		return 0;
	}
	if (span && span->list != &spans->orphans) {
		spans->stats->duplicates++;
		return 0;
	}
	if (span && span->end == SPAN_ENDED && span->trace_id_low != start->trace_id_low) {
		drop_orphan(spans, span); /* the end of another trace's span */
		span = NULL;
	}
	process = process_get(&spans->output->processes, instance_id, now_ns);
	if (span)
		pool_move(span, &spans->open);
	else
		span = new_span(spans, start->span_id, &spans->open);
	if (!process || !span)
		return -1;
	span->process = process;
	span->since_ns = spans->clock->now_ns;
	span->started_at_ns = now_ns;
	process->open_spans++;
	process->buffers = spans->buffers;
	capacity = span->fields.capacity;
	if (encode_start(span, start, now_ns) < 0)
		return -1;
	pool_count_growth(&spans->pool, span, capacity);
	if (span->end == SPAN_ENDED)
		return finished(spans, span);
	if (moment && cpu_begin(spans, span, moment) < 0)
		return -1;
	return make_room(spans);
}

int spans_end(struct spans *spans, const struct k8s_tracing_end *end, int64_t now_ns,
	      const struct cpu_moment *moment)
{
	struct span *span = pool_get(&spans->pool, end->span_id);
	size_t capacity;

	spans_see(spans, now_ns);
	if (span && span->end == SPAN_ENDED) {
		spans->stats->duplicates++;
		return 0;
	}
	if (span && span->process && span->trace_id_low != end->trace_id_low) {
		spans->stats->ends_without_start++;
		return 0;
	}
	if (!span)
		span = new_span(spans, end->span_id, &spans->orphans);
	if (!span)
		return -1;
	capacity = span->fields.capacity;
	if (encode_end(span, end, now_ns) < 0 || cpu_end(spans, span, end, moment) < 0)
		return -1;
	pool_count_growth(&spans->pool, span, capacity);
	if (!span->process)
		return make_room(spans);
	spans->stats->completed += span->list == &spans->reported;
	process_see(span->process, now_ns);
	return finished(spans, span);
}

/* The span that an event or a link belongs to, known or not. */
static struct span *owner(struct spans *spans, uint64_t span_id, int64_t now_ns)
{
	struct span *span = pool_get(&spans->pool, span_id);

	spans_see(spans, now_ns);
	if (!span)
		span = new_span(spans, span_id, &spans->orphans);
	if (span)
		span->details++;
	return span;
}

int spans_event(struct spans *spans, const struct k8s_tracing_event *event, int64_t now_ns)
{
	struct span *span = owner(spans, event->span_id, now_ns);
	size_t capacity = span ? span->fields.capacity : 0;

	if (!span || encode_event(span, event, now_ns) < 0)
		return -1;
	pool_count_growth(&spans->pool, span, capacity);
	return make_room(spans);
}

int spans_link(struct spans *spans, const struct k8s_tracing_link *link, int64_t now_ns)
{
	struct span *span = owner(spans, link->span_id, now_ns);
	size_t capacity = span ? span->fields.capacity : 0;

	if (!span || encode_link(span, link) < 0)
		return -1;
	pool_count_growth(&spans->pool, span, capacity);
	return make_room(spans);
}

int spans_end_folder(struct spans *spans)
{
	int ret = release_until(spans, &spans->finished, spans->last_ns - ROTATION_NS);

	while (spans->finished.first)
		pool_move(spans->finished.first, &spans->held);
	spans->first_ns = 0;
	spans->last_ns = 0;
	return ret;
}

int spans_end_chunk(struct spans *spans)
{
	while (spans->held.first && spans->held.first->chunk < spans->chunk) {
		if (release_span(spans, spans->held.first) < 0)
			return -1;
	}
	while (spans->orphans.first && spans->orphans.first->chunk + ORPHAN_CHUNKS <= spans->chunk)
		drop_orphan(spans, spans->orphans.first);
	spans->chunk++;
	return 0;
}

void spans_process_gone(struct spans *spans, struct process *process)
{
	process->gone = true;
	spans->processes_gone = true;
}

int spans_finish(struct spans *spans, bool unfinished)
{
	while (unfinished && spans->orphans.first)
		drop_orphan(spans, spans->orphans.first);
	while (unfinished && spans->open.first) {
		if (release_unfinished(spans, spans->open.first, SPAN_UNFINISHED) < 0)
			return -1;
	}
	while (spans->finished.first)
		pool_move(spans->finished.first, &spans->held);
	return release_until(spans, &spans->held, INT64_MAX);
}
