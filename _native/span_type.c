// SPDX-License-Identifier: Apache-2.0
/*
 * The Span type as Python sees it. What few spans need (exceptions, status rules, decorating) is
 * Python, put on this same type by native.py.
 */
#include "core.h"

#include <stddef.h>
#include <structmember.h>

/* ---- within `with` ----------------------------------------------------------------- */

static PyObject *span_enter(Span *span, PyObject *ignored)
{
	struct span_start start = {Py_None, Py_None, Py_None};

	if (span->deferred)
		start = (struct span_start){
			.context = PyTuple_GET_ITEM(span->deferred, 0),
			.attributes = PyTuple_GET_ITEM(span->deferred, 1),
			.links = PyTuple_GET_ITEM(span->deferred, 2),
		};
	if (!span->started) {
		int failed = span_start(span, &start);

		Py_CLEAR(span->deferred); /* or it would keep a context, and with it other spans */
		if (failed)
			return NULL;
	}
	if (span->make_current && !span->token && !span->ended && span_make_current(span))
		return NULL;
	return Py_NewRef(span);
}

/* The application's own exception must go on: one that comes of recording it is only shown. */
static int tell(Span *span, const char *method, PyObject *exception)
{
	PyObject *result = PyObject_CallMethod((PyObject *)span, method, "O", exception);

	if (!result && !PyErr_ExceptionMatches(PyExc_Exception))
		return -1; /* Ctrl-C, for one */
	if (!result)
		PyErr_WriteUnraisable((PyObject *)span);
	Py_XDECREF(result);
	return 0;
}

/* Errors are recorded, and only errors: GeneratorExit, KeyboardInterrupt and CancelledError are no
 * Exception. */
static int exception_seen(Span *span, PyObject *exception)
{
	if (!span->recording || span->ended ||
	    !PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_Exception))
		return 0;
	if (span->record_exception && tell(span, "record_exception", exception))
		return -1;
	return span->status_on_exception ? tell(span, "_fail", exception) : 0;
}

static PyObject *span_exit(Span *span, PyObject *const *args, Py_ssize_t nargs)
{
	PyObject *type, *value, *traceback;

	if (nargs == 3 && args[1] != Py_None && exception_seen(span, args[1])) {
		PyErr_Fetch(&type, &value, &traceback);
		span_leave_current(span);
		if (span->end_on_exit && span_finish(span))
			PyErr_Clear();
		PyErr_Restore(type, value, traceback);
		return NULL;
	}
	span_leave_current(span);
	if (span->end_on_exit && span_finish(span))
		return NULL;
	Py_RETURN_NONE;
}

/* ---- what a span is told and asked ------------------------------------------------- */

static PyObject *span_add_link(Span *span, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *kwnames)
{
	static PyObject *names[3];
	PyObject *values[2] = {NULL};

	if (!names[0]) {
		names[0] = PyUnicode_InternFromString("context");
		names[1] = PyUnicode_InternFromString("attributes");
	}
	if (bind_arguments("add_link", args, nargs, kwnames, names, 2, values))
		return NULL;
	if (!values[0]) {
		PyErr_SetString(PyExc_TypeError, "add_link() needs a context");
		return NULL;
	}
	if (span_link(span, values[0], values[1]))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *span_add_event(Span *span, PyObject *const *args, Py_ssize_t nargs,
				PyObject *kwnames)
{
	static PyObject *names[4];
	PyObject *values[3] = {NULL}, *name;
	int result;

	if (!names[0]) {
		names[0] = PyUnicode_InternFromString("name");
		names[1] = PyUnicode_InternFromString("attributes");
		names[2] = PyUnicode_InternFromString("timestamp");
	}
	if (bind_arguments("add_event", args, nargs, kwnames, names, 3, values))
		return NULL;
	if (!values[0]) {
		PyErr_SetString(PyExc_TypeError, "add_event() needs a name");
		return NULL;
	}
	if (!span->recording || span->ended)
		Py_RETURN_NONE;
	name = plain_text(values[0]);
	if (!name)
		return NULL;
	result = span_event(span, name, values[1], time_argument(values[2]));
	Py_DECREF(name);
	if (result)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *span_end(Span *span, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	static PyObject *names[2];
	PyObject *values[1] = {NULL};

	if (!names[0])
		names[0] = PyUnicode_InternFromString("end_time");
	if (bind_arguments("end", args, nargs, kwnames, names, 1, values))
		return NULL;
	if (!span->started || span->ended)
		Py_RETURN_NONE;
	span->end_time_ns = time_argument(values[0]);
	if (span_finish(span))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *span_set_attribute(Span *span, PyObject *const *args, Py_ssize_t nargs,
				    PyObject *kwnames)
{
	static PyObject *names[3];
	PyObject *values[2] = {NULL};

	if (nargs == 2 && !kwnames) {
		values[0] = args[0];
		values[1] = args[1];
	} else {
		if (!names[0]) {
			names[0] = PyUnicode_InternFromString("key");
			names[1] = PyUnicode_InternFromString("value");
		}
		if (bind_arguments("set_attribute", args, nargs, kwnames, names, 2, values))
			return NULL;
	}
	if (!values[0] || !values[1]) {
		PyErr_SetString(PyExc_TypeError, "set_attribute() needs a key and a value");
		return NULL;
	}
	if (span->recording && !span->ended &&
	    attributes_set(&span->attributes, OTLP_SPAN_ATTRIBUTES, core.limits.attributes,
			   values[0], values[1]))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *span_set_attributes(Span *span, PyObject *mapping)
{
	if (span->recording && !span->ended &&
	    attributes_update(&span->attributes, OTLP_SPAN_ATTRIBUTES, core.limits.attributes,
			      mapping))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *span_update_name(Span *span, PyObject *name)
{
	PyObject *text = plain_text(name);

	if (!text)
		return NULL;
	if (span->ended) {
		Py_DECREF(text);
	} else {
		Py_SETREF(span->name, text);
		span->renamed = span->emitted;
	}
	Py_RETURN_NONE;
}

static PyObject *span_is_recording(Span *span, PyObject *ignored)
{
	return PyBool_FromLong(span->recording && !span->ended);
}

/* Code and message as they are; OpenTelemetry's rules about them are native.py's. */
static PyObject *span_put_status(Span *span, PyObject *args)
{
	PyObject *message;
	int code;

	if (!PyArg_ParseTuple(args, "iO", &code, &message))
		return NULL;
	if (message != Py_None && !PyUnicode_Check(message)) {
		PyErr_SetString(PyExc_TypeError, "a status description is a str or None");
		return NULL;
	}
	if (span->recording && !span->ended) {
		PyObject *text = message == Py_None ? NULL : plain_text(message);

		if (!text && PyErr_Occurred())
			return NULL;
		span->status = (uint8_t)code;
		Py_XSETREF(span->status_message, text);
	}
	Py_RETURN_NONE;
}

PyObject *span_trace_id(const Span *span)
{
	PyObject *high = PyLong_FromUnsignedLongLong(span->trace_id_high);
	PyObject *low = PyLong_FromUnsignedLongLong(span->trace_id_low);
	PyObject *shift = PyLong_FromLong(64);
	PyObject *shifted = high && low && shift ? PyNumber_Lshift(high, shift) : NULL;
	PyObject *trace_id = shifted ? PyNumber_Or(shifted, low) : NULL;

	Py_XDECREF(high);
	Py_XDECREF(low);
	Py_XDECREF(shift);
	Py_XDECREF(shifted);
	return trace_id;
}

static PyObject *make_span_context(const Span *span, uint64_t span_id, bool is_remote)
{
	PyObject *trace_id = span_trace_id(span), *result = NULL;

	if (trace_id)
		result = PyObject_CallFunction(core.make_span_context, "OKOiO", trace_id,
					       (unsigned long long)span_id,
					       is_remote ? Py_True : Py_False, (int)span->flags,
					       span->trace_state ? span->trace_state : Py_None);
	Py_XDECREF(trace_id);
	return result;
}

static PyObject *span_get_context(Span *span, void *ignored)
{
	if (!span->started) /* invalid until it starts */
		return make_span_context(span, 0, false);
	if (!span->span_context) {
		PyObject *made = make_span_context(span, span->span_id, span->remote);

		if (span->span_context)
			Py_XDECREF(made); /* another thread was faster */
		else
			span->span_context = made;
	}
	return Py_XNewRef(span->span_context);
}

static PyObject *span_get_span_context(Span *span, PyObject *ignored)
{
	return span_get_context(span, NULL);
}

/* The header of W3C Trace Context; None before the span has started. */
static PyObject *span_get_traceparent(Span *span, void *ignored)
{
	char text[56];

	if (!span->started)
		Py_RETURN_NONE;
	snprintf(text, sizeof(text), "00-%016llx%016llx-%016llx-%02x",
		 (unsigned long long)span->trace_id_high, (unsigned long long)span->trace_id_low,
		 (unsigned long long)span->span_id, (unsigned)span->flags);
	return PyUnicode_FromString(text);
}

static PyObject *span_get_trace_state(Span *span, void *ignored)
{
	return Py_NewRef(span->trace_state ? span->trace_state : Py_None);
}

static PyObject *span_get_parent(Span *span, void *ignored)
{
	if (!span->parent_span_id)
		Py_RETURN_NONE;
	return make_span_context(span, span->parent_span_id, span->parent_is_remote);
}

static PyObject *span_get_kind(Span *span, void *ignored)
{
	return Py_NewRef(core.kinds[span->kind - 1]);
}

static PyObject *span_get_attributes(Span *span, void *ignored)
{
	return attributes_to_dict(&span->attributes, OTLP_SPAN_ATTRIBUTES);
}

static PyObject *time_or_none(int64_t ns)
{
	if (!ns)
		Py_RETURN_NONE;
	return PyLong_FromLongLong(ns);
}

static PyObject *span_get_start_time(Span *span, void *ignored)
{
	return time_or_none(span->start_time_ns);
}

static PyObject *span_get_end_time(Span *span, void *ignored)
{
	return time_or_none(span->end_time_ns);
}

static PyObject *list_or_empty(PyObject *list)
{
	return list ? PyList_AsTuple(list) : PyTuple_New(0);
}

static PyObject *span_get_raw_events(Span *span, void *ignored)
{
	return list_or_empty(span->events);
}

static PyObject *span_get_raw_links(Span *span, void *ignored)
{
	return list_or_empty(span->links);
}

static PyObject *span_get_raw_status(Span *span, void *ignored)
{
	return Py_BuildValue("(iO)", (int)span->status,
			     span->status_message ? span->status_message : Py_None);
}

static PyObject *span_get_dropped(Span *span, void *ignored)
{
	return Py_BuildValue("(iii)", (int)span->attributes.dropped,
			     (int)over(span->event_count, core.limits.events),
			     (int)over(span->link_count, core.limits.links));
}

/* What a decorator needs to make the same span again: see native.py. */
static PyObject *span_get_deferred(Span *span, void *ignored)
{
	PyObject *deferred = span->deferred;

	return Py_BuildValue("{sOsOsOsOsOsOsO}", "context",
			     deferred ? PyTuple_GET_ITEM(deferred, 0) : Py_None, "attributes",
			     deferred ? PyTuple_GET_ITEM(deferred, 1) : Py_None, "links",
			     deferred ? PyTuple_GET_ITEM(deferred, 2) : Py_None, "kind",
			     core.kinds[span->kind - 1], "record_exception",
			     span->record_exception ? Py_True : Py_False, "set_status_on_exception",
			     span->status_on_exception ? Py_True : Py_False, "end_on_exit",
			     span->end_on_exit ? Py_True : Py_False);
}

/* ---- the type ---------------------------------------------------------------------- */

static int span_traverse(Span *span, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(span));
	Py_VISIT(span->tracer);
	Py_VISIT(span->trace_state);
	Py_VISIT(span->base);
	Py_VISIT(span->token);
	Py_VISIT(span->deferred);
	Py_VISIT(span->span_context);
	Py_VISIT(span->events);
	Py_VISIT(span->links);
	Py_VISIT(span->dict);
	return 0;
}

/* The tracer stays: whoever still holds the span may call it. It cannot be part of a cycle through
 * the span alone. */
static int span_clear(Span *span)
{
	Py_CLEAR(span->trace_state);
	Py_CLEAR(span->base);
	Py_CLEAR(span->token);
	Py_CLEAR(span->deferred);
	Py_CLEAR(span->span_context);
	Py_CLEAR(span->events);
	Py_CLEAR(span->links);
	Py_CLEAR(span->dict);
	return 0;
}

static void span_dealloc(Span *span)
{
	PyTypeObject *type = Py_TYPE(span);

	PyObject_GC_UnTrack(span);
	if (span->weak_references)
		PyObject_ClearWeakRefs((PyObject *)span);
	span_clear(span);
	if (span->cpu)
		cpu_drop(span);
	Py_XDECREF(span->tracer);
	Py_XDECREF(span->name);
	Py_XDECREF(span->status_message);
	span_free(span);
	Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef span_methods[] = {
	{"__enter__", (PyCFunction)span_enter, METH_NOARGS, NULL},
	{"__exit__", FAST(span_exit), METH_FASTCALL, NULL},
	{"set_attribute", FAST(span_set_attribute), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"set_attributes", (PyCFunction)span_set_attributes, METH_O, NULL},
	{"add_event", FAST(span_add_event), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"add_link", FAST(span_add_link), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"update_name", (PyCFunction)span_update_name, METH_O, NULL},
	{"is_recording", (PyCFunction)span_is_recording, METH_NOARGS, NULL},
	{"end", FAST(span_end), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"get_span_context", (PyCFunction)span_get_span_context, METH_NOARGS, NULL},
	{"_put_status", (PyCFunction)span_put_status, METH_VARARGS, NULL},
	{NULL},
};

static PyGetSetDef span_getset[] = {
	{"context", (getter)span_get_context},
	{"parent", (getter)span_get_parent},
	{"_traceparent", (getter)span_get_traceparent},
	{"_trace_state", (getter)span_get_trace_state},
	{"kind", (getter)span_get_kind},
	{"attributes", (getter)span_get_attributes},
	{"start_time", (getter)span_get_start_time},
	{"end_time", (getter)span_get_end_time},
	{"_raw_events", (getter)span_get_raw_events},
	{"_raw_links", (getter)span_get_raw_links},
	{"_raw_status", (getter)span_get_raw_status},
	{"_dropped", (getter)span_get_dropped},
	{"_deferred", (getter)span_get_deferred},
	{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict},
	{NULL},
};

static PyMemberDef span_members[] = {
	{"name", T_OBJECT, offsetof(Span, name), READONLY},
	{"_tracer", T_OBJECT, offsetof(Span, tracer), READONLY},
	{"__dictoffset__", T_PYSSIZET, offsetof(Span, dict), READONLY},
	{"__weaklistoffset__", T_PYSSIZET, offsetof(Span, weak_references), READONLY},
	{NULL},
};

static PyType_Slot span_slots[] = {
	{Py_tp_dealloc, span_dealloc},
	{Py_tp_traverse, span_traverse},
	{Py_tp_clear, span_clear},
	{Py_tp_methods, span_methods},
	{Py_tp_getset, span_getset},
	{Py_tp_members, span_members},
	{0, NULL},
};

static PyType_Spec span_spec = {
	.name = "k8s_tracing._core.Span",
	.basicsize = sizeof(Span),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = span_slots,
};

int span_type_init(PyObject *module)
{
	if (!core.span_type) /* imported a second time: the type stays the same */
		core.span_type = (PyTypeObject *)PyType_FromSpec(&span_spec);
	return core.span_type ? PyModule_AddType(module, core.span_type) : -1;
}
