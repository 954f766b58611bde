// SPDX-License-Identifier: Apache-2.0
/*
 * Attributes as OTLP bytes. Each is one protobuf field `KeyValue attributes`, written when it is
 * set, so that a span ends with nothing left to encode and the relay copies what it reads.
 */
#include "core.h"

#include <string.h>

/* An event must fit LTTng's smallest sub-buffer that the agent makes; see docs/decisions.md. */
#define MAX_BYTES (60 * 1024)
#define FIRST_CAPACITY \
	240 /* served by the small-object allocator; enough for 4-6 usual attributes */

static uint8_t *put_varint(uint8_t *p, uint64_t value)
{
	while (value >= 0x80) {
		*p++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*p++ = (uint8_t)value;
	return p;
}

static const uint8_t *get_varint(const uint8_t *p, uint64_t *value)
{
	int shift = 0;

	*value = 0;
	do {
		*value |= (uint64_t)(*p & 0x7f) << shift;
		shift += 7;
	} while (*p++ & 0x80);
	return p;
}

static int varint_size(uint64_t value)
{
	int size = 1;

	while (value >>= 7)
		size++;
	return size;
}

static int reserve(struct attributes *a, size_t more)
{
	size_t need = a->size + more;
	size_t capacity = a->capacity ? a->capacity : FIRST_CAPACITY;
	uint8_t *bytes;

	if (need <= a->capacity)
		return 0;
	while (capacity < need)
		capacity *= 2;
	bytes = PyMem_Realloc(a->bytes, capacity);
	if (!bytes) {
		PyErr_NoMemory();
		return -1;
	}
	a->bytes = bytes;
	a->capacity = (uint32_t)capacity;
	return 0;
}

int attributes_pad(struct attributes *a)
{
	if (!a->size)
		return 0;
	if (reserve(a, K8S_TRACING_WORD))
		return -1;
	memset(a->bytes + a->size, 0, K8S_TRACING_WORD);
	return 0;
}

void attributes_clear(struct attributes *a)
{
	PyMem_Free(a->bytes);
	memset(a, 0, sizeof(*a));
}

/* ---- values
 * ------------------------------------------------------------------------------------------------
 */

enum value_type {
	VALUE_NONE,
	VALUE_STRING,
	VALUE_BOOL,
	VALUE_INT,
	VALUE_DOUBLE,
	VALUE_BYTES,
	VALUE_ARRAY
};

/* A value taken out of its Python object, with the size of its AnyValue. */
struct value {
	enum value_type type;
	uint32_t size;	     /* of the AnyValue message */
	Py_ssize_t length;   /* of text */
	const char *text;    /* VALUE_STRING, VALUE_BYTES */
	PyObject *keep;	     /* owns text or, of VALUE_ARRAY, is the tuple of items */
	uint32_t array_size; /* of the ArrayValue message */
	uint64_t number;     /* VALUE_BOOL, VALUE_INT */
	double real;
};

static size_t text_size(Py_ssize_t length)
{
	return 1 + varint_size((uint64_t)length) + (size_t)length;
}

/* The size limit counts characters, as OpenTelemetry's does, so a long text is cut as a str. */
static int take_string(PyObject *object, struct value *value)
{
	PyObject *cut = NULL;

	if (PyUnicode_GET_LENGTH(object) > core.limits.value_length) {
		cut = PyUnicode_Substring(object, 0, core.limits.value_length);
		if (!cut)
			return -1;
		object = cut;
	}
	value->type = VALUE_STRING;
	value->text = utf8(object, &value->length, &value->keep);
	if (!value->text) {
		Py_XDECREF(cut);
		return -1;
	}
	if (value->keep)
		Py_XDECREF(cut);
	else
		value->keep = cut;
	value->size = (uint32_t)text_size(value->length);
	return 0;
}

static int take_int(PyObject *object, struct value *value)
{
	int overflow = 0;
	long long number = PyLong_AsLongLongAndOverflow(object, &overflow);

	if (number == -1 && PyErr_Occurred())
		return -1;
	if (overflow) { /* OTLP's integers have 64 bits: a larger one goes as its digits */
		/* int's own: a subclass could write something else each time it is asked */
		PyObject *digits = PyLong_Type.tp_repr(object);
		int result;

		if (!digits) {
			PyErr_Clear(); /* Python's own limit on digits: not an attribute any more */
			return 0;
		}
		result = take_string(digits, value);
		if (!result && !value->keep)
			value->keep = digits;
		else
			Py_DECREF(digits);
		return result;
	}
	value->type = VALUE_INT;
	value->number = (uint64_t)number;
	value->size = 1 + varint_size(value->number);
	return 0;
}

static int take(PyObject *object, struct value *value, bool nested);

/* Of values that are no sequences themselves; None may stand among them as OpenTelemetry allows. */
static int take_array(PyObject *object, struct value *value)
{
	PyObject *items = PySequence_Tuple(object);
	size_t size = 0;

	if (!items)
		return -1;
	for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
		PyObject *item = PyTuple_GET_ITEM(items, i);
		struct value v = {0};

		if (take(item, &v, true)) {
			Py_DECREF(items);
			return -1;
		}
		Py_XDECREF(v.keep);
		if (v.type == VALUE_NONE && item != Py_None) {
			Py_DECREF(items);
			return 0;
		}
		size += 1 + varint_size(v.size) + v.size;
		if (size > MAX_BYTES)
			break; /* too large whatever follows; attributes_set drops it */
	}
	value->type = VALUE_ARRAY;
	value->keep = items;
	value->array_size = (uint32_t)size;
	value->size = (uint32_t)(1 + varint_size(size) + size);
	return 0;
}

/* Leaves VALUE_NONE for what OpenTelemetry does not allow. -1 with an exception when Python fails.
 */
static int take(PyObject *object, struct value *value, bool nested)
{
	if (PyUnicode_Check(object))
		return take_string(object, value);
	if (PyBool_Check(object)) {
		value->type = VALUE_BOOL;
		value->number = object == Py_True;
		value->size = 2;
		return 0;
	}
	if (PyLong_Check(object))
		return take_int(object, value);
	if (PyFloat_Check(object)) {
		value->type = VALUE_DOUBLE;
		value->real = PyFloat_AS_DOUBLE(object);
		value->size = 9;
		return 0;
	}
	if (PyBytes_Check(object)) {
		value->type = VALUE_BYTES;
		value->text = PyBytes_AS_STRING(object);
		value->length = Py_MIN(PyBytes_GET_SIZE(object), core.limits.value_length);
		value->size = (uint32_t)text_size(value->length);
		return 0;
	}
	if (!nested && PySequence_Check(object) && !PyByteArray_Check(object))
		return take_array(object, value);
	return 0;
}

static uint8_t *put_text(uint8_t *p, uint8_t tag, const char *text, Py_ssize_t length)
{
	*p++ = tag;
	p = put_varint(p, (uint64_t)length);
	memcpy(p, text, (size_t)length);
	return p + length;
}

static uint8_t *put_value(uint8_t *p, const struct value *value)
{
	switch (value->type) {
	case VALUE_STRING:
		return put_text(p, OTLP_STRING_VALUE, value->text, value->length);
	case VALUE_BYTES:
		return put_text(p, OTLP_BYTES_VALUE, value->text, value->length);
	case VALUE_BOOL:
		*p++ = OTLP_BOOL_VALUE;
		return put_varint(p, value->number);
	case VALUE_INT:
		*p++ = OTLP_INT_VALUE;
		return put_varint(p, value->number);
	case VALUE_DOUBLE:
		*p++ = OTLP_DOUBLE_VALUE;
		memcpy(p, &value->real,
		       8); /* little-endian, as every machine that LTTng's users run */
		return p + 8;
	case VALUE_ARRAY:
		*p++ = OTLP_ARRAY_VALUE;
		p = put_varint(p, value->array_size);
		for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value->keep); i++) {
			struct value item = {0};

			/* take_array() took the same immutable items: only memory can fail */
			if (take(PyTuple_GET_ITEM(value->keep, i), &item, true))
				return NULL;
			*p++ = OTLP_ARRAY_VALUES;
			p = put_varint(p, item.size);
			p = put_value(p, &item);
			Py_XDECREF(item.keep);
		}
		return p;
	case VALUE_NONE:
		return p; /* an empty AnyValue is OTLP's null */
	}
	Py_UNREACHABLE();
}

/* ---- fields
 * ------------------------------------------------------------------------------------------------
 */

/* Takes out the attribute of that key, if there is one. All fields are attributes until a span
 * ends. */
static void remove_key(struct attributes *a, const char *key, Py_ssize_t key_length)
{
	uint8_t *p = a->bytes, *end = a->bytes + a->size;

	while (p < end) {
		uint64_t size, length;
		const uint8_t *body = get_varint(p + 1, &size);
		const uint8_t *text = get_varint(body + 1, &length);
		uint8_t *next = (uint8_t *)body + size;

		if (length == (uint64_t)key_length && !memcmp(text, key, length)) {
			memmove(p, next, (size_t)(end - next));
			a->size -= (uint32_t)(next - p);
			a->count--;
			return;
		}
		p = next;
	}
}

static int append(struct attributes *a, uint8_t tag, uint16_t limit, const char *key,
		  Py_ssize_t key_length, const struct value *value)
{
	size_t body = text_size(key_length) + 1 + varint_size(value->size) + value->size;
	size_t field = 1 + varint_size(body) + body;
	uint8_t *p;

	remove_key(a, key, key_length);
	if (a->count >= limit || a->size + field > MAX_BYTES) {
		if (a->dropped < UINT16_MAX)
			a->dropped++;
		return 0;
	}
	if (reserve(a, field))
		return -1;
	p = a->bytes + a->size;
	*p++ = tag;
	p = put_varint(p, body);
	p = put_text(p, OTLP_KEY, key, key_length);
	*p++ = OTLP_VALUE;
	p = put_varint(p, value->size);
	p = put_value(p, value);
	if (!p)
		return -1;
	a->size += (uint32_t)field;
	a->count++;
	return 0;
}

/* Says so, once a place; a warning that fails must not break the application either. */
static void report_invalid(PyObject *key, PyObject *value)
{
	PyObject *result;

	if (!core.on_invalid)
		return;
	result = PyObject_CallFunctionObjArgs(core.on_invalid, key, value, NULL);
	if (!result)
		PyErr_Clear();
	Py_XDECREF(result);
}

int attributes_set(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *key,
		   PyObject *value)
{
	struct value taken = {0};
	PyObject *keep = NULL;
	Py_ssize_t length;
	const char *text;
	int result;

	if (!PyUnicode_Check(key) || !PyUnicode_GET_LENGTH(key)) {
		report_invalid(key, value);
		return 0;
	}
	if (take(value, &taken, false)) {
		if (PyErr_ExceptionMatches(PyExc_MemoryError))
			return -1;
		PyErr_Clear(); /* a sequence whose items cannot be had */
	}
	if (taken.type == VALUE_NONE) {
		report_invalid(key, value);
		return 0;
	}
	text = utf8(key, &length, &keep);
	result = text ? append(a, tag, limit, text, length, &taken) : -1;
	Py_XDECREF(keep);
	Py_XDECREF(taken.keep);
	return result;
}

int attributes_update(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *mapping)
{
	PyObject *items;
	int result = 0;

	if (PyDict_CheckExact(mapping)) {
		PyObject *key, *value;
		Py_ssize_t position = 0;

		/* str, int and float run no Python code when they are taken; what else may change
		 * the dict */
		while (!result && PyDict_Next(mapping, &position, &key, &value)) {
			Py_INCREF(key);
			Py_INCREF(value);
			result = attributes_set(a, tag, limit, key, value);
			Py_DECREF(key);
			Py_DECREF(value);
		}
		return result;
	}
	items = PyMapping_Items(mapping);
	if (!items) {
		PyErr_Clear();
		report_invalid(mapping, Py_None);
		return 0;
	}
	for (Py_ssize_t i = 0; !result && i < PyList_GET_SIZE(items); i++) {
		PyObject *item = PyList_GET_ITEM(items, i);

		if (PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 2)
			result = attributes_set(a, tag, limit, PyTuple_GET_ITEM(item, 0),
						PyTuple_GET_ITEM(item, 1));
	}
	Py_DECREF(items);
	return result;
}

int attributes_append_string(struct attributes *a, uint8_t tag, PyObject *text)
{
	PyObject *keep = NULL;
	Py_ssize_t length;
	const char *bytes = utf8(text, &length, &keep);
	int result = -1;

	if (bytes && !reserve(a, text_size(length))) {
		put_text(a->bytes + a->size, tag, bytes, length);
		a->size += (uint32_t)text_size(length);
		result = 0;
	}
	Py_XDECREF(keep);
	return result;
}

/* ---- back to Python, for who reads a span in its own process
 * --------------------------------------------------- */

static PyObject *read_value(const uint8_t *p, const uint8_t *end);

static PyObject *read_array(const uint8_t *p, const uint8_t *end)
{
	PyObject *list = PyList_New(0), *tuple;

	while (list && p < end) {
		uint64_t size;
		PyObject *item;

		p = get_varint(p + 1, &size);
		item = read_value(p, p + size);
		if (!item || PyList_Append(list, item))
			Py_CLEAR(list);
		Py_XDECREF(item);
		p += size;
	}
	tuple = list ? PyList_AsTuple(list) : NULL;
	Py_XDECREF(list);
	return tuple;
}

static PyObject *read_value(const uint8_t *p, const uint8_t *end)
{
	uint64_t number;
	double real;
	uint8_t tag;

	if (p == end)
		Py_RETURN_NONE;
	tag = *p++;
	if (tag == OTLP_DOUBLE_VALUE) {
		memcpy(&real, p, 8);
		return PyFloat_FromDouble(real);
	}
	p = get_varint(p, &number);
	switch (tag) {
	case OTLP_STRING_VALUE:
		return PyUnicode_DecodeUTF8((const char *)p, (Py_ssize_t)number, "replace");
	case OTLP_BYTES_VALUE:
		return PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)number);
	case OTLP_BOOL_VALUE:
		return PyBool_FromLong((long)number);
	case OTLP_ARRAY_VALUE:
		return read_array(p, p + number);
	default:
		return PyLong_FromLongLong((long long)number);
	}
}

PyObject *attributes_to_dict(const struct attributes *a, uint8_t tag)
{
	const uint8_t *p = a->bytes, *end = a->bytes + a->size;
	PyObject *dict = PyDict_New();

	while (dict && p < end) {
		uint64_t size, length;
		const uint8_t *body = get_varint(p + 1, &size);

		if (*p == tag) {
			const uint8_t *key = get_varint(body + 1, &length);
			PyObject *k = PyUnicode_DecodeUTF8((const char *)key, (Py_ssize_t)length,
							   "replace");
			PyObject *v =
				read_value(get_varint(key + length + 1, &length), body + size);

			if (!k || !v || PyDict_SetItem(dict, k, v))
				Py_CLEAR(dict);
			Py_XDECREF(k);
			Py_XDECREF(v);
		}
		p = body + size;
	}
	return dict;
}
