// SPDX-License-Identifier: Apache-2.0
#include "scheduler_history.h"

#include <stdlib.h>
#include <string.h>

void history_free(struct history *history)
{
	free(history->points);
	*history = (struct history){0};
}

/* What the sums are at a time that is not before that point, and before the next one. */
static struct point sums_at(const struct point *point, int64_t time_ns)
{
	struct point sums = *point;
	int64_t since_ns = time_ns - point->time_ns;

	sums.time_ns = time_ns;
	if (point->state == STATE_RUNNING)
		sums.running_ns += since_ns;
	else if (point->state == STATE_WAITING)
		sums.waiting_ns += since_ns;
	else if (point->state == STATE_THROTTLED)
		sums.throttled_ns += since_ns;
	return sums;
}

int history_add(struct history *history, int64_t time_ns, enum thread_state state)
{
	struct point point = {.time_ns = time_ns};

	if (history->count == history->capacity) {
		size_t capacity = history->capacity ? 2 * history->capacity : 16;
		struct point *points = realloc(history->points, capacity * sizeof(*points));

		if (!points)
			return -1;
		history->points = points;
		history->capacity = capacity;
	}
	if (history->count) {
		const struct point *last = history_last(history);

		point = sums_at(last, time_ns > last->time_ns ? time_ns : last->time_ns);
	}
	point.state = state;
	point.unknowns += state == STATE_UNKNOWN;
	history->points[history->count++] = point;
	return 0;
}

void history_amend(struct history *history, enum thread_state state)
{
	history->points[history->count - 1].state = state;
}

/* The last point that is not after that time; NULL if there is none. */
static const struct point *point_at(const struct history *history, int64_t time_ns)
{
	size_t first = 0, end = history->count;

	while (first < end) {
		size_t middle = first + (end - first) / 2;

		if (history->points[middle].time_ns <= time_ns)
			first = middle + 1;
		else
			end = middle;
	}
	return first ? history->points + first - 1 : NULL;
}

bool history_sums(const struct history *history, int64_t time_ns, struct point *sums)
{
	const struct point *point = point_at(history, time_ns);

	if (!point)
		return false;
	*sums = sums_at(point, time_ns);
	return true;
}

bool history_ran_after_all(const struct history *history, int64_t time_ns, struct point *sums)
{
	struct point last = *history_last(history);

	if (last.time_ns > time_ns)
		return false;
	last.state = STATE_RUNNING;
	*sums = sums_at(&last, time_ns);
	return true;
}

size_t history_forget(struct history *history, int64_t before_ns)
{
	const struct point *first = point_at(history, before_ns);
	size_t gone = first ? first - history->points : 0;

	/* moving is worth it for many only, and who keeps quiet gives back what he does not need */
	if (gone < history->count / 2 && gone < 1024)
		return 0;
	history->count -= gone;
	if (gone)
		memmove(history->points, history->points + gone, history->count * sizeof(*first));
	if (history->capacity > 64 && history->count < history->capacity / 8) {
		size_t capacity = history->capacity / 4;
		struct point *points = realloc(history->points, capacity * sizeof(*points));

		if (points) {
			history->points = points;
			history->capacity = capacity;
		}
	}
	return gone;
}
