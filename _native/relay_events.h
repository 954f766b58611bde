/* SPDX-License-Identifier: Apache-2.0 */
/* An event message of babeltrace2 -> the call that takes the event in. */
#ifndef K8S_TRACING_RELAY_EVENTS_H
#define K8S_TRACING_RELAY_EVENTS_H

#include "relay_ctf.h"

/* Return 0, or -1 without memory. What is not ours is ignored, what is wrong is counted. */
int event_handle(struct ctf *ctf, const bt_message *message);

/* Event classes are looked at once in a graph; their addresses mean nothing after it. */
void events_forget_classes(struct table *classes);

#endif
