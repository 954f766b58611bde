// SPDX-License-Identifier: Apache-2.0
/*
 * Is a span recorded, and is it sampled? OpenTelemetry's built-in samplers are a comparison here;
 * any other Sampler is asked in Python.
 */
#include "core.h"

/* Of a trace that begins here, by the half of its id that is random whoever made it. */
static bool root_is_sampled(const Tracer *tracer, uint64_t trace_id_low)
{
	return tracer->sample_below == UINT64_MAX || trace_id_low < tracer->sample_below;
}

static int ask(Span *span, const struct span_start *start, struct sampling *sampling)
{
	PyObject *trace_state = NULL, *trace_id = span_trace_id(span), *answer = NULL;

	if (trace_id)
		answer = PyObject_CallFunctionObjArgs(core.ask_sampler, span->tracer->sampler,
						      start->context, trace_id, span->name,
						      core.kinds[span->kind - 1], start->attributes,
						      start->links, NULL);
	Py_XDECREF(trace_id);
	if (!answer)
		return -1;
	if (!PyArg_ParseTuple(answer, "ppOO", &sampling->record, &sampling->sample,
			      &sampling->attributes, &trace_state)) {
		Py_DECREF(answer);
		return -1;
	}
	Py_INCREF(sampling->attributes);
	Py_XSETREF(span->trace_state, trace_state == Py_None ? NULL : Py_NewRef(trace_state));
	Py_DECREF(answer);
	return 0;
}

void sampling_decide(Span *span, const struct span_start *start, struct sampling *sampling)
{
	const Tracer *tracer = span->tracer;

	*sampling = (struct sampling){.attributes = NULL};
	if (tracer->sampler && !ask(span, start, sampling))
		return;
	if (PyErr_Occurred()) /* a sampler that fails: say so, and decide without it */
		PyErr_WriteUnraisable(tracer->sampler);
	if (span->parent_span_id && tracer->parent_based)
		sampling->sample = span->flags & W3C_SAMPLED;
	else
		sampling->sample = root_is_sampled(tracer, span->trace_id_low);
	sampling->record = sampling->sample;
}
