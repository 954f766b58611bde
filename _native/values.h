/* SPDX-License-Identifier: Apache-2.0 */
/* What attributes.c, values.c and attributes_read.c share: a little protobuf, and a value on its
 * way from Python to OTLP. */
#ifndef K8S_TRACING_VALUES_H
#define K8S_TRACING_VALUES_H

#include "core.h"

#include <string.h>

/* An event must fit LTTng's smallest sub-buffer that the agent makes; see docs/decisions.md. */
#define MAX_BYTES (60 * 1024)

static inline uint8_t *put_varint(uint8_t *p, uint64_t value)
{
	while (value >= 0x80) {
		*p++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*p++ = (uint8_t)value;
	return p;
}

static inline const uint8_t *get_varint(const uint8_t *p, uint64_t *value)
{
	int shift = 0;

	*value = 0;
	do {
		*value |= (uint64_t)(*p & 0x7f) << shift;
		shift += 7;
	} while (*p++ & 0x80);
	return p;
}

static inline int varint_size(uint64_t value)
{
	int size = 1;

	while (value >>= 7)
		size++;
	return size;
}

static inline size_t text_size(Py_ssize_t length)
{
	return 1 + varint_size((uint64_t)length) + (size_t)length;
}

static inline uint8_t *put_text(uint8_t *p, uint8_t tag, const char *text, Py_ssize_t length)
{
	*p++ = tag;
	p = put_varint(p, (uint64_t)length);
	memcpy(p, text, (size_t)length);
	return p + length;
}

enum value_type {
	VALUE_REFUSED, /* OpenTelemetry does not allow it */
	VALUE_NULL,    /* None: an empty AnyValue */
	VALUE_STRING,
	VALUE_BOOL,
	VALUE_INT,
	VALUE_DOUBLE,
	VALUE_BYTES,
	VALUE_NESTED
};

/* A value taken out of its Python object, with the size of its AnyValue. */
struct value {
	enum value_type type;
	size_t size;		  /* of the AnyValue message */
	Py_ssize_t length;	  /* of text */
	const char *text;	  /* VALUE_STRING, VALUE_BYTES */
	PyObject *keep;		  /* owns text */
	struct attributes nested; /* VALUE_NESTED: the AnyValue message */
	uint64_t number;	  /* VALUE_BOOL, VALUE_INT */
	double real;
};

/*
 * VALUE_REFUSED for what OpenTelemetry does not allow; -1 with an exception when Python fails.
 * `key` is named in a warning. To be released in any case.
 */
int value_take(PyObject *object, PyObject *key, int depth, struct value *value);
void value_release(struct value *value);
/* Writes its AnyValue, `value->size` bytes; returns what comes after. */
uint8_t *value_put(uint8_t *p, const struct value *value);

/* Makes room for so many bytes more. */
int attributes_reserve(struct attributes *a, size_t more);

#endif
