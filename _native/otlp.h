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

	/* ExportTraceServiceRequest, ResourceSpans, ScopeSpans */
	OTLP_REQUEST_RESOURCE_SPANS = 0x0a,
	OTLP_RESOURCE_SPANS_RESOURCE = 0x0a,
	OTLP_RESOURCE_SPANS_SCOPE_SPANS = 0x12,
	OTLP_SCOPE_SPANS_SCOPE = 0x0a,
	OTLP_SCOPE_SPANS_SPANS = 0x12,

	/* Span; its flags are field 16, whose tag takes two bytes */
	OTLP_SPAN_TRACE_ID = 0x0a,
	OTLP_SPAN_SPAN_ID = 0x12,
	OTLP_SPAN_PARENT_SPAN_ID = 0x22,
	OTLP_SPAN_NAME = 0x2a,
	OTLP_SPAN_KIND = 0x30,
	OTLP_SPAN_START_TIME = 0x39,
	OTLP_SPAN_END_TIME = 0x41,
	OTLP_SPAN_DROPPED_ATTRIBUTES = 0x50,
	OTLP_SPAN_EVENTS = 0x5a,
	OTLP_SPAN_DROPPED_EVENTS = 0x60,
	OTLP_SPAN_LINKS = 0x6a,
	OTLP_SPAN_DROPPED_LINKS = 0x70,
	OTLP_SPAN_STATUS = 0x7a,

	/* Span.Event, Span.Link, Status */
	OTLP_EVENT_TIME = 0x09,
	OTLP_EVENT_NAME = 0x12,
	OTLP_EVENT_DROPPED_ATTRIBUTES = 0x20,
	OTLP_LINK_TRACE_ID = 0x0a,
	OTLP_LINK_SPAN_ID = 0x12,
	OTLP_LINK_DROPPED_ATTRIBUTES = 0x28,
	OTLP_LINK_FLAGS = 0x35,
	OTLP_STATUS_MESSAGE = 0x12,
	OTLP_STATUS_CODE = 0x18,
};

enum otlp_value {
	OTLP_KIND_INTERNAL = 1,
	OTLP_KIND_SERVER = 2,
	OTLP_KIND_CLIENT = 3,
	OTLP_STATUS_ERROR = 2,
};

#endif
