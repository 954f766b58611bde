/* SPDX-License-Identifier: Apache-2.0 */
/* What a relay consists of. */
#ifndef K8S_TRACING_RELAY_PARTS_H
#define K8S_TRACING_RELAY_PARTS_H

#include "relay_ctf.h"

struct relay {
	struct relay_options options;
	struct relay_stats stats;
	struct relay_clock clock;
	struct output output;
	struct spans spans;
	struct ctf ctf;
	int64_t latest_ns;   /* the latest time seen in any folder */
	bool in_chunk;	     /* some of its folders were read */
	struct bytes chunks; /* what relay_save was told last */
	struct bytes state;  /* what it wrote last */
	const char *error;
};

/* The parts that a state holds. Return 0, or -1 without memory. */
int relay_init_parts(struct relay *relay);
void relay_free_parts(struct relay *relay);

int relay_fail(struct relay *relay, const char *error);

#endif
