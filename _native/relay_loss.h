/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What LTTng lost, by the counters in its packets: `packet_seq_num` counts the packets of a buffer,
 * `events_discarded` the events that found no room in it. They run on from chunk to chunk, so each
 * buffer's last ones are remembered.
 */
#ifndef K8S_TRACING_RELAY_LOSS_H
#define K8S_TRACING_RELAY_LOSS_H

#include <stdbool.h>

#include "relay_table.h"

struct counter {
	uint64_t value;
	bool known;
};

/* One buffer of a session: of a CPU and a user, or a process. */
struct buffer_loss {
	uint64_t key;
	uint64_t chunk; /* the last one that had it */
	int64_t end_ns; /* of the last packet; 0: not known */
	struct counter packets;
	struct counter discarded;
};

struct loss {
	struct table buffers;
	uint64_t chunk;
};

/* Return 0, or -1 without memory. */
int loss_init(struct loss *loss);
void loss_free(struct loss *loss);

/* The buffer that a file of a trace comes from; the trace is known by its uuid. NULL without
 * memory. */
struct buffer_loss *loss_buffer(struct loss *loss, const void *trace, size_t size,
				const char *file);

/* The buffer with that key, of which nothing is known yet if it is new. NULL without memory. */
struct buffer_loss *loss_get(struct loss *loss, uint64_t key);

/*
 * What was lost between the counter's last value and this one. The first packet of a buffer has the
 * number 0, and what was discarded until its end was not counted before. Where we come in later,
 * and where a counter goes back, nothing is known to be lost.
 */
uint64_t loss_packets(struct buffer_loss *buffer, uint64_t number, uint32_t bits);
uint64_t loss_discarded(struct buffer_loss *buffer, uint64_t count, uint32_t bits, bool first);

/* A chunk was read: forget old buffers, if there are many. */
void loss_end_chunk(struct loss *loss);

#endif
