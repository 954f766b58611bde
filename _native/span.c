// SPDX-License-Identifier: Apache-2.0
/*
 * The Span type. What every span does is here; what few do (exceptions, status rules, decorating)
 * is Python, put on this same type by native.py.
 */
#include "core.h"

#include <string.h>

/*
 * Calls on_start (with a context) or on_end. A processor that fails is the operator's trouble, not
 * the application's: say it and go on.
 */
static void listener_call(PyObject *listener, Span *span, PyObject *context)
{
	PyObject *result;

	if (!listener)
		return;
	Py_INCREF(listener); /* listen() may replace it meanwhile */
	result = context ? PyObject_CallFunctionObjArgs(listener, span, context, NULL)
			 : PyObject_CallOneArg(listener, (PyObject *)span);
	if (!result)
		PyErr_WriteUnraisable(listener);
	Py_XDECREF(result);
	Py_DECREF(listener);
}

int64_t time_argument(PyObject *time)
{
	PyObject *integer;
	long long ns;

	if (!time || time == Py_None)
		return 0;
	integer = PyFloat_Check(time) ? PyLong_FromDouble(PyFloat_AS_DOUBLE(time))
				      : PyNumber_Index(time);
	ns = integer ? PyLong_AsLongLong(integer) : -1;
	Py_XDECREF(integer);
	if (ns != -1 || !PyErr_Occurred())
		return ns;
	PyErr_Clear();
	report("time", time, time);
	return 0;
}

/* ---- start ------------------------------------------------------------------------- */

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
	span->generation = core.generation;
	return 0;
}

/* The ids and what comes with them: of the parent's trace, or of a new one. */
static int take_identity(Span *span, PyObject *context)
{
	struct parent parent;

	if (parent_find(context, &parent)) {
		if (suppress_error())
			return -1;
		parent.span_id = 0; /* somebody's span that cannot say who it is: a new trace */
	}
	if (parent.span_id) {
		span->trace_id_high = parent.trace_id_high;
		span->trace_id_low = parent.trace_id_low;
		span->parent_span_id = parent.span_id;
		span->parent_is_remote = parent.is_remote;
		/* one that is none of OpenTelemetry's could not be passed on */
		if (parent.trace_state && !PyObject_HasAttrString(parent.trace_state, "to_header"))
			Py_CLEAR(parent.trace_state);
		span->trace_state = parent.trace_state;
		span->flags = parent.flags & (W3C_SAMPLED | W3C_RANDOM); /* all that is defined */
	} else {
		Py_XDECREF(parent.trace_state);
		span->trace_id_high = random_id();
		span->trace_id_low = random_id();
		span->flags = W3C_RANDOM;
	}
	span->span_id = random_id();
	span->started = true;
	return 0;
}

static int set_first_attributes(Span *span, PyObject *attributes)
{
	if (attributes == Py_None)
		return 0;
	return attributes_update(&span->attributes, OTLP_SPAN_ATTRIBUTES, core.limits.attributes,
				 attributes);
}

static int record_start(Span *span, const struct span_start *start, PyObject *attributes)
{
	Tracer *tracer = span->tracer;

	if (span->listened && !span->start_time_ns)
		span->start_time_ns = now_ns();
	if (span->emitted && start_emit(span))
		return -1;
	if (set_first_attributes(span, attributes))
		return -1;
	if (start->links != Py_None && span_links(span, start->links))
		return -1;
	if (span->listened)
		listener_call(tracer->on_start, span, start->context);
	return 0;
}

int span_start(Span *span, const struct span_start *start)
{
	Tracer *tracer = span->tracer;
	struct sampling sampling;
	int result = 0;

	if (take_identity(span, start->context))
		return -1;
	sampling_decide(span, start, &sampling);
	if (sampling.sample)
		span->flags |= W3C_SAMPLED;
	else
		span->flags &= ~W3C_SAMPLED;
	span->emitted =
		sampling.sample && tracer->emit && core.provider && core.provider->recording();
	span->listened = sampling.record && tracer->on_end;
	span->recording = span->emitted || span->listened;
	if (core.cpu_split_ns >= 0 && (!span->parent_span_id || span->parent_is_remote))
		cpu_start(span);
	if (span->recording)
		result = record_start(
			span, start, sampling.attributes ? sampling.attributes : start->attributes);
	Py_XDECREF(sampling.attributes);
	return result;
}

static uint8_t kind_number(PyObject *kind)
{
	for (uint8_t i = 0; i < 5; i++)
		if (kind == core.kinds[i])
			return i + 1;
	return 1; /* not given, or not a kind: internal */
}

/*
 * Spans that were freed, for the next ones: a span lives shortly, and to take one from here is much
 * cheaper than from Python's allocator, by way of the garbage collector's. They keep a small buffer
 * for attributes.
 */
#ifdef __SANITIZE_ADDRESS__
#define POOL_SIZE 0 /* or nobody would see that a freed one is used */
#else
#define POOL_SIZE 64
#endif
#define POOL_BUFFER_MAX 1024
static Span *pool[POOL_SIZE];
static int pooled;

Span *span_alloc(void)
{
	struct attributes buffer = {0};
	Span *span;

	if (pooled) {
		span = pool[--pooled];
		buffer.bytes = span->attributes.bytes;
		buffer.capacity = span->attributes.capacity;
		PyObject_Init((PyObject *)span, core.span_type);
	} else {
		span = PyObject_GC_New(Span, core.span_type);
		if (!span)
			return NULL;
	}
	memset((char *)span + sizeof(PyObject), 0, sizeof(*span) - sizeof(PyObject));
	span->attributes = buffer;
	return span;
}

void span_free(Span *span)
{
	if (span->attributes.capacity > POOL_BUFFER_MAX)
		attributes_clear(&span->attributes);
	if (pooled < POOL_SIZE) {
		pool[pooled++] = span;
		return;
	}
	attributes_clear(&span->attributes);
	PyObject_GC_Del(span);
}

/* Of an argument whose default is True. */
static bool is_true(PyObject *argument)
{
	int truth = argument ? PyObject_IsTrue(argument) : 1;

	if (truth < 0)
		PyErr_Clear();
	return truth;
}

PyObject *span_new(Tracer *tracer, const struct span_arguments *arguments, bool make_current)
{
	Span *span = span_alloc();
	struct span_start start;

	if (!span)
		return NULL;
	span->tracer = (Tracer *)Py_NewRef(tracer);
	span->name = plain_text(arguments->name);
	span->kind = arguments->kind ? kind_number(arguments->kind) : 1;
	span->make_current = make_current;
	if (!span->name)
		goto fail;
	span->end_on_exit = is_true(arguments->end_on_exit);
	span->record_exception = is_true(arguments->record_exception);
	span->status_on_exception = is_true(arguments->status_on_exception);
	span->start_time_ns = time_argument(arguments->start_time);
	start = (struct span_start){
		.context = arguments->context ? arguments->context : Py_None,
		.attributes = arguments->attributes ? arguments->attributes : Py_None,
		.links = arguments->links ? arguments->links : Py_None,
	};
	if (!make_current) {
		if (span_start(span, &start))
			goto fail;
	} else if (arguments->context || arguments->attributes || arguments->links) {
		span->deferred = PyTuple_Pack(3, start.context, start.attributes, start.links);
		if (!span->deferred)
			goto fail;
	}
	PyObject_GC_Track(span);
	return (PyObject *)span;
fail:
	Py_DECREF(span);
	return NULL;
}

/* The same field number in Span and in Link: both messages call it trace_state = 3. */
int trace_state_append(struct attributes *attributes, PyObject *trace_state)
{
	PyObject *header = PyObject_CallMethod(trace_state, "to_header", NULL);
	int result = -1;

	if (header && PyUnicode_Check(header))
		result = attributes_append_string(attributes, OTLP_SPAN_TRACE_STATE, header);
	else if (header)
		PyErr_SetString(PyExc_TypeError, "a trace state's header is a str");
	Py_XDECREF(header);
	return result;
}

/* ---- end --------------------------------------------------------------------------- */

uint16_t over(uint16_t count, uint16_t limit)
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

int span_finish(Span *span)
{
	const struct k8s_tracing_provider *provider;

	if (!span->started || span->ended)
		return 0;
	span->ended = true;
	span->attributes.sealed = true;
	if (span->cpu && cpu_finish(span))
		return -1;
	if (!span->recording)
		return 0;
	if (span->listened) {
		if (!span->end_time_ns)
			span->end_time_ns = now_ns();
		listener_call(span->tracer->on_end, span, NULL);
	}
	provider = span_provider(span);
	if (!provider)
		return 0;
	if (span->trace_state && trace_state_append(&span->attributes, span->trace_state))
		PyErr_Clear();
	return end_emit(span, provider);
}
