/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the thread of a span did meanwhile, asked of somebody who follows the kernel's scheduler.
 *
 * The scheduler knows threads, not spans. So a span is told only if it began and ended on one
 * thread and had that for itself: whatever else was open there meanwhile was an ancestor of it, or
 * had it as an ancestor, and an ancestor's time includes its descendants'. A span that shared its
 * thread with another one (asyncio does that) says just this.
 *
 * For each thread there is a list of the spans that are open on it, by their start. Where LTTng
 * lost events, a span in it may have ended long ago: such spans leave it, and are told nothing.
 */
#ifndef K8S_TRACING_RELAY_CPU_H
#define K8S_TRACING_RELAY_CPU_H

#include "emit.h"
#include "relay.h"
#include "relay_process.h"

struct ctf_clock;
struct span;
struct spans;

/* Who recorded an event, and when by CLOCK_MONOTONIC, which the trace's offset is added to. */
struct cpu_moment {
	struct relay_origin origin;
	int64_t ns;
};

/* A thread that spans are open on. */
struct cpu_thread {
	struct relay_origin origin;
	struct span *first, *last; /* by their start */
	struct span *alone;	   /* all above it are shared */
};

/* The place of a span that is open. */
struct span_cpu {
	struct cpu_thread *thread;  /* that it began on; NULL: it is not told */
	struct span *below, *above; /* what began there before and after it and is open */
	int64_t begin_ns;	    /* by CLOCK_MONOTONIC */
	bool shared;		    /* it did not have the thread for itself */
};

struct cpu {
	struct table threads;
	bool on;
	bool follows;	     /* the scheduler has the clock of the folder that is read */
	uint64_t boot_id[2]; /* 0: nobody asks */
};

static inline bool same_process(const struct relay_origin *a, const struct relay_origin *b)
{
	return a->pid_ns == b->pid_ns && a->vpid == b->vpid;
}

static inline bool same_thread(const struct relay_origin *a, const struct relay_origin *b)
{
	return same_process(a, b) && a->vtid == b->vtid;
}

/* Functions that return an int return 0, or -1 without memory. */
int cpu_init(struct cpu *cpu, const struct relay_options *options);
void cpu_free(struct cpu *cpu);

/* A trace folder has this clock. */
void cpu_see_clock(struct cpu *cpu, const struct ctf_clock *clock);

/* The span began then, there. */
int cpu_begin(struct spans *spans, struct span *span, const struct cpu_moment *start);

/* It has ended (NULL: nobody knows where), and if it can be told what its thread did, it is. */
int cpu_end(struct spans *spans, struct span *span, const struct k8s_tracing_end *end,
	    const struct cpu_moment *moment);

/* It is not open any more, or not known to be, and will not be told. */
void cpu_leave(struct cpu *cpu, struct span *span);

/* For a saved state: where a span began; a vtid of 0: it has no place. Can it be one? Back to it,
 * above all others. */
struct cpu_moment cpu_place(const struct span *span);
bool cpu_is_place(const struct cpu_moment *start);
int cpu_put_back(struct cpu *cpu, struct span *span, const struct cpu_moment *start, bool shared);

/* The state was another boot's, or of a relay that did not ask: its threads and times are none. */
void cpu_forget(struct spans *spans);

#endif
