// SPDX-License-Identifier: Apache-2.0
/*
 * Attributes as OTLP bytes. Each is one protobuf field `KeyValue attributes`, written when it is
 * set, so that a span ends with nothing left to encode and the relay copies what it reads.
 */
#include "values.h"

#define FIRST_CAPACITY \
	240 /* served by the small-object allocator; enough for 4-6 usual attributes */

int attributes_reserve(struct attributes *a, size_t more)
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
	if (attributes_reserve(a, K8S_TRACING_WORD))
		return -1;
	memset(a->bytes + a->size, 0, K8S_TRACING_WORD);
	return 0;
}

void attributes_clear(struct attributes *a)
{
	PyMem_Free(a->bytes);
	memset(a, 0, sizeof(*a));
}

/* Takes out the attribute of that key, if there is one. */
static void remove_key(struct attributes *a, uint8_t tag, const char *key, Py_ssize_t key_length)
{
	uint8_t *p = a->bytes, *end = a->bytes + a->size;

	while (p < end) {
		uint64_t size, length;
		const uint8_t *body = get_varint(p + 1, &size);
		const uint8_t *text = get_varint(body + 1, &length);
		uint8_t *next = (uint8_t *)body + size;

		if (*p == tag && length == (uint64_t)key_length && !memcmp(text, key, length)) {
			memmove(p, next, (size_t)(end - next));
			a->size -= (uint32_t)(next - p);
			a->count--;
			return;
		}
		p = next;
	}
}

static void count_dropped(struct attributes *a)
{
	if (a->dropped < UINT16_MAX)
		a->dropped++;
}

static int append(struct attributes *a, uint8_t tag, uint16_t limit, const char *key,
		  Py_ssize_t key_length, const struct value *value)
{
	size_t body = text_size(key_length) + 1 + varint_size(value->size) + value->size;
	size_t field = 1 + varint_size(body) + body;
	uint8_t *p;

	remove_key(a, tag, key, key_length);
	if (a->count >= limit || a->size + field > MAX_BYTES) {
		count_dropped(a);
		return 0;
	}
	if (attributes_reserve(a, field))
		return -1;
	p = a->bytes + a->size;
	*p++ = tag;
	p = put_varint(p, body);
	p = put_text(p, OTLP_KEY, key, key_length);
	*p++ = OTLP_VALUE;
	p = put_varint(p, value->size);
	value_put(p, value);
	a->size += (uint32_t)field;
	a->count++;
	return 0;
}

/* Counts it, too. */
static void refuse(struct attributes *a, PyObject *key, PyObject *value)
{
	count_dropped(a);
	report("attribute", key, value);
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
		refuse(a, key, value);
		return 0;
	}
	result = value_take(value, key, 0, &taken);
	if (result) {
		result = suppress_error(); /* code of the value's own that fails */
		taken.type = VALUE_REFUSED;
	}
	if (a->sealed) {
		/* that code has ended the span */
	} else if (!result && taken.type == VALUE_REFUSED) {
		refuse(a, key, value);
	} else if (!result) {
		text = utf8(key, &length, &keep);
		result = text ? append(a, tag, limit, text, length, &taken) : -1;
		Py_XDECREF(keep);
	}
	value_release(&taken);
	return result;
}

int attributes_put_int(struct attributes *a, uint8_t tag, const char *key, uint64_t number)
{
	struct value value = {.type = VALUE_INT, .number = number, .size = 1 + varint_size(number)};

	return append(a, tag, UINT16_MAX, key, (Py_ssize_t)strlen(key), &value);
}

int attributes_put_bool(struct attributes *a, uint8_t tag, const char *key, bool truth)
{
	struct value value = {.type = VALUE_BOOL, .number = truth, .size = 2};

	return append(a, tag, UINT16_MAX, key, (Py_ssize_t)strlen(key), &value);
}

int attributes_put_text(struct attributes *a, uint8_t tag, const char *key, const char *text)
{
	Py_ssize_t length = (Py_ssize_t)strlen(text);
	struct value value = {
		.type = VALUE_STRING, .text = text, .length = length, .size = text_size(length)};

	return append(a, tag, UINT16_MAX, key, (Py_ssize_t)strlen(key), &value);
}

static int update_items(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *items)
{
	int result = 0;

	for (Py_ssize_t i = 0; !result && i < PyList_GET_SIZE(items); i++) {
		PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i));

		if (PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 2)
			result = attributes_set(a, tag, limit, PyTuple_GET_ITEM(item, 0),
						PyTuple_GET_ITEM(item, 1));
		Py_DECREF(item);
	}
	return result;
}

int attributes_update(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *mapping)
{
	PyObject *items;
	int result = 0;

	if (PyDict_CheckExact(mapping)) {
		PyObject *key, *value;
		Py_ssize_t position = 0, rest = PyDict_GET_SIZE(mapping);

		/* as many as there are now: the code of a value may add more and more of them */
		while (!result && rest-- && PyDict_Next(mapping, &position, &key, &value)) {
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
		if (suppress_error())
			return -1;
		report("mapping", mapping, mapping);
		return 0;
	}
	result = update_items(a, tag, limit, items);
	Py_DECREF(items);
	return result;
}

int attributes_append_string(struct attributes *a, uint8_t tag, PyObject *text)
{
	PyObject *keep = NULL;
	Py_ssize_t length;
	const char *bytes = utf8(text, &length, &keep);
	int result = -1;

	if (bytes && !attributes_reserve(a, text_size(length))) {
		put_text(a->bytes + a->size, tag, bytes, length);
		a->size += (uint32_t)text_size(length);
		result = 0;
	}
	Py_XDECREF(keep);
	return result;
}
