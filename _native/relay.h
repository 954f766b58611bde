/* SPDX-License-Identifier: Apache-2.0 */
#ifndef K8S_TRACING_RELAY_H
#define K8S_TRACING_RELAY_H

#include <stdint.h>

/* All else in the library is its own, and is called without a detour. */
#pragma GCC visibility push(default)
#include "relay.cdef.txt"
#pragma GCC visibility pop

#endif
