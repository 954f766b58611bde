// SPDX-License-Identifier: Apache-2.0
/* The Tracer type: OpenTelemetry's two ways to start a span, and k8s_tracing.span() on top of them.
 */
#include "core.h"

#include <stddef.h>
#include <structmember.h>

/* In the order of OpenTelemetry's Tracer.start_span() and start_as_current_span(). */
enum {
	NAME,
	CONTEXT,
	KIND,
	ATTRIBUTES,
	LINKS,
	START_TIME,
	RECORD_EXCEPTION,
	STATUS_ON_EXCEPTION,
	END_ON_EXIT,
	ARGUMENTS
};

static PyObject *argument_names[ARGUMENTS + 1];
/* k8s_tracing.span(name, attributes, ...) has its second argument earlier. */
static PyObject *span_names[ARGUMENTS + 1];
static const int span_order[ARGUMENTS] = {
	NAME,	    ATTRIBUTES, CONTEXT,	  KIND,
	LINKS,	    START_TIME, RECORD_EXCEPTION, STATUS_ON_EXCEPTION,
	END_ON_EXIT};

static PyObject *new_span(Tracer *tracer, PyObject **values, bool make_current)
{
	struct span_arguments arguments = {
		.name = values[NAME],
		.context = values[CONTEXT],
		.kind = values[KIND],
		.attributes = values[ATTRIBUTES],
		.links = values[LINKS],
		.start_time = values[START_TIME],
		.record_exception = values[RECORD_EXCEPTION],
		.status_on_exception = values[STATUS_ON_EXCEPTION],
		.end_on_exit = values[END_ON_EXIT],
	};

	if (!arguments.name) {
		PyErr_SetString(PyExc_TypeError, "a span needs a name");
		return NULL;
	}
	return span_new(tracer, &arguments, make_current);
}

static PyObject *tracer_start_span(Tracer *tracer, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	PyObject *values[ARGUMENTS] = {NULL};

	if (bind_arguments("start_span", args, nargs, kwnames, argument_names, END_ON_EXIT, values))
		return NULL;
	return new_span(tracer, values, false);
}

static PyObject *tracer_start_as_current_span(Tracer *tracer, PyObject *const *args,
					      Py_ssize_t nargs, PyObject *kwnames)
{
	PyObject *values[ARGUMENTS] = {NULL};

	if (bind_arguments("start_as_current_span", args, nargs, kwnames, argument_names, ARGUMENTS,
			   values))
		return NULL;
	return new_span(tracer, values, true);
}

/* A tracer that is not ours (the fallback's) is asked in OpenTelemetry's own words. */
static PyObject *foreign_span(PyObject **given)
{
	PyObject *method = PyObject_GetAttrString(core.default_tracer, "start_as_current_span");
	PyObject *args = method ? PyTuple_Pack(1, given[0]) : NULL;
	PyObject *kwargs = args ? PyDict_New() : NULL;
	PyObject *result = NULL;

	for (int i = 1; kwargs && i < ARGUMENTS; i++)
		if (given[i] && PyDict_SetItem(kwargs, span_names[i], given[i]))
			Py_CLEAR(kwargs);
	if (kwargs)
		result = PyObject_Call(method, args, kwargs);
	Py_XDECREF(method);
	Py_XDECREF(args);
	Py_XDECREF(kwargs);
	return result;
}

PyObject *core_span(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	PyObject *given[ARGUMENTS] = {NULL}, *values[ARGUMENTS];

	if (nargs == 1 && !kwnames) {
		given[0] = args[0];
	} else if (bind_arguments("span", args, nargs, kwnames, span_names, 2, given)) {
		return NULL;
	}
	if (!given[0]) {
		PyErr_SetString(PyExc_TypeError, "a span needs a name");
		return NULL;
	}
	if (!core.default_tracer) {
		PyErr_SetString(PyExc_RuntimeError, "no tracer was set: import k8s_tracing first");
		return NULL;
	}
	if (!Tracer_Check(core.default_tracer))
		return foreign_span(given);
	for (int i = 0; i < ARGUMENTS; i++)
		values[span_order[i]] = given[i];
	return new_span((Tracer *)core.default_tracer, values, true);
}

/* ---- the type ---------------------------------------------------------------------- */

static PyObject *or_null(PyObject *object)
{
	return object == Py_None ? NULL : Py_NewRef(object);
}

static PyObject *tracer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = {"scope",	   "resource", "scope_id",     "emit",
				   "parent_based", "sampler",  "sample_below", NULL};
	unsigned long long sample_below = UINT64_MAX;
	PyObject *scope, *resource, *sampler = Py_None;
	int emit, parent_based = true;
	unsigned short scope_id;
	Tracer *tracer;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOHp|pOK:Tracer", keywords, &scope,
					 &resource, &scope_id, &emit, &parent_based, &sampler,
					 &sample_below))
		return NULL;
	if (!core.context_variable) {
		PyErr_SetString(PyExc_RuntimeError,
				"setup() must be called before a Tracer is made");
		return NULL;
	}
	tracer = (Tracer *)type->tp_alloc(type, 0);
	if (!tracer)
		return NULL;
	tracer->scope = Py_NewRef(scope);
	tracer->resource = Py_NewRef(resource);
	tracer->scope_id = scope_id;
	tracer->emit = emit;
	tracer->parent_based = parent_based;
	tracer->sampler = or_null(sampler);
	tracer->sample_below = sample_below;
	return (PyObject *)tracer;
}

/* Called with every span: on_start(span, parent context or None), on_end(span). */
static PyObject *tracer_listen(Tracer *tracer, PyObject *args)
{
	PyObject *on_start, *on_end;

	if (!PyArg_ParseTuple(args, "OO:listen", &on_start, &on_end))
		return NULL;
	Py_XSETREF(tracer->on_start, or_null(on_start));
	Py_XSETREF(tracer->on_end, or_null(on_end));
	Py_RETURN_NONE;
}

static int tracer_traverse(Tracer *tracer, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(tracer));
	Py_VISIT(tracer->on_start);
	Py_VISIT(tracer->on_end);
	Py_VISIT(tracer->sampler);
	Py_VISIT(tracer->scope);
	Py_VISIT(tracer->resource);
	return 0;
}

static int tracer_clear(Tracer *tracer)
{
	Py_CLEAR(tracer->on_start);
	Py_CLEAR(tracer->on_end);
	Py_CLEAR(tracer->sampler);
	Py_CLEAR(tracer->scope);
	Py_CLEAR(tracer->resource);
	return 0;
}

static void tracer_dealloc(Tracer *tracer)
{
	PyTypeObject *type = Py_TYPE(tracer);

	PyObject_GC_UnTrack(tracer);
	tracer_clear(tracer);
	type->tp_free(tracer);
	Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef tracer_methods[] = {
	{"start_span", FAST(tracer_start_span), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"start_as_current_span", FAST(tracer_start_as_current_span), METH_FASTCALL | METH_KEYWORDS,
	 NULL},
	{"listen", (PyCFunction)tracer_listen, METH_VARARGS, NULL},
	{NULL},
};

static PyMemberDef tracer_members[] = {
	{"scope", T_OBJECT, offsetof(Tracer, scope), READONLY},
	{"resource", T_OBJECT, offsetof(Tracer, resource), 0},
	{NULL},
};

static PyType_Slot tracer_slots[] = {
	{Py_tp_new, tracer_new},
	{Py_tp_dealloc, tracer_dealloc},
	{Py_tp_traverse, tracer_traverse},
	{Py_tp_clear, tracer_clear},
	{Py_tp_methods, tracer_methods},
	{Py_tp_members, tracer_members},
	{0, NULL},
};

static PyType_Spec tracer_spec = {
	.name = "k8s_tracing._core.Tracer",
	.basicsize = sizeof(Tracer),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = tracer_slots,
};

int tracer_type_init(PyObject *module)
{
	static const char *const names[ARGUMENTS] = {
		"name",
		"context",
		"kind",
		"attributes",
		"links",
		"start_time",
		"record_exception",
		"set_status_on_exception",
		"end_on_exit",
	};

	if (core.tracer_type) /* imported a second time: the type stays the same */
		return PyModule_AddType(module, core.tracer_type);
	for (int i = 0; i < ARGUMENTS; i++) {
		argument_names[i] = PyUnicode_InternFromString(names[i]);
		if (!argument_names[i])
			return -1;
	}
	for (int i = 0; i < ARGUMENTS; i++)
		span_names[i] = argument_names[span_order[i]];
	core.tracer_type = (PyTypeObject *)PyType_FromSpec(&tracer_spec);
	return core.tracer_type ? PyModule_AddType(module, core.tracer_type) : -1;
}
