// SPDX-License-Identifier: Apache-2.0
#include "relay_decode.h"

#include <endian.h>
#include <string.h>

static uint64_t align_up(uint64_t at, uint32_t alignment)
{
	return (at + alignment - 1) & ~(uint64_t)(alignment - 1);
}

static int align(struct cursor *c, uint32_t alignment)
{
	uint64_t at = align_up(c->at, alignment);

	if (at > c->end)
		return -1;
	c->at = at;
	return 0;
}

static bool fits(const struct cursor *c, uint64_t bits)
{
	return bits <= c->end - c->at;
}

/* Integers of any size at any bit: the first bit is the least significant one of a little-endian
 * byte, and the most significant one of a big-endian byte. */
static uint64_t read_bits(const uint8_t *data, uint64_t at, uint64_t size, bool big_endian)
{
	uint64_t value = 0;

	for (uint64_t i = 0; i < size; i++, at++) {
		uint8_t byte = data[at / 8];

		if (big_endian)
			value = value << 1 | (byte >> (7 - at % 8) & 1);
		else
			value |= (uint64_t)(byte >> at % 8 & 1) << i;
	}
	return value;
}

static uint64_t read_bytes(const uint8_t *at, uint64_t size, bool big_endian)
{
	uint16_t two;
	uint32_t four;
	uint64_t eight;

	switch (size) {
	case 8:
		return *at;
	case 16:
		memcpy(&two, at, sizeof(two));
		return big_endian ? be16toh(two) : le16toh(two);
	case 32:
		memcpy(&four, at, sizeof(four));
		return big_endian ? be32toh(four) : le32toh(four);
	default:
		memcpy(&eight, at, sizeof(eight));
		return big_endian ? be64toh(eight) : le64toh(eight);
	}
}

static uint64_t sign_extended(uint64_t number, uint64_t size)
{
	uint64_t sign = UINT64_C(1) << (size - 1);

	return (number ^ sign) - sign;
}

static int decode_integer(struct cursor *c, const struct ctf_type *type, struct value *value)
{
	bool big_endian = type->byte_order == CTF_BIG_ENDIAN;
	uint64_t size = type->size;

	if (!fits(c, size))
		return -1;
	if (c->at % 8 == 0 && (size == 8 || size == 16 || size == 32 || size == 64))
		value->number = read_bytes(c->data + c->at / 8, size, big_endian);
	else
		value->number = read_bits(c->data, c->at, size, big_endian);
	if (type->is_clock) {
		c->clock = value->number;
		c->clock_bits = size;
	}
	if (type->is_signed)
		value->number = sign_extended(value->number, size);
	c->at += size;
	return 0;
}

static int decode_string(struct cursor *c, struct value *value)
{
	const uint8_t *end;

	value->at = c->data + c->at / 8;
	end = memchr(value->at, 0, (c->end - c->at) / 8);
	if (!end)
		return -1;
	value->number = end - value->at;
	c->at += 8 * (value->number + 1);
	return 0;
}

static int decode_elements(struct cursor *c, const struct ctf_type *element, uint64_t count,
			   struct value *value)
{
	uint64_t stride = align_up(element->size, element->alignment);

	value->number = count;
	value->at = c->data + c->at / 8;
	if (!count)
		return 0;
	if (element->size != CTF_VARIABLE) {
		if (!stride)
			return 0;
		if (count - 1 > (c->end - c->at) / stride)
			return -1;
		c->at += stride * (count - 1);
		if (!fits(c, element->size))
			return -1;
		c->at += element->size;
		return 0;
	}
	for (uint64_t i = 0; i < count; i++) {
		uint64_t before = c->at;

		if (decode(c, element, CTF_NO_SLOT) < 0)
			return -1;
		if (c->at == before)
			break; /* empty, and so are the others */
	}
	return 0;
}

static bool is_plain(const struct ctf_type *type)
{
	uint64_t size = type->size;

	return type->kind == CTF_INTEGER && !type->is_clock && type->alignment % 8 == 0 &&
	       (size == 8 || size == 16 || size == 32 || size == 64);
}

void decode_prepare(struct ctf_type *type, struct ctf_load *loads)
{
	type->loads = loads;
	type->load_count = type->run_members = 0;
	type->run_size = 0;
	for (uint32_t i = 0; i < type->member_count && is_plain(type->members[i].type); i++) {
		const struct ctf_member *member = type->members + i;
		uint64_t at = align_up(type->run_size, member->type->alignment);

		if (member->slot != CTF_NO_SLOT)
			loads[type->load_count++] = (struct ctf_load){
				.offset = at / 8,
				.slot = member->slot,
				.size = member->type->size,
				.is_signed = member->type->is_signed,
				.big_endian = member->type->byte_order == CTF_BIG_ENDIAN,
			};
		type->run_size = at + member->type->size;
		type->run_members++;
	}
}

static int decode_run(struct cursor *c, const struct ctf_type *type)
{
	const uint8_t *start = c->data + c->at / 8;

	if (!fits(c, type->run_size))
		return -1;
	for (uint32_t i = 0; i < type->load_count; i++) {
		const struct ctf_load *load = type->loads + i;
		uint64_t number = read_bytes(start + load->offset, load->size, load->big_endian);

		c->values[load->slot].number =
			load->is_signed ? sign_extended(number, load->size) : number;
	}
	c->at += type->run_size;
	return 0;
}

static int decode_struct(struct cursor *c, const struct ctf_type *type)
{
	if (c->budget < type->member_count + 1)
		return -1;
	c->budget -= type->member_count + 1;
	if (type->run_members && decode_run(c, type) < 0)
		return -1;
	for (uint32_t i = type->run_members; i < type->member_count; i++) {
		if (decode(c, type->members[i].type, type->members[i].slot) < 0)
			return -1;
	}
	return 0;
}

static bool holds(const struct ctf_range *range, uint64_t tag, bool is_signed)
{
	if (is_signed)
		return (int64_t)range->first <= (int64_t)tag &&
		       (int64_t)tag <= (int64_t)range->last;
	return range->first <= tag && tag <= range->last;
}

static int decode_variant(struct cursor *c, const struct ctf_type *type)
{
	uint64_t tag = c->values[type->slot].number;

	for (uint32_t i = 0; i < type->range_count && c->budget; i++, c->budget--) {
		if (holds(type->ranges + i, tag, type->is_signed))
			return decode(c, type->ranges[i].option, CTF_NO_SLOT);
	}
	return -1;
}

int decode(struct cursor *c, const struct ctf_type *type, uint32_t slot)
{
	struct value ignored;
	struct value *value = slot == CTF_NO_SLOT ? &ignored : c->values + slot;

	if (align(c, type->alignment) < 0)
		return -1;
	switch (type->kind) {
	case CTF_INTEGER:
		return decode_integer(c, type, value);
	case CTF_FLOAT:
		if (!fits(c, type->size))
			return -1;
		c->at += type->size;
		return 0;
	case CTF_STRING:
		return decode_string(c, value);
	case CTF_ARRAY:
		return decode_elements(c, type->element, type->length, value);
	case CTF_SEQUENCE:
		return decode_elements(c, type->element, c->values[type->slot].number, value);
	case CTF_STRUCT:
		return decode_struct(c, type);
	default:
		return decode_variant(c, type);
	}
}

int decode_skip(struct cursor *c, const struct ctf_type *type)
{
	if (!type)
		return 0;
	if (type->size == CTF_VARIABLE)
		return decode(c, type, CTF_NO_SLOT);
	if (align(c, type->alignment) < 0 || !fits(c, type->size))
		return -1;
	c->at += type->size;
	return 0;
}
