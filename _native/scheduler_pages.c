// SPDX-License-Identifier: Apache-2.0
/*
 * Sources: Documentation/trace/ftrace.rst (trace_pipe_raw); the layout of a page is what
 * events/header_page and header_event show, and Documentation/trace/ring-buffer-map.rst.
 */
#include "scheduler_trace.h"

#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREEMPTED 0x100 /* in prev_state: TASK_REPORT_MAX of the kernel's linux/sched.h */

static int32_t int_at(const uint8_t *record, uint32_t offset)
{
	int32_t value;

	memcpy(&value, record + offset, sizeof(value));
	return value;
}

static uint64_t long_at(const uint8_t *record, uint32_t offset)
{
	uint64_t value;

	memcpy(&value, record + offset, sizeof(value));
	return value;
}

/* All records begin with u16 id, u8 flags, u8 preempt_count, s32 pid (of the current thread). */
static bool take_record(const struct trace *trace, const uint8_t *record, size_t size,
			struct scheduler_event *event)
{
	const struct trace_layout *layout = &trace->layout;
	uint16_t id;

	if (size < 8)
		return false;
	memcpy(&id, record, sizeof(id));
	if (id == layout->switch_id && size >= layout->switch_size) {
		uint64_t state = long_at(record, layout->prev_state);

		event->kind = SCHEDULER_SWITCH;
		event->thread = int_at(record, layout->prev);
		event->next = int_at(record, layout->next);
		event->runnable = !state || (state & PREEMPTED);
	} else if (id == layout->waking_id && size >= layout->waking_size) {
		event->kind = SCHEDULER_WAKING;
		event->thread = int_at(record, layout->woken);
	} else if (id == layout->fork_id && size >= layout->fork_size) {
		bool thread = long_at(record, layout->clone_flags) & CLONE_THREAD;

		event->kind = thread ? SCHEDULER_THREAD : SCHEDULER_FORK;
		event->next = int_at(record, layout->child);
		event->thread = int_at(record, 4);
	} else if (id == layout->exit_id && size >= layout->exit_size) {
		event->kind = SCHEDULER_EXIT;
		event->thread = int_at(record, layout->ended);
	} else if (id == layout->timer_id && size >= layout->timer_size) {
		event->kind = long_at(record, layout->function) == trace->slack_timer
				      ? SCHEDULER_SLACK
				      : SCHEDULER_REFILL;
		event->timer = long_at(record, layout->timer);
	} else {
		return false;
	}
	return true;
}

/*
 * u64 time, long size of the data (and in its upper bits whether events before it are missing, and
 * whether their number stands behind the data), data.
 */
static bool read_page(struct trace *trace, struct trace_ring *ring)
{
	static const unsigned long missed = 1UL << 31, size_mask = (1UL << 20) - 1;
	size_t page = sysconf(_SC_PAGESIZE), header = 8 + sizeof(long);
	ssize_t got = read(ring->fd, ring->page, page);
	unsigned long size;

	if (got < (ssize_t)header)
		return false;
	memcpy(&size, ring->page + 8, sizeof(size));
	ring->page_ns = long_at(ring->page, 0);
	ring->at = ring->page + header;
	ring->end = ring->at + (size & size_mask);
	if (ring->end > ring->page + got)
		ring->end = ring->page + got;
	if (size & missed) {
		trace->lost++;
		ring->event = (struct scheduler_event){
			.cpu = ring->cpu, .kind = SCHEDULER_LOST, .time_ns = ring->page_ns};
		ring->has_event = true;
	}
	return true;
}

/*
 * u32: 5 bits of type or length, 27 of time since the one before; then the data. Types: 0 the
 * length in bytes (with itself) follows, up to 28 that many words, 29 padding, 30 more bits of the
 * time, 31 a time as it is.
 */
static void take_event(const struct trace *trace, struct trace_ring *ring)
{
	uint32_t head = int_at(ring->at, 0), type = head & 31, word;
	const uint8_t *data = ring->at + 4;
	size_t left = ring->end - data, size = 4 * type;

	word = left >= 4 ? (uint32_t)int_at(data, 0) : 0;
	if ((type == 0 || type >= 29) && left < 4) {
		ring->at = ring->end;
		return;
	}
	if (type == 31) {
		/* 59 bits of it: the rest is the page's */
		ring->page_ns = (ring->page_ns & ~((INT64_C(1) << 59) - 1)) |
				((int64_t)word << 27 | head >> 5);
		ring->at = data + 4;
		return;
	}
	ring->page_ns += head >> 5;
	if (type == 30) {
		ring->page_ns += (int64_t)word << 27;
		ring->at = data + 4;
		return;
	}
	if (type == 29) {
		ring->at = head >> 5 && word <= left ? data + word : ring->end;
		return;
	}
	if (type == 0) {
		size = word < 4 ? 4 : (word + 3) & ~3U;
		if (size > left) {
			ring->at = ring->end;
			return;
		}
		ring->at = data + size;
		data += 4;
		size -= 4;
	} else if (size > left) {
		ring->at = ring->end;
		return;
	} else {
		ring->at = data + size;
	}
	ring->event = (struct scheduler_event){.cpu = ring->cpu, .time_ns = ring->page_ns};
	ring->has_event = take_record(trace, data, size, &ring->event);
}

/* Have the ring's next event at hand, if there is one. */
static bool look(struct trace *trace, struct trace_ring *ring)
{
	while (!ring->has_event) {
		if (ring->at + 4 <= ring->end)
			take_event(trace, ring);
		else if (!read_page(trace, ring))
			return false;
	}
	/* an interrupt's event may stand before that of what it interrupted */
	if (ring->event.time_ns < ring->latest_ns)
		ring->event.time_ns = ring->latest_ns;
	return true;
}

/* Put a ring where it belongs by the time of its event. */
static void put_in_order(struct trace *trace, size_t ring, size_t at)
{
	int64_t time_ns = trace->rings[ring].event.time_ns;

	for (; at + 1 < trace->ordered; at++) {
		if (trace->rings[trace->order[at + 1]].event.time_ns >= time_ns)
			break;
		trace->order[at] = trace->order[at + 1];
	}
	trace->order[at] = ring;
}

void trace_begin(struct trace *trace, int64_t until_ns)
{
	trace->ordered = 0;
	for (size_t i = 0; i < trace->count; i++) {
		struct trace_ring *ring = trace->rings + i;
		size_t at;

		if (!look(trace, ring) || ring->event.time_ns > until_ns)
			continue;
		at = trace->ordered++;
		for (; at && trace->rings[trace->order[at - 1]].event.time_ns > ring->event.time_ns;
		     at--)
			trace->order[at] = trace->order[at - 1];
		trace->order[at] = i;
	}
}

bool trace_next(struct trace *trace, int64_t until_ns, struct scheduler_event *event)
{
	struct trace_ring *ring;
	size_t first;

	if (!trace->ordered)
		return false;
	first = trace->order[0];
	ring = trace->rings + first;
	*event = ring->event;
	ring->latest_ns = ring->event.time_ns;
	ring->has_event = false;
	if (look(trace, ring) && ring->event.time_ns <= until_ns) {
		put_in_order(trace, first, 0);
	} else {
		trace->ordered--;
		memmove(trace->order, trace->order + 1, trace->ordered * sizeof(*trace->order));
	}
	return true;
}
