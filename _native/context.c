// SPDX-License-Identifier: Apache-2.0
/*
 * One current span for both worlds. OpenTelemetry's own context variable holds either one of its
 * Contexts, as ever, or one of our spans, which stands for "the Context below it, with this span".
 * That Context is made only when somebody asks for it, so that `with span` costs no dict.
 */
#include "core.h"

#include <string.h>

static int span_context_number(PyObject *span_context, const char *name, PyObject **number)
{
	*number = PyObject_GetAttrString(span_context, name);
	if (*number && !PyLong_Check(*number)) {
		Py_CLEAR(*number);
		PyErr_Format(PyExc_TypeError, "%s is not an int", name);
	}
	return *number ? 0 : -1;
}

static int trace_id_halves(PyObject *trace_id, struct parent *parent)
{
	PyObject *shift = PyLong_FromLong(64);
	PyObject *high = shift ? PyNumber_Rshift(trace_id, shift) : NULL;

	Py_XDECREF(shift);
	if (!high)
		return -1;
	parent->trace_id_high = PyLong_AsUnsignedLongLong(high);
	parent->trace_id_low = PyLong_AsUnsignedLongLongMask(trace_id);
	Py_DECREF(high);
	return PyErr_Occurred() ? -1 : 0;
}

int parent_from_span_context(PyObject *span_context, struct parent *parent)
{
	PyObject *trace_id = NULL, *span_id = NULL, *flags = NULL, *remote = NULL, *state = NULL;
	int result = -1;

	memset(parent, 0, sizeof(*parent));
	if (span_context_number(span_context, "trace_id", &trace_id) ||
	    span_context_number(span_context, "span_id", &span_id) ||
	    span_context_number(span_context, "trace_flags", &flags))
		goto out;
	remote = PyObject_GetAttrString(span_context, "is_remote");
	state = PyObject_GetAttrString(span_context, "trace_state");
	if (!remote || !state || trace_id_halves(trace_id, parent))
		goto out;
	parent->span_id = PyLong_AsUnsignedLongLong(span_id);
	parent->flags = (uint8_t)PyLong_AsUnsignedLongLongMask(flags);
	parent->is_remote = PyObject_IsTrue(remote) == 1;
	if (PyErr_Occurred())
		goto out;
	if (!(parent->trace_id_high | parent->trace_id_low))
		parent->span_id = 0; /* an invalid context is no parent */
	if (state != Py_None && PyObject_Size(state) > 0)
		parent->trace_state = Py_NewRef(state);
	PyErr_Clear(); /* a state without a length is none */
	result = 0;
out:
	Py_XDECREF(trace_id);
	Py_XDECREF(span_id);
	Py_XDECREF(flags);
	Py_XDECREF(remote);
	Py_XDECREF(state);
	return result;
}

static void parent_from_span(const Span *span, struct parent *parent)
{
	parent->trace_id_high = span->trace_id_high;
	parent->trace_id_low = span->trace_id_low;
	parent->span_id = span->span_id;
	parent->flags = span->flags;
	parent->is_remote = span->remote;
	parent->trace_state = Py_XNewRef(span->trace_state);
}

static int parent_from_context(PyObject *context, struct parent *parent)
{
	PyObject *object = PyDict_GetItemWithError(context, core.span_key);
	PyObject *span_context;
	int result;

	if (!object)
		return PyErr_Occurred() ? -1 : 0;
	if (Span_Check(object)) {
		parent_from_span((Span *)object, parent);
		return 0;
	}
	Py_INCREF(object);
	span_context = PyObject_CallMethod(object, "get_span_context", NULL);
	Py_DECREF(object);
	if (!span_context)
		return -1;
	result = parent_from_span_context(span_context, parent);
	Py_DECREF(span_context);
	return result;
}

int parent_find(PyObject *context, struct parent *parent)
{
	PyObject *value;
	int result = 0;

	memset(parent, 0, sizeof(*parent));
	if (context && context != Py_None)
		value = Py_NewRef(context);
	else if (PyContextVar_Get(core.context_variable, NULL, &value))
		return -1;
	if (!value)
		return 0;
	if (Span_Check(value))
		parent_from_span((Span *)value, parent);
	else if (PyDict_Check(value))
		result = parent_from_context(value, parent);
	Py_DECREF(value);
	return result;
}

/*
 * Whoever started under a span that has ended needs what was below it (baggage), but not the spans
 * there. If they stayed, then in a chain of jobs that each start the next one every span would keep
 * all before it.
 */
static int forget_ancestors(PyObject *context)
{
	PyObject *object = PyDict_GetItemWithError(context, core.span_key);
	PyObject *base, *entries, *bare = NULL;

	if (!object || !Span_Check(object) || !((Span *)object)->ended)
		return PyErr_Occurred() ? -1 : 0;
	base = ((Span *)object)->base;
	if (!base || !PyDict_Contains(base, core.span_key))
		return 0;
	entries = PyDict_Copy(base);
	if (entries && !PyDict_DelItem(entries, core.span_key))
		bare = PyObject_CallOneArg(core.context_type, entries);
	Py_XDECREF(entries);
	if (!bare)
		return -1;
	Py_XSETREF(((Span *)object)->base, bare);
	return 0;
}

int span_make_current(Span *span)
{
	PyObject *value;

	if (PyContextVar_Get(core.context_variable, NULL, &value))
		return -1;
	if (value && Span_Check(value)) {
		PyObject *base = Py_XNewRef(((Span *)value)->base);

		Py_DECREF(value);
		value = base;
	} else if (value && !PyDict_Check(value)) {
		Py_CLEAR(value); /* somebody attached what is no Context */
	} else if (value && forget_ancestors(value)) {
		Py_DECREF(value);
		return -1;
	}
	Py_XSETREF(span->base, value);
	span->token = PyContextVar_Set(core.context_variable, (PyObject *)span);
	return span->token ? 0 : -1;
}

/*
 * A generator or task may be closed in another context than the one it ran in. That context has its
 * own current span, which is not ours to touch: so a token of elsewhere is just forgotten.
 */
void span_leave_current(Span *span)
{
	if (!span->token)
		return;
	if (PyContextVar_Reset(core.context_variable, span->token))
		PyErr_Clear();
	Py_CLEAR(span->token); /* but not the base: a task that was started meanwhile may still see
				  this span */
}

/* The current Context with everything in it, as OpenTelemetry's get_current() promises. */
PyObject *current_context(PyObject *module, PyObject *ignored)
{
	PyObject *value, *context, *entries;

	if (!core.context_variable) {
		PyErr_SetString(PyExc_RuntimeError, "setup() must be called before");
		return NULL;
	}
	if (PyContextVar_Get(core.context_variable, NULL, &value))
		return NULL;
	if (!value)
		return PyObject_CallNoArgs(core.context_type);
	if (!Span_Check(value))
		return value;
	/* A Context is a dict that refuses changes after it was made: it takes its entries from
	 * another dict. */
	entries = ((Span *)value)->base ? PyDict_Copy(((Span *)value)->base) : PyDict_New();
	context = NULL;
	if (entries && !PyDict_SetItem(entries, core.span_key, value))
		context = PyObject_CallOneArg(core.context_type, entries);
	Py_XDECREF(entries);
	Py_DECREF(value);
	return context;
}

/* One of our spans, whatever OpenTelemetry span is current, or None. */
PyObject *current_span(PyObject *module, PyObject *ignored)
{
	PyObject *value, *span;

	if (!core.context_variable)
		Py_RETURN_NONE;
	if (PyContextVar_Get(core.context_variable, NULL, &value))
		return NULL;
	if (!value)
		Py_RETURN_NONE;
	if (Span_Check(value))
		return value;
	span = PyDict_Check(value) ? PyDict_GetItemWithError(value, core.span_key) : NULL;
	Py_XINCREF(span);
	Py_DECREF(value);
	if (!span && !PyErr_Occurred())
		Py_RETURN_NONE;
	return span;
}

/* What the current Context has for that key (but the span's own), without making it; or None. */
PyObject *context_value(PyObject *module, PyObject *key)
{
	PyObject *context, *value, *found = NULL;

	if (!core.context_variable)
		Py_RETURN_NONE;
	if (PyContextVar_Get(core.context_variable, NULL, &value))
		return NULL;
	context = value && Span_Check(value) ? ((Span *)value)->base : value;
	if (context && PyDict_Check(context))
		found = Py_XNewRef(PyDict_GetItemWithError(context, key));
	Py_XDECREF(value);
	if (!found && !PyErr_Occurred())
		Py_RETURN_NONE;
	return found;
}
