// SPDX-License-Identifier: Apache-2.0
#include "relay_cpu.h"

#include "relay_file.h"
#include "relay_metadata.h"
#include "relay_spans.h"

#define S_NS 1000000000

/* Ancestors that shared the thread are followed so far; a span that is nested more deeply shares
 * it, too. Ids come from strangers, who may make a circle of them. */
#define ANCESTORS_MAX 64

/* ---- threads ----------------------------------------------------------------------- */

int cpu_init(struct cpu *cpu, const struct relay_options *options)
{
	struct tsdl_text text = {.size = FILE_UUID_SIZE};
	char id[FILE_UUID_SIZE];

	*cpu = (struct cpu){0};
	text.at = id;
	cpu->on = options->cpu_times && file_boot_id(id) == 0 &&
		  metadata_uuid(text, (uint8_t *)cpu->boot_id) == 0;
	return table_init(&cpu->threads);
}

void cpu_free(struct cpu *cpu)
{
	for (size_t i = 0; cpu->threads.entries && i <= cpu->threads.mask; i++)
		free(cpu->threads.entries[i].value);
	table_free(&cpu->threads);
}

void cpu_see_clock(struct cpu *cpu, const struct ctf_clock *clock)
{
	_Static_assert(sizeof(cpu->boot_id) == sizeof(clock->uuid), "a boot's id is a uuid");
	cpu->follows = cpu->on && clock->has_uuid && clock->frequency == S_NS &&
		       memcmp(clock->uuid, cpu->boot_id, sizeof(clock->uuid)) == 0;
}

static bool is_thread(const struct relay_origin *origin)
{
	return origin->pid_ns && origin->vpid > 0 && origin->vtid > 0;
}

static uint64_t thread_key(const struct relay_origin *origin)
{
	uint64_t ids = (uint64_t)origin->vpid << 32 | (uint32_t)origin->vtid;

	return ids ^ origin->pid_ns * UINT64_C(0x9e3779b97f4a7c15);
}

static struct cpu_thread *thread_add(struct cpu *cpu, const struct relay_origin *origin)
{
	struct cpu_thread *thread = calloc(1, sizeof(*thread));

	if (!thread)
		return NULL;
	thread->origin = *origin;
	if (table_add(&cpu->threads, thread_key(origin), thread) == 0)
		return thread;
	free(thread);
	return NULL;
}

/* ---- the spans that are open on a thread ------------------------------------------- */

static void append(struct cpu_thread *thread, struct span *span, int64_t begin_ns, bool shared)
{
	span->cpu = (struct span_cpu){
		.thread = thread,
		.below = thread->last,
		.begin_ns = begin_ns,
		.shared = shared,
	};
	*(thread->last ? &thread->last->cpu.above : &thread->first) = span;
	thread->last = span;
	if (!shared)
		thread->alone = span;
}

void cpu_leave(struct cpu *cpu, struct span *span)
{
	struct cpu_thread *thread = span->cpu.thread;

	if (!thread)
		return;
	if (thread->alone == span)
		thread->alone = span->cpu.below;
	*(span->cpu.below ? &span->cpu.below->cpu.above : &thread->first) = span->cpu.above;
	*(span->cpu.above ? &span->cpu.above->cpu.below : &thread->last) = span->cpu.below;
	span->cpu = (struct span_cpu){0};
	if (thread->first)
		return;
	table_remove(&cpu->threads, thread_key(&thread->origin));
	free(thread);
}

/* Its parent, if that is open on the thread as well. */
static struct span *parent_on(const struct spans *spans, const struct cpu_thread *thread,
			      const struct span *span)
{
	struct span *parent = pool_get(&spans->pool, span->parent_span_id);

	if (!parent || parent->cpu.thread != thread || parent->trace_id_low != span->trace_id_low)
		return NULL;
	return parent;
}

/*
 * Is all that is open on the thread an ancestor of the span that begins there? What is none shares
 * the thread with it from now on.
 *
 * Whatever lies below one that is not shared is an ancestor of it. So the way up ends at the first
 * of these, and whoever is not shared above it is no ancestor.
 */
static bool begins_alone(struct spans *spans, struct cpu_thread *thread, const struct span *span)
{
	struct span *open = thread->last;
	struct span *ancestor = parent_on(spans, thread, span);
	bool alone = true;

	for (int i = 0; ancestor && ancestor->cpu.shared; i++) {
		alone &= ancestor == open;
		open = open ? open->cpu.below : NULL;
		ancestor = i + 1 < ANCESTORS_MAX ? parent_on(spans, thread, ancestor) : NULL;
	}
	if (alone && ancestor == open)
		return true;
	while (thread->alone && thread->alone != ancestor) {
		thread->alone->cpu.shared = true;
		thread->alone = thread->alone->cpu.below;
	}
	return false;
}

/* Spans that began before their buffers last lost something may have ended. */
static struct cpu_thread *thread_of(struct spans *spans, const struct relay_origin *origin,
				    int64_t lost_until_ns)
{
	struct cpu *cpu = &spans->cpu;
	struct cpu_thread *thread;

	while ((thread = table_get(&cpu->threads, thread_key(origin))) &&
	       thread->first->cpu.begin_ns <= lost_until_ns)
		cpu_leave(cpu, thread->first);
	return thread;
}

int cpu_begin(struct spans *spans, struct span *span, const struct cpu_moment *start)
{
	struct cpu_thread *thread;

	if (!is_thread(&start->origin))
		return 0;
	thread = thread_of(spans, &start->origin, gaps_until(&spans->gaps, spans->buffers));
	if (!thread)
		thread = thread_add(&spans->cpu, &start->origin);
	if (!thread)
		return -1;
	if (same_thread(&thread->origin, &start->origin))
		append(thread, span, start->ns, !begins_alone(spans, thread, span));
	return 0;
}

/* ---- the state --------------------------------------------------------------------- */

struct cpu_moment cpu_place(const struct span *span)
{
	if (!span->cpu.thread)
		return (struct cpu_moment){0};
	return (struct cpu_moment){span->cpu.thread->origin, span->cpu.begin_ns};
}

bool cpu_is_place(const struct cpu_moment *start)
{
	return is_thread(&start->origin) && start->ns >= 0;
}

int cpu_put_back(struct cpu *cpu, struct span *span, const struct cpu_moment *start, bool shared)
{
	struct cpu_thread *thread = table_get(&cpu->threads, thread_key(&start->origin));

	if (!thread)
		thread = thread_add(cpu, &start->origin);
	if (!thread)
		return -1;
	if (same_thread(&thread->origin, &start->origin))
		append(thread, span, start->ns, shared);
	return 0;
}

void cpu_forget(struct spans *spans)
{
	for (struct span *span = spans->open.first; span; span = span->next)
		cpu_leave(&spans->cpu, span);
	for (size_t i = 0; i < spans->gaps.buffers_count; i++)
		spans->gaps.buffers[i].until_ns = 0;
}
