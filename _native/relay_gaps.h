/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When which buffers lost events, so that spans of that time can say so, and how many in all.
 *
 * "Buffers" are those of a trace folder, by its place in a chunk (ust/uid/1000/64-bit): of a user
 * or a process on all CPUs. Which span's events were lost nobody knows.
 */
#ifndef K8S_TRACING_RELAY_GAPS_H
#define K8S_TRACING_RELAY_GAPS_H

#include <stddef.h>
#include <stdint.h>

#define GAPS_MAX 128	/* what is older is not marked any more */
#define BUFFERS_MAX 256 /* others than the first so many have no count of their own */

struct gap {
	uint64_t buffers;
	int64_t begin_ns;
	int64_t end_ns;
	uint64_t events;
};

struct lossy_buffers {
	uint64_t key;
	char *name; /* "": all others */
	uint64_t lost_events;
	uint64_t gaps;
	int64_t until_ns; /* the end of the last one, by CLOCK_MONOTONIC; 0: not known */
};

struct gaps {
	struct gap gaps[GAPS_MAX]; /* a ring, the oldest is overwritten */
	size_t count;		   /* that there ever were */
	int64_t end_ns;		   /* the latest of all */
	struct lossy_buffers *buffers;
	size_t buffers_count;
};

void gaps_free(struct gaps *gaps);

/* The key of the folder with that name. */
uint64_t gaps_key(const char *name);

/* Buffers lost so many events, or, when that is 0, nobody knows how many. `until_ns` is the end
 * once more, by CLOCK_MONOTONIC; 0: not known. */
void gaps_add(struct gaps *gaps, const char *name, uint64_t events, int64_t begin_ns,
	      int64_t end_ns, int64_t until_ns);

/* How many of these were lost in that time, at least; a gap of unknown size counts for one. */
uint64_t gaps_between(const struct gaps *gaps, uint64_t buffers, int64_t begin_ns, int64_t end_ns);

/* Until when these buffers have lost any, by CLOCK_MONOTONIC; 0: never. */
int64_t gaps_until(const struct gaps *gaps, uint64_t buffers);

/* The count of these buffers, made if need be; NULL without memory. */
struct lossy_buffers *gaps_count(struct gaps *gaps, const char *name);

#endif
