// SPDX-License-Identifier: Apache-2.0
#include "relay_release.h"

/* A request that goes on for longer than a day is not waited for. */
#define REPORTED_NS (24 * 3600 * INT64_C(1000000000))

static void remove_span(struct spans *spans, struct span *span)
{
	cpu_leave(&spans->cpu, span);
	if (span->process)
		span->process->open_spans--;
	pool_remove(&spans->pool, span);
}

/* Of its process's buffers, while it ran. */
static uint64_t lost_events(const struct spans *spans, const struct span *span)
{
	int64_t end_ns = span->end == SPAN_ENDED ? span->ended_at_ns : INT64_MAX;

	return gaps_between(&spans->gaps, span->process->buffers, span->started_at_ns, end_ns);
}

static int hand_out(struct spans *spans, struct span *span)
{
	span->lost_events = lost_events(spans, span);
	spans->stats->marked += span->lost_events > 0;
	if (encode_span(&spans->scratch, span) < 0)
		return -1;
	return output_add(spans->output, span->process, span->scope_id, &spans->scratch);
}

int release_span(struct spans *spans, struct span *span)
{
	int ret = hand_out(spans, span);

	remove_span(spans, span);
	return ret;
}

int release_until(struct spans *spans, struct span_list *list, int64_t until_ns)
{
	while (list->first && list->first->ended_at_ns < until_ns) {
		if (release_span(spans, list->first) < 0)
			return -1;
	}
	return 0;
}

int release_unfinished(struct spans *spans, struct span *span, enum span_end why)
{
	int ret;

	cpu_leave(&spans->cpu, span);
	span->end = why;
	span->end_ns = span->process->last_seen_ns;
	ret = hand_out(spans, span);
	span->end = SPAN_OPEN;
	span->since_ns = spans->clock->now_ns;
	pool_move(span, &spans->reported);
	spans->stats->unfinished++;
	return ret;
}

static bool older(const struct spans *spans, const struct span *span, int64_t age_ns)
{
	return span && spans->clock->now_ns - span->since_ns >= age_ns;
}

int release_abandoned(struct spans *spans)
{
	struct span *next;

	/* Rare, so there is no list of spans for each process. */
	for (struct span *span = spans->processes_gone ? spans->open.first : NULL; span;
	     span = next) {
		next = span->next;
		if (span->process->gone && release_unfinished(spans, span, SPAN_PROCESS_GONE) < 0)
			return -1;
	}
	spans->processes_gone = false;
	while (older(spans, spans->open.first, spans->options->max_age_ns)) {
		if (release_unfinished(spans, spans->open.first, SPAN_UNFINISHED) < 0)
			return -1;
	}
	while (older(spans, spans->reported.first, REPORTED_NS))
		remove_span(spans, spans->reported.first);
	return 0;
}

void drop_orphan(struct spans *spans, struct span *span)
{
	spans->stats->ends_without_start += span->end == SPAN_ENDED;
	spans->stats->details_without_span += span->details;
	remove_span(spans, span);
}

int make_room(struct spans *spans)
{
	while (spans->pool.memory_bytes > spans->options->memory_bytes) {
		struct span *span;
		int ret = 0;

		if ((span = spans->held.first) || (span = spans->finished.first)) {
			ret = release_span(spans, span);
		} else if ((span = spans->reported.first)) {
			remove_span(spans, span);
		} else if ((span = spans->orphans.first)) {
			drop_orphan(spans, span);
		} else if ((span = spans->open.first)) {
			spans->stats->evicted++;
			ret = release_unfinished(spans, span, SPAN_UNFINISHED);
			remove_span(spans, span);
		} else {
			break;
		}
		if (ret < 0)
			return -1;
	}
	return 0;
}
