/* SPDX-License-Identifier: Apache-2.0 */
#ifndef K8S_TRACING_DATAPLANE_H
#define K8S_TRACING_DATAPLANE_H

#include <stdint.h>

#include "dataplane.cdef.txt"

#endif
