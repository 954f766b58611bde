// SPDX-License-Identifier: Apache-2.0
/*
 * Where the time of a request went: on a CPU, waiting for one, throttled, or blocked.
 *
 * Asked of the kernel by the thread itself when a local root span starts and when it ends: the
 * thread's CPU time, its run delay (/proc/thread-self/schedstat) and how long its cgroup was
 * throttled (cpu.stat). These are the thread's and not the span's, so they are told only of a span
 * that had the thread for itself: one that no other local root span shared it with, recorded or
 * not. That is what asyncio does, and then nobody can say whose time it was.
 */
#include "core.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cpu_split.h"

/* A file that stays open. Applications close what they do not know (daemons do), and then the
 * number is somebody else's. */
struct kept_file {
	int fd; /* -1: not open */
	dev_t device;
	ino_t inode;
};

/* A thread that local root spans started on. */
struct cpu_thread {
	atomic_uint references; /* the thread's own, given up without the GIL, and its spans' */
	uint32_t generation;
	struct kept_file schedstat;
	uint64_t starts; /* local root spans that started here */
	uint64_t open;	 /* and have not ended */
};

struct cpu {
	struct cpu_thread *thread;
	uint64_t starts; /* the thread's, with this span */
	uint32_t generation;
	bool shared;	 /* another one was open already */
	bool measured;	 /* what follows wall_ns is known */
	int64_t wall_ns; /* 0: not to be told */
	int64_t running_ns;
	uint64_t delay_ns;
	int64_t throttled_ns; /* the cgroup's; -1: unknown */
};

static __thread struct cpu_thread *own;
static pthread_key_t own_key; /* only for its destructor */
static bool has_key;
static struct kept_file cpu_stat = {.fd = -1};
static char *cpu_stat_path;

/* ---- files ------------------------------------------------------------------------- */

static bool kept_open(struct kept_file *file, const char *path)
{
	struct stat status;

	file->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0)
		return false;
	fstat(file->fd, &status);
	file->device = status.st_dev;
	file->inode = status.st_ino;
	return true;
}

static void kept_close(struct kept_file *file)
{
	struct stat status;

	if (file->fd >= 0 && !fstat(file->fd, &status) && status.st_dev == file->device &&
	    status.st_ino == file->inode)
		close(file->fd);
	file->fd = -1;
}

static bool kept_read(const struct kept_file *file, char *text, size_t size)
{
	ssize_t length = file->fd < 0 ? -1 : pread(file->fd, text, size - 1, 0);

	text[length > 0 ? length : 0] = '\0';
	return length > 0;
}

/* ---- threads ----------------------------------------------------------------------- */

static void thread_release(void *released)
{
	struct cpu_thread *thread = released;

	if (atomic_fetch_sub(&thread->references, 1) > 1)
		return;
	kept_close(&thread->schedstat);
	free(thread);
}

static struct cpu_thread *thread_make(void)
{
	struct cpu_thread *thread = calloc(1, sizeof(*thread));

	if (!thread)
		return NULL;
	thread->references = 1;
	thread->schedstat.fd = -1;
	if (pthread_setspecific(own_key, thread)) {
		free(thread);
		return NULL;
	}
	thread->generation = core.generation - 1;
	own = thread;
	return thread;
}

static struct cpu_thread *own_thread(void)
{
	struct cpu_thread *thread = own ? own : thread_make();

	if (thread && thread->generation != core.generation) {
		/* new, or a child's: the file tells of the parent's thread, and spans that are open
		 * are the parent's */
		thread->generation = core.generation;
		thread->open = 0;
		kept_close(&thread->schedstat);
		kept_open(&thread->schedstat, "/proc/thread-self/schedstat");
	}
	return thread;
}

/* ---- readings ---------------------------------------------------------------------- */

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Its first number, the CPU time, is up to a tick (4 ms) late; the second is what it is. */
static bool read_delay(struct cpu_thread *thread, uint64_t *delay_ns)
{
	unsigned long long running, delay, slices;
	char text[96];

	if (!kept_read(&thread->schedstat, text, sizeof(text)) ||
	    sscanf(text, "%llu %llu %llu", &running, &delay, &slices) != 3) {
		kept_close(&thread->schedstat);
		kept_open(&thread->schedstat, "/proc/thread-self/schedstat");
		return false;
	}
	*delay_ns = delay;
	return true;
}

/* Of the cgroup: version 1 counts ns, version 2 us. */
static int64_t read_throttled(void)
{
	static const struct {
		const char *key;
		int64_t unit_ns;
	} keys[] = {{"throttled_usec ", 1000}, {"throttled_time ", 1}};
	char text[1024];

	if (!cpu_stat_path)
		return -1;
	if (kept_read(&cpu_stat, text, sizeof(text)))
		for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
			const char *at = strstr(text, keys[i].key);

			if (at)
				return strtoll(at + strlen(keys[i].key), NULL, 10) *
				       keys[i].unit_ns;
		}
	kept_close(&cpu_stat);
	kept_open(&cpu_stat, cpu_stat_path);
	return -1;
}

/* ---- spans ------------------------------------------------------------------------- */

void cpu_start(Span *span)
{
	struct cpu_thread *thread = own_thread();
	struct cpu *cpu = thread ? PyMem_Malloc(sizeof(*cpu)) : NULL;

	if (!cpu)
		return;
	atomic_fetch_add(&thread->references, 1);
	*cpu = (struct cpu){
		.thread = thread,
		.starts = ++thread->starts,
		.generation = core.generation,
		.shared = thread->open++ > 0,
	};
	span->cpu = cpu;
	/* a time that was given is not when it is measured */
	if (!span->recording || span->start_time_ns)
		return;
	if (!cpu->shared) {
		cpu->throttled_ns = read_throttled();
		cpu->measured = read_delay(thread, &cpu->delay_ns);
		cpu->running_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	}
	cpu->wall_ns = clock_ns(CLOCK_MONOTONIC);
}

void cpu_drop(Span *span)
{
	struct cpu *cpu = span->cpu;

	span->cpu = NULL;
	if (cpu->generation == core.generation)
		cpu->thread->open--;
	thread_release(cpu->thread);
	PyMem_Free(cpu);
}

static int put_summary(Span *span, int64_t running_ns, int64_t throttled_ns)
{
	char text[CPU_SUMMARY_SIZE];

	cpu_print_summary(text, running_ns, throttled_ns);
	return attributes_put_text(&span->attributes, OTLP_SPAN_ATTRIBUTES, CPU_SUMMARY_KEY, text);
}

static int put_ns(Span *span, const char *key, int64_t ns)
{
	return attributes_put_int(&span->attributes, OTLP_SPAN_ATTRIBUTES, key, (uint64_t)ns);
}

/*
 * The four add up to the wall time. cpu.stat counts for the whole cgroup, over all CPUs, also while
 * this thread was blocked: what it says is the most that the thread can have been throttled, and
 * the run delay, which a throttled thread adds to as well, is the other limit.
 */
static int put_split(Span *span, const struct cpu *cpu, int64_t wall_ns, int64_t running_ns,
		     int64_t delay_ns, int64_t throttled_ns)
{
	running_ns = cpu_part(running_ns, wall_ns);
	delay_ns = cpu_part(delay_ns, wall_ns - running_ns);
	if (put_ns(span, CPU_RUNNING_KEY, running_ns) ||
	    put_ns(span, CPU_BLOCKED_KEY, wall_ns - running_ns - delay_ns))
		return -1;
	if (cpu->throttled_ns < 0 || throttled_ns < 0)
		return put_ns(span, CPU_RUN_QUEUE_KEY, delay_ns);
	throttled_ns = cpu_part(throttled_ns - cpu->throttled_ns, delay_ns);
	if (put_ns(span, CPU_RUN_QUEUE_KEY, delay_ns - throttled_ns) ||
	    put_ns(span, CPU_THROTTLED_KEY, throttled_ns))
		return -1;
	return throttled_ns ? put_summary(span, running_ns, throttled_ns) : 0;
}

static int measure(Span *span, const struct cpu *cpu)
{
	int64_t wall_ns = clock_ns(CLOCK_MONOTONIC) - cpu->wall_ns, running_ns;
	uint64_t delay_ns;

	if (wall_ns < core.cpu_split_ns)
		return 0;
	if (cpu->shared || cpu->starts != cpu->thread->starts)
		return attributes_put_bool(&span->attributes, OTLP_SPAN_ATTRIBUTES, CPU_SHARED_KEY,
					   true);
	running_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu->running_ns;
	if (!cpu->measured || !read_delay(cpu->thread, &delay_ns))
		return 0;
	return put_split(span, cpu, wall_ns, running_ns, (int64_t)(delay_ns - cpu->delay_ns),
			 read_throttled());
}

int cpu_finish(Span *span)
{
	const struct cpu *cpu = span->cpu;
	int result = 0;

	if (span->recording && !span->end_time_ns && core.cpu_split_ns >= 0 &&
	    cpu->generation == core.generation && cpu->thread == own && cpu->wall_ns)
		result = measure(span, cpu);
	cpu_drop(span);
	return result;
}

/* (the shortest span that is told, in ns; the path of its cgroup's cpu.stat, or None), or (-1,
 * None): nothing is measured. */
PyObject *cpu_split(PyObject *module, PyObject *args)
{
	PyObject *path;
	long long shortest_ns;
	char *copy = NULL;

	if (!PyArg_ParseTuple(args, "LO:split_cpu", &shortest_ns, &path))
		return NULL;
	if (!has_key && pthread_key_create(&own_key, thread_release)) {
		PyErr_SetString(PyExc_OSError, "this process has no thread-specific data left");
		return NULL;
	}
	has_key = true;
	if (path != Py_None) {
		PyObject *bytes;

		if (!PyUnicode_FSConverter(path, &bytes))
			return NULL;
		copy = strdup(PyBytes_AS_STRING(bytes));
		Py_DECREF(bytes);
		if (!copy)
			return PyErr_NoMemory();
	}
	free(cpu_stat_path);
	cpu_stat_path = copy;
	kept_close(&cpu_stat);
	if (copy)
		kept_open(&cpu_stat, copy);
	core.cpu_split_ns = shortest_ns < 0 ? -1 : shortest_ns;
	Py_RETURN_NONE;
}
