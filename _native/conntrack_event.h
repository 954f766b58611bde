/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message of conntrack's. Source of the format: Linux,
 * include/uapi/linux/netfilter/nfnetlink_conntrack.h.
 */
#ifndef K8S_TRACING_CONNTRACK_EVENT_H
#define K8S_TRACING_CONNTRACK_EVENT_H

#include <stdbool.h>

#include "dataplane.h"

/* What one message says. */
struct event {
	struct flow flow;
	uint8_t protocol;
	uint32_t status;
	uint8_t tcp_state;
	bool has_tcp_state;
	bool in_zone; /* not the default one */
	int64_t time_ns;
	int64_t began_ns; /* the connection; 0: unknown. Told when it is asked for */
};

/* Read a message's attributes; what is not there stays as it is. */
void conntrack_event_read(const uint8_t *at, const uint8_t *end, struct event *event);

#endif
