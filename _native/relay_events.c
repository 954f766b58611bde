// SPDX-License-Identifier: Apache-2.0
#include "relay_events.h"

#include "relay_validate.h"

/*
 * The layout of our events, as tracepoints.h has it. The fields of an event class are found by
 * their names once, and their types checked, since anybody can register events under our provider's
 * name; after that, an event's fields are found by their slots.
 */
#define FIELDS_MAX 10
#define SEQUENCE_MAX \
	(1024 * 1024) /* bytes; LTTng loses an event that exceeds a sub-buffer anyway */

enum type {
	UNSIGNED,
	SIGNED,
	TEXT,
	BYTES
};

struct field_layout {
	const char *name;
	enum type type;
};

enum {
	START_TRACE_HIGH,
	START_TRACE_LOW,
	START_SPAN,
	START_PARENT,
	START_INSTANCE,
	START_TIME,
	START_SCOPE,
	START_KIND,
	START_FLAGS,
	START_NAME
};
enum {
	END_TRACE_LOW,
	END_SPAN,
	END_TIME,
	END_STATUS,
	END_DROPPED_ATTRIBUTES,
	END_DROPPED_EVENTS,
	END_DROPPED_LINKS,
	END_NAME,
	END_MESSAGE,
	END_ATTRIBUTES
};
enum {
	EVENT_SPAN,
	EVENT_TIME,
	EVENT_DROPPED_ATTRIBUTES,
	EVENT_NAME,
	EVENT_ATTRIBUTES
};
enum {
	LINK_SPAN,
	LINK_TRACE_HIGH,
	LINK_TRACE_LOW,
	LINK_LINKED_SPAN,
	LINK_FLAGS,
	LINK_DROPPED_ATTRIBUTES,
	LINK_ATTRIBUTES
};
enum {
	PROCESS_INSTANCE,
	PROCESS_RESOURCE
};
enum {
	SCOPE_INSTANCE,
	SCOPE_ID,
	SCOPE_NAME,
	SCOPE_VERSION
};

/* The event at hand. */
struct record {
	const struct event_binding *binding;
	const struct value *values;
	int64_t time_ns;
	const struct stream *stream;
};

struct event_layout {
	const char *name;
	int (*take)(struct ctf *ctf, const struct record *record);
	struct field_layout fields[FIELDS_MAX];
};

/* What an event class of a trace is to us. */
struct event_binding {
	const struct event_layout *layout;
	bool wrong;	      /* ours by name, but with other fields */
	uint8_t element_size; /* of its byte sequence: 1, or words of 8 bytes */
	uint32_t slots[FIELDS_MAX];
};

static const struct value *field(const struct record *record, unsigned int which)
{
	return record->values + record->binding->slots[which];
}

static uint64_t get_unsigned(const struct record *record, unsigned int which)
{
	return field(record, which)->number;
}

static int64_t get_signed(const struct record *record, unsigned int which)
{
	return field(record, which)->number;
}

static const char *get_text(const struct record *record, unsigned int which)
{
	return (const char *)field(record, which)->at;
}

/*
 * A byte sequence. What is not the fields of that message is dropped and counted; then `dropped`
 * (if asked for) is one more.
 */
static uint32_t get_fields(struct ctf *ctf, const struct record *record, unsigned int which,
			   enum relay_message message, uint16_t *dropped)
{
	const struct value *sequence = field(record, which);
	uint64_t size = sequence->number * record->binding->element_size;
	int64_t valid = -1;

	if (!size)
		return 0;
	if (size <= SEQUENCE_MAX)
		valid = fields_size(message, sequence->at, size, record->binding->element_size > 1);
	if (valid >= 0)
		return valid;
	ctf->stats->invalid_fields++;
	ctf->stats->invalid_bytes += size;
	if (dropped && *dropped < UINT16_MAX)
		++*dropped;
	return 0;
}

static uint64_t context_field(const struct record *record, uint32_t slot)
{
	return slot == CTF_NO_SLOT ? 0 : record->values[slot].number;
}

static struct relay_origin get_origin(const struct record *record)
{
	const struct ctf_stream_class *class = record->stream->class;

	stream_read_context(record->stream);
	return (struct relay_origin){
		.vpid = context_field(record, class->vpid),
		.vtid = context_field(record, class->vtid),
		.pid_ns = context_field(record, class->pid_ns),
		.cgroup_ns = context_field(record, class->cgroup_ns),
	};
}

/* Who recorded it, and when, for spans that are told what their thread did; NULL: none is. */
static const struct cpu_moment *get_moment(const struct ctf *ctf, const struct record *record,
					   struct cpu_moment *moment)
{
	if (!ctf->spans->cpu.follows || record->stream->clock > INT64_MAX)
		return NULL;
	moment->origin = get_origin(record);
	moment->ns = record->stream->clock;
	return moment;
}

static int take_start(struct ctf *ctf, const struct record *record)
{
	struct cpu_moment moment;
	struct k8s_tracing_start start = {
		.trace_id_high = get_unsigned(record, START_TRACE_HIGH),
		.trace_id_low = get_unsigned(record, START_TRACE_LOW),
		.span_id = get_unsigned(record, START_SPAN),
		.parent_span_id = get_unsigned(record, START_PARENT),
		.start_time_ns = get_signed(record, START_TIME),
		.name = get_text(record, START_NAME),
		.scope_id = get_unsigned(record, START_SCOPE),
		.kind = get_unsigned(record, START_KIND),
		.flags = get_unsigned(record, START_FLAGS),
	};

	return spans_start(ctf->spans, &start, get_unsigned(record, START_INSTANCE),
			   record->time_ns, get_moment(ctf, record, &moment));
}

static int take_end(struct ctf *ctf, const struct record *record)
{
	struct cpu_moment moment;
	struct k8s_tracing_end end = {
		.trace_id_low = get_unsigned(record, END_TRACE_LOW),
		.span_id = get_unsigned(record, END_SPAN),
		.end_time_ns = get_signed(record, END_TIME),
		.name = get_text(record, END_NAME),
		.status_message = get_text(record, END_MESSAGE),
		.dropped_attributes = get_unsigned(record, END_DROPPED_ATTRIBUTES),
		.dropped_events = get_unsigned(record, END_DROPPED_EVENTS),
		.dropped_links = get_unsigned(record, END_DROPPED_LINKS),
		.status = get_unsigned(record, END_STATUS),
	};

	end.attributes = field(record, END_ATTRIBUTES)->at;
	end.attributes_size =
		get_fields(ctf, record, END_ATTRIBUTES, RELAY_SPAN, &end.dropped_attributes);
	return spans_end(ctf->spans, &end, record->time_ns, get_moment(ctf, record, &moment));
}

static int take_event(struct ctf *ctf, const struct record *record)
{
	struct k8s_tracing_event event = {
		.span_id = get_unsigned(record, EVENT_SPAN),
		.time_ns = get_signed(record, EVENT_TIME),
		.name = get_text(record, EVENT_NAME),
		.dropped_attributes = get_unsigned(record, EVENT_DROPPED_ATTRIBUTES),
	};

	event.attributes = field(record, EVENT_ATTRIBUTES)->at;
	event.attributes_size = get_fields(ctf, record, EVENT_ATTRIBUTES, RELAY_SPAN_EVENT,
					   &event.dropped_attributes);
	return spans_event(ctf->spans, &event, record->time_ns);
}

static int take_link(struct ctf *ctf, const struct record *record)
{
	struct k8s_tracing_link link = {
		.span_id = get_unsigned(record, LINK_SPAN),
		.linked_trace_id_high = get_unsigned(record, LINK_TRACE_HIGH),
		.linked_trace_id_low = get_unsigned(record, LINK_TRACE_LOW),
		.linked_span_id = get_unsigned(record, LINK_LINKED_SPAN),
		.dropped_attributes = get_unsigned(record, LINK_DROPPED_ATTRIBUTES),
		.flags = get_unsigned(record, LINK_FLAGS),
	};

	link.attributes = field(record, LINK_ATTRIBUTES)->at;
	link.attributes_size =
		get_fields(ctf, record, LINK_ATTRIBUTES, RELAY_SPAN_LINK, &link.dropped_attributes);
	return spans_link(ctf->spans, &link, record->time_ns);
}

static int take_process(struct ctf *ctf, const struct record *record)
{
	uint16_t invalid = 0;
	uint32_t size = get_fields(ctf, record, PROCESS_RESOURCE, RELAY_RESOURCE, &invalid);
	struct relay_origin origin = get_origin(record);

	if (invalid)
		return 0; /* as if it had not come */
	return output_process(ctf->output, get_unsigned(record, PROCESS_INSTANCE), &origin,
			      field(record, PROCESS_RESOURCE)->at, size, record->time_ns);
}

static int take_scope(struct ctf *ctf, const struct record *record)
{
	return output_scope(ctf->output, get_unsigned(record, SCOPE_INSTANCE),
			    get_unsigned(record, SCOPE_ID), get_text(record, SCOPE_NAME),
			    get_text(record, SCOPE_VERSION), record->time_ns);
}

static const struct event_layout layouts[] = {
	{"k8s_tracing:start_span",
	 take_start,
	 {
		 [START_TRACE_HIGH] = {"trace_id_high", UNSIGNED},
		 [START_TRACE_LOW] = {"trace_id_low", UNSIGNED},
		 [START_SPAN] = {"span_id", UNSIGNED},
		 [START_PARENT] = {"parent_span_id", UNSIGNED},
		 [START_INSTANCE] = {"instance_id", UNSIGNED},
		 [START_TIME] = {"start_time", SIGNED},
		 [START_SCOPE] = {"scope_id", UNSIGNED},
		 [START_KIND] = {"kind", UNSIGNED},
		 [START_FLAGS] = {"flags", UNSIGNED},
		 [START_NAME] = {"op_name", TEXT},
	 }},
	{"k8s_tracing:end_span",
	 take_end,
	 {
		 [END_TRACE_LOW] = {"trace_id_low", UNSIGNED},
		 [END_SPAN] = {"span_id", UNSIGNED},
		 [END_TIME] = {"end_time", SIGNED},
		 [END_STATUS] = {"status", UNSIGNED},
		 [END_DROPPED_ATTRIBUTES] = {"dropped_attributes", UNSIGNED},
		 [END_DROPPED_EVENTS] = {"dropped_events", UNSIGNED},
		 [END_DROPPED_LINKS] = {"dropped_links", UNSIGNED},
		 [END_NAME] = {"op_name", TEXT},
		 [END_MESSAGE] = {"status_message", TEXT},
		 [END_ATTRIBUTES] = {"attributes", BYTES},
	 }},
	{"k8s_tracing:span_event",
	 take_event,
	 {
		 [EVENT_SPAN] = {"span_id", UNSIGNED},
		 [EVENT_TIME] = {"time", SIGNED},
		 [EVENT_DROPPED_ATTRIBUTES] = {"dropped_attributes", UNSIGNED},
		 [EVENT_NAME] = {"name", TEXT},
		 [EVENT_ATTRIBUTES] = {"attributes", BYTES},
	 }},
	{"k8s_tracing:span_link",
	 take_link,
	 {
		 [LINK_SPAN] = {"span_id", UNSIGNED},
		 [LINK_TRACE_HIGH] = {"linked_trace_id_high", UNSIGNED},
		 [LINK_TRACE_LOW] = {"linked_trace_id_low", UNSIGNED},
		 [LINK_LINKED_SPAN] = {"linked_span_id", UNSIGNED},
		 [LINK_FLAGS] = {"flags", UNSIGNED},
		 [LINK_DROPPED_ATTRIBUTES] = {"dropped_attributes", UNSIGNED},
		 [LINK_ATTRIBUTES] = {"attributes", BYTES},
	 }},
	{"k8s_tracing:process",
	 take_process,
	 {
		 [PROCESS_INSTANCE] = {"instance_id", UNSIGNED},
		 [PROCESS_RESOURCE] = {"resource", BYTES},
	 }},
	{"k8s_tracing:scope",
	 take_scope,
	 {
		 [SCOPE_INSTANCE] = {"instance_id", UNSIGNED},
		 [SCOPE_ID] = {"scope_id", UNSIGNED},
		 [SCOPE_NAME] = {"name", TEXT},
		 [SCOPE_VERSION] = {"version", TEXT},
	 }},
};

static const struct event_layout *layout_by_name(const char *name)
{
	for (size_t i = 0; name && i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		if (strcmp(layouts[i].name, name) == 0)
			return layouts + i;
	}
	return NULL;
}

static bool check_bytes(struct event_binding *binding, const struct ctf_type *type)
{
	const struct ctf_type *element = type->element;

	if (type->kind != CTF_SEQUENCE && type->kind != CTF_ARRAY)
		return false;
	if (element->kind != CTF_INTEGER || element->is_signed || type->alignment % 8)
		return false;
	binding->element_size = element->size / 8;
	return element->size == 8 || element->size == 64;
}

static bool check_type(struct event_binding *binding, const struct ctf_type *actual, enum type type)
{
	switch (type) {
	case UNSIGNED:
		return actual->kind == CTF_INTEGER && !actual->is_signed;
	case SIGNED:
		return actual->kind == CTF_INTEGER && actual->is_signed;
	case TEXT:
		return actual->kind == CTF_STRING;
	default:
		return check_bytes(binding, actual);
	}
}

static bool bind_fields(struct metadata *metadata, struct event_binding *binding,
			const struct ctf_type *fields)
{
	const struct field_layout *wanted = binding->layout->fields;

	for (unsigned int i = 0; i < FIELDS_MAX && wanted[i].name; i++) {
		struct ctf_member *member = ctf_find_member(fields, wanted[i].name);

		if (!member || !check_type(binding, member->type, wanted[i].type))
			return false;
		binding->slots[i] = metadata_slot(metadata, member);
	}
	return true;
}

int events_bind(struct ctf *ctf)
{
	struct metadata *metadata = &ctf->metadata;

	cpu_see_clock(&ctf->spans->cpu, &metadata->clock);
	for (struct ctf_event_class *event = metadata->events; event; event = event->next) {
		const struct ctf_stream_class *stream = metadata_stream(metadata, event->stream_id);
		const struct event_layout *layout = layout_by_name(event->name);
		struct event_binding *binding;

		if (!layout || !stream)
			continue;
		binding = tsdl_allocate(&metadata->tsdl, sizeof(*binding));
		if (!binding)
			return -1;
		binding->layout = layout;
		binding->wrong =
			!stream->has_clock || !bind_fields(metadata, binding, event->fields);
		event->binding = binding;
	}
	return 0;
}

int event_handle(struct ctf *ctf, const struct stream *stream)
{
	const struct event_binding *binding = stream->event->binding;
	struct record record = {
		.stream = stream,
		.binding = binding,
		.values = ctf->values,
		.time_ns = stream->time_ns,
	};

	if (!binding)
		return 0;
	ctf->stats->events++;
	if (binding->wrong) {
		ctf->stats->invalid_events++;
		return 0;
	}
	return binding->layout->take(ctf, &record);
}
