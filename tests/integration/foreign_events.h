/* SPDX-License-Identifier: Apache-2.0 */
/* One event with every type of field that LTTng-UST has, in a provider that is not ours. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER foreign

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./foreign_events.h"

#if !defined(FOREIGN_EVENTS_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define FOREIGN_EVENTS_H

#include <lttng/tracepoint.h>
#include <stdint.h>

/* clang-format off */
LTTNG_UST_TRACEPOINT_ENUM(
	foreign, colour,
	LTTNG_UST_TP_ENUM_VALUES(
		lttng_ust_field_enum_value("red", 0)
		lttng_ust_field_enum_range("green to blue", 1, 5)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(
	foreign, everything,
	LTTNG_UST_TP_ARGS(int, number, const char *, text, const uint16_t *, numbers, size_t, count),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int8_t, small, number)
		lttng_ust_field_integer_network(uint32_t, network, number)
		lttng_ust_field_integer_network_hex(uint16_t, port, number)
		lttng_ust_field_float(float, single, number / 4.0f)
		lttng_ust_field_string(text, text)
		lttng_ust_field_float(double, real, number / 8.0)
		lttng_ust_field_array(uint16_t, array, numbers, 3)
		lttng_ust_field_array_text(char, letters, text, 3)
		lttng_ust_field_sequence(uint16_t, sequence, numbers, uint8_t, count)
		lttng_ust_field_sequence_network(uint16_t, network_sequence, numbers, size_t, count)
		lttng_ust_field_sequence_text(char, piece, text, uint32_t, count)
		lttng_ust_field_enum(foreign, colour, int, colour, number & 3)
		lttng_ust_field_integer(int64_t, large, -number)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(foreign, nothing, LTTNG_UST_TP_ARGS(), LTTNG_UST_TP_FIELDS())
/* clang-format on */

#endif

#include <lttng/tracepoint-event.h>
