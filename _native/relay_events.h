/* SPDX-License-Identifier: Apache-2.0 */
/* An event of a trace -> the call that takes it in. */
#ifndef K8S_TRACING_RELAY_EVENTS_H
#define K8S_TRACING_RELAY_EVENTS_H

#include "relay_ctf.h"

/* Find our events among those of a trace that is opened, and their fields. Return 0, or -1 without
 * memory. */
int events_bind(struct ctf *ctf);

/* Take the event in that the stream has read. Return 0, or -1 without memory. What is not ours is
 * ignored, what is wrong is counted. */
int event_handle(struct ctf *ctf, const struct stream *stream);

#endif
