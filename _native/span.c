// SPDX-License-Identifier: Apache-2.0
/*
 * The Span type. What every span does is here; what few do (exceptions, status rules, decorating)
 * is Python, put on this same type by native.py.
 */
#include "core.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

#define W3C_SAMPLED 0x01
#define W3C_RANDOM 0x02 /* Trace Context level 2: the trace id's right half is random */

static const struct k8s_tracing_provider *emitter(const Span *span)
{
	return span->emitted && span->generation == core.generation ? core.provider : NULL;
}

static int listener_call(PyObject *listener, Span *span)
{
	PyObject *result =
		listener ? PyObject_CallOneArg(listener, (PyObject *)span) : Py_NewRef(Py_None);

	/* A processor that fails is the operator's trouble, not the application's: say it and go
	 * on. */
	if (!result)
		PyErr_WriteUnraisable(listener);
	Py_XDECREF(result);
	return 0;
}

static int time_argument(PyObject *time, int64_t *ns)
{
	*ns = 0;
	if (!time || time == Py_None)
		return 0;
	*ns = PyLong_AsLongLong(time);
	return *ns == -1 && PyErr_Occurred() ? -1 : 0;
}

/* ---- links and events
 * ---------------------------------------------------------------------------------------- */

static int remember(PyObject **list, PyObject *entry)
{
	int result = -1;

	if (!*list)
		*list = PyList_New(0);
	if (*list && entry)
		result = PyList_Append(*list, entry);
	Py_XDECREF(entry);
	return result;
}

static void link_emit(const Span *span, const struct parent *linked,
		      const struct attributes *attributes)
{
	const struct k8s_tracing_provider *provider = emitter(span);

	if (provider)
		provider->span_link(&(struct k8s_tracing_link){
			.span_id = span->span_id,
			.linked_trace_id_high = linked->trace_id_high,
			.linked_trace_id_low = linked->trace_id_low,
			.linked_span_id = linked->span_id,
			.flags = linked->flags,
			.attributes = attributes->bytes,
			.attributes_size = attributes->size,
			.dropped_attributes = attributes->dropped,
		});
}

static int state_append(struct attributes *attributes, PyObject *trace_state)
{
	PyObject *header = PyObject_CallMethod(trace_state, "to_header", NULL);
	int result = -1;

	if (header && PyUnicode_Check(header))
		result = attributes_append_string(attributes, OTLP_SPAN_TRACE_STATE, header);
	Py_XDECREF(header);
	return result;
}

static int link_add(Span *span, PyObject *context, PyObject *link_attributes)
{
	struct attributes attributes = {0};
	struct parent linked;
	int result = -1;

	if (!span->recording || span->ended)
		return 0;
	if (span->link_count >= core.limits.links) {
		span->link_count += span->link_count < UINT16_MAX;
		return 0;
	}
	if (parent_from_span_context(context, &linked))
		return -1;
	if (link_attributes && link_attributes != Py_None &&
	    attributes_update(&attributes, OTLP_LINK_ATTRIBUTES, core.limits.link_attributes,
			      link_attributes))
		goto out;
	span->link_count++;
	if (span->tracer->on_end) {
		PyObject *kept = attributes_to_dict(&attributes, OTLP_LINK_ATTRIBUTES);

		if (!kept || remember(&span->links, Py_BuildValue("(OO)", context, kept))) {
			Py_XDECREF(kept);
			goto out;
		}
		Py_DECREF(kept);
	}
	/* the same field number as in Span: both messages call it trace_state = 3 */
	if (linked.trace_state && state_append(&attributes, linked.trace_state))
		goto out;
	if (attributes_pad(&attributes))
		goto out;
	link_emit(span, &linked, &attributes);
	result = 0;
out:
	Py_XDECREF(linked.trace_state);
	attributes_clear(&attributes);
	return result;
}

/* OpenTelemetry's Link objects, as they are given to start_span(). */
static int links_add(Span *span, PyObject *links)
{
	PyObject *iterator = PyObject_GetIter(links), *link;
	int result = iterator ? 0 : -1;

	while (!result && (link = PyIter_Next(iterator))) {
		PyObject *context = PyObject_GetAttrString(link, "context");
		PyObject *attributes = context ? PyObject_GetAttrString(link, "attributes") : NULL;

		result = attributes ? link_add(span, context, attributes) : -1;
		Py_XDECREF(context);
		Py_XDECREF(attributes);
		Py_DECREF(link);
	}
	Py_XDECREF(iterator);
	return PyErr_Occurred() ? -1 : result;
}

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
	if (link_add(span, values[0], values[1]))
		return NULL;
	Py_RETURN_NONE;
}

static int event_add(Span *span, PyObject *name, PyObject *event_attributes, int64_t time_ns)
{
	const struct k8s_tracing_provider *provider = emitter(span);
	struct attributes attributes = {0};
	PyObject *keep = NULL;
	const char *text;
	int result = -1;

	if (span->event_count >= core.limits.events) {
		span->event_count += span->event_count < UINT16_MAX;
		return 0;
	}
	text = utf8(name, NULL, &keep);
	if (!text)
		return -1;
	if (event_attributes && event_attributes != Py_None &&
	    attributes_update(&attributes, OTLP_EVENT_ATTRIBUTES, core.limits.event_attributes,
			      event_attributes))
		goto out;
	span->event_count++;
	if (span->tracer->on_end) {
		PyObject *kept = attributes_to_dict(&attributes, OTLP_EVENT_ATTRIBUTES);

		if (!time_ns)
			time_ns = now_ns();
		if (!kept || remember(&span->events,
				      Py_BuildValue("(OLO)", name, (long long)time_ns, kept))) {
			Py_XDECREF(kept);
			goto out;
		}
		Py_DECREF(kept);
	}
	if (attributes_pad(&attributes))
		goto out;
	if (provider)
		provider->span_event(&(struct k8s_tracing_event){
			.span_id = span->span_id,
			.time_ns = time_ns,
			.name = text,
			.attributes = attributes.bytes,
			.attributes_size = attributes.size,
			.dropped_attributes = attributes.dropped,
		});
	result = 0;
out:
	Py_XDECREF(keep);
	attributes_clear(&attributes);
	return result;
}

static PyObject *span_add_event(Span *span, PyObject *const *args, Py_ssize_t nargs,
				PyObject *kwnames)
{
	static PyObject *names[4];
	PyObject *values[3] = {NULL};
	int64_t time_ns;

	if (!names[0]) {
		names[0] = PyUnicode_InternFromString("name");
		names[1] = PyUnicode_InternFromString("attributes");
		names[2] = PyUnicode_InternFromString("timestamp");
	}
	if (bind_arguments("add_event", args, nargs, kwnames, names, 3, values))
		return NULL;
	if (!values[0] || !PyUnicode_Check(values[0])) {
		PyErr_SetString(PyExc_TypeError, "add_event() needs a name, a str");
		return NULL;
	}
	if (!span->recording || span->ended)
		Py_RETURN_NONE;
	if (time_argument(values[2], &time_ns) || event_add(span, values[0], values[1], time_ns))
		return NULL;
	Py_RETURN_NONE;
}

/* ---- start
 * ---------------------------------------------------------------------------------------------------
 */

static int start_emit(Span *span)
{
	const struct k8s_tracing_provider *provider = core.provider;
	PyObject *keep = NULL;
	const char *name = utf8(span->name, NULL, &keep);

	if (!name)
		return -1;
	provider->start_span(&(struct k8s_tracing_start){
		.trace_id_high = span->trace_id_high,
		.trace_id_low = span->trace_id_low,
		.span_id = span->span_id,
		.parent_span_id = span->parent_span_id,
		.start_time_ns = span->start_time_ns,
		.name = name,
		.scope_id = span->tracer->scope_id,
		.kind = span->kind,
		.flags = span->flags,
	});
	Py_XDECREF(keep);
	span->emitted = true;
	span->generation = core.generation;
	return 0;
}

static int span_start(Span *span, PyObject *context, PyObject *attributes, PyObject *links)
{
	Tracer *tracer = span->tracer;
	struct parent parent;
	bool sampled, emit;

	if (parent_find(context, &parent)) {
		PyErr_Clear(); /* a span of somebody else's that cannot say who it is: begin a new
				  trace */
		parent.span_id = 0;
	}
	if (parent.span_id) {
		span->trace_id_high = parent.trace_id_high;
		span->trace_id_low = parent.trace_id_low;
		span->parent_span_id = parent.span_id;
		span->parent_is_remote = parent.is_remote;
		span->trace_state = parent.trace_state;
		span->flags = parent.flags;
	} else {
		span->trace_id_high = random_id();
		span->trace_id_low = random_id();
		span->flags = W3C_SAMPLED | W3C_RANDOM;
	}
	span->span_id = random_id();
	span->started = true;

	/* As OpenTelemetry's default sampler: a trace is recorded by all or by nobody. */
	sampled = span->flags & W3C_SAMPLED;
	emit = sampled && tracer->emit && core.provider && core.provider->recording();
	span->recording = emit || (sampled && tracer->on_end);
	if (!span->recording)
		return 0;
	if (tracer->on_end && !span->start_time_ns)
		span->start_time_ns = now_ns();
	if (emit && start_emit(span))
		return -1;
	if (attributes && attributes != Py_None &&
	    attributes_update(&span->attributes, OTLP_SPAN_ATTRIBUTES, core.limits.attributes,
			      attributes))
		return -1;
	if (links && links != Py_None && links_add(span, links))
		return -1;
	return listener_call(tracer->on_start, span);
}

static uint8_t kind_number(PyObject *kind)
{
	for (uint8_t i = 0; i < 5; i++)
		if (kind == core.kinds[i])
			return i + 1;
	return 1; /* not given, or not a kind: internal */
}

PyObject *span_new(Tracer *tracer, const struct span_arguments *arguments, bool make_current)
{
	Span *span = PyObject_GC_New(Span, core.span_type);

	if (!span)
		return NULL;
	memset((char *)span + sizeof(PyObject), 0, sizeof(*span) - sizeof(PyObject));
	span->tracer = (Tracer *)Py_NewRef(tracer);
	span->name = PyUnicode_Check(arguments->name) ? Py_NewRef(arguments->name)
						      : PyObject_Str(arguments->name);
	span->kind = arguments->kind ? kind_number(arguments->kind) : 1;
	span->make_current = make_current;
	span->end_on_exit = !arguments->end_on_exit || PyObject_IsTrue(arguments->end_on_exit);
	span->record_exception =
		!arguments->record_exception || PyObject_IsTrue(arguments->record_exception);
	span->status_on_exception =
		!arguments->status_on_exception || PyObject_IsTrue(arguments->status_on_exception);
	if (!span->name || time_argument(arguments->start_time, &span->start_time_ns))
		goto fail;
	if (!make_current) {
		if (span_start(span, arguments->context, arguments->attributes, arguments->links))
			goto fail;
	} else if (arguments->context || arguments->attributes || arguments->links) {
		span->deferred =
			PyTuple_Pack(3, arguments->context ? arguments->context : Py_None,
				     arguments->attributes ? arguments->attributes : Py_None,
				     arguments->links ? arguments->links : Py_None);
		if (!span->deferred)
			goto fail;
	}
	PyObject_GC_Track(span);
	return (PyObject *)span;
fail:
	Py_DECREF(span);
	return NULL;
}

static PyObject *span_enter(Span *span, PyObject *ignored)
{
	if (!span->started) {
		PyObject *deferred = span->deferred;
		int failed = deferred ? span_start(span, PyTuple_GET_ITEM(deferred, 0),
						   PyTuple_GET_ITEM(deferred, 1),
						   PyTuple_GET_ITEM(deferred, 2))
				      : span_start(span, NULL, NULL, NULL);

		if (failed)
			return NULL;
	}
	if (span->make_current && !span->token && !span->ended && span_make_current(span))
		return NULL;
	return Py_NewRef(span);
}

/* ---- end
 * -----------------------------------------------------------------------------------------------------
 */

static uint16_t over(uint16_t count, uint16_t limit)
{
	return count > limit ? count - limit : 0;
}

static int end_emit(Span *span, const struct k8s_tracing_provider *provider)
{
	PyObject *keep_name = NULL, *keep_message = NULL;
	const char *name = "", *message = "";

	if (attributes_pad(&span->attributes))
		return -1;
	if (span->renamed)
		name = utf8(span->name, NULL, &keep_name);
	if (span->status_message)
		message = utf8(span->status_message, NULL, &keep_message);
	if (name && message)
		provider->end_span(&(struct k8s_tracing_end){
			.trace_id_low = span->trace_id_low,
			.span_id = span->span_id,
			.end_time_ns = span->end_time_ns,
			.name = name,
			.status_message = message,
			.attributes = span->attributes.bytes,
			.attributes_size = span->attributes.size,
			.dropped_attributes = span->attributes.dropped,
			.dropped_events = over(span->event_count, core.limits.events),
			.dropped_links = over(span->link_count, core.limits.links),
			.status = span->status,
		});
	Py_XDECREF(keep_name);
	Py_XDECREF(keep_message);
	return name && message ? 0 : -1;
}

static int span_finish(Span *span)
{
	const struct k8s_tracing_provider *provider;

	if (!span->started || span->ended)
		return 0;
	span->ended = true;
	if (!span->recording)
		return 0;
	if (span->tracer->on_end && !span->end_time_ns)
		span->end_time_ns = now_ns();
	if (span->tracer->on_end)
		listener_call(span->tracer->on_end, span);
	provider = emitter(span);
	if (!provider)
		return 0;
	if (span->trace_state && state_append(&span->attributes, span->trace_state))
		PyErr_Clear();
	return end_emit(span, provider);
}

static PyObject *span_end(Span *span, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	static PyObject *names[2];
	PyObject *values[1] = {NULL};

	if (!names[0])
		names[0] = PyUnicode_InternFromString("end_time");
	if (bind_arguments("end", args, nargs, kwnames, names, 1, values))
		return NULL;
	if (span->ended)
		Py_RETURN_NONE;
	if (time_argument(values[0], &span->end_time_ns) || span_finish(span))
		return NULL;
	Py_RETURN_NONE;
}

/* Errors are recorded, and only errors: GeneratorExit, KeyboardInterrupt and CancelledError are no
 * Exception. */
static int exception_seen(Span *span, PyObject *exception)
{
	PyObject *result;

	if (!span->recording || span->ended ||
	    !PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_Exception))
		return 0;
	if (span->record_exception) {
		result = PyObject_CallMethod((PyObject *)span, "record_exception", "O", exception);
		if (!result)
			return -1;
		Py_DECREF(result);
	}
	if (span->status_on_exception) {
		result = PyObject_CallMethod((PyObject *)span, "_fail", "O", exception);
		if (!result)
			return -1;
		Py_DECREF(result);
	}
	return 0;
}

static PyObject *span_exit(Span *span, PyObject *const *args, Py_ssize_t nargs)
{
	if (nargs == 3 && args[1] != Py_None && exception_seen(span, args[1]))
		PyErr_WriteUnraisable(
			(PyObject *)span); /* the application's own exception must go on */
	span_leave_current(span);
	if (span->end_on_exit && span_finish(span))
		return NULL;
	Py_RETURN_NONE;
}

/* ---- what a span is told and asked
 * --------------------------------------------------------------------------- */

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
	if (!PyUnicode_Check(name)) {
		PyErr_SetString(PyExc_TypeError, "a span's name is a str");
		return NULL;
	}
	if (!span->ended) {
		Py_SETREF(span->name, Py_NewRef(name));
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
		span->status = (uint8_t)code;
		Py_XSETREF(span->status_message, message == Py_None ? NULL : Py_NewRef(message));
	}
	Py_RETURN_NONE;
}

static PyObject *make_span_context(const Span *span, uint64_t span_id, bool is_remote)
{
	uint8_t bytes[16];
	PyObject *trace_id, *result = NULL;

	for (int i = 0; i < 8; i++) {
		bytes[i] = (uint8_t)(span->trace_id_high >> (56 - 8 * i));
		bytes[8 + i] = (uint8_t)(span->trace_id_low >> (56 - 8 * i));
	}
	trace_id = _PyLong_FromByteArray(bytes, sizeof(bytes), 0, 0);
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
	if (!span->span_context) {
		PyObject *made = make_span_context(span, span->span_id, false);

		if (!span->started)
			return made; /* invalid until it starts */
		span->span_context = made;
	}
	return Py_XNewRef(span->span_context);
}

static PyObject *span_get_span_context(Span *span, PyObject *ignored)
{
	return span_get_context(span, NULL);
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

/* ---- the type
 * ------------------------------------------------------------------------------------------------
 */

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
	return 0;
}

static void span_dealloc(Span *span)
{
	PyTypeObject *type = Py_TYPE(span);

	PyObject_GC_UnTrack(span);
	span_clear(span);
	Py_XDECREF(span->tracer);
	Py_XDECREF(span->name);
	Py_XDECREF(span->status_message);
	attributes_clear(&span->attributes);
	PyObject_GC_Del(span);
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
	{"kind", (getter)span_get_kind},
	{"attributes", (getter)span_get_attributes},
	{"start_time", (getter)span_get_start_time},
	{"end_time", (getter)span_get_end_time},
	{"_raw_events", (getter)span_get_raw_events},
	{"_raw_links", (getter)span_get_raw_links},
	{"_raw_status", (getter)span_get_raw_status},
	{"_dropped", (getter)span_get_dropped},
	{"_deferred", (getter)span_get_deferred},
	{NULL},
};

static PyMemberDef span_members[] = {
	{"name", T_OBJECT, offsetof(Span, name), READONLY},
	{"_tracer", T_OBJECT, offsetof(Span, tracer), READONLY},
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
	core.span_type = (PyTypeObject *)PyType_FromSpec(&span_spec);
	return core.span_type ? PyModule_AddType(module, core.span_type) : -1;
}
