/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LTTng trace folder (CTF 1.8): its streams, merged by time, and our events among what is in
 * them.
 *
 * What is damaged is left out, counted and said at the end; all else is read.
 */
#ifndef K8S_TRACING_RELAY_CTF_H
#define K8S_TRACING_RELAY_CTF_H

#include "relay_loss.h"
#include "relay_metadata.h"
#include "relay_spans.h"
#include "relay_stream.h"

#define CTF_ERROR_MAX 1024

struct ctf {
	char *folder; /* NULL: none is open */
	struct metadata metadata;
	struct value *values;
	struct stream *streams;
	size_t stream_count;
	struct stream **heap; /* those that are not at their end; the first one is the next */
	size_t heap_size;
	uint64_t damages;
	char damage[CTF_ERROR_MAX / 2]; /* the first */
	char error[CTF_ERROR_MAX];
	struct loss loss;
	struct spans *spans;
	struct output *output;
	struct relay_stats *stats;
};

/* Functions that return an int return -1 on failure; then `error` says why. */
int ctf_init(struct ctf *ctf, struct spans *spans, struct output *output,
	     struct relay_stats *stats);
void ctf_free(struct ctf *ctf);

int ctf_open(struct ctf *ctf, const char *folder);

/* Read a few events: 1; 0 at the end, where the folder is closed, as it is on failure. */
int ctf_step(struct ctf *ctf);

void ctf_close(struct ctf *ctf);

/* The stream whose event or packet's end comes first, NULL at the end; and on to the next one. */
struct stream *ctf_first(const struct ctf *ctf);
void ctf_advance(struct ctf *ctf);

/* The stream's packet at hand, or what is left of it, cannot be read. */
void ctf_damaged(struct ctf *ctf, const struct stream *stream, const char *what);

#endif
