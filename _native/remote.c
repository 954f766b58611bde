// SPDX-License-Identifier: Apache-2.0
/*
 * The span of another process, as a W3C traceparent header names it: a span that has ended and
 * records nothing. Being one of our own it costs a child nothing to read, where OpenTelemetry's
 * NonRecordingSpan is asked in Python for each part.
 */
#include "core.h"

#define HEADER_LENGTH 55 /* version 00: 2 + 1 + 32 + 1 + 16 + 1 + 2 */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f') /* the Recommendation allows lower case only */
		return c - 'a' + 10;
	return -1;
}

static int hex_number(const char *text, int digits, uint64_t *number)
{
	*number = 0;
	for (int i = 0; i < digits; i++) {
		int digit = hex_digit(text[i]);

		if (digit < 0)
			return -1;
		*number = *number << 4 | (uint64_t)digit;
	}
	return 0;
}

static int parse(const char *text, Span *span)
{
	uint64_t flags;

	if (text[0] != '0' || text[1] != '0' || text[2] != '-' || text[35] != '-' ||
	    text[52] != '-')
		return -1;
	if (hex_number(text + 3, 16, &span->trace_id_high) ||
	    hex_number(text + 19, 16, &span->trace_id_low) ||
	    hex_number(text + 36, 16, &span->span_id) || hex_number(text + 53, 2, &flags))
		return -1;
	span->flags = (uint8_t)flags;
	return (span->trace_id_high | span->trace_id_low) && span->span_id ? 0 : -1;
}

/* None for any header but a plain one of version 00, which OpenTelemetry's own propagator then
 * decides on. */
PyObject *remote_span(PyObject *module, PyObject *header)
{
	Py_ssize_t length;
	const char *text;
	Span *span;

	if (!PyUnicode_Check(header) || PyUnicode_GET_LENGTH(header) != HEADER_LENGTH)
		Py_RETURN_NONE;
	text = PyUnicode_AsUTF8AndSize(header, &length);
	if (!text || length != HEADER_LENGTH) { /* letters that take more bytes */
		PyErr_Clear();
		Py_RETURN_NONE;
	}
	span = span_alloc();
	if (!span)
		return NULL;
	if (parse(text, span)) {
		Py_DECREF(span);
		Py_RETURN_NONE;
	}
	span->name = PyUnicode_FromString("");
	span->kind = 1;
	span->started = span->ended = span->remote = true;
	span->attributes.sealed = true;
	PyObject_GC_Track(span);
	return (PyObject *)span;
}
