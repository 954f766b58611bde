/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may be copied into a request unread.
 *
 * Any container on the node can send anything under our provider's name, and a request with one
 * broken span is refused as a whole. So only what our own producers write is let through: the
 * fields of otlp.h, each written the canonical way, in strings of valid UTF-8, nested less deeply
 * than any receiver's limit.
 */
#ifndef K8S_TRACING_RELAY_VALIDATE_H
#define K8S_TRACING_RELAY_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay.h"

/*
 * The size of the fields that these bytes are; -1 when they are something else. When they are
 * padded, up to 7 zero bytes may follow the fields (a tag is never zero) and do not count.
 */
int64_t fields_size(enum relay_message message, const uint8_t *bytes, size_t size, bool padded);

bool utf8_valid(const uint8_t *bytes, size_t size);

/*
 * Copy a text whose bytes may be anything: what is not UTF-8 becomes U+FFFD. `to` has room for
 * UTF8_REPAIRED_MAX of the size. Return the size of the copy.
 */
#define UTF8_REPAIRED_MAX(size) (3 * (size))
size_t utf8_copy_repaired(uint8_t *to, const uint8_t *from, size_t size);

#endif
