/* SPDX-License-Identifier: Apache-2.0 */
#ifndef K8S_TRACING_RELAY_H
#define K8S_TRACING_RELAY_H

#include <stdint.h>

#include "relay.cdef.txt"

#endif
