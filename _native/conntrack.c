// SPDX-License-Identifier: Apache-2.0
/*
 * Conntrack's events of a network namespace -> flows: TCP connections whose destination was
 * translated.
 *
 * The NEW event has the decision already: the reply's source is the endpoint. Linux 6.14 and newer
 * stamp each event (net.netfilter.nf_conntrack_timestamp=1); else the time of receipt counts.
 */
#include "conntrack_event.h"

#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "relay_bytes.h"
#include "relay_table.h"

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
#define RECEIVE_BYTES (256 * 1024)
#define RECEIVES_MAX 64 /* in one call: the caller has other things to do as well */
#define OPEN_MAX (256 * 1024)

/*
 * An answer that has not come by then is told as missing. The kernel forgets the connection much
 * later, and a client has usually given up by then.
 */
#define UNANSWERED_NS (10 * INT64_C(1000000000))

struct connection {
	struct connection *previous, *next;
	struct flow flow;
	bool told;
};

struct list {
	struct connection *first, *last;
};

struct conntrack {
	int fd; /* -1: none */
	struct table by_id;
	struct list opening; /* in the order of their beginning */
	struct list open;    /* established, or told as unanswered */
	struct bytes told;
	struct bytes taken;
	struct conntrack_stats stats;
	uint8_t *buffer;
};

struct conntrack *conntrack_new(void)
{
	struct conntrack *conntrack = calloc(1, sizeof(*conntrack));

	if (!conntrack)
		return NULL;
	conntrack->fd = -1;
	conntrack->buffer = malloc(RECEIVE_BYTES);
	if (conntrack->buffer && table_init(&conntrack->by_id) == 0)
		return conntrack;
	conntrack_free(conntrack);
	return NULL;
}

static int listen_to_events(int fd, uint64_t buffer_bytes)
{
	static const int groups[] = {NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE,
				     NFNLGRP_CONNTRACK_DESTROY};
	struct sockaddr_nl address = {.nl_family = AF_NETLINK};
	int bytes = buffer_bytes;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, groups + i,
			       sizeof(*groups)) < 0)
			return -1;
	}
	return 0;
}

struct conntrack *conntrack_open(uint64_t buffer_bytes)
{
	struct conntrack *conntrack = conntrack_new();
	int error;

	if (!conntrack)
		return NULL;
	conntrack->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (conntrack->fd >= 0 && listen_to_events(conntrack->fd, buffer_bytes) == 0)
		return conntrack;
	error = errno;
	conntrack_free(conntrack);
	errno = error;
	return NULL;
}

static void free_list(struct list *list)
{
	while (list->first) {
		struct connection *connection = list->first;

		list->first = connection->next;
		free(connection);
	}
}

void conntrack_free(struct conntrack *conntrack)
{
	if (!conntrack)
		return;
	if (conntrack->fd >= 0)
		close(conntrack->fd);
	free_list(&conntrack->opening);
	free_list(&conntrack->open);
	table_free(&conntrack->by_id);
	bytes_free(&conntrack->told);
	bytes_free(&conntrack->taken);
	free(conntrack->buffer);
	free(conntrack);
}

int conntrack_fd(const struct conntrack *conntrack)
{
	return conntrack->fd;
}

/* Conntrack's id is of 32 bits and made from the connection's address: alone it may come again. */
static uint64_t key_of(const struct flow *flow)
{
	return (uint64_t)flow->id << 32 | (uint32_t)flow->client_port << 16 | flow->virtual_port;
}

static void unlink_from(struct list *list, struct connection *connection)
{
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		list->first = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	else
		list->last = connection->previous;
}

static void append(struct list *list, struct connection *connection)
{
	connection->previous = list->last;
	connection->next = NULL;
	if (list->last)
		list->last->next = connection;
	else
		list->first = connection;
	list->last = connection;
}

static int tell(struct conntrack *conntrack, const struct flow *flow)
{
	uint8_t *at = bytes_extend(&conntrack->told, sizeof(*flow));

	if (!at)
		return -1;
	memcpy(at, flow, sizeof(*flow));
	return 0;
}

static void forget(struct conntrack *conntrack, struct connection *connection)
{
	unlink_from(connection->told ? &conntrack->open : &conntrack->opening, connection);
	table_remove(&conntrack->by_id, key_of(&connection->flow));
	free(connection);
}

static int tell_first(struct conntrack *conntrack, struct connection *connection, uint8_t outcome)
{
	connection->flow.outcome = outcome;
	conntrack->stats.flows++;
	unlink_from(&conntrack->opening, connection);
	append(&conntrack->open, connection);
	connection->told = true;
	return tell(conntrack, &connection->flow);
}

static int begin(struct conntrack *conntrack, const struct event *event)
{
	struct connection *connection = table_get(&conntrack->by_id, key_of(&event->flow));

	if (connection)
		forget(conntrack, connection);
	if (conntrack->by_id.count >= OPEN_MAX) {
		struct list *list = conntrack->open.first ? &conntrack->open : &conntrack->opening;

		conntrack->stats.evicted++;
		forget(conntrack, list->first);
	}
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return -1;
	connection->flow = event->flow;
	connection->flow.new_ns = event->time_ns;
	if (table_add(&conntrack->by_id, key_of(&event->flow), connection) < 0) {
		free(connection);
		return -1;
	}
	append(&conntrack->opening, connection);
	return 0;
}

static int go_on(struct conntrack *conntrack, const struct event *event)
{
	struct connection *connection = table_get(&conntrack->by_id, key_of(&event->flow));

	if (!event->has_tcp_state)
		return 0;
	if (!connection) {
		conntrack->stats.incomplete += event->tcp_state == TCP_CONNTRACK_ESTABLISHED;
		return 0;
	}
	switch (event->tcp_state) {
	case TCP_CONNTRACK_SYN_RECV:
		if (!connection->flow.reply_ns)
			connection->flow.reply_ns = event->time_ns;
		return 0;
	case TCP_CONNTRACK_ESTABLISHED:
		if (connection->told)
			return 0;
		connection->flow.established_ns = event->time_ns;
		return tell_first(conntrack, connection, FLOW_ESTABLISHED);
	case TCP_CONNTRACK_FIN_WAIT:
	case TCP_CONNTRACK_CLOSE_WAIT:
	case TCP_CONNTRACK_LAST_ACK:
	case TCP_CONNTRACK_TIME_WAIT:
	case TCP_CONNTRACK_CLOSE:
		/* The first of them: nobody sends another request after it. */
		if (connection->flow.closed_ns)
			return 0;
		connection->flow.closed_ns = event->time_ns;
		if (!connection->told && tell_first(conntrack, connection, FLOW_ESTABLISHED) < 0)
			return -1;
		connection->flow.outcome = FLOW_CLOSED;
		return tell(conntrack, &connection->flow);
	default:
		return 0;
	}
}

/* A reset as the answer to a SYN ends the entry at once, without a state of its own. */
static int end(struct conntrack *conntrack, const struct event *event)
{
	struct connection *connection = table_get(&conntrack->by_id, key_of(&event->flow));
	int ret = 0;

	if (!connection)
		return 0;
	if (!connection->told) {
		connection->flow.closed_ns = event->time_ns;
		ret = tell_first(conntrack, connection, FLOW_REFUSED);
	} else if (!connection->flow.closed_ns && connection->flow.outcome == FLOW_ESTABLISHED) {
		connection->flow.closed_ns = event->time_ns;
		connection->flow.outcome = FLOW_CLOSED;
		ret = tell(conntrack, &connection->flow);
	}
	forget(conntrack, connection);
	return ret;
}

static int take_event(struct conntrack *conntrack, const struct nlmsghdr *header,
		      const uint8_t *body, const uint8_t *after, int64_t received_ns)
{
	struct event event = {.time_ns = received_ns};

	conntrack_event_read(body, after, &event);
	if (event.protocol != IPPROTO_TCP)
		return 0;
	switch (NFNL_MSG_TYPE(header->nlmsg_type)) {
	case IPCTNL_MSG_CT_DELETE:
		return end(conntrack, &event);
	case IPCTNL_MSG_CT_NEW:
		if (!(event.status & IPS_DST_NAT))
			return 0;
		conntrack->stats.in_zones += event.in_zone;
		if (header->nlmsg_flags & (NLM_F_CREATE | NLM_F_EXCL))
			return begin(conntrack, &event);
		return go_on(conntrack, &event);
	default:
		return 0;
	}
}

static int tell_unanswered(struct conntrack *conntrack, int64_t now_ns)
{
	while (conntrack->opening.first) {
		struct connection *connection = conntrack->opening.first;

		if (connection->flow.new_ns > now_ns - UNANSWERED_NS)
			return 0;
		connection->flow.closed_ns = now_ns;
		if (tell_first(conntrack, connection, FLOW_UNANSWERED) < 0)
			return -1;
	}
	return 0;
}

int conntrack_feed(struct conntrack *conntrack, const uint8_t *messages, uint64_t size,
		   int64_t received_ns)
{
	const uint8_t *end = messages + size;

	for (const uint8_t *at = messages; end - at >= NLMSG_HDRLEN;) {
		struct nlmsghdr header;
		size_t length;

		memcpy(&header, at, sizeof(header));
		if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > (size_t)(end - at)) {
			conntrack->stats.malformed++;
			break;
		}
		conntrack->stats.messages++;
		if (NFNL_SUBSYS_ID(header.nlmsg_type) == NFNL_SUBSYS_CTNETLINK &&
		    header.nlmsg_len >= NLMSG_HDRLEN + sizeof(struct nfgenmsg) &&
		    take_event(conntrack, &header, at + NLMSG_HDRLEN + sizeof(struct nfgenmsg),
			       at + header.nlmsg_len, received_ns) < 0)
			return -1;
		length = NLMSG_ALIGN(header.nlmsg_len);
		at += length < (size_t)(end - at) ? length : (size_t)(end - at);
	}
	return tell_unanswered(conntrack, received_ns);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int conntrack_read(struct conntrack *conntrack)
{
	for (int i = 0; i < RECEIVES_MAX; i++) {
		ssize_t size = recv(conntrack->fd, conntrack->buffer, RECEIVE_BYTES, MSG_DONTWAIT);

		if (size < 0 && errno == ENOBUFS) {
			conntrack->stats.overflows++;
			continue;
		}
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0 && errno == EAGAIN)
			return tell_unanswered(conntrack, now_ns());
		if (size < 0 || conntrack_feed(conntrack, conntrack->buffer, size, now_ns()) < 0)
			return -1;
	}
	return 0;
}

uint64_t conntrack_take(struct conntrack *conntrack, const struct flow **flows)
{
	struct bytes taken = conntrack->taken;

	conntrack->taken = conntrack->told;
	conntrack->told = taken;
	conntrack->told.size = 0;
	*flows = (const struct flow *)conntrack->taken.data;
	return conntrack->taken.size / sizeof(**flows);
}

void conntrack_get_stats(const struct conntrack *conntrack, struct conntrack_stats *stats)
{
	*stats = conntrack->stats;
	stats->open = conntrack->by_id.count;
}
