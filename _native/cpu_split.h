/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a span says of its thread's time: the keys and the words, the same whether the thread
 * measured itself (cpu.c) or the scheduler was followed (relay_cpu.c).
 */
#ifndef K8S_TRACING_CPU_SPLIT_H
#define K8S_TRACING_CPU_SPLIT_H

#include <stdint.h>
#include <stdio.h>

#define CPU_KEYS "k8s_tracing.cpu." /* that all of them begin with */
#define CPU_RUNNING_KEY CPU_KEYS "running_ns"
#define CPU_BLOCKED_KEY CPU_KEYS "blocked_ns"
#define CPU_RUN_QUEUE_KEY CPU_KEYS "run_queue_ns"
#define CPU_THROTTLED_KEY CPU_KEYS "throttled_ns"
#define CPU_SUMMARY_KEY CPU_KEYS "summary"
#define CPU_SHARED_KEY CPU_KEYS "shared"

#define CPU_SUMMARY_SIZE 128 /* with the NUL */

/* A part of what is left of a duration. */
static inline int64_t cpu_part(int64_t ns, int64_t left_ns)
{
	return ns < 0 ? 0 : ns < left_ns ? ns : left_ns;
}

static inline int cpu_print_ms(char *text, size_t size, int64_t ns)
{
	return snprintf(text, size, ns < 10000000 ? "%.1f ms" : "%.0f ms", (double)ns / 1e6);
}

static inline void cpu_print_summary(char *text, int64_t running_ns, int64_t throttled_ns)
{
	char running[32], throttled[32];

	cpu_print_ms(running, sizeof(running), running_ns);
	cpu_print_ms(throttled, sizeof(throttled), throttled_ns);
	snprintf(text, CPU_SUMMARY_SIZE, "needed %s of CPU, was throttled %s", running, throttled);
}

#endif
