// SPDX-License-Identifier: Apache-2.0
/* Which spans are told what their thread did, and in which words. */
#include "cpu_split.h"
#include "otlp.h"
#include "relay_spans.h"

/* Bytes of the attributes of one span, with room to spare. */
#define ATTRIBUTES_MAX 512

enum {
	RUNNING,
	WAITING,
	THROTTLED,
	TIMES
};

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
