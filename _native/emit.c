// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "tracepoints.h"

#include <lttng/ust-fork.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANNOUNCE_EVERY_S 10

struct scope {
	struct scope *next;
	char *name;
	char *version;
	uint16_t id;
};

static struct {
	uint64_t instance_id;
	uint8_t *resource;
	uint32_t resource_size;
	struct scope *scopes;
	time_t due_s; /* on the coarse monotonic clock; 0 while nobody records */
} process;

/* The signal mask that LTTng keeps from before fork() to after it; its own fork mutex guards it. */
static sigset_t fork_signals;

static time_t coarse_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static void announce(void)
{
	lttng_ust_tracepoint(k8s_tracing, process, process.instance_id, getpid(), process.resource,
			     process.resource_size);
	for (const struct scope *s = process.scopes; s; s = s->next)
		lttng_ust_tracepoint(k8s_tracing, scope, process.instance_id, s->id, s->name,
				     s->version);
	/* LTTng enables a session's events one after the other: until both are, it was for nothing
	 */
	if (lttng_ust_tracepoint_enabled(k8s_tracing, process) &&
	    lttng_ust_tracepoint_enabled(k8s_tracing, scope))
		process.due_s = coarse_now_s() + ANNOUNCE_EVERY_S;
}

int k8s_tracing_recording(void)
{
	if (lttng_ust_tracepoint_enabled(k8s_tracing, start_span))
		return 1;
	process.due_s = 0; /* the next session hears of us with its first span */
	return 0;
}

void k8s_tracing_start_span(const struct k8s_tracing_start *start)
{
	if (coarse_now_s() >= process.due_s)
		announce();
	lttng_ust_tracepoint(k8s_tracing, start_span, start, process.instance_id);
}

void k8s_tracing_end_span(const struct k8s_tracing_end *end)
{
	lttng_ust_tracepoint(k8s_tracing, end_span, end);
}

void k8s_tracing_span_event(const struct k8s_tracing_event *event)
{
	lttng_ust_tracepoint(k8s_tracing, span_event, event);
}

void k8s_tracing_span_link(const struct k8s_tracing_link *link)
{
	lttng_ust_tracepoint(k8s_tracing, span_link, link);
}

int k8s_tracing_set_process(uint64_t instance_id, const uint8_t *resource, uint32_t size)
{
	uint8_t *copy = calloc(1, size + K8S_TRACING_WORD);

	if (!copy)
		return -1;
	memcpy(copy, resource, size);
	free(process.resource);
	process.instance_id = instance_id;
	process.resource = copy;
	process.resource_size = size;
	announce();
	return 0;
}

int k8s_tracing_add_scope(uint16_t scope_id, const char *name, const char *version)
{
	struct scope *scope = calloc(1, sizeof(*scope));

	if (!scope)
		return -1;
	scope->id = scope_id;
	scope->name = strdup(name);
	scope->version = strdup(version);
	if (!scope->name || !scope->version) {
		free(scope->name);
		free(scope->version);
		free(scope);
		return -1;
	}
	scope->next = process.scopes;
	process.scopes = scope;
	lttng_ust_tracepoint(k8s_tracing, scope, process.instance_id, scope_id, name, version);
	return 0;
}

/* This thread is about to fork a process that goes on with our code, and does not only exec another
 * program. */
static __thread int forking;

static void before_fork(void)
{
	if (forking)
		lttng_ust_before_fork(&fork_signals);
}

static void after_fork_parent(void)
{
	if (forking)
		lttng_ust_after_fork_parent(&fork_signals);
	forking = 0;
}

static void after_fork_child(void)
{
	if (forking)
		lttng_ust_after_fork_child(&fork_signals);
	forking = 0;
}

int k8s_tracing_handle_forks(void)
{
	return pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

void k8s_tracing_fork_follows(void)
{
	forking = 1;
}

const struct k8s_tracing_provider k8s_tracing_provider = {
	.abi = K8S_TRACING_PROVIDER_ABI,
	.recording = k8s_tracing_recording,
	.start_span = k8s_tracing_start_span,
	.end_span = k8s_tracing_end_span,
	.span_event = k8s_tracing_span_event,
	.span_link = k8s_tracing_span_link,
};
