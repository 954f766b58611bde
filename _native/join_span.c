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

bool address_read(const struct wire_field *text, uint8_t *address)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
	char copy[INET6_ADDRSTRLEN];

	if (text->size >= sizeof(copy))
		return false;
	memcpy(copy, text->body, text->size);
	copy[text->size] = '\0';
	if (inet_pton(AF_INET, copy, address + 12) == 1) {
		memcpy(address, mapped, sizeof(mapped));
		return true;
	}
	if (inet_pton(AF_INET6, copy, address) == 1)
		return true;
	memset(address, 0, 16);
	return false;
}

static void read_address(const struct wire_field *value, uint8_t *address)
{
	if (value->tag == OTLP_STRING_VALUE)
		address_read(value, address);
}

static bool read_digits(const uint8_t *at, size_t size, uint64_t *number)
{
	if (!size || size > 5)
		return false;
	*number = 0;
	for (size_t i = 0; i < size; i++) {
		if (at[i] < '0' || at[i] > '9')
			return false;
		*number = 10 * *number + at[i] - '0';
	}
	return true;
}

/* Envoy's own attributes are texts, whatever they say, and so are those of gRPC's instrumentation.
 */
static void read_port(const struct wire_field *value, uint16_t *port)
{
	uint64_t number = value->value;

	if (value->tag == OTLP_STRING_VALUE ? !read_digits(value->body, value->size, &number)
					    : value->tag != OTLP_INT_VALUE)
		return;
	if (number < 65536)
		*port = number;
}

/* Take an attribute apart whose key has at least 8 letters and begins like that. */
static inline bool take_attribute(const struct wire_field *attribute, const char *prefix,
				  struct wire_field *key, struct wire_field *value)
{
	const uint8_t *at = attribute->body, *end = at + attribute->size, *inner;
	struct wire_field any;

	if (!wire_take(&at, end, key) || key->tag != OTLP_KEY || key->size < 8 ||
	    memcmp(key->body, prefix, strlen(prefix)) || !wire_take(&at, end, &any) ||
	    any.tag != OTLP_VALUE)
		return false;
	inner = any.body;
	return wire_take(&inner, any.body + any.size, value);
}

/* The conventions' names, and those that they had before, which many instrumentations still use. */
static void read_attribute(const struct wire_field *attribute, struct seen_span *span)
{
	struct wire_field key, value;

	if (!take_attribute(attribute, "net", &key, &value))
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

/* scheme://user:password@host:port/path?query#fragment, RFC 3986 */
static void read_url(const struct wire_field *url, struct asked *asked)
{
	const uint8_t *end = url->body + url->size, *host = NULL, *colon = NULL;
	uint64_t port;

	for (const uint8_t *at = url->body; at + 3 < end && !host; at++) {
		if (!memcmp(at, "://", 3))
			host = at + 3;
	}
	if (!host)
		return;
	port = host - url->body == 8 && !memcmp(url->body, "https", 5)	? 443
	       : host - url->body == 7 && !memcmp(url->body, "http", 4) ? 80
									: 0;
	for (const uint8_t *at = host; at < end; at++) {
		if (*at == '/' || *at == '?' || *at == '#')
			end = at;
	}
	for (const uint8_t *at = host; at < end; at++) {
		if (*at == '@')
			host = at + 1;
	}
	for (const uint8_t *at = host; at < end; at++) {
		if (*at == ':')
			colon = at;
		else if (*at == ']')
			colon = NULL;
	}
	if (colon && !read_digits(colon + 1, end - colon - 1, &port))
		return;
	if (colon)
		end = colon;
	if (end - host > 2 && *host == '[' && end[-1] == ']') {
		host++;
		end--;
	}
	if (host == end || port > 65535)
		return;
	*asked = (struct asked){.host = host, .host_size = end - host, .port = port};
}

void asked_read(const struct wire_field *span, struct asked *asked)
{
	const uint8_t *at = span->body;
	struct asked by_url = {0};
	struct wire_field field, key, value;

	*asked = (struct asked){0};
	while (wire_take(&at, span->after, &field)) {
		if (field.tag != OTLP_SPAN_ATTRIBUTES || !take_attribute(&field, "", &key, &value))
			continue;
		if (is_key(&key, "server.port")) {
			read_port(&value, &asked->port);
		} else if (value.tag != OTLP_STRING_VALUE) {
			continue;
		} else if (is_key(&key, "server.address")) {
			asked->host = value.body;
			asked->host_size = value.size;
		} else if (is_key(&key, "url.full") || is_key(&key, "http.url")) {
			read_url(&value, &by_url);
		}
	}
	if (!asked->host)
		*asked = by_url;
}

bool namespace_read(const struct wire_field *resource_spans, struct wire_field *text)
{
	const uint8_t *at = resource_spans->body, *inner;
	struct wire_field resource, attribute, key;

	while (wire_take(&at, resource_spans->after, &resource)) {
		if (resource.tag != OTLP_RESOURCE_SPANS_RESOURCE)
			continue;
		for (inner = resource.body; wire_take(&inner, resource.after, &attribute);) {
			if (attribute.tag == OTLP_RESOURCE_ATTRIBUTES &&
			    take_attribute(&attribute, "k8s", &key, text) &&
			    is_key(&key, "k8s.namespace.name"))
				return text->tag == OTLP_STRING_VALUE;
		}
	}
	return false;
}
