// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl_parts.h"

#include <string.h>

#define NAMES_MAX 1024

struct tsdl_name {
	struct tsdl_name *next;
	enum name_space space;
	const char *text;
	struct ctf_type *type;
};

struct ctf_type *find_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text)
{
	for (const struct tsdl_name *name = tsdl->names; name; name = name->next) {
		if (name->space == space && tsdl_equal(text, name->text))
			return name->type;
	}
	tsdl_fail(tsdl, "a type is not declared");
	return NULL;
}

int add_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text, struct ctf_type *type)
{
	struct tsdl_name *name;

	if (tsdl->name_count++ >= NAMES_MAX)
		return tsdl_fail(tsdl, "too many types have a name");
	name = tsdl_allocate(tsdl, sizeof(*name));
	if (!name || !(name->text = tsdl_copy(tsdl, text)))
		return -1;
	name->space = space;
	name->type = type;
	name->next = tsdl->names;
	tsdl->names = name;
	return 0;
}

int add_word(struct tsdl *tsdl, struct words *words, struct tsdl_text text)
{
	if (words->size + text.size + 1 > sizeof(words->text))
		return tsdl_fail(tsdl, "the name of a type is too long");
	if (words->size)
		words->text[words->size++] = ' ';
	memcpy(words->text + words->size, text.at, text.size);
	words->size += text.size;
	return 0;
}

int read_words(struct tsdl *tsdl, struct words *words)
{
	words->size = 0;
	for (; tsdl->token == TSDL_WORD; tsdl_next(tsdl)) {
		if (add_word(tsdl, words, tsdl->text) < 0)
			return -1;
	}
	return tsdl->error || !words->size ? tsdl_fail(tsdl, "a type was expected") : 0;
}

struct ctf_type *find_alias(struct tsdl *tsdl, const struct words *words)
{
	return find_name(tsdl, TYPE_ALIAS, (struct tsdl_text){words->text, words->size});
}
