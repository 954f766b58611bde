// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl.h"

#include <string.h>

#define NAMES_MAX 1024
#define MEMBERS_MAX 4096
#define RANGES_MAX 4096
#define DEPTH_MAX 32
#define WEIGHT_MAX 65536
#define NAME_MAX 256
#define ALIGNMENT_MAX (1 << 15)
#define SIZE_MAX_BITS (UINT64_C(1) << 40)

enum name_space {
	TYPE_ALIAS,
	STRUCT_NAME,
	ENUM_NAME
};

struct tsdl_name {
	struct tsdl_name *next;
	enum name_space space;
	const char *text;
	struct ctf_type *type;
};

/* The structs around what is being read: where a length or a tag is looked for. */
struct scope {
	const struct scope *outer;
	struct ctf_type *type;
};

static struct ctf_type *read_type(struct tsdl *tsdl, const struct scope *scope);

struct ctf_member *ctf_find_member(const struct ctf_type *type, const char *name)
{
	for (uint32_t i = 0; type && i < type->member_count; i++) {
		const char *own = type->members[i].name;

		if (strcmp(own + (*own == '_'), name) == 0)
			return type->members + i;
	}
	return NULL;
}

static struct ctf_type *new_type(struct tsdl *tsdl, enum ctf_kind kind)
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

static struct ctf_type *find_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text)
{
	for (const struct tsdl_name *name = tsdl->names; name; name = name->next) {
		if (name->space == space && tsdl_equal(text, name->text))
			return name->type;
	}
	tsdl_fail(tsdl, "a type is not declared");
	return NULL;
}

static int add_name(struct tsdl *tsdl, enum name_space space, struct tsdl_text text,
		    struct ctf_type *type)
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

/* The words of a type's name, with one space between them. */
struct words {
	char text[NAME_MAX];
	size_t size;
};

static int add_word(struct tsdl *tsdl, struct words *words, struct tsdl_text text)
{
	if (words->size + text.size + 1 > sizeof(words->text))
		return tsdl_fail(tsdl, "the name of a type is too long");
	if (words->size)
		words->text[words->size++] = ' ';
	memcpy(words->text + words->size, text.at, text.size);
	words->size += text.size;
	return 0;
}

static int read_words(struct tsdl *tsdl, struct words *words)
{
	words->size = 0;
	for (; tsdl->token == TSDL_WORD; tsdl_next(tsdl)) {
		if (add_word(tsdl, words, tsdl->text) < 0)
			return -1;
	}
	return tsdl->error || !words->size ? tsdl_fail(tsdl, "a type was expected") : 0;
}

static struct ctf_type *find_alias(struct tsdl *tsdl, const struct words *words)
{
	return find_name(tsdl, TYPE_ALIAS, (struct tsdl_text){words->text, words->size});
}

/* A slot for the length or the tag that has this name, and its type: the last one before. */
static struct ctf_member *find_reference(struct tsdl *tsdl, const struct scope *scope,
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

static int set_alignment(struct tsdl *tsdl, struct ctf_type *type, uint64_t alignment)
{
	if (!alignment || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)))
		return tsdl_fail(tsdl, "an alignment is not a power of two");
	if (type->alignment < alignment)
		type->alignment = alignment;
	return 0;
}

static enum ctf_byte_order byte_order(struct tsdl *tsdl, struct tsdl_text text)
{
	if (tsdl_equal(text, "be") || tsdl_equal(text, "network"))
		return CTF_BIG_ENDIAN;
	if (tsdl_equal(text, "le"))
		return CTF_LITTLE_ENDIAN;
	if (!tsdl_equal(text, "native"))
		tsdl_fail(tsdl, "a byte order is none");
	return CTF_NATIVE;
}

static bool maps_clock(struct tsdl_text text)
{
	return text.size > 12 && memcmp(text.at, "clock.", 6) == 0 &&
	       memcmp(text.at + text.size - 6, ".value", 6) == 0;
}

/* The block of attributes of an integer, a float or a string. */
static int read_attributes(struct tsdl *tsdl, struct ctf_type *type)
{
	struct tsdl_attribute a;
	uint64_t digits = 0;
	int more;

	if (tsdl_expect(tsdl, '{') < 0)
		return -1;
	while ((more = tsdl_attribute(tsdl, &a)) > 0) {
		if (tsdl_equal(a.name, "size"))
			type->size = a.number;
		else if (tsdl_equal(a.name, "exp_dig") || tsdl_equal(a.name, "mant_dig"))
			type->size = digits += a.number <= 128 ? a.number : 256;
		else if (tsdl_equal(a.name, "align"))
			set_alignment(tsdl, type, a.number);
		else if (tsdl_equal(a.name, "signed"))
			type->is_signed = a.is_number ? a.number : tsdl_equal(a.text, "true");
		else if (tsdl_equal(a.name, "byte_order"))
			type->byte_order = byte_order(tsdl, a.text);
		else if (tsdl_equal(a.name, "map"))
			type->is_clock = maps_clock(a.text);
	}
	return more < 0 ? -1 : tsdl_expect(tsdl, '}');
}

static struct ctf_type *read_number(struct tsdl *tsdl, enum ctf_kind kind, uint64_t size_max)
{
	struct ctf_type *type = new_type(tsdl, kind);

	if (!type || read_attributes(tsdl, type) < 0)
		return NULL;
	if (!type->size || type->size > size_max) {
		tsdl_fail(tsdl, "the size of a number is none");
		return NULL;
	}
	return type;
}

static struct ctf_type *read_string(struct tsdl *tsdl)
{
	struct ctf_type *type = new_type(tsdl, CTF_STRING);

	if (!type || (tsdl_is_mark(tsdl, '{') && read_attributes(tsdl, type) < 0))
		return NULL;
	type->alignment = 8;
	type->size = CTF_VARIABLE;
	return type;
}

/* Add an element to an array that grows by doubling. */
static void *add_element(struct tsdl *tsdl, void *array, uint32_t count, size_t size, uint32_t max)
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

static bool begins_type(const struct tsdl *tsdl)
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

static int read_members(struct tsdl *tsdl, const struct scope *scope, struct ctf_type *parent)
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

static int add_range(struct tsdl *tsdl, struct ctf_type *type, const struct ctf_range *range)
{
	struct ctf_range *ranges =
		add_element(tsdl, type->ranges, type->range_count, sizeof(*ranges), RANGES_MAX);

	if (!ranges)
		return -1;
	type->ranges = ranges;
	ranges[type->range_count++] = *range;
	return 0;
}

/* `label`, `label = 5` or `label = 5 ... 7`; a label without a number follows the one before. */
static int read_label(struct tsdl *tsdl, struct ctf_type *type)
{
	struct ctf_range range = {0};

	if (tsdl->token != TSDL_WORD && tsdl->token != TSDL_STRING)
		return tsdl_fail(tsdl, "a label was expected");
	range.label = tsdl_copy(tsdl, tsdl->text);
	if (!range.label || tsdl_next(tsdl) < 0)
		return -1;
	if (type->range_count)
		range.first = type->ranges[type->range_count - 1].last + 1;
	if (tsdl_is_mark(tsdl, '=')) {
		if (tsdl_next(tsdl) < 0 || tsdl->token != TSDL_NUMBER)
			return tsdl_fail(tsdl, "a number was expected");
		range.first = tsdl->number;
		if (tsdl_next(tsdl) < 0)
			return -1;
	}
	range.last = range.first;
	if (tsdl_is_mark(tsdl, 'E')) {
		if (tsdl_next(tsdl) < 0 || tsdl->token != TSDL_NUMBER)
			return tsdl_fail(tsdl, "a number was expected");
		range.last = tsdl->number;
		if (tsdl_next(tsdl) < 0)
			return -1;
	}
	if (add_range(tsdl, type, &range) < 0)
		return -1;
	return tsdl_is_mark(tsdl, ',') ? tsdl_next(tsdl) : 0;
}

static struct ctf_type *read_enum(struct tsdl *tsdl, const struct scope *scope)
{
	struct tsdl_text name = {0};
	struct ctf_type *type, *container;
	struct words words;

	if (tsdl->token == TSDL_WORD) {
		name = tsdl->text;
		if (tsdl_next(tsdl) < 0)
			return NULL;
		if (!tsdl_is_mark(tsdl, ':'))
			return find_name(tsdl, ENUM_NAME, name);
	}
	if (tsdl_expect(tsdl, ':') < 0)
		return NULL;
	if (begins_type(tsdl))
		container = read_type(tsdl, scope);
	else
		container = read_words(tsdl, &words) < 0 ? NULL : find_alias(tsdl, &words);
	if (!container || tsdl_expect(tsdl, '{') < 0 || !(type = new_type(tsdl, CTF_INTEGER)))
		return NULL;
	if (container->kind != CTF_INTEGER) {
		tsdl_fail(tsdl, "an enumeration is no integer");
		return NULL;
	}
	type->byte_order = container->byte_order;
	type->is_signed = container->is_signed;
	type->alignment = container->alignment;
	type->size = container->size;
	while (!tsdl_is_mark(tsdl, '}')) {
		if (read_label(tsdl, type) < 0)
			return NULL;
	}
	if (tsdl_next(tsdl) < 0 || (name.size && add_name(tsdl, ENUM_NAME, name, type) < 0))
		return NULL;
	return type;
}

/* Which option each value of the tag selects. */
static int select_options(struct tsdl *tsdl, struct ctf_type *type, const struct ctf_type *tag)
{
	for (uint32_t i = 0; i < tag->range_count; i++) {
		struct ctf_range range = tag->ranges[i];

		for (uint32_t j = 0; j < type->member_count && !range.option; j++) {
			if (strcmp(type->members[j].name, range.label) == 0)
				range.option = type->members[j].type;
		}
		if (range.option && add_range(tsdl, type, &range) < 0)
			return -1;
	}
	return 0;
}

static struct ctf_type *read_variant(struct tsdl *tsdl, const struct scope *scope)
{
	struct ctf_type *type = new_type(tsdl, CTF_VARIANT);
	const struct ctf_member *tag;
	const struct ctf_type *tag_type;

	if (!type || (tsdl->token == TSDL_WORD && tsdl_next(tsdl) < 0) ||
	    tsdl_expect(tsdl, '<') < 0)
		return NULL;
	tag = find_reference(tsdl, scope, tsdl->text);
	if (!tag)
		return NULL;
	tag_type = tag->type;
	type->slot = tag->slot;
	type->is_signed = tag_type->is_signed;
	if (tsdl_next(tsdl) < 0 || tsdl_expect(tsdl, '>') < 0 ||
	    read_members(tsdl, scope, type) < 0 || select_options(tsdl, type, tag_type) < 0)
		return NULL;
	return type;
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

/* A type that begins with one of the language's words. */
static struct ctf_type *read_type(struct tsdl *tsdl, const struct scope *scope)
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
