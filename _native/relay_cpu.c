// SPDX-License-Identifier: Apache-2.0
#include "relay_cpu.h"

#include "cpu_split.h"
#include "otlp.h"
#include "relay_file.h"
#include "relay_metadata.h"
#include "relay_spans.h"

#define S_NS 1000000000

/* Ancestors that shared the thread are followed so far; a span that is nested more deeply shares
 * it, too. Ids come from strangers, who may make a circle of them. */
#define ANCESTORS_MAX 64

/* Bytes of the attributes of one span, with room to spare. */
#define ATTRIBUTES_MAX 512

struct cpu_thread {
	struct relay_origin origin;
	struct span *first, *last; /* open on it */
	struct span *alone;	   /* the last of them that is not shared */
};

enum {
	RUNNING,
	WAITING,
	THROTTLED,
	TIMES
};

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

static bool same_process(const struct relay_origin *a, const struct relay_origin *b)
{
	return a->pid_ns == b->pid_ns && a->vpid == b->vpid;
}

static bool same_thread(const struct relay_origin *a, const struct relay_origin *b)
{
	return same_process(a, b) && a->vtid == b->vtid;
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

/* The last one that is not shared is none any more. */
static void next_alone(struct cpu_thread *thread)
{
	do
		thread->alone = thread->alone->cpu.below;
	while (thread->alone && thread->alone->cpu.shared);
}

void cpu_leave(struct cpu *cpu, struct span *span)
{
	struct cpu_thread *thread = span->cpu.thread;

	if (!thread)
		return;
	if (thread->alone == span)
		next_alone(thread);
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
		ancestor = i < ANCESTORS_MAX ? parent_on(spans, thread, ancestor) : NULL;
	}
	if (alone && ancestor == open)
		return true;
	while (thread->alone && thread->alone != ancestor) {
		thread->alone->cpu.shared = true;
		next_alone(thread);
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
	int64_t lost_until_ns = gaps_until(&spans->gaps, spans->buffers);
	struct cpu_thread *thread;

	if (!is_thread(&start->origin))
		return 0;
	thread = thread_of(spans, &start->origin, lost_until_ns);
	if (start->ns <= lost_until_ns)
		return 0;
	if (!thread)
		thread = thread_add(&spans->cpu, &start->origin);
	if (!thread)
		return -1;
	if (same_thread(&thread->origin, &start->origin))
		append(thread, span, start->ns, !begins_alone(spans, thread, span));
	return 0;
}

/* ---- what is told ------------------------------------------------------------------ */

static uint8_t *put_attribute(uint8_t *at, const char *key, const void *value, size_t size)
{
	size_t key_size = strlen(key);

	at = put_length(at, OTLP_SPAN_ATTRIBUTES,
			length_field_size(key_size) + length_field_size(size));
	at = put_length_field(at, OTLP_KEY, key, key_size);
	return put_length_field(at, OTLP_VALUE, value, size);
}

static uint8_t *put_ns(uint8_t *at, const char *key, int64_t ns)
{
	uint8_t value[1 + VARINT_MAX] = {OTLP_INT_VALUE};

	return put_attribute(at, key, value, put_varint(value + 1, ns) - value);
}

static uint8_t *put_summary(uint8_t *at, int64_t running_ns, int64_t throttled_ns)
{
	char text[CPU_SUMMARY_SIZE];
	uint8_t value[1 + LENGTH_MAX + sizeof(text)];

	cpu_print_summary(text, running_ns, throttled_ns);
	return put_attribute(at, CPU_SUMMARY_KEY, value,
			     put_length_field(value, OTLP_STRING_VALUE, text, strlen(text)) -
				     value);
}

/* The parts add up to the duration. */
static uint8_t *put_split(uint8_t *at, int64_t wall_ns, const int64_t *times_ns)
{
	int64_t running_ns = cpu_part(times_ns[RUNNING], wall_ns);
	int64_t waiting_ns = cpu_part(times_ns[WAITING], wall_ns - running_ns);
	int64_t throttled_ns = cpu_part(times_ns[THROTTLED], wall_ns - running_ns - waiting_ns);

	at = put_ns(at, CPU_RUNNING_KEY, running_ns);
	at = put_ns(at, CPU_BLOCKED_KEY, wall_ns - running_ns - waiting_ns - throttled_ns);
	at = put_ns(at, CPU_RUN_QUEUE_KEY, waiting_ns);
	if (times_ns[THROTTLED] >= 0)
		at = put_ns(at, CPU_THROTTLED_KEY, throttled_ns);
	return throttled_ns ? put_summary(at, running_ns, throttled_ns) : at;
}

static int tell(struct spans *spans, struct span *span, int64_t end_ns)
{
	static const uint8_t yes[] = {OTLP_BOOL_VALUE, 1};
	const struct relay_options *options = spans->options;
	const struct relay_origin *origin = &span->cpu.thread->origin;
	int64_t begin_ns = span->cpu.begin_ns;
	int64_t times_ns[TIMES] = {0, 0, -1};
	uint8_t *at;

	if (!span->cpu.shared &&
	    options->cpu_times(options->scheduler, origin->pid_ns, origin->vpid, origin->vtid,
			       begin_ns, end_ns, times_ns) != 1) {
		spans->stats->cpu_unknown++;
		return 0;
	}
	at = bytes_extend(&span->fields, ATTRIBUTES_MAX);
	if (!at)
		return -1;
	if (span->cpu.shared) {
		at = put_attribute(at, CPU_SHARED_KEY, yes, sizeof(yes));
		spans->stats->cpu_shared++;
	} else {
		at = put_split(at, end_ns - begin_ns, times_ns);
		spans->stats->cpu_told++;
	}
	bytes_end_at(&span->fields, at);
	return 0;
}

/* Has the application told it? The attributes were checked: they are fields with one-byte tags. */
static bool tells_itself(const struct k8s_tracing_end *end)
{
	const uint8_t *at = end->attributes, *last = at + end->attributes_size;
	const size_t size = sizeof(CPU_KEYS) - 1;
	uint64_t field_size, key_size;

	for (; at < last; at += field_size) {
		uint8_t tag = *at;

		at = take_length(at + 1, &field_size);
		if (tag != OTLP_SPAN_ATTRIBUTES || field_size < 2 + size || *at != OTLP_KEY)
			continue;
		if (memcmp(take_length(at + 1, &key_size), CPU_KEYS, size) == 0)
			return true;
	}
	return false;
}

static bool can_be_told(const struct spans *spans, const struct span *span,
			const struct k8s_tracing_end *end, const struct cpu_moment *moment)
{
	const struct relay_origin *origin = &span->cpu.thread->origin;
	int64_t wall_ns;

	if (!moment || !same_thread(&moment->origin, origin))
		return false;
	wall_ns = moment->ns - span->cpu.begin_ns;
	if (wall_ns <= 0 || wall_ns < spans->options->cpu_shortest_ns)
		return false;
	/* a time that was given is not when it was recorded */
	if (end->end_time_ns > 0 || span->start_ns != span->started_at_ns)
		return false;
	if (!span->process->known || !same_process(&span->process->origin, origin))
		return false;
	return span->cpu.begin_ns > gaps_until(&spans->gaps, spans->buffers) && !tells_itself(end);
}

int cpu_end(struct spans *spans, struct span *span, const struct k8s_tracing_end *end,
	    const struct cpu_moment *moment)
{
	int ret = 0;

	if (!span->cpu.thread)
		return 0;
	if (can_be_told(spans, span, end, moment))
		ret = tell(spans, span, moment->ns);
	cpu_leave(&spans->cpu, span);
	return ret;
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
