/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream of a trace: the packets of a file, and the events of the packets.
 *
 * The index files are not needed. A packet that contradicts itself is left out and counted, and so
 * is the rest of one behind an event that cannot be read; the next one begins where the packet's
 * size says. LTTng's counters tell what is missing.
 */
#ifndef K8S_TRACING_RELAY_STREAM_H
#define K8S_TRACING_RELAY_STREAM_H

#include "relay_decode.h"
#include "relay_file.h"
#include "relay_loss.h"
#include "relay_metadata.h"

struct ctf;

struct stream {
	struct mapped_file file;
	char *name;
	const struct ctf_stream_class *class; /* of the packet at hand */
	struct buffer_loss *loss;
	struct cursor cursor; /* in the packet at hand */
	size_t packet;	      /* where it begins in the file, */
	size_t next;	      /* and where the next one does */
	bool in_packet;
	uint64_t event_context; /* where it begins, of the event that was read */
	uint64_t clock;		/* cycles: of the last event */
	uint64_t end_clock;	/* of the packet's end; UINT64_MAX: not known */

	/* What comes next. */
	int64_t time_ns;
	const struct ctf_event_class *event; /* NULL: the packet ends */
};

/* Find what comes next: 1, or 0 at the end of the file. */
int stream_next(struct ctf *ctf, struct stream *stream);

/* Read that event's fields into the cursor's values. Return -1 if they are not whole. */
int stream_read_event(struct ctf *ctf, struct stream *stream);

/* Read its context as well, which is not needed of most. */
void stream_read_context(const struct stream *stream);

#endif
