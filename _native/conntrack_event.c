// SPDX-License-Identifier: Apache-2.0
#include "conntrack_event.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>

#define TIMESTAMP_EVENT 27 /* CTA_TIMESTAMP_EVENT, since Linux 6.14 */

struct attribute {
	uint16_t type;
	const uint8_t *data;
	size_t size;
};

/* The attribute that stands at `*at`, which moves behind it; false at the end or where none is. */
static bool take_attribute(const uint8_t **at, const uint8_t *end, struct attribute *attribute)
{
	struct nlattr header;

	if (end - *at < NLA_HDRLEN)
		return false;
	memcpy(&header, *at, sizeof(header));
	if (header.nla_len < NLA_HDRLEN || header.nla_len > end - *at)
		return false;
	attribute->type = header.nla_type & NLA_TYPE_MASK;
	attribute->data = *at + NLA_HDRLEN;
	attribute->size = header.nla_len - NLA_HDRLEN;
	*at += NLA_ALIGN(header.nla_len) < end - *at ? NLA_ALIGN(header.nla_len) : end - *at;
	return true;
}

static uint32_t number32(const struct attribute *attribute)
{
	uint32_t value;

	if (attribute->size < sizeof(value))
		return 0;
	memcpy(&value, attribute->data, sizeof(value));
	return ntohl(value);
}

static uint16_t number16(const struct attribute *attribute)
{
	uint16_t value;

	if (attribute->size < sizeof(value))
		return 0;
	memcpy(&value, attribute->data, sizeof(value));
	return ntohs(value);
}

static int64_t number64(const struct attribute *attribute)
{
	uint64_t value;

	if (attribute->size != sizeof(value))
		return 0;
	memcpy(&value, attribute->data, sizeof(value));
	return be64toh(value);
}

static void put_address(uint8_t *to, const struct attribute *attribute)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};

	if (attribute->size == 4) {
		memcpy(to, mapped, sizeof(mapped));
		memcpy(to + 12, attribute->data, 4);
	} else if (attribute->size == 16) {
		memcpy(to, attribute->data, 16);
	}
}

static void read_addresses(const struct attribute *addresses, uint8_t *from, uint8_t *to)
{
	const uint8_t *at = addresses->data;
	struct attribute attribute;

	while (take_attribute(&at, addresses->data + addresses->size, &attribute)) {
		if (attribute.type == CTA_IP_V4_SRC || attribute.type == CTA_IP_V6_SRC)
			put_address(from, &attribute);
		else if (attribute.type == CTA_IP_V4_DST || attribute.type == CTA_IP_V6_DST)
			put_address(to, &attribute);
	}
}

static void read_ports(const struct attribute *ports, struct event *event, uint16_t *from,
		       uint16_t *to)
{
	const uint8_t *at = ports->data;
	struct attribute attribute;

	while (take_attribute(&at, ports->data + ports->size, &attribute)) {
		if (attribute.type == CTA_PROTO_NUM && attribute.size)
			event->protocol = *attribute.data;
		else if (attribute.type == CTA_PROTO_SRC_PORT)
			*from = number16(&attribute);
		else if (attribute.type == CTA_PROTO_DST_PORT)
			*to = number16(&attribute);
	}
}

static void read_tuple(const struct attribute *tuple, struct event *event, bool reply)
{
	const uint8_t *at = tuple->data;
	struct flow *flow = &event->flow;
	struct attribute attribute;

	while (take_attribute(&at, tuple->data + tuple->size, &attribute)) {
		if (attribute.type == CTA_TUPLE_IP)
			read_addresses(&attribute, reply ? flow->endpoint : flow->client,
				       reply ? flow->source : flow->virtual_ip);
		else if (attribute.type == CTA_TUPLE_PROTO)
			read_ports(&attribute, event,
				   reply ? &flow->endpoint_port : &flow->client_port,
				   reply ? &flow->source_port : &flow->virtual_port);
	}
}

/* Find an attribute two levels down. */
static void read_tcp_state(const struct attribute *info, struct event *event)
{
	const uint8_t *at = info->data;
	struct attribute tcp, attribute;

	while (take_attribute(&at, info->data + info->size, &tcp)) {
		const uint8_t *inner = tcp.data;

		if (tcp.type != CTA_PROTOINFO_TCP)
			continue;
		while (take_attribute(&inner, tcp.data + tcp.size, &attribute)) {
			if (attribute.type == CTA_PROTOINFO_TCP_STATE && attribute.size) {
				event->tcp_state = *attribute.data;
				event->has_tcp_state = true;
			}
		}
	}
}

static int64_t read_beginning(const struct attribute *timestamps)
{
	const uint8_t *at = timestamps->data;
	struct attribute attribute;

	while (take_attribute(&at, timestamps->data + timestamps->size, &attribute)) {
		if (attribute.type == CTA_TIMESTAMP_START)
			return number64(&attribute);
	}
	return 0;
}

void conntrack_event_read(const uint8_t *at, const uint8_t *end, struct event *event)
{
	struct attribute attribute;
	int64_t time_ns;

	while (take_attribute(&at, end, &attribute)) {
		switch (attribute.type) {
		case CTA_TUPLE_ORIG:
			read_tuple(&attribute, event, false);
			break;
		case CTA_TUPLE_REPLY:
			read_tuple(&attribute, event, true);
			break;
		case CTA_STATUS:
			event->status = number32(&attribute);
			break;
		case CTA_PROTOINFO:
			read_tcp_state(&attribute, event);
			break;
		case CTA_ID:
			event->flow.id = number32(&attribute);
			break;
		case TIMESTAMP_EVENT:
			time_ns = number64(&attribute);
			if (!time_ns)
				break;
			event->time_ns = time_ns;
			event->flow.kernel_times = 1;
			break;
		case CTA_TIMESTAMP:
			event->began_ns = read_beginning(&attribute);
			break;
		case CTA_ZONE:
			event->in_zone = number16(&attribute);
			break;
		}
	}
}
