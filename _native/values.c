// SPDX-License-Identifier: Apache-2.0
/* Python's values as OTLP's: what OpenTelemetry allows, in bytes. */
#include "values.h"

void value_release(struct value *value)
{
	Py_XDECREF(value->keep);
	if (value->nested.bytes)
		PyMem_Free(value->nested.bytes);
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
	value->size = text_size(value->length);
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

static int take_scalar(PyObject *object, struct value *value)
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
		value->size = text_size(value->length);
		return 0;
	}
	if (object == Py_None)
		value->type = VALUE_NULL;
	return 0;
}

uint8_t *value_put(uint8_t *p, const struct value *value)
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
	case VALUE_NESTED:
		memcpy(p, value->nested.bytes, value->nested.size);
		return p + value->nested.size;
	case VALUE_NULL:
	case VALUE_REFUSED:
		return p;
	}
	Py_UNREACHABLE();
}

/* ---- sequences, mappings, and what has to become a text first ---------------------- */

/* Deeper ones are cut: a list may contain itself. */
#define MAX_DEPTH 8

static int write_value(struct attributes *out, PyObject *object, PyObject *key, int depth);

/* Nothing that is written to it after that matters: it is dropped. */
static bool too_large(const struct attributes *out)
{
	return out->size > MAX_BYTES;
}

/* A length goes in front of what it counts: one byte is kept for it, which most fit in. */
static int open_field(struct attributes *out, uint8_t tag, uint32_t *mark)
{
	if (attributes_reserve(out, 2))
		return -1;
	out->bytes[out->size] = tag;
	out->size += 2;
	*mark = out->size;
	return 0;
}

static int close_field(struct attributes *out, uint32_t mark)
{
	uint32_t size = out->size - mark;
	int more = varint_size(size) - 1;

	if (too_large(out))
		return 0;
	if (more) {
		if (attributes_reserve(out, (size_t)more))
			return -1;
		memmove(out->bytes + mark + more, out->bytes + mark, size);
		out->size += (uint32_t)more;
	}
	put_varint(out->bytes + mark - 1, size);
	return 0;
}

static int write_item(struct attributes *out, PyObject *item, PyObject *key, int depth)
{
	uint32_t mark;

	if (open_field(out, OTLP_ARRAY_VALUES, &mark) || write_value(out, item, key, depth))
		return -1;
	return close_field(out, mark);
}

static int write_entry(struct attributes *out, PyObject *key, PyObject *value, int depth)
{
	PyObject *keep = NULL;
	Py_ssize_t length;
	const char *text = utf8(key, &length, &keep);
	uint32_t entry, mark;
	int result = -1;

	if (!text || open_field(out, OTLP_KVLIST_VALUES, &entry))
		goto out;
	if (length <= MAX_BYTES) {
		if (attributes_reserve(out, text_size(length)))
			goto out;
		put_text(out->bytes + out->size, OTLP_KEY, text, length);
	}
	out->size += (uint32_t)Py_MIN(text_size(length), MAX_BYTES + 1);
	if (too_large(out)) /* whatever follows */
		result = 0;
	else if (!open_field(out, OTLP_VALUE, &mark) && !write_value(out, value, key, depth) &&
		 !close_field(out, mark))
		result = close_field(out, entry);
out:
	Py_XDECREF(keep);
	return result;
}

static int write_sequence(struct attributes *out, PyObject *object, PyObject *key, int depth)
{
	PyObject *iterator, *item;
	int result = 0;

	if (PyList_CheckExact(object) || PyTuple_CheckExact(object)) {
		/* the size is asked each time: an item's code may change the list */
		for (Py_ssize_t i = 0; !result && i < PySequence_Fast_GET_SIZE(object); i++) {
			item = Py_NewRef(PySequence_Fast_GET_ITEM(object, i));
			result = write_item(out, item, key, depth);
			Py_DECREF(item);
			if (too_large(out))
				break;
		}
		return result;
	}
	iterator = PyObject_GetIter(object);
	if (!iterator)
		return -1;
	while (!result && !too_large(out) && (item = PyIter_Next(iterator))) {
		result = write_item(out, item, key, depth);
		Py_DECREF(item);
	}
	Py_DECREF(iterator);
	return PyErr_Occurred() ? -1 : result;
}

/* As OpenTelemetry does: an empty key is left out, another object is a key by its text. */
static int add_entry(PyObject *entries, PyObject *key, PyObject *value, PyObject *subject)
{
	int truth = PyObject_IsTrue(key);
	PyObject *text;
	int result;

	if (truth < 0)
		return -1;
	if (!truth) {
		report("attribute", subject, key);
		return 0;
	}
	text = plain_text(key);
	result = text ? PyDict_SetItem(entries, text, value) : -1;
	Py_XDECREF(text);
	return result;
}

/* A dict of our own, whose keys are str: whatever code runs meanwhile does not change it. */
static PyObject *entries_of(PyObject *mapping, PyObject *subject)
{
	PyObject *items = PyMapping_Items(mapping), *entries = items ? PyDict_New() : NULL;
	int result = entries ? 0 : -1;

	for (Py_ssize_t i = 0; !result && i < PyList_GET_SIZE(items); i++) {
		PyObject *item = PyList_GET_ITEM(items, i);

		if (PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 2)
			result = add_entry(entries, PyTuple_GET_ITEM(item, 0),
					   PyTuple_GET_ITEM(item, 1), subject);
	}
	Py_XDECREF(items);
	if (result)
		Py_CLEAR(entries);
	return entries;
}

static int write_mapping(struct attributes *out, PyObject *object, PyObject *subject, int depth)
{
	PyObject *entries = entries_of(object, subject), *key, *value;
	Py_ssize_t position = 0;
	int result = entries ? 0 : -1;

	while (!result && !too_large(out) && PyDict_Next(entries, &position, &key, &value))
		result = write_entry(out, key, value, depth);
	Py_XDECREF(entries);
	return result;
}

/* 1 for a sequence, 2 for a mapping, 0 for neither. */
static int nesting_kind(PyObject *object)
{
	int result;

	if (PyList_Check(object) || PyTuple_Check(object))
		return 1;
	if (PyDict_Check(object))
		return 2;
	result = PyObject_IsInstance(object, core.sequence_type);
	if (result)
		return result;
	result = PyObject_IsInstance(object, core.mapping_type);
	return result == 1 ? 2 : result;
}

static int take_nested(PyObject *object, PyObject *key, int kind, int depth, struct value *value)
{
	struct attributes *out = &value->nested;
	uint32_t mark;

	value->type = VALUE_NESTED;
	if (open_field(out, kind == 1 ? OTLP_ARRAY_VALUE : OTLP_KVLIST_VALUE, &mark))
		return -1;
	if (depth == MAX_DEPTH)
		report("depth", key, object);
	else if (kind == 1 ? write_sequence(out, object, key, depth + 1)
			   : write_mapping(out, object, key, depth + 1))
		return -1;
	if (close_field(out, mark))
		return -1;
	value->size = out->size;
	return 0;
}

/* The text of an object that has one of its own: object's would only say where it lies. */
static int take_text(PyObject *object, PyObject *key, struct value *value)
{
	PyObject *text;
	int result;

	if (Py_TYPE(object)->tp_str == PyBaseObject_Type.tp_str &&
	    Py_TYPE(object)->tp_repr == PyBaseObject_Type.tp_repr)
		return 0;
	text = PyObject_Str(object);
	if (!text)
		return -1;
	report("text", key, object);
	result = take_string(text, value);
	if (!result && !value->keep)
		value->keep = text;
	else
		Py_DECREF(text);
	return result;
}

/* Leaves VALUE_REFUSED for what OpenTelemetry does not allow. -1 with an exception when Python
 * fails; to be released in any case. */
int value_take(PyObject *object, PyObject *key, int depth, struct value *value)
{
	int kind;

	if (take_scalar(object, value))
		return -1;
	if (value->type != VALUE_REFUSED || PyLong_Check(object))
		return 0;
	kind = nesting_kind(object);
	if (kind > 0)
		return take_nested(object, key, kind, depth, value);
	return kind ? -1 : take_text(object, key, value);
}

/* The AnyValue of an item; an empty one for what is not allowed. */
static int write_value(struct attributes *out, PyObject *object, PyObject *key, int depth)
{
	struct value value = {0};
	int result = value_take(object, key, depth, &value);

	if (!result && value.type == VALUE_REFUSED)
		report("attribute", key, object);
	if (!result && value.size > MAX_BYTES) {
		out->size = MAX_BYTES + 1; /* what was written does not matter any more */
	} else if (!result) {
		result = attributes_reserve(out, value.size);
		if (!result) {
			value_put(out->bytes + out->size, &value);
			out->size += (uint32_t)value.size;
		}
	}
	value_release(&value);
	return result;
}

int values_init(void)
{
	PyObject *module = PyImport_ImportModule("collections.abc");

	if (module) {
		Py_XSETREF(core.sequence_type, PyObject_GetAttrString(module, "Sequence"));
		Py_XSETREF(core.mapping_type, PyObject_GetAttrString(module, "Mapping"));
		Py_DECREF(module);
	}
	return core.sequence_type && core.mapping_type ? 0 : -1;
}
