// SPDX-License-Identifier: Apache-2.0
/* Which processes and threads are followed, by /proc and the kernel's word on forks and exits. */
#include "scheduler.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define THREADS_MAX 65536

static uint64_t name_key(uint64_t pid_ns, int64_t vpid)
{
	return pid_ns << 32 ^ (uint32_t)vpid; /* inode numbers of namespaces have 32 bits */
}

static uint64_t number_key(const struct process *process, int64_t vtid)
{
	return process->serial << 32 | (uint32_t)vtid;
}

struct thread *threads_get(const struct scheduler *scheduler, int32_t tid)
{
	return table_get(&scheduler->by_tid, (uint32_t)tid);
}

const struct thread *threads_find(const struct scheduler *scheduler, uint64_t pid_ns, int64_t vpid,
				  int64_t vtid)
{
	const struct process *process = table_get(&scheduler->by_name, name_key(pid_ns, vpid));

	return process ? table_get(&scheduler->by_number, number_key(process, vtid)) : NULL;
}

/* Put it into the table in place of another one. */
static int replace(struct table *table, uint64_t key, void *value)
{
	if (table_get(table, key))
		table_remove(table, key);
	return table_add(table, key, value);
}

/* ---- /proc ------------------------------------------------------------------------- */

/* Its id in the innermost of its PID namespaces; 0: it is gone. */
static int32_t innermost_id(const struct scheduler *scheduler, int32_t pid, int32_t tid)
{
	char path[512], line[256];
	int32_t id = 0;
	FILE *status;

	snprintf(path, sizeof(path), "%s/%d/task/%d/status", scheduler->proc, pid, tid);
	status = fopen(path, "re");
	if (!status)
		return 0;
	while (fgets(line, sizeof(line), status)) {
		if (strncmp(line, "NSpid:", 6) == 0) {
			id = atoi(strrchr(line, '\t'));
			break;
		}
	}
	fclose(status);
	return id;
}

uint64_t threads_namespace(const struct scheduler *scheduler, const char *pid)
{
	struct stat status;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s/ns/pid", scheduler->proc, pid);
	return stat(path, &status) ? 0 : status.st_ino;
}

/* ---- containers -------------------------------------------------------------------- */

static struct container *find_container(struct scheduler *scheduler, const char *cpu_stat)
{
	struct container *container = scheduler->containers;

	while (container && strcmp(container->cpu_stat, cpu_stat))
		container = container->next;
	if (container)
		return container;
	container = calloc(1, sizeof(*container));
	if (!container)
		return NULL;
	container->cpu_stat = strdup(cpu_stat);
	container->ran_ns = calloc(scheduler->cpu_count, sizeof(*container->ran_ns));
	if (!container->cpu_stat || !container->ran_ns) {
		free(container->cpu_stat);
		free(container->ran_ns);
		free(container);
		return NULL;
	}
	quota_init(&container->quota, cpu_stat);
	quota_read(&container->quota);
	container->next = scheduler->containers;
	scheduler->containers = container;
	scheduler->stats.containers++;
	return container;
}

static void free_container(struct scheduler *scheduler, struct container *container)
{
	struct container **at = &scheduler->containers;

	while (*at != container)
		at = &(*at)->next;
	*at = container->next;
	quota_free(&container->quota);
	free(container->cpu_stat);
	free(container->ran_ns);
	free(container);
	scheduler->stats.containers--;
}

/* ---- processes and threads --------------------------------------------------------- */

static int add_thread(struct scheduler *scheduler, struct process *process, int32_t tid)
{
	/* where the numbers are the same, a thread that is gone by now is known, too */
	int32_t vtid = process->pid_ns == scheduler->pid_ns
			       ? tid
			       : innermost_id(scheduler, process->pid, tid);
	struct thread *thread;

	if (!vtid || scheduler->stats.threads >= THREADS_MAX) {
		scheduler->stats.not_followed++;
		return 0;
	}
	thread = calloc(1, sizeof(*thread));
	if (!thread)
		return -1;
	*thread = (struct thread){
		.next = process->threads,
		.process = process,
		.tid = tid,
		.vtid = vtid,
	};
	process->threads = thread;
	if (process->container) {
		thread->next_of_container = process->container->threads;
		process->container->threads = thread;
	}
	scheduler->stats.threads++;
	if (replace(&scheduler->by_tid, (uint32_t)tid, thread) < 0 ||
	    replace(&scheduler->by_number, number_key(process, vtid), thread) < 0)
		return -1;
	return 1;
}

/* Those that are not there yet: how many, or -1 without memory. */
static int add_some_threads(struct scheduler *scheduler, struct process *process)
{
	struct dirent *entry;
	char path[512];
	DIR *tasks;
	int ret = 0, count = 0;

	snprintf(path, sizeof(path), "%s/%d/task", scheduler->proc, process->pid);
	tasks = opendir(path);
	while (ret >= 0 && tasks && (entry = readdir(tasks))) {
		int32_t tid = atoi(entry->d_name);

		if (tid <= 0 || threads_get(scheduler, tid))
			continue;
		trace_follow(&scheduler->trace, tid);
		ret = add_thread(scheduler, process, tid);
		count += ret;
	}
	if (tasks)
		closedir(tasks);
	return ret < 0 ? -1 : count;
}

/* What a thread makes while it is not heard of is found by looking again. */
static int add_threads(struct scheduler *scheduler, struct process *process)
{
	int count;

	do {
		count = add_some_threads(scheduler, process);
	} while (count > 0);
	return count < 0 ? -1 : 1;
}

static struct process *add_process(struct scheduler *scheduler, int32_t pid,
				   struct container *container)
{
	struct process *process = calloc(1, sizeof(*process));
	char name[16];

	if (!process)
		return NULL;
	snprintf(name, sizeof(name), "%d", pid);
	*process = (struct process){
		.next = scheduler->processes,
		.pid = pid,
		.vpid = innermost_id(scheduler, pid, pid),
		.pid_ns = threads_namespace(scheduler, name),
		.serial = ++scheduler->serial,
		.container = container,
	};
	if (container)
		container->processes++;
	scheduler->processes = process;
	scheduler->stats.processes++;
	if (replace(&scheduler->by_pid, (uint32_t)pid, process) < 0 ||
	    replace(&scheduler->by_name, name_key(process->pid_ns, process->vpid), process) < 0)
		return NULL; /* it is freed with the others */
	return process;
}

/* All threads of it have ended: a process with that number is another one. */
static bool is_over(const struct process *process)
{
	for (const struct thread *thread = process->threads; thread; thread = thread->next) {
		if (!thread->ended)
			return false;
	}
	return true;
}

int threads_follow(struct scheduler *scheduler, int32_t pid, const char *cpu_stat)
{
	struct process *process = table_get(&scheduler->by_pid, (uint32_t)pid);
	struct container *container = NULL;

	if (process && !is_over(process))
		return 1;
	if (!innermost_id(scheduler, pid, pid))
		return 0;
	if (cpu_stat && !(container = find_container(scheduler, cpu_stat)))
		return -1;
	process = add_process(scheduler, pid, container);
	return process ? add_threads(scheduler, process) : -1;
}

int threads_fork(struct scheduler *scheduler, const struct scheduler_event *event)
{
	const struct thread *maker = threads_get(scheduler, event->thread);
	struct process *process;

	/* it may have been there when its process was looked at */
	if (!maker || threads_get(scheduler, event->next))
		return 0;
	process = event->kind == SCHEDULER_THREAD
			  ? maker->process
			  : add_process(scheduler, event->next, maker->process->container);
	return process ? add_thread(scheduler, process, event->next) : -1;
}

void threads_end(struct scheduler *scheduler, struct thread *thread)
{
	struct container *container = thread->process->container;

	thread->ended = true;
	table_remove(&scheduler->by_tid, (uint32_t)thread->tid);
	for (struct thread **at = container ? &container->threads : NULL; at && *at;
	     at = &(*at)->next_of_container) {
		if (*at == thread) {
			*at = thread->next_of_container;
			break;
		}
	}
}

/* ---- forgetting -------------------------------------------------------------------- */

static void remove_if(struct table *table, uint64_t key, const void *value)
{
	if (table_get(table, key) == value)
		table_remove(table, key);
}

static void free_thread(struct scheduler *scheduler, struct thread *thread)
{
	if (!thread->ended)
		threads_end(scheduler, thread);
	remove_if(&scheduler->by_number, number_key(thread->process, thread->vtid), thread);
	scheduler->points -= thread->history.count;
	scheduler->stats.threads--;
	history_free(&thread->history);
	free(thread);
}

static void free_process(struct scheduler *scheduler, struct process *process)
{
	struct container *container = process->container;

	while (process->threads) {
		struct thread *thread = process->threads;

		process->threads = thread->next;
		free_thread(scheduler, thread);
	}
	scheduler->stats.processes--;
	remove_if(&scheduler->by_pid, (uint32_t)process->pid, process);
	remove_if(&scheduler->by_name, name_key(process->pid_ns, process->vpid), process);
	free(process);
	if (container && --container->processes == 0)
		free_container(scheduler, container);
}

static bool is_forgotten(const struct thread *thread, int64_t before_ns)
{
	return thread->ended &&
	       (!thread->history.count || history_last(&thread->history)->time_ns < before_ns);
}

void threads_forget(struct scheduler *scheduler, int64_t before_ns)
{
	struct process **process = &scheduler->processes;

	while (*process) {
		struct process *each = *process;
		struct thread **thread = &each->threads;

		while (*thread) {
			struct thread *one = *thread;

			if (is_forgotten(one, before_ns)) {
				*thread = one->next;
				free_thread(scheduler, one);
				continue;
			}
			scheduler->points -= history_forget(&one->history, before_ns);
			thread = &one->next;
		}
		if (each->threads) {
			process = &each->next;
		} else {
			*process = each->next;
			free_process(scheduler, each);
		}
	}
}

void threads_free(struct scheduler *scheduler)
{
	while (scheduler->processes) {
		struct process *process = scheduler->processes;

		scheduler->processes = process->next;
		free_process(scheduler, process);
	}
}
