// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl_parts.h"

#include <string.h>

#define MEMBERS_MAX 4096
#define DEPTH_MAX 32
#define WEIGHT_MAX 65536
#define SIZE_MAX_BITS (UINT64_C(1) << 40)

struct ctf_member *ctf_find_member(const struct ctf_type *type, const char *name)
{
	for (uint32_t i = 0; type && i < type->member_count; i++) {
		const char *own = type->members[i].name;

		if (strcmp(own + (*own == '_'), name) == 0)
			return type->members + i;
	}
	return NULL;
}

struct ctf_type *new_type(struct tsdl *tsdl, enum ctf_kind kind)
{
	struct ctf_type *type = tsdl_allocate(tsdl, sizeof(*type));

	if (!type)
		return NULL;
	type->kind = kind;
	type->alignment = 1;
	type->size = CTF_VARIABLE;
	type->slot = CTF_NO_SLOT;
	type->next = tsdl->types;
	tsdl->types = type;
	return type;
}

struct ctf_member *find_reference(struct tsdl *tsdl, const struct scope *scope,
				  struct tsdl_text name)
{
	for (; scope; scope = scope->outer) {
		for (uint32_t i = scope->type->member_count; i > 0; i--) {
			struct ctf_member *member = scope->type->members + i - 1;

			if (!tsdl_equal(name, member->name) || member->type->kind != CTF_INTEGER)
				continue;
			if (member->slot == CTF_NO_SLOT)
				member->slot = tsdl->slot_count++;
			return member;
		}
	}
	tsdl_fail(tsdl, "a length or a tag is not there");
	return NULL;
}

void *add_element(struct tsdl *tsdl, void *array, uint32_t count, size_t size, uint32_t max)
{
	void *grown = array;

	if (count >= max) {
		tsdl_fail(tsdl, "a type has too many members");
		return NULL;
	}
	if (!count || (count >= 4 && !(count & (count - 1)))) {
		grown = tsdl_allocate(tsdl, size * (count ? 2 * (size_t)count : 4));
		if (grown && count)
			memcpy(grown, array, size * count);
	}
	return grown;
}

static int add_member(struct tsdl *tsdl, struct ctf_type *parent, struct tsdl_text name,
		      struct ctf_type *type)
{
	struct ctf_member *members = add_element(tsdl, parent->members, parent->member_count,
						 sizeof(*members), MEMBERS_MAX);

	if (!members)
		return -1;
	parent->members = members;
	members += parent->member_count;
	*members = (struct ctf_member){tsdl_copy(tsdl, name), type, CTF_NO_SLOT};
	if (!members->name)
		return -1;
	parent->member_count++;
	return 0;
}

static uint64_t align_up(uint64_t position, uint32_t alignment)
{
	return (position + alignment - 1) & ~(uint64_t)(alignment - 1);
}

/* What an array or a sequence has of its element. */
static struct ctf_type *read_array(struct tsdl *tsdl, const struct scope *scope,
				   struct ctf_type *element)
{
	struct ctf_type *type = new_type(tsdl, CTF_ARRAY);
	const struct ctf_member *length;

	if (!type || tsdl_next(tsdl) < 0)
		return NULL;
	type->element = element;
	type->alignment = element->alignment;
	type->depth = element->depth + 1;
	type->weight = element->weight + 1;
	if (tsdl->token == TSDL_NUMBER && !tsdl->negative) {
		uint64_t stride = align_up(element->size, element->alignment);

		type->length = tsdl->number;
		if (element->size != CTF_VARIABLE && stride <= SIZE_MAX_BITS &&
		    (!stride || type->length <= SIZE_MAX_BITS / stride))
			type->size = type->length ? stride * (type->length - 1) + element->size : 0;
	} else {
		length = find_reference(tsdl, scope, tsdl->text);
		if (!length)
			return NULL;
		type->kind = CTF_SEQUENCE;
		type->slot = length->slot;
	}
	return tsdl_next(tsdl) < 0 || tsdl_expect(tsdl, ']') < 0 ? NULL : type;
}

bool begins_type(const struct tsdl *tsdl)
{
	static const char *const words[] = {"integer", "floating_point", "string",
					    "struct",  "variant",	 "enum"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (tsdl_is_word(tsdl, words[i]))
			return true;
	}
	return false;
}

/* `type name;` or `type name[length];` into a struct or a variant. */
static int read_declaration(struct tsdl *tsdl, const struct scope *scope, struct ctf_type *parent)
{
	struct words words = {.size = 0};
	struct tsdl_text name = {0};
	struct ctf_type *type = NULL;

	if (begins_type(tsdl) && !(type = read_type(tsdl, scope)))
		return -1;
	/* The last word is the name, those before it are an alias. */
	for (; tsdl->token == TSDL_WORD; tsdl_next(tsdl)) {
		if (name.size && (type || add_word(tsdl, &words, name) < 0))
			return tsdl_fail(tsdl, "a name has two words");
		name = tsdl->text;
	}
	if (tsdl->error || !name.size)
		return tsdl_fail(tsdl, "a field has no name");
	if (!type && !(type = find_alias(tsdl, &words)))
		return -1;
	if (tsdl_is_mark(tsdl, '[') && !(type = read_array(tsdl, scope, type)))
		return -1;
	parent->weight += type->weight + 1;
	if (type->depth >= DEPTH_MAX || parent->weight > WEIGHT_MAX)
		return tsdl_fail(tsdl, "types lie too deep in one another");
	if (parent->depth <= type->depth)
		parent->depth = type->depth + 1;
	return add_member(tsdl, parent, name, type) < 0 ? -1 : tsdl_expect(tsdl, ';');
}

int read_members(struct tsdl *tsdl, const struct scope *scope, struct ctf_type *parent)
{
	if (tsdl_expect(tsdl, '{') < 0)
		return -1;
	while (!tsdl_is_mark(tsdl, '}')) {
		if (read_declaration(tsdl, scope, parent) < 0)
			return -1;
	}
	return tsdl_next(tsdl);
}

/* The size of a struct, if it is the same for all of them; it begins at its own alignment. */
static void measure_struct(struct ctf_type *type)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < type->member_count; i++) {
		const struct ctf_type *member = type->members[i].type;

		if (type->alignment < member->alignment)
			type->alignment = member->alignment;
		if (member->size == CTF_VARIABLE || size > SIZE_MAX_BITS)
			size = CTF_VARIABLE;
		if (size != CTF_VARIABLE)
			size = align_up(size, member->alignment) + member->size;
	}
	type->size = size;
}

static struct ctf_type *read_struct(struct tsdl *tsdl, const struct scope *outer)
{
	struct scope scope = {.outer = outer};
	struct tsdl_text name = {0};

	if (tsdl->token == TSDL_WORD) {
		name = tsdl->text;
		if (tsdl_next(tsdl) < 0)
			return NULL;
		if (!tsdl_is_mark(tsdl, '{'))
			return find_name(tsdl, STRUCT_NAME, name);
	}
	scope.type = new_type(tsdl, CTF_STRUCT);
	if (!scope.type || read_members(tsdl, &scope, scope.type) < 0)
		return NULL;
	if (tsdl_is_word(tsdl, "align")) {
		if (tsdl_next(tsdl) < 0 || tsdl_expect(tsdl, '(') < 0 ||
		    set_alignment(tsdl, scope.type, tsdl->number) < 0 || tsdl_next(tsdl) < 0 ||
		    tsdl_expect(tsdl, ')') < 0)
			return NULL;
	}
	measure_struct(scope.type);
	if (name.size && add_name(tsdl, STRUCT_NAME, name, scope.type) < 0)
		return NULL;
	return scope.type;
}

static struct ctf_type *read_type_named(struct tsdl *tsdl, const struct scope *scope,
					struct tsdl_text word)
{
	if (tsdl_equal(word, "integer"))
		return read_number(tsdl, CTF_INTEGER, 64);
	if (tsdl_equal(word, "floating_point"))
		return read_number(tsdl, CTF_FLOAT, 128);
	if (tsdl_equal(word, "string"))
		return read_string(tsdl);
	if (tsdl_equal(word, "struct"))
		return read_struct(tsdl, scope);
	if (tsdl_equal(word, "variant"))
		return read_variant(tsdl, scope);
	return read_enum(tsdl, scope);
}

struct ctf_type *read_type(struct tsdl *tsdl, const struct scope *scope)
{
	struct tsdl_text word = tsdl->text;
	struct ctf_type *type = NULL;

	if (++tsdl->depth > DEPTH_MAX)
		tsdl_fail(tsdl, "types lie too deep in one another");
	else if (tsdl_next(tsdl) == 0)
		type = read_type_named(tsdl, scope, word);
	tsdl->depth--;
	return type;
}

struct ctf_type *tsdl_type(struct tsdl *tsdl)
{
	struct words words;

	if (begins_type(tsdl))
		return read_type(tsdl, NULL);
	return read_words(tsdl, &words) < 0 ? NULL : find_alias(tsdl, &words);
}

int tsdl_typealias(struct tsdl *tsdl)
{
	struct ctf_type *type = tsdl_type(tsdl);
	struct words words;

	if (!type || tsdl_expect(tsdl, 'A') < 0 || read_words(tsdl, &words) < 0)
		return -1;
	if (add_name(tsdl, TYPE_ALIAS, (struct tsdl_text){words.text, words.size}, type) < 0)
		return -1;
	return tsdl_expect(tsdl, ';');
}
