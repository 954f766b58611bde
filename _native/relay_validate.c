// SPDX-License-Identifier: Apache-2.0
#include "relay_validate.h"

#include <string.h>

#include "otlp.h"

/* Protobuf's readers stop at 100 messages inside one another; a value in a kvlist takes three. */
#define DEPTH_MAX 16

struct cursor {
	const uint8_t *at;
	const uint8_t *end;
};

/* How many bytes the UTF-8 character at `at` has; 0 when it is none. Surrogates and overlong forms
 * are none. */
static size_t utf8_character(const uint8_t *at, const uint8_t *end)
{
	uint8_t first = *at;
	uint8_t low = 0x80;
	uint8_t high = 0xbf;
	size_t size;

	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	if ((size_t)(end - at) < size)
		return 0;
	if (first == 0xe0)
		low = 0xa0;
	else if (first == 0xed)
		high = 0x9f;
	else if (first == 0xf0)
		low = 0x90;
	else if (first == 0xf4)
		high = 0x8f;
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	return size;
}

/* Past the ASCII characters that lead; most texts are nothing else. */
static const uint8_t *skip_ascii(const uint8_t *at, const uint8_t *end)
{
	uint64_t eight;

	while (end - at >= 8) {
		memcpy(&eight, at, sizeof(eight));
		if (eight & 0x8080808080808080)
			break;
		at += 8;
	}
	while (at < end && *at < 0x80)
		at++;
	return at;
}

bool utf8_valid(const uint8_t *bytes, size_t size)
{
	const uint8_t *end = bytes + size;

	for (const uint8_t *at = skip_ascii(bytes, end); at < end; at = skip_ascii(at, end)) {
		size_t character = utf8_character(at, end);

		if (!character)
			return false;
		at += character;
	}
	return true;
}

size_t utf8_copy_repaired(uint8_t *to, const uint8_t *from, size_t size)
{
	static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
	const uint8_t *end = from + size;
	uint8_t *start = to;

	if (utf8_valid(from, size)) {
		memcpy(to, from, size);
		return size;
	}
	while (from < end) {
		size_t character = utf8_character(from, end);

		memcpy(to, character ? from : replacement, character ? character : 3);
		to += character ? character : 3;
		from += character ? character : 1;
	}
	return to - start;
}

static bool take_varint(struct cursor *c, uint64_t *value)
{
	*value = 0;
	for (unsigned int shift = 0; shift < 64 && c->at < c->end; shift += 7) {
		uint8_t byte = *c->at++;

		if (shift == 63 && byte > 1)
			return false;
		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

static bool take_body(struct cursor *c, struct cursor *body)
{
	uint64_t size;

	if (!take_varint(c, &size) || size > (uint64_t)(c->end - c->at))
		return false;
	body->at = c->at;
	body->end = c->at += size;
	return true;
}

static bool take_text(struct cursor *c)
{
	struct cursor body;

	return take_body(c, &body) && utf8_valid(body.at, body.end - body.at);
}

static bool take_number(struct cursor *c)
{
	uint64_t value;

	return take_varint(c, &value);
}

static bool take_double(struct cursor *c)
{
	if (c->end - c->at < 8)
		return false;
	c->at += 8;
	return true;
}

static bool take_key_value(struct cursor *c, int depth);
static bool take_any_value(struct cursor *c, int depth);

/* A message with one repeated field of that tag. */
static bool take_repeated(struct cursor *c, uint8_t tag, bool (*take)(struct cursor *, int),
			  int depth)
{
	struct cursor body;

	if (!take_body(c, &body))
		return false;
	while (body.at < body.end) {
		if (*body.at++ != tag || !take(&body, depth))
			return false;
	}
	return true;
}

static bool take_value_field(struct cursor *c, uint8_t tag, int depth)
{
	struct cursor ignored;

	switch (tag) {
	case OTLP_STRING_VALUE:
		return take_text(c);
	case OTLP_BOOL_VALUE:
	case OTLP_INT_VALUE:
		return take_number(c);
	case OTLP_DOUBLE_VALUE:
		return take_double(c);
	case OTLP_BYTES_VALUE:
		return take_body(c, &ignored);
	case OTLP_ARRAY_VALUE:
		return take_repeated(c, OTLP_ARRAY_VALUES, take_any_value, depth + 1);
	case OTLP_KVLIST_VALUE:
		return take_repeated(c, OTLP_ARRAY_VALUES, take_key_value, depth + 1);
	default:
		return false;
	}
}

/* One of AnyValue's fields, or none, which is OTLP's null. */
static bool take_any_value(struct cursor *c, int depth)
{
	struct cursor body;
	uint8_t tag;

	if (depth > DEPTH_MAX || !take_body(c, &body))
		return false;
	if (body.at == body.end)
		return true;
	tag = *body.at++;
	return take_value_field(&body, tag, depth) && body.at == body.end;
}

static bool take_key_value(struct cursor *c, int depth)
{
	struct cursor body;

	if (!take_body(c, &body))
		return false;
	if (body.at < body.end && *body.at == OTLP_KEY) {
		body.at++;
		if (!take_text(&body))
			return false;
	}
	if (body.at < body.end && *body.at == OTLP_VALUE) {
		body.at++;
		if (!take_any_value(&body, depth))
			return false;
	}
	return body.at == body.end;
}

static bool only_zeros(const uint8_t *at, const uint8_t *end)
{
	while (at < end && *at == 0)
		at++;
	return at == end;
}

int64_t fields_size(enum relay_message message, const uint8_t *bytes, size_t size, bool padded)
{
	static const struct {
		uint8_t attributes;
		uint8_t text; /* 0: none */
	} tags[] = {
		[RELAY_RESOURCE] = {OTLP_RESOURCE_ATTRIBUTES, 0},
		[RELAY_SPAN] = {OTLP_SPAN_ATTRIBUTES, OTLP_SPAN_TRACE_STATE},
		[RELAY_SPAN_EVENT] = {OTLP_EVENT_ATTRIBUTES, 0},
		[RELAY_SPAN_LINK] = {OTLP_LINK_ATTRIBUTES, OTLP_SPAN_TRACE_STATE},
	};
	struct cursor c = {bytes, bytes + size};

	while (c.at < c.end) {
		uint8_t tag = *c.at++;

		if (tag == 0) {
			c.at--;
			if (padded && c.end - c.at < 8 && only_zeros(c.at, c.end))
				break;
			return -1;
		}
		if (tag == tags[message].attributes) {
			if (!take_key_value(&c, 0))
				return -1;
		} else if (tag != tags[message].text || !take_text(&c)) {
			return -1;
		}
	}
	return c.at - bytes;
}

int relay_valid_fields(enum relay_message message, const uint8_t *bytes, uint64_t size)
{
	return message <= RELAY_SPAN_LINK && fields_size(message, bytes, size, false) >= 0;
}
