// SPDX-License-Identifier: Apache-2.0
/* Attributes back as Python's values, for who reads a span in its own process. */
#include "values.h"

static PyObject *read_value(const uint8_t *p, const uint8_t *end);
static PyObject *read_fields(const uint8_t *p, const uint8_t *end, uint8_t tag);

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
	case OTLP_KVLIST_VALUE:
		return read_fields(p, p + number, OTLP_KVLIST_VALUES);
	default:
		return PyLong_FromLongLong((long long)number);
	}
}

/* The KeyValue fields of that tag. */
static PyObject *read_fields(const uint8_t *p, const uint8_t *end, uint8_t tag)
{
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

PyObject *attributes_to_dict(const struct attributes *a, uint8_t tag)
{
	return read_fields(a->bytes, a->bytes + a->size, tag);
}
