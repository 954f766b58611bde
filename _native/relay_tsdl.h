/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of CTF 1.8 metadata, TSDL (diamon.org/ctf, section 7): words, types, and blocks of
 * attributes. What lttng-sessiond writes, and not much more: typedefs, scopes inside blocks and
 * references by path are not read.
 *
 * Names of events and fields come from the traced programs, so that this is input from strangers:
 * depth, names and numbers have limits.
 */
#ifndef K8S_TRACING_RELAY_TSDL_H
#define K8S_TRACING_RELAY_TSDL_H

#include "relay_types.h"

enum tsdl_token {
	TSDL_END,
	TSDL_WORD,
	TSDL_NUMBER,
	TSDL_STRING,
	TSDL_MARK
};

struct tsdl_text {
	const char *at; /* not terminated */
	size_t size;
};

struct tsdl_name;
struct tsdl_memory;

struct tsdl {
	const char *at;
	const char *end;
	enum tsdl_token token;
	struct tsdl_text text; /* of the token; of a string, what is between the quotes */
	uint64_t number;
	bool negative;
	char mark;
	const char *error; /* the first one */
	bool out_of_memory;
	struct tsdl_name *names;
	uint32_t name_count;
	uint32_t slot_count;
	uint32_t depth; /* of the types being read */
	struct ctf_type *types;
	struct tsdl_memory *memory;
};

/* One `name = value;` or `name := type;` of a block. */
struct tsdl_attribute {
	struct tsdl_text name;
	struct tsdl_text text; /* the value as it is written, but for a string's quotes */
	bool is_number;
	uint64_t number; /* as 64 bits, if negative */
	bool negative;
	struct ctf_type *type;
};

/* Memory lasts as long as the parser; NULL without. */
void tsdl_init(struct tsdl *tsdl, const char *text, size_t size);
void tsdl_free(struct tsdl *tsdl);
void *tsdl_allocate(struct tsdl *tsdl, size_t size);
char *tsdl_copy(struct tsdl *tsdl, struct tsdl_text text);

/* Functions that return an int return -1 after an error. */
int tsdl_fail(struct tsdl *tsdl, const char *error);
int tsdl_next(struct tsdl *tsdl);
bool tsdl_is_mark(const struct tsdl *tsdl, char mark);
bool tsdl_is_word(const struct tsdl *tsdl, const char *word);
bool tsdl_equal(struct tsdl_text text, const char *word);
int tsdl_expect(struct tsdl *tsdl, char mark);

/* In a block, behind its brace: take the next attribute, 1; or the brace at the end, 0. */
int tsdl_attribute(struct tsdl *tsdl, struct tsdl_attribute *attribute);

/* A type; NULL after an error. What follows it is left. */
struct ctf_type *tsdl_type(struct tsdl *tsdl);

/* Behind the word typealias: take the rest of it. */
int tsdl_typealias(struct tsdl *tsdl);

/* Move on behind a block's closing brace: the cursor is behind the opening one. */
int tsdl_skip_block(struct tsdl *tsdl);

#endif
