// SPDX-License-Identifier: Apache-2.0
/* A span's links and events: each is emitted by itself, and kept if the tracer has listeners. */
#include "core.h"

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
	const struct k8s_tracing_provider *provider = span_provider(span);

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

int span_link(Span *span, PyObject *context, PyObject *link_attributes)
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
	if (parent_from_span_context(context, &linked)) {
		if (suppress_error())
			return -1;
		report("link", context, context);
		return 0;
	}
	if (link_attributes && link_attributes != Py_None &&
	    attributes_update(&attributes, OTLP_LINK_ATTRIBUTES, core.limits.link_attributes,
			      link_attributes))
		goto out;
	/* to nowhere and without a word, or the span has ended while the attributes were read */
	if ((!linked.span_id && !linked.trace_state && !attributes.count) || span->ended) {
		result = 0;
		goto out;
	}
	span->link_count++;
	if (span->listened) {
		PyObject *kept = attributes_to_dict(&attributes, OTLP_LINK_ATTRIBUTES);

		if (!kept || remember(&span->links, Py_BuildValue("(OO)", context, kept))) {
			Py_XDECREF(kept);
			goto out;
		}
		Py_DECREF(kept);
	}
	if (linked.trace_state && trace_state_append(&attributes, linked.trace_state) &&
	    suppress_error())
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

static int link_add(Span *span, PyObject *link)
{
	PyObject *context = PyObject_GetAttrString(link, "context");
	PyObject *attributes = context ? PyObject_GetAttrString(link, "attributes") : NULL;
	int result = attributes ? span_link(span, context, attributes) : -1;

	Py_XDECREF(context);
	Py_XDECREF(attributes);
	if (!result || suppress_error())
		return result;
	report("link", link, link); /* none of OpenTelemetry's; the others may be */
	return 0;
}

int span_links(Span *span, PyObject *links)
{
	PyObject *iterator = PyObject_GetIter(links), *link;
	int result = iterator ? 0 : -1;

	while (!result && (link = PyIter_Next(iterator))) {
		result = link_add(span, link);
		Py_DECREF(link);
	}
	Py_XDECREF(iterator);
	if (!PyErr_Occurred())
		return 0;
	if (suppress_error())
		return -1;
	report("link", links, links);
	return 0;
}

int span_event(Span *span, PyObject *name, PyObject *event_attributes, int64_t time_ns)
{
	const struct k8s_tracing_provider *provider;
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
	if (span->ended) { /* while the attributes were read */
		result = 0;
		goto out;
	}
	span->event_count++;
	if (span->listened) {
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
	provider = span_provider(span);
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
