/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How spans leave: whole, unfinished, or not at all.
 *
 * A span without an end is reported as unfinished, once, when its process is gone or when it is too
 * old. What is known of it is kept for a while, so that it is sent again, whole and under the same
 * id, if its end comes after all.
 */
#ifndef K8S_TRACING_RELAY_RELEASE_H
#define K8S_TRACING_RELAY_RELEASE_H

#include "relay_spans.h"

/* Functions that return an int return 0, or -1 without memory. */
int release_span(struct spans *spans, struct span *span);

/* Those of a list that ended before that time, as far as they lead it. */
int release_until(struct spans *spans, struct span_list *list, int64_t until_ns);

/* Report an open span as unfinished. */
int release_unfinished(struct spans *spans, struct span *span, enum span_end why);

/* Those whose process is gone, or that are too old; and forget what was reported long ago. */
int release_abandoned(struct spans *spans);

/* What never started is not handed out. */
void drop_orphan(struct spans *spans, struct span *span);

/* Keep within the limit of memory: what is complete goes out, then what has waited longest gives
 * way. */
int make_room(struct spans *spans);

#endif
