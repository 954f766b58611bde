/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that read types share. */
#ifndef K8S_TRACING_RELAY_TSDL_PARTS_H
#define K8S_TRACING_RELAY_TSDL_PARTS_H

#include "relay_tsdl.h"

#define TSDL_NAME_MAX 256

enum name_space {
	TYPE_ALIAS,
	STRUCT_NAME,
	ENUM_NAME
};

/* The words of a type's name, with one space between them. */
struct words {
	char text[TSDL_NAME_MAX];
	size_t size;
};

/* The structs around what is being read: where a length or a tag is looked for. */
struct scope {
	const struct scope *outer;
	struct ctf_type *type;
};

/* Functions that return a pointer return NULL after an error, those that return an int -1. */
struct ctf_type *new_type(struct tsdl *tsdl, enum ctf_kind kind);

struct ctf_type *find_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text);
struct ctf_type *find_alias(struct tsdl *tsdl, const struct words *words);
int add_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text,
	     struct ctf_type *type);
int add_word(struct tsdl *tsdl, struct words *words, struct tsdl_text text);
int read_words(struct tsdl *tsdl, struct words *words);

/* A slot for the length or the tag that has this name, and its type: the last one before. */
struct ctf_member *find_reference(struct tsdl *tsdl, const struct scope *scope,
				  struct tsdl_text name);

/* Add an element to an array that grows by doubling: where the array is then. */
void *add_element(struct tsdl *tsdl, void *array, uint32_t count, size_t size, uint32_t max);

int set_alignment(struct tsdl *tsdl, struct ctf_type *type, uint64_t alignment);

/* Does the next word begin a type of the language's own? And such a type, from that word on. */
bool begins_type(const struct tsdl *tsdl);
struct ctf_type *read_type(struct tsdl *tsdl, const struct scope *scope);

/* The types of each kind, behind the word that begins them. */
struct ctf_type *read_number(struct tsdl *tsdl, enum ctf_kind kind, uint64_t size_max);
struct ctf_type *read_string(struct tsdl *tsdl);
struct ctf_type *read_enum(struct tsdl *tsdl, const struct scope *scope);
struct ctf_type *read_variant(struct tsdl *tsdl, const struct scope *scope);
int read_members(struct tsdl *tsdl, const struct scope *scope, struct ctf_type *parent);

#endif
