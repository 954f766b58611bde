// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl_parts.h"

#include <string.h>

#define RANGES_MAX 4096

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

struct ctf_type *read_enum(struct tsdl *tsdl, const struct scope *scope)
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

struct ctf_type *read_variant(struct tsdl *tsdl, const struct scope *scope)
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
