// SPDX-License-Identifier: Apache-2.0
#include "scheduler_quota.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The timer's tracepoint comes before its work, which counts the period. */
#define WORK_NS INT64_C(200000)

/*
 * Both timers are members of one structure (struct cfs_bandwidth), one after the other, and that is
 * a part of a larger one (struct task_group), so that no other's are as near.
 */
#define SLACK_TIMER_WITHIN 256

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void quota_init(struct quota *quota, const char *cpu_stat)
{
	*quota = (struct quota){.fd = -1};
	if (cpu_stat)
		quota->fd = open(cpu_stat, O_RDONLY | O_CLOEXEC);
}

void quota_free(struct quota *quota)
{
	if (quota->fd >= 0)
		close(quota->fd);
	free(quota->candidates);
}

static int64_t value_of(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

/* The names are those of both versions; version 1 counts ns, version 2 us. */
static bool parse(const char *text, struct reading *reading)
{
	int64_t throttled_us = value_of(text, "throttled_usec ");

	reading->periods = value_of(text, "nr_periods ");
	reading->throttled_periods = value_of(text, "nr_throttled ");
	reading->throttled_ns =
		throttled_us < 0 ? value_of(text, "throttled_time ") : throttled_us * 1000;
	return reading->periods >= 0 && reading->throttled_periods >= 0;
}

static const struct reading *newest(const struct quota *quota, size_t back)
{
	return quota->reading_count > back ? quota->readings + quota->reading_count - 1 - back
					   : NULL;
}

/* If somebody was throttled between these readings, it is not known until when. */
static void note_doubt(struct quota *quota, const struct reading *before,
		       const struct reading *after)
{
	struct doubt *last = quota->doubts + quota->doubt_count - 1;

	if (after->throttled_ns == before->throttled_ns)
		return;
	if (quota->doubt_count && last->end_ns >= before->begin_ns) {
		last->end_ns = after->end_ns;
		return;
	}
	if (quota->doubt_count == DOUBTS)
		memmove(quota->doubts, quota->doubts + 1,
			--quota->doubt_count * sizeof(*quota->doubts));
	quota->doubts[quota->doubt_count++] =
		(struct doubt){.begin_ns = before->begin_ns, .end_ns = after->end_ns};
}

void quota_read(struct quota *quota)
{
	struct reading reading = {.begin_ns = now_ns()};
	char text[1024];
	ssize_t size = quota->fd < 0 ? -1 : pread(quota->fd, text, sizeof(text) - 1, 0);

	if (size <= 0)
		return;
	text[size] = '\0';
	reading.end_ns = now_ns();
	if (!parse(text, &reading))
		return;
	if (quota->reading_count == QUOTA_READINGS)
		memmove(quota->readings, quota->readings + 1,
			--quota->reading_count * sizeof(reading));
	quota->readings[quota->reading_count++] = reading;
	if (!quota->timer && newest(quota, 1))
		note_doubt(quota, newest(quota, 1), newest(quota, 0));
}

enum fired {
	FIRED_NOT,
	FIRED_PERHAPS, /* too near to one of the readings */
	FIRED
};

static enum fired fired_at(const struct reading *before, const struct reading *after,
			   int64_t time_ns)
{
	if (time_ns < before->begin_ns - WORK_NS || time_ns > after->end_ns)
		return FIRED_NOT;
	if (time_ns <= before->end_ns || time_ns >= after->begin_ns - WORK_NS)
		return FIRED_PERHAPS;
	return FIRED;
}

static enum fired has_fired(const struct quota *quota, const struct firing *firings, size_t count,
			    uint64_t timer)
{
	const struct reading *before = newest(quota, 2), *after = newest(quota, 1);
	enum fired result = FIRED_NOT;

	for (size_t i = 0; i < count && result != FIRED; i++) {
		enum fired fired = firings[i].timer == timer
					   ? fired_at(before, after, firings[i].time_ns)
					   : FIRED_NOT;

		if (fired > result)
			result = fired;
	}
	return result;
}

static bool is_candidate(const struct quota *quota, uint64_t timer)
{
	for (size_t i = 0; i < quota->candidate_count; i++)
		if (quota->candidates[i] == timer)
			return true;
	return false;
}

/* All that went off while it counted a period. */
static int find_candidates(struct quota *quota, const struct firing *firings, size_t count)
{
	const struct reading *before = newest(quota, 2), *after = newest(quota, 1);

	if (!quota->candidates)
		quota->candidates = malloc(QUOTA_CANDIDATES_MAX * sizeof(*quota->candidates));
	if (!quota->candidates)
		return -1;
	quota->candidate_count = 0;
	for (size_t i = 0; i < count; i++) {
		if (fired_at(before, after, firings[i].time_ns) == FIRED_NOT ||
		    is_candidate(quota, firings[i].timer))
			continue;
		if (quota->candidate_count == QUOTA_CANDIDATES_MAX)
			return 0; /* another time there may be fewer */
		quota->candidates[quota->candidate_count++] = firings[i].timer;
	}
	quota->has_candidates = quota->candidate_count > 0;
	return 0;
}

int quota_learn(struct quota *quota, const struct firing *firings, size_t count)
{
	const struct reading *before = newest(quota, 2), *after = newest(quota, 1);
	bool counted = before && after->periods != before->periods;
	enum fired contradiction = counted ? FIRED_NOT : FIRED;
	size_t kept = 0;

	if (!before)
		return 0;
	if (quota->timer) {
		/* the structure may be another cgroup's by now, or the event was not recorded */
		if (has_fired(quota, firings, count, quota->timer) == contradiction) {
			quota->timer = 0;
			note_doubt(quota, before, after);
		}
		return 0;
	}
	if (!quota->has_candidates)
		return counted ? find_candidates(quota, firings, count) : 0;
	for (size_t i = 0; i < quota->candidate_count; i++) {
		uint64_t timer = quota->candidates[i];

		if (has_fired(quota, firings, count, timer) != contradiction)
			quota->candidates[kept++] = timer;
	}
	quota->candidate_count = kept;
	if (kept == 1)
		quota->timer = quota->candidates[0];
	quota->has_candidates = kept > 1;
	return 0;
}

bool quota_has_timer(const struct quota *quota, uint64_t timer, bool slack)
{
	if (!quota->timer)
		return false;
	return slack ? timer - quota->timer - 1 < SLACK_TIMER_WITHIN : timer == quota->timer;
}

bool quota_was_used_up(const struct quota *quota, int64_t time_ns, bool slack)
{
	const struct reading *before = NULL, *after = NULL;

	for (size_t i = 0; i < quota->reading_count; i++) {
		const struct reading *reading = quota->readings + i;

		if (reading->end_ns <= time_ns)
			before = reading;
		else if (!after && reading->begin_ns >= time_ns + WORK_NS)
			after = reading;
	}
	if (!before || !after)
		return false;
	return slack ? after->throttled_ns != before->throttled_ns
		     : after->throttled_periods != before->throttled_periods;
}

bool quota_is_doubtful(const struct quota *quota, int64_t begin_ns, int64_t end_ns)
{
	for (size_t i = 0; i < quota->doubt_count; i++)
		if (quota->doubts[i].begin_ns < end_ns && begin_ns < quota->doubts[i].end_ns)
			return true;
	return false;
}

int64_t quota_needs_since(const struct quota *quota)
{
	const struct reading *oldest = newest(quota, 1);

	return oldest ? oldest->begin_ns - WORK_NS : INT64_MAX;
}
