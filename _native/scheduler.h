/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that the scheduler's events are about, and who they belong to. */
#ifndef K8S_TRACING_SCHEDULER_H
#define K8S_TRACING_SCHEDULER_H

#include <pthread.h>

#include "relay_table.h"
#include "scheduler_history.h"
#include "scheduler_quota.h"
#include "scheduler_trace.h"

/* A cgroup with a CPU quota. */
struct container {
	struct container *next;
	char *cpu_stat; /* its path */
	struct quota quota;
	size_t processes;
	struct thread *threads;
	int64_t *ran_ns; /* for each CPU: when one of its threads was the last time there */
};

struct process {
	struct process *next;
	int32_t pid, vpid;
	uint64_t pid_ns;
	uint64_t serial;
	struct container *container; /* NULL: no quota */
	struct thread *threads;
};

struct thread {
	struct thread *next;		  /* of the process */
	struct thread *next_of_container; /* unless it has ended */
	struct process *process;
	int32_t tid, vtid;
	uint32_t cpu; /* where it ran the last time, or was to run */
	bool ended;
	bool woken; /* while it ran, as it seemed */
	struct history history;
};

struct scheduler {
	pthread_mutex_t lock;
	char *proc;
	uint64_t pid_ns; /* our own, whose numbers the kernel's events have */
	struct trace trace;
	size_t cpu_count;
	int64_t slice_ns; /* of a quota, that a CPU takes at a time */
	struct process *processes;
	struct container *containers;
	struct table by_pid;	/* of processes */
	struct table by_name;	/* of processes: namespace and id there */
	struct table by_tid;	/* of threads that have not ended */
	struct table by_number; /* of threads: process and id there */
	uint64_t serial;
	struct firing *firings;
	size_t firing_count, firing_capacity;
	struct scheduler_event *events; /* that were read at once */
	size_t event_capacity;
	uint64_t points, max_points;
	int64_t remember_ns; /* so much is remembered */
	int64_t read_ns;     /* what happened until then is known */
	int64_t swept_ns;
	struct scheduler_stats stats;
};

/* scheduler_threads.c: the threads and processes there are; returns are as of scheduler_follow. */
/* The inode number of a process's PID namespace; 0: it is gone. `pid` is its folder's name in proc.
 */
uint64_t threads_namespace(const struct scheduler *scheduler, const char *pid);
struct thread *threads_get(const struct scheduler *scheduler, int32_t tid);
int threads_follow(struct scheduler *scheduler, int32_t pid, const char *cpu_stat);
int threads_fork(struct scheduler *scheduler, const struct scheduler_event *event);
void threads_end(struct scheduler *scheduler, struct thread *thread);
const struct thread *threads_find(const struct scheduler *scheduler, uint64_t pid_ns, int64_t vpid,
				  int64_t vtid);
/* Forget what was before that time, and who is gone since. */
void threads_forget(struct scheduler *scheduler, int64_t before_ns);
void threads_free(struct scheduler *scheduler);

#endif
