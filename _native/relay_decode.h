/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values out of a packet, as a type says that they lie there.
 *
 * Nothing is read behind the cursor's end, and nothing is copied: strings and sequences are where
 * the packet has them.
 */
#ifndef K8S_TRACING_RELAY_DECODE_H
#define K8S_TRACING_RELAY_DECODE_H

#include "relay_types.h"

struct value {
	uint64_t number;   /* integer: signed ones as 64 bits; string: bytes; sequence: elements */
	const uint8_t *at; /* string, with its NUL; sequence: the first element */
};

struct cursor {
	const uint8_t *data; /* the packet */
	uint64_t at;
	uint64_t end;
	uint64_t budget;      /* members to be visited, against types that are many and empty */
	uint64_t clock;	      /* the last integer that said the time, */
	uint32_t clock_bits;  /* and its size */
	struct value *values; /* by slot */
};

/*
 * Prepare a struct that begins with numbers: they are read in one go. When all slots are given, for
 * slots are where they go to; `loads` has room for as many as the struct has members.
 */
void decode_prepare(struct ctf_type *type, struct ctf_load *loads);

/* Read a value and move behind it. Return -1 if it is not whole or its type does not fit. */
int decode_skip(struct cursor *cursor, const struct ctf_type *type); /* the values may stay */
int decode(struct cursor *cursor, const struct ctf_type *type, uint32_t slot);

#endif
