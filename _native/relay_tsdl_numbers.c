// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl_parts.h"

#include <string.h>

#define ALIGNMENT_MAX (1 << 15)

int set_alignment(struct tsdl *tsdl, struct ctf_type *type, uint64_t alignment)
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

struct ctf_type *read_number(struct tsdl *tsdl, enum ctf_kind kind, uint64_t size_max)
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

struct ctf_type *read_string(struct tsdl *tsdl)
{
	struct ctf_type *type = new_type(tsdl, CTF_STRING);

	if (!type || (tsdl_is_mark(tsdl, '{') && read_attributes(tsdl, type) < 0))
		return NULL;
	type->alignment = 8;
	type->size = CTF_VARIABLE;
	return type;
}
