// SPDX-License-Identifier: Apache-2.0
/*
 * Follows what the kernel's scheduler does with threads: sched_switch says who got a CPU and who
 * lost it, sched_waking who could go on. Who could go on and has no CPU waits for one, or his
 * container has used up its quota.
 *
 * Throttling has no tracepoint. It ends when the quota's timer goes off (scheduler_quota.c), and if
 * the cgroup counted that period as throttled, then who could go on and did not run was throttled
 * until then, from when none of his container's threads ran on his CPU any more, and none anywhere
 * with more than a slice of the quota that it had taken before.
 */
#include "scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS INT64_C(1000000000)

/* An event is written a moment after its time was taken; after that much, none is missing. */
#define WRITTEN_NS INT64_C(1000000)

#define REMEMBER_NS (60 * SECOND_NS)
#define REMEMBER_MIN_NS SECOND_NS
#define RUNS_NOW INT64_MAX

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* sched_cfs_bandwidth_slice_us of Documentation/scheduler/sched-bwc.rst */
static int64_t read_slice(const char *proc)
{
	char path[512];
	int64_t slice_us = 5000;
	FILE *file;

	snprintf(path, sizeof(path), "%s/sys/kernel/sched_cfs_bandwidth_slice_us", proc);
	file = fopen(path, "re");
	if (!file)
		return slice_us * 1000;
	if (fscanf(file, "%ld", &slice_us) != 1)
		slice_us = 5000;
	fclose(file);
	return slice_us * 1000;
}

struct scheduler *scheduler_new(const char *proc, uint64_t max_points)
{
	struct scheduler *scheduler = calloc(1, sizeof(*scheduler));

	if (!scheduler)
		return NULL;
	pthread_mutex_init(&scheduler->lock, NULL);
	scheduler->proc = strdup(proc);
	scheduler->cpu_count = sysconf(_SC_NPROCESSORS_CONF);
	scheduler->slice_ns = read_slice(proc);
	if (scheduler->proc)
		scheduler->pid_ns = threads_namespace(scheduler, "self");
	scheduler->max_points = max_points;
	scheduler->remember_ns = REMEMBER_NS;
	trace_init(&scheduler->trace);
	if (scheduler->proc && !table_init(&scheduler->by_pid) &&
	    !table_init(&scheduler->by_name) && !table_init(&scheduler->by_tid) &&
	    !table_init(&scheduler->by_number))
		return scheduler;
	scheduler_free(scheduler);
	return NULL;
}

void scheduler_free(struct scheduler *scheduler)
{
	if (!scheduler)
		return;
	threads_free(scheduler);
	trace_close(&scheduler->trace);
	table_free(&scheduler->by_pid);
	table_free(&scheduler->by_name);
	table_free(&scheduler->by_tid);
	table_free(&scheduler->by_number);
	pthread_mutex_destroy(&scheduler->lock);
	free(scheduler->firings);
	free(scheduler->proc);
	free(scheduler);
}

int scheduler_open(struct scheduler *scheduler, uint64_t buffer_bytes)
{
	return trace_open(&scheduler->trace, scheduler->proc, buffer_bytes);
}

int scheduler_start(struct scheduler *scheduler)
{
	return trace_start(&scheduler->trace);
}

const char *scheduler_error(const struct scheduler *scheduler)
{
	return scheduler->trace.error;
}

int scheduler_hears_timers(const struct scheduler *scheduler)
{
	return scheduler->trace.layout.timer_id != 0;
}

int scheduler_follow(struct scheduler *scheduler, int64_t pid, const char *cpu_stat)
{
	int ret;

	pthread_mutex_lock(&scheduler->lock);
	ret = threads_follow(scheduler, pid, cpu_stat);
	pthread_mutex_unlock(&scheduler->lock);
	return ret;
}

/* ---- events ------------------------------------------------------------------------ */

static enum thread_state state_of(const struct thread *thread)
{
	return thread->history.count ? history_last(&thread->history)->state : STATE_UNKNOWN;
}

static int change(struct scheduler *scheduler, struct thread *thread, int64_t time_ns,
		  enum thread_state state)
{
	scheduler->points++;
	return history_add(&thread->history, time_ns, state);
}

/* What it has done since the last point is not known. */
static int doubt(struct scheduler *scheduler, struct thread *thread)
{
	return state_of(thread) == STATE_UNKNOWN
		       ? 0
		       : change(scheduler, thread, history_last(&thread->history)->time_ns,
				STATE_UNKNOWN);
}

/* It waits for a CPU, or was woken just before it left one, and that was recorded just after. */
static bool could_go_on(const struct thread *thread)
{
	enum thread_state state = state_of(thread);

	return state == STATE_WAITING || (state == STATE_BLOCKED && thread->woken);
}

/*
 * Some kernels do not tell when a CPU that had nothing to do takes somebody on (seen on a guest's
 * CPUs but the first): who leaves a CPU that he was not seen to get got it when he could go on.
 */
static int leaves_cpu(struct scheduler *scheduler, struct thread *thread,
		      const struct scheduler_event *event)
{
	struct container *container = thread->process->container;

	if (state_of(thread) == STATE_BLOCKED && thread->woken) {
		history_amend(&thread->history, STATE_RUNNING);
		thread->woken = false;
	} else if (state_of(thread) == STATE_WAITING) {
		history_amend(&thread->history, STATE_RUNNING);
	} else if (state_of(thread) != STATE_RUNNING && doubt(scheduler, thread) < 0) {
		return -1;
	}
	if (container)
		container->ran_ns[event->cpu] = event->time_ns;
	thread->cpu = event->cpu;
	return change(scheduler, thread, event->time_ns,
		      event->runnable ? STATE_WAITING : STATE_BLOCKED);
}

static int gets_cpu(struct scheduler *scheduler, struct thread *thread,
		    const struct scheduler_event *event)
{
	struct container *container = thread->process->container;

	if (state_of(thread) == STATE_RUNNING && doubt(scheduler, thread) < 0)
		return -1;
	if (could_go_on(thread))
		history_amend(&thread->history, STATE_WAITING);
	if (container)
		container->ran_ns[event->cpu] = RUNS_NOW;
	thread->cpu = event->cpu;
	thread->woken = false;
	return change(scheduler, thread, event->time_ns, STATE_RUNNING);
}

static int switches(struct scheduler *scheduler, const struct scheduler_event *event)
{
	struct thread *leaving = threads_get(scheduler, event->thread);
	struct thread *getting = threads_get(scheduler, event->next);

	if (leaving && leaves_cpu(scheduler, leaving, event) < 0)
		return -1;
	return getting ? gets_cpu(scheduler, getting, event) : 0;
}

static int is_woken(struct scheduler *scheduler, struct thread *thread,
		    const struct scheduler_event *event)
{
	enum thread_state state = state_of(thread);

	/* nobody wakes who waits: it had a CPU, which was not told, and was about to sleep */
	if (state == STATE_RUNNING || state == STATE_WAITING)
		thread->woken = true;
	if (state != STATE_BLOCKED && state != STATE_UNKNOWN)
		return 0;
	return change(scheduler, thread, event->time_ns, STATE_WAITING);
}

/* Since when nobody in the container could go on, as far as somebody on that CPU is concerned. */
static int64_t used_up_since(const struct scheduler *scheduler, const struct container *container,
			     uint32_t cpu, int64_t now_ns)
{
	int64_t here_ns = container->ran_ns[cpu], latest_ns = 0;

	for (size_t i = 0; i < scheduler->cpu_count; i++) {
		int64_t ran_ns = container->ran_ns[i] == RUNS_NOW ? now_ns : container->ran_ns[i];

		if (ran_ns > latest_ns)
			latest_ns = ran_ns;
	}
	latest_ns -= scheduler->slice_ns;
	return here_ns > latest_ns ? here_ns : latest_ns;
}

static int end_throttling(struct scheduler *scheduler, const struct container *container,
			  struct thread *thread, int64_t now_ns)
{
	int64_t from_ns = used_up_since(scheduler, container, thread->cpu, now_ns);

	if (state_of(thread) != STATE_WAITING)
		return 0;
	if (from_ns < container->quota.refilled_ns)
		from_ns = container->quota.refilled_ns;
	if (from_ns < history_last(&thread->history)->time_ns)
		from_ns = history_last(&thread->history)->time_ns;
	if (from_ns >= now_ns)
		return 0;
	if (change(scheduler, thread, from_ns, STATE_THROTTLED) < 0)
		return -1;
	return change(scheduler, thread, now_ns, STATE_WAITING);
}

static int note_firing(struct scheduler *scheduler, const struct scheduler_event *event)
{
	if (scheduler->firing_count == scheduler->firing_capacity) {
		size_t capacity = scheduler->firing_capacity ? 2 * scheduler->firing_capacity : 64;
		struct firing *firings = realloc(scheduler->firings, capacity * sizeof(*firings));

		if (!firings)
			return -1;
		scheduler->firings = firings;
		scheduler->firing_capacity = capacity;
	}
	scheduler->firings[scheduler->firing_count++] =
		(struct firing){.time_ns = event->time_ns, .timer = event->timer};
	return 0;
}

static int refills(struct scheduler *scheduler, const struct scheduler_event *event)
{
	bool slack = event->kind == SCHEDULER_SLACK;
	struct container *container = scheduler->containers;

	if (!slack && note_firing(scheduler, event) < 0)
		return -1;
	while (container && !quota_has_timer(&container->quota, event->timer, slack))
		container = container->next;
	if (!container)
		return 0;
	if (quota_was_used_up(&container->quota, event->time_ns, slack)) {
		for (struct thread *thread = container->threads; thread;
		     thread = thread->next_of_container) {
			if (end_throttling(scheduler, container, thread, event->time_ns) < 0)
				return -1;
		}
	}
	container->quota.refilled_ns = event->time_ns;
	return 0;
}

/* Who is made can go on. */
static int begins(struct scheduler *scheduler, const struct scheduler_event *event)
{
	int ret = threads_fork(scheduler, event);
	struct thread *thread = ret > 0 ? threads_get(scheduler, event->next) : NULL;

	return thread ? change(scheduler, thread, event->time_ns, STATE_WAITING) : ret;
}

/* Nobody's state is known any more. */
static int forget_states(struct scheduler *scheduler, int64_t time_ns)
{
	for (struct process *process = scheduler->processes; process; process = process->next) {
		for (struct thread *thread = process->threads; thread; thread = thread->next) {
			if (!thread->ended && state_of(thread) != STATE_UNKNOWN &&
			    change(scheduler, thread, time_ns, STATE_UNKNOWN) < 0)
				return -1;
		}
	}
	return 0;
}

static int handle(struct scheduler *scheduler, const struct scheduler_event *event)
{
	struct thread *thread = threads_get(scheduler, event->thread);

	scheduler->stats.events++;
	switch (event->kind) {
	case SCHEDULER_SWITCH:
		return switches(scheduler, event);
	case SCHEDULER_WAKING:
		return thread ? is_woken(scheduler, thread, event) : 0;
	case SCHEDULER_REFILL:
	case SCHEDULER_SLACK:
		return refills(scheduler, event);
	case SCHEDULER_THREAD:
	case SCHEDULER_FORK:
		return begins(scheduler, event);
	case SCHEDULER_EXIT:
		if (thread)
			threads_end(scheduler, thread);
		return 0;
	default:
		return forget_states(scheduler, event->time_ns);
	}
}

/* ---- what was heard ---------------------------------------------------------------- */

static void read_quotas(struct scheduler *scheduler)
{
	for (struct container *container = scheduler->containers; container;
	     container = container->next)
		quota_read(&container->quota);
}

static int learn_timers(struct scheduler *scheduler)
{
	int64_t needed_ns = INT64_MAX;
	size_t gone = 0;

	for (struct container *container = scheduler->containers; container;
	     container = container->next) {
		int64_t since_ns = quota_needs_since(&container->quota);

		if (quota_learn(&container->quota, scheduler->firings, scheduler->firing_count) < 0)
			return -1;
		if (since_ns < needed_ns)
			needed_ns = since_ns;
	}
	while (gone < scheduler->firing_count && scheduler->firings[gone].time_ns < needed_ns)
		gone++;
	scheduler->firing_count -= gone;
	if (gone)
		memmove(scheduler->firings, scheduler->firings + gone,
			scheduler->firing_count * sizeof(*scheduler->firings));
	return 0;
}

/* What is remembered takes no more room than it may: then it does not go back as far. */
static void sweep(struct scheduler *scheduler, int64_t now_ns)
{
	if (now_ns - scheduler->swept_ns < SECOND_NS && scheduler->points < scheduler->max_points)
		return;
	scheduler->swept_ns = now_ns;
	if (scheduler->points < scheduler->max_points / 2)
		scheduler->remember_ns += scheduler->remember_ns / 8;
	if (scheduler->remember_ns > REMEMBER_NS)
		scheduler->remember_ns = REMEMBER_NS;
	threads_forget(scheduler, now_ns - scheduler->remember_ns);
	while (scheduler->points >= scheduler->max_points &&
	       scheduler->remember_ns > REMEMBER_MIN_NS) {
		scheduler->remember_ns -= scheduler->remember_ns / 4;
		threads_forget(scheduler, now_ns - scheduler->remember_ns);
	}
}

static int read_locked(struct scheduler *scheduler)
{
	int64_t until_ns = now_ns() - WRITTEN_NS;
	struct scheduler_event event;

	/* The quotas first: what they say is of all that is read here. */
	read_quotas(scheduler);
	trace_begin(&scheduler->trace, until_ns);
	while (trace_next(&scheduler->trace, until_ns, &event)) {
		if (handle(scheduler, &event) < 0)
			return -1;
	}
	scheduler->read_ns = until_ns;
	if (learn_timers(scheduler) < 0)
		return -1;
	sweep(scheduler, until_ns);
	return 0;
}

int scheduler_read(struct scheduler *scheduler)
{
	int ret;

	pthread_mutex_lock(&scheduler->lock);
	ret = read_locked(scheduler);
	pthread_mutex_unlock(&scheduler->lock);
	return ret;
}

int scheduler_feed(struct scheduler *scheduler, const struct scheduler_event *events,
		   uint64_t count, int64_t now_ns)
{
	int ret = 0;

	pthread_mutex_lock(&scheduler->lock);
	read_quotas(scheduler);
	for (uint64_t i = 0; i < count && ret == 0; i++)
		ret = handle(scheduler, events + i) < 0 ? -1 : 0;
	scheduler->read_ns = now_ns;
	if (ret == 0)
		ret = learn_timers(scheduler);
	sweep(scheduler, now_ns);
	pthread_mutex_unlock(&scheduler->lock);
	return ret;
}

/* The sums at a time when the thread certainly ran, since it says so itself; see leaves_cpu. */
static bool sums_while_running(const struct thread *thread, int64_t time_ns, struct point *sums)
{
	if (!history_sums(&thread->history, time_ns, sums))
		return false;
	return sums->state == STATE_RUNNING ||
	       (could_go_on(thread) && history_ran_after_all(&thread->history, time_ns, sums));
}

static int get_times(struct scheduler *scheduler, const struct thread *thread, int64_t begin_ns,
		     int64_t end_ns, int64_t *times_ns)
{
	const struct container *container = thread->process->container;
	struct point begin, end;

	if (begin_ns > end_ns || end_ns > scheduler->read_ns ||
	    !sums_while_running(thread, begin_ns, &begin) ||
	    !sums_while_running(thread, end_ns, &end) || begin.unknowns != end.unknowns)
		return 0;
	times_ns[0] = end.running_ns - begin.running_ns;
	times_ns[1] = end.waiting_ns - begin.waiting_ns;
	times_ns[2] = end.throttled_ns - begin.throttled_ns;
	if (container && quota_is_doubtful(&container->quota, begin_ns, end_ns)) {
		times_ns[1] += times_ns[2];
		times_ns[2] = -1;
	}
	return 1;
}

int scheduler_times(void *followed, uint64_t pid_ns, int64_t vpid, int64_t vtid, int64_t begin_ns,
		    int64_t end_ns, int64_t *times_ns)
{
	struct scheduler *scheduler = followed;
	const struct thread *thread;
	int ret = 0;

	pthread_mutex_lock(&scheduler->lock);
	if (end_ns > scheduler->read_ns && scheduler->trace.count)
		read_locked(scheduler);
	thread = threads_find(scheduler, pid_ns, vpid, vtid);
	if (thread)
		ret = get_times(scheduler, thread, begin_ns, end_ns, times_ns);
	pthread_mutex_unlock(&scheduler->lock);
	return ret;
}

void scheduler_get_stats(struct scheduler *scheduler, struct scheduler_stats *stats)
{
	pthread_mutex_lock(&scheduler->lock);
	*stats = scheduler->stats;
	stats->points = scheduler->points;
	stats->remembered_ns = scheduler->remember_ns;
	stats->lost = scheduler->trace.lost;
	stats->timers_unknown = 0;
	for (struct container *container = scheduler->containers; container;
	     container = container->next)
		stats->timers_unknown += !container->quota.timer && container->quota.doubt_count;
	pthread_mutex_unlock(&scheduler->lock);
}
