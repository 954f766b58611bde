/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LTTng trace folder, read through libbabeltrace2: source.ctf.fs, filter.utils.muxer, and a
 * sink of ours that hands our events on, decoded.
 */
#ifndef K8S_TRACING_RELAY_CTF_H
#define K8S_TRACING_RELAY_CTF_H

#include <babeltrace2/babeltrace.h>

#include "relay_spans.h"

#define CTF_ERROR_MAX 1024

struct ctf {
	const bt_component_class_source *fs_class;
	const bt_component_class_filter *muxer_class;
	bt_graph *graph;	    /* NULL: no folder is open */
	bool has_streams;	    /* if there is metadata only, there is nothing to run */
	struct table event_classes; /* those met in this graph, by their address */
	struct bytes scratch;	    /* the byte sequence of the event at hand */
	struct spans *spans;
	struct output *output;
	struct relay_stats *stats;
	char *folder;
	char error[CTF_ERROR_MAX];
};

/* Functions that return an int return -1 on failure; then `error` says why. */
int ctf_init(struct ctf *ctf, struct spans *spans, struct output *output,
	     struct relay_stats *stats);
void ctf_free(struct ctf *ctf);

int ctf_open(struct ctf *ctf, const char *folder);

/* Read a few messages: 1; 0 at the end, where the folder is closed, as it is on failure. */
int ctf_step(struct ctf *ctf);

void ctf_close(struct ctf *ctf);

#endif
