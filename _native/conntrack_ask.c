// SPDX-License-Identifier: Apache-2.0
#include "conntrack_ask.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define QUESTION_MAX 256
#define ANSWER_MAX 4096
#define OLD_MAX 16 /* answers to earlier questions that are read on the way to ours */

struct question {
	uint8_t bytes[QUESTION_MAX];
	size_t size;
};

static void put(struct question *question, const void *data, size_t size)
{
	memcpy(question->bytes + question->size, data, size);
	question->size += size;
}

static void put_attribute(struct question *question, uint16_t type, const void *data, size_t size)
{
	struct nlattr header = {.nla_len = NLA_HDRLEN + size, .nla_type = type};

	put(question, &header, sizeof(header));
	if (size)
		put(question, data, size);
	question->size = NLA_ALIGN(question->size); /* of zeros */
}

/* Begin an attribute that holds others; returns where it begins. */
static size_t nest(struct question *question, uint16_t type)
{
	size_t begin = question->size;

	put_attribute(question, type | NLA_F_NESTED, NULL, 0);
	return begin;
}

static void unnest(struct question *question, size_t begin)
{
	uint16_t size = question->size - begin;

	memcpy(question->bytes + begin + offsetof(struct nlattr, nla_len), &size, sizeof(size));
}

static bool is_v4(const uint8_t *address)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};

	return !memcmp(address, mapped, sizeof(mapped));
}

static void put_question(struct question *question, uint32_t number, const struct flow *flow)
{
	struct nlmsghdr header = {
		.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
		.nlmsg_flags = NLM_F_REQUEST,
		.nlmsg_seq = number,
	};
	bool v4 = is_v4(flow->client);
	size_t skip = v4 ? 12 : 0, size = 16 - skip, tuple, inner;
	struct nfgenmsg family = {.nfgen_family = v4 ? AF_INET : AF_INET6, .version = NFNETLINK_V0};
	uint16_t client_port = htons(flow->client_port), virtual_port = htons(flow->virtual_port);
	uint8_t protocol = IPPROTO_TCP;

	*question = (struct question){0};
	put(question, &header, sizeof(header));
	put(question, &family, sizeof(family));
	tuple = nest(question, CTA_TUPLE_ORIG);
	inner = nest(question, CTA_TUPLE_IP);
	put_attribute(question, v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, flow->client + skip, size);
	put_attribute(question, v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, flow->virtual_ip + skip, size);
	unnest(question, inner);
	inner = nest(question, CTA_TUPLE_PROTO);
	put_attribute(question, CTA_PROTO_NUM, &protocol, sizeof(protocol));
	put_attribute(question, CTA_PROTO_SRC_PORT, &client_port, sizeof(client_port));
	put_attribute(question, CTA_PROTO_DST_PORT, &virtual_port, sizeof(virtual_port));
	unnest(question, inner);
	unnest(question, tuple);
	header.nlmsg_len = question->size;
	memcpy(question->bytes, &header, sizeof(header));
}

static enum conntrack_answer read_answer(const struct nlmsghdr *header, const uint8_t *message,
					 struct event *event)
{
	const uint8_t *body = message + NLMSG_HDRLEN, *after = message + header->nlmsg_len;
	int error;

	if (header->nlmsg_type == NLMSG_ERROR && after - body >= (ptrdiff_t)sizeof(error)) {
		memcpy(&error, body, sizeof(error));
		return error == -ENOENT ? CONNTRACK_NONE : CONNTRACK_SILENT;
	}
	if (header->nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW) ||
	    after - body < (ptrdiff_t)sizeof(struct nfgenmsg))
		return CONNTRACK_SILENT;
	conntrack_event_read(body + sizeof(struct nfgenmsg), after, event);
	return event->protocol == IPPROTO_TCP ? CONNTRACK_FOUND : CONNTRACK_SILENT;
}

enum conntrack_answer conntrack_ask(int fd, uint32_t number, struct event *event)
{
	struct question question;
	uint8_t message[ANSWER_MAX];
	struct nlmsghdr header;

	if (is_v4(event->flow.client) != is_v4(event->flow.virtual_ip))
		return CONNTRACK_SILENT;
	put_question(&question, number, &event->flow);
	if (send(fd, question.bytes, question.size, MSG_DONTWAIT) < 0)
		return CONNTRACK_SILENT;
	for (int i = 0; i < OLD_MAX; i++) {
		ssize_t size = recv(fd, message, sizeof(message), MSG_DONTWAIT);

		if (size < (ssize_t)sizeof(header))
			return CONNTRACK_SILENT;
		memcpy(&header, message, sizeof(header));
		if (header.nlmsg_seq != number)
			continue;
		if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > (size_t)size)
			return CONNTRACK_SILENT;
		return read_answer(&header, message, event);
	}
	return CONNTRACK_SILENT;
}
