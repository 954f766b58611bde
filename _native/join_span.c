// SPDX-License-Identifier: Apache-2.0
#include "join_span.h"

#include <arpa/inet.h>

#include "otlp.h"

#define WIRE_VARINT 0
#define WIRE_FIXED64 1
#define WIRE_LENGTH 2
#define WIRE_FIXED32 5

static bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	*value = 0;
	for (unsigned int shift = 0; shift < 64 && *at < end; shift += 7) {
		uint8_t byte = *(*at)++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

bool wire_take(const uint8_t **at, const uint8_t *end, struct wire_field *field)
{
	uint64_t fixed64;
	uint32_t fixed32;

	field->at = *at;
	field->body = NULL;
	if (*at >= end || !take_varint(at, end, &field->tag) || field->tag < 8)
		return false;
	switch (field->tag & 7) {
	case WIRE_VARINT:
		if (!take_varint(at, end, &field->value))
			return false;
		break;
	case WIRE_FIXED64:
		if (end - *at < (ptrdiff_t)sizeof(fixed64))
			return false;
		memcpy(&fixed64, *at, sizeof(fixed64));
		field->value = le64toh(fixed64);
		*at += sizeof(fixed64);
		break;
	case WIRE_LENGTH:
		if (!take_varint(at, end, &field->size) || field->size > (uint64_t)(end - *at))
			return false;
		field->body = *at;
		*at += field->size;
		break;
	case WIRE_FIXED32:
		if (end - *at < (ptrdiff_t)sizeof(fixed32))
			return false;
		memcpy(&fixed32, *at, sizeof(fixed32));
		field->value = le32toh(fixed32);
		*at += sizeof(fixed32);
		break;
	default:
		return false;
	}
	field->after = *at;
	return true;
}

static bool is_key(const struct wire_field *key, const char *name)
{
	size_t size = strlen(name);

	return key->size == size && !memcmp(key->body, name, size);
}

static void read_address(const struct wire_field *value, uint8_t *address)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
	char text[INET6_ADDRSTRLEN];

	if (value->tag != OTLP_STRING_VALUE || value->size >= sizeof(text))
		return;
	memcpy(text, value->body, value->size);
	text[value->size] = '\0';
	if (inet_pton(AF_INET, text, address + 12) == 1)
		memcpy(address, mapped, sizeof(mapped));
	else if (inet_pton(AF_INET6, text, address) != 1)
		memset(address, 0, 16);
}

/* Envoy's own attributes are texts, whatever they say, and so are those of gRPC's instrumentation.
 */
static void read_port(const struct wire_field *value, uint16_t *port)
{
	uint64_t number = value->value;

	if (value->tag == OTLP_STRING_VALUE) {
		if (!value->size || value->size > 5)
			return;
		number = 0;
		for (size_t i = 0; i < value->size; i++) {
			if (value->body[i] < '0' || value->body[i] > '9')
				return;
			number = 10 * number + value->body[i] - '0';
		}
	} else if (value->tag != OTLP_INT_VALUE) {
		return;
	}
	if (number < 65536)
		*port = number;
}

/* The conventions' names, and those that they had before, which many instrumentations still use. */
static void read_attribute(const struct wire_field *attribute, struct seen_span *span)
{
	const uint8_t *at = attribute->body, *end = at + attribute->size;
	struct wire_field key, any, value;
	const uint8_t *inner;

	if (!wire_take(&at, end, &key) || key.tag != OTLP_KEY || key.size < 8 ||
	    memcmp(key.body, "net", 3) || !wire_take(&at, end, &any) || any.tag != OTLP_VALUE)
		return;
	inner = any.body;
	if (!wire_take(&inner, any.body + any.size, &value))
		return;
	if (is_key(&key, "network.peer.address") || is_key(&key, "net.peer.ip") ||
	    is_key(&key, "net.sock.peer.addr"))
		read_address(&value, span->peer.address);
	else if (is_key(&key, "network.peer.port") || is_key(&key, "net.peer.port") ||
		 is_key(&key, "net.sock.peer.port"))
		read_port(&value, &span->peer.port);
	else if (is_key(&key, "network.local.address") || is_key(&key, "net.sock.host.addr"))
		read_address(&value, span->local.address);
	else if (is_key(&key, "network.local.port") || is_key(&key, "net.sock.host.port"))
		read_port(&value, &span->local.port);
}

static uint64_t read_id(const uint8_t *bytes)
{
	uint64_t id;

	memcpy(&id, bytes, sizeof(id));
	return be64toh(id);
}

static void take_ids(const struct wire_field *field, struct seen_span *span)
{
	if (field->tag == OTLP_SPAN_TRACE_ID && field->size == 16) {
		span->trace_id_high = read_id(field->body);
		span->trace_id_low = read_id(field->body + 8);
	} else if (field->tag == OTLP_SPAN_SPAN_ID && field->size == 8) {
		span->span_id = read_id(field->body);
	} else if (field->tag == OTLP_SPAN_PARENT_SPAN_ID && field->size == 8) {
		span->parent_span_id = read_id(field->body);
	}
}

static bool is_nowhere(const struct place *place)
{
	static const uint8_t none[16];

	return !place->port || !memcmp(place->address, none, sizeof(none));
}

bool seen_span_read(const uint8_t *at, const uint8_t *end, struct seen_span *span)
{
	const uint8_t *from = at;
	struct wire_field field;

	*span = (struct seen_span){0};
	/* Attributes are many: they are looked at only where the kind says that they matter. */
	while (wire_take(&at, end, &field)) {
		if (field.tag == OTLP_SPAN_KIND)
			span->kind = field.value;
		else if (field.tag == OTLP_SPAN_START_TIME)
			span->start_ns = field.value;
		else if (field.tag == OTLP_SPAN_END_TIME)
			span->end_ns = field.value;
		else if (field.tag <= OTLP_SPAN_PARENT_SPAN_ID)
			take_ids(&field, span);
	}
	if (at != end)
		return false;
	if (span->kind != OTLP_KIND_SERVER && span->kind != OTLP_KIND_CLIENT)
		return true;
	for (at = from; wire_take(&at, end, &field);) {
		if (field.tag == OTLP_SPAN_ATTRIBUTES)
			read_attribute(&field, span);
	}
	if (is_nowhere(&span->local))
		memset(span->local.address, 0, sizeof(span->local.address));
	if (is_nowhere(&span->peer))
		span->peer = (struct place){0};
	return true;
}
