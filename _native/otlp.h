/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protobuf tags (field number << 3 | wire type) of the OTLP messages that are written here.
 * Source: opentelemetry-proto 1.9, opentelemetry/proto/{common,resource,trace}/v1 and
 * collector/trace/v1.
 */
#ifndef K8S_TRACING_OTLP_H
#define K8S_TRACING_OTLP_H

enum otlp_tag {
	/* KeyValue */
	OTLP_KEY = 0x0a,
	OTLP_VALUE = 0x12,

	/* AnyValue */
	OTLP_STRING_VALUE = 0x0a,
	OTLP_BOOL_VALUE = 0x10,
	OTLP_INT_VALUE = 0x18,
	OTLP_DOUBLE_VALUE = 0x21,
	OTLP_ARRAY_VALUE = 0x2a,
	OTLP_KVLIST_VALUE = 0x32,
	OTLP_BYTES_VALUE = 0x3a,
	OTLP_ARRAY_VALUES = 0x0a,  /* ArrayValue.values */
	OTLP_KVLIST_VALUES = 0x0a, /* KeyValueList.values */

	/* where a KeyValue stands as "attributes" */
	OTLP_RESOURCE_ATTRIBUTES = 0x0a,
	OTLP_SPAN_ATTRIBUTES = 0x4a,
	OTLP_EVENT_ATTRIBUTES = 0x1a,
	OTLP_LINK_ATTRIBUTES = 0x22,

	OTLP_SPAN_TRACE_STATE = 0x1a,
};

#endif
