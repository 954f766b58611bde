// SPDX-License-Identifier: Apache-2.0
/* Sources: Documentation/trace/ftrace.rst (instances, set_event_pid, event-fork) and events.rst. */
#define _GNU_SOURCE /* O_PATH */
#include "scheduler_trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PREFIX "instances/k8s_tracing-"
#define TIMER_BUFFER_BYTES (64 * 1024)

/* Of the first PID namespace: what the tracepoints' numbers are of. The kernel's proc_ns.h. */
#define INIT_PID_NS 0xEFFFFFFCU

static int fail(struct trace *trace, const char *what, const char *remedy)
{
	snprintf(trace->error, sizeof(trace->error), "%s: %s. %s", what, strerror(errno), remedy);
	return -1;
}

/* ---- files of tracefs -------------------------------------------------------------- */

/*
 * A mount of one's own of tracefs, which no path leads to: it need not be mounted anywhere. Where
 * that is not allowed, the usual place.
 */
static int open_tracefs(void)
{
	int context = syscall(SYS_fsopen, "tracefs", 1 /* FSOPEN_CLOEXEC */);
	int mount = -1;

	if (context >= 0 && !syscall(SYS_fsconfig, context, 6 /* CREATE */, NULL, NULL, 0))
		mount = syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
	if (context >= 0)
		close(context);
	return mount >= 0 ? mount : open("/sys/kernel/tracing", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static bool read_file(const struct trace *trace, const char *path, char *text, size_t size)
{
	int fd = openat(trace->tracefs, path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[length > 0 ? length : 0] = '\0';
	return length > 0;
}

static int write_file(const struct trace *trace, const char *folder, const char *file,
		      const char *text)
{
	char path[256];
	int fd;
	ssize_t written;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = openat(trace->tracefs, path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -1;
	written = write(fd, text, strlen(text));
	close(fd);
	return written < 0 ? -1 : 0;
}

/* "\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;" */
static bool find_field(const char *format, const char *name, unsigned int size, uint32_t *offset,
		       uint32_t *record_size)
{
	char wanted[64];
	unsigned int found_size;
	const char *at;

	snprintf(wanted, sizeof(wanted), " %s;", name);
	at = strstr(format, wanted);
	if (!at || sscanf(at + strlen(wanted), " offset:%u; size:%u;", offset, &found_size) != 2 ||
	    found_size != size)
		return false;
	if (*record_size < *offset + size)
		*record_size = *offset + size;
	return true;
}

static bool find_tracepoint(const struct trace *trace, const char *name, char *format, size_t size,
			    uint16_t *id)
{
	char path[128];
	const char *at;
	unsigned int number;

	snprintf(path, sizeof(path), "events/%s/format", name);
	if (!read_file(trace, path, format, size))
		return false;
	at = strstr(format, "ID: ");
	if (!at || sscanf(at, "ID: %u", &number) != 1 || number > UINT16_MAX)
		return false;
	*id = number;
	return true;
}

static int find_layout(struct trace *trace)
{
	struct trace_layout *layout = &trace->layout;
	char format[8192];
	size_t size = sizeof(format);

	errno = ENOENT;
	if (!find_tracepoint(trace, "sched/sched_switch", format, size, &layout->switch_id) ||
	    !find_field(format, "prev_pid", 4, &layout->prev, &layout->switch_size) ||
	    !find_field(format, "prev_state", 8, &layout->prev_state, &layout->switch_size) ||
	    !find_field(format, "next_pid", 4, &layout->next, &layout->switch_size) ||
	    !find_tracepoint(trace, "sched/sched_waking", format, size, &layout->waking_id) ||
	    !find_field(format, "pid", 4, &layout->woken, &layout->waking_size) ||
	    !find_tracepoint(trace, "task/task_newtask", format, size, &layout->fork_id) ||
	    !find_field(format, "pid", 4, &layout->child, &layout->fork_size) ||
	    !find_field(format, "clone_flags", sizeof(long), &layout->clone_flags,
			&layout->fork_size) ||
	    !find_tracepoint(trace, "sched/sched_process_exit", format, size, &layout->exit_id) ||
	    !find_field(format, "pid", 4, &layout->ended, &layout->exit_size))
		return fail(trace, "cannot find the scheduler's tracepoints",
			    "It needs root with CAP_SYS_ADMIN, or tracefs at /sys/kernel/tracing, "
			    "and a "
			    "kernel that has them");
	if (!find_tracepoint(trace, "timer/hrtimer_expire_entry", format, size,
			     &layout->timer_id) ||
	    !find_field(format, "hrtimer", 8, &layout->timer, &layout->timer_size) ||
	    !find_field(format, "function", 8, &layout->function, &layout->timer_size))
		layout->timer_id = 0;
	return 0;
}

/* The functions' addresses tell these timers from all others; for root's eyes only. */
static void find_functions(struct trace *trace, const char *proc)
{
	char line[512], name[256], path[512];
	unsigned long long address;
	FILE *symbols;

	snprintf(path, sizeof(path), "%s/kallsyms", proc);
	symbols = fopen(path, "re");
	while (symbols && fgets(line, sizeof(line), symbols)) {
		if (sscanf(line, "%llx %*c %255s", &address, name) != 2)
			continue;
		if (!strcmp(name, "sched_cfs_period_timer"))
			trace->period_timer = address;
		else if (!strcmp(name, "sched_cfs_slack_timer"))
			trace->slack_timer = address;
		if (trace->period_timer && trace->slack_timer)
			break;
	}
	if (symbols)
		fclose(symbols);
	if (!trace->period_timer)
		trace->layout.timer_id = 0;
}

/* ---- instances --------------------------------------------------------------------- */

/* What an agent that was killed has left goes on recording into a buffer that nobody reads. */
static void remove_left(const struct trace *trace)
{
	int fd = openat(trace->tracefs, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *prefix = strchr(PREFIX, '/') + 1;
	struct dirent *entry;
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);

	while (folder && (entry = readdir(folder))) {
		int pid;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
		    sscanf(entry->d_name + strlen(prefix), "%d", &pid) == 1 && pid > 0 &&
		    kill(pid, 0) < 0 && errno == ESRCH)
			unlinkat(dirfd(folder), entry->d_name, AT_REMOVEDIR);
	}
	if (folder)
		closedir(folder);
	else if (fd >= 0)
		close(fd);
}

static int make_instance(struct trace *trace, size_t which, const char *kind, uint64_t bytes)
{
	char *name = trace->names[which], size[32];

	snprintf(name, sizeof(trace->names[which]), PREFIX "%d-%s", getpid(), kind);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)(bytes / 1024));
	/* of one that had this process's number, or of this process */
	unlinkat(trace->tracefs, name, AT_REMOVEDIR);
	if (mkdirat(trace->tracefs, name, 0700) < 0) {
		*name = '\0';
		return -1;
	}
	return write_file(trace, name, "tracing_on", "0") < 0 ||
			       write_file(trace, name, "trace_clock", "mono") < 0 ||
			       write_file(trace, name, "buffer_size_kb", size) < 0
		       ? -1
		       : 0;
}

static int make_instances(struct trace *trace, uint64_t buffer_bytes)
{
	static const char *const events[] = {"sched/sched_switch", "sched/sched_waking",
					     "task/task_newtask", "sched/sched_process_exit"};
	char text[128], path[128];

	if (make_instance(trace, 0, "threads", buffer_bytes) < 0)
		return -1;
	/* As long as nobody is in the list, everybody's events are recorded. */
	snprintf(text, sizeof(text), "%d", getpid());
	if (write_file(trace, trace->names[0], "set_event_pid", text) < 0 ||
	    write_file(trace, trace->names[0], "options/event-fork", "1") < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/set_event_pid", trace->names[0]);
	trace->event_pid = openat(trace->tracefs, path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (trace->event_pid < 0)
		return -1;
	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++) {
		snprintf(path, sizeof(path), "events/%s/enable", events[i]);
		if (write_file(trace, trace->names[0], path, "1") < 0)
			return -1;
	}
	if (!trace->layout.timer_id)
		return 0;
	snprintf(text, sizeof(text), "function == 0x%llx || function == 0x%llx",
		 (unsigned long long)trace->period_timer,
		 (unsigned long long)(trace->slack_timer ? trace->slack_timer
							 : trace->period_timer));
	return make_instance(trace, 1, "timers", TIMER_BUFFER_BYTES) < 0 ||
			       write_file(trace, trace->names[1],
					  "events/timer/hrtimer_expire_entry/filter", text) < 0 ||
			       write_file(trace, trace->names[1],
					  "events/timer/hrtimer_expire_entry/enable", "1") < 0
		       ? -1
		       : 0;
}

static int open_rings(struct trace *trace)
{
	size_t cpus = sysconf(_SC_NPROCESSORS_CONF), page = sysconf(_SC_PAGESIZE);

	trace->rings = calloc(2 * cpus, sizeof(*trace->rings));
	trace->order = calloc(2 * cpus, sizeof(*trace->order));
	if (!trace->rings || !trace->order)
		return -1;
	for (size_t i = 0; i < 2 * cpus; i++) {
		struct trace_ring *ring = trace->rings + trace->count;
		const char *instance = trace->names[i / cpus];
		char path[256];

		snprintf(path, sizeof(path), "%s/per_cpu/cpu%zu/trace_pipe_raw", instance,
			 i % cpus);
		if (!*instance)
			continue;
		*ring = (struct trace_ring){.cpu = i % cpus, .page = malloc(page)};
		ring->fd = openat(trace->tracefs, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		ring->at = ring->end = ring->page;
		trace->count++;
		if (!ring->page || ring->fd < 0)
			return -1;
	}
	return 0;
}

static bool in_first_pid_namespace(void)
{
	struct stat status;

	return !stat("/proc/self/ns/pid", &status) && status.st_ino == INIT_PID_NS;
}

void trace_init(struct trace *trace)
{
	*trace = (struct trace){.tracefs = -1, .event_pid = -1};
}

int trace_open(struct trace *trace, const char *proc, uint64_t buffer_bytes)
{
	if (!in_first_pid_namespace()) {
		errno = EPERM;
		return fail(
			trace, "the kernel's events name processes as the node does",
			"The agent must be in the node's PID namespace (hostPID in Kubernetes)");
	}
	trace->tracefs = open_tracefs();
	if (trace->tracefs < 0)
		return fail(trace, "cannot open tracefs",
			    "It needs root (CAP_SYS_ADMIN), or tracefs at /sys/kernel/tracing");
	if (find_layout(trace) < 0)
		return -1;
	find_functions(trace, proc);
	remove_left(trace);
	if (make_instances(trace, buffer_bytes) < 0 || open_rings(trace) < 0)
		return fail(trace, "cannot record the scheduler's events",
			    "It needs root, and a tracefs that may be written to");
	return 0;
}

int trace_start(struct trace *trace)
{
	for (size_t i = 0; i < 2; i++) {
		if (*trace->names[i] && write_file(trace, trace->names[i], "tracing_on", "1") < 0)
			return fail(trace, "cannot record the scheduler's events", "");
	}
	return 0;
}

void trace_close(struct trace *trace)
{
	if (trace->event_pid >= 0)
		close(trace->event_pid);
	for (size_t i = 0; i < trace->count; i++) {
		if (trace->rings[i].fd >= 0)
			close(trace->rings[i].fd);
		free(trace->rings[i].page);
	}
	free(trace->rings);
	free(trace->order);
	for (size_t i = 0; i < 2; i++) {
		if (*trace->names[i])
			unlinkat(trace->tracefs, trace->names[i], AT_REMOVEDIR);
	}
	if (trace->tracefs >= 0)
		close(trace->tracefs);
	trace_init(trace);
}

void trace_follow(const struct trace *trace, int32_t thread)
{
	char text[16];
	int size = snprintf(text, sizeof(text), "%d", thread);

	/* who is gone by now cannot be followed, and need not */
	if (trace->event_pid >= 0 && write(trace->event_pid, text, size) < 0)
		return;
}
