/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to conntrack. Source of the format: Linux,
 * include/uapi/linux/netfilter/nfnetlink_conntrack.h, and ctnetlink_get_conntrack() in
 * net/netfilter/nf_conntrack_netlink.c.
 */
#ifndef K8S_TRACING_CONNTRACK_ASK_H
#define K8S_TRACING_CONNTRACK_ASK_H

#include "conntrack_event.h"

enum conntrack_answer {
	CONNTRACK_SILENT, /* it could not be asked, or said something else */
	CONNTRACK_NONE,	  /* there is no such connection */
	CONNTRACK_FOUND,
};

/*
 * Is there a TCP connection from the flow's client to its virtual IP? What is there of it is put
 * into the event. The kernel answers while it is asked: there is nothing to wait for.
 */
enum conntrack_answer conntrack_ask(int fd, uint32_t number, struct event *event);

#endif
