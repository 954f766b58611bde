/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The types of CTF 1.8 (diamon.org/ctf, sections 4 and 7.3), as a trace's metadata declares them.
 *
 * Sizes and alignments are in bits; a position counts from the beginning of its packet.
 */
#ifndef K8S_TRACING_RELAY_TYPES_H
#define K8S_TRACING_RELAY_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ctf_kind {
	CTF_INTEGER, /* an enumeration too */
	CTF_FLOAT,
	CTF_STRING,
	CTF_ARRAY,
	CTF_SEQUENCE,
	CTF_STRUCT,
	CTF_VARIANT
};

enum ctf_byte_order {
	CTF_NATIVE, /* the trace's, which may be declared after the type */
	CTF_LITTLE_ENDIAN,
	CTF_BIG_ENDIAN
};

#define CTF_VARIABLE UINT64_MAX /* the size depends on what is recorded */
#define CTF_NO_SLOT UINT32_MAX

/* A label of an enumeration, or the option of a variant that it selects. */
struct ctf_range {
	const char *label;
	uint64_t first, last; /* signed numbers as their 64 bits */
	const struct ctf_type *option;
};

struct ctf_member {
	const char *name;
	struct ctf_type *type;
	uint32_t slot; /* where a reader puts the value, for those that are asked for */
};

/* A number at a fixed place behind the beginning of its struct, and the slot it is for. */
struct ctf_load {
	uint32_t offset; /* bytes */
	uint32_t slot;
	uint8_t size; /* bits */
	bool is_signed;
	bool big_endian;
};

struct ctf_type {
	enum ctf_kind kind;
	enum ctf_byte_order byte_order;
	bool is_signed;	    /* integer; variant: its tag */
	bool is_clock;	    /* integer: it says the time */
	uint32_t alignment; /* a power of two */
	uint32_t depth;	    /* of the types in it */
	uint32_t weight;    /* how many they are, each as often as it occurs */
	uint64_t size;
	struct ctf_type *element;   /* array, sequence */
	uint64_t length;	    /* array */
	uint32_t slot;		    /* sequence, variant: of its length, of its tag */
	struct ctf_member *members; /* struct, variant */
	uint32_t member_count;
	struct ctf_range *ranges; /* enumeration, variant */
	uint32_t range_count;

	/* The numbers that a struct begins with, for a reader that is in a hurry. */
	struct ctf_load *loads;
	uint32_t load_count;
	uint32_t run_members; /* so many members are read by them, */
	uint64_t run_size;    /* and so many bits */

	struct ctf_type *next; /* all types of a trace */
};

/* A member by its name; LTTng puts an underscore before the names that come from programs. */
struct ctf_member *ctf_find_member(const struct ctf_type *type, const char *name);

#endif
