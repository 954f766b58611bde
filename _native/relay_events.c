// SPDX-License-Identifier: Apache-2.0
#include "relay_events.h"

#include "relay_validate.h"

/*
 * The layout of our events, as tracepoints.h has it. The fields of an event class are found by
 * their names once, and their types checked, since anybody can register events under our provider's
 * name; after that, an event's fields are found by index.
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

struct event_class;

/* The event at hand. */
struct record {
	const struct event_class *class;
	const bt_field *payload;
	int64_t time_ns;
};

struct event_layout {
	const char *name;
	int (*take)(struct ctf *ctf, const struct record *record);
	struct field_layout fields[FIELDS_MAX];
};

struct event_class {
	const bt_event_class *class;
	const struct event_layout *layout; /* NULL: not ours */
	bool wrong;			   /* ours by name, but with other fields */
	bool wide;			   /* its byte sequence comes in words of 8 bytes */
	uint8_t index[FIELDS_MAX];
};

static const bt_field *field(const struct record *record, unsigned int which)
{
	return bt_field_structure_borrow_member_field_by_index_const(record->payload,
								     record->class->index[which]);
}

static uint64_t get_unsigned(const struct record *record, unsigned int which)
{
	return bt_field_integer_unsigned_get_value(field(record, which));
}

static int64_t get_signed(const struct record *record, unsigned int which)
{
	return bt_field_integer_signed_get_value(field(record, which));
}

static const char *get_text(const struct record *record, unsigned int which)
{
	const bt_field *text = field(record, which);

	/* babeltrace2 2.0 leaves the text of an earlier event in the field when this one's is empty
	 */
	return bt_field_string_get_length(text) ? bt_field_string_get_value(text) : "";
}

static int read_elements(struct bytes *to, const bt_field *array, uint64_t count, bool wide)
{
	uint8_t *at;

	to->size = 0;
	at = bytes_extend(to, wide ? count * 8 : count);
	if (!at)
		return -1;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t value = bt_field_integer_unsigned_get_value(
			bt_field_array_borrow_element_field_by_index_const(array, i));

		if (wide) {
			value = htole64(value);
			at = put_bytes(at, &value, sizeof(value));
		} else {
			*at++ = value;
		}
	}
	return 0;
}

/*
 * Read a byte sequence into the scratch bytes. What is not the fields of that message is dropped
 * and counted; then `dropped` (if asked for) is one more.
 */
static int get_fields(struct ctf *ctf, const struct record *record, unsigned int which,
		      enum relay_message message, uint16_t *dropped)
{
	const bt_field *array = field(record, which);
	uint64_t count = bt_field_array_get_length(array);
	uint64_t size = record->class->wide ? count * 8 : count;
	int64_t valid = -1;

	ctf->scratch.size = 0;
	if (count == 0)
		return 0;
	if (count <= SEQUENCE_MAX && size <= SEQUENCE_MAX) {
		if (read_elements(&ctf->scratch, array, count, record->class->wide) < 0)
			return -1;
		valid = fields_size(message, ctf->scratch.data, size, record->class->wide);
	}
	ctf->scratch.size = valid > 0 ? valid : 0;
	if (valid >= 0)
		return 0;
	ctf->stats->invalid_fields++;
	ctf->stats->invalid_bytes += size;
	if (dropped && *dropped < UINT16_MAX)
		++*dropped;
	return 0;
}

static int take_start(struct ctf *ctf, const struct record *record)
{
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
			   record->time_ns);
}

static int take_end(struct ctf *ctf, const struct record *record)
{
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

	if (get_fields(ctf, record, END_ATTRIBUTES, RELAY_SPAN, &end.dropped_attributes) < 0)
		return -1;
	end.attributes = ctf->scratch.data;
	end.attributes_size = ctf->scratch.size;
	return spans_end(ctf->spans, &end, record->time_ns);
}

static int take_event(struct ctf *ctf, const struct record *record)
{
	struct k8s_tracing_event event = {
		.span_id = get_unsigned(record, EVENT_SPAN),
		.time_ns = get_signed(record, EVENT_TIME),
		.name = get_text(record, EVENT_NAME),
		.dropped_attributes = get_unsigned(record, EVENT_DROPPED_ATTRIBUTES),
	};

	if (get_fields(ctf, record, EVENT_ATTRIBUTES, RELAY_SPAN_EVENT, &event.dropped_attributes) <
	    0)
		return -1;
	event.attributes = ctf->scratch.data;
	event.attributes_size = ctf->scratch.size;
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

	if (get_fields(ctf, record, LINK_ATTRIBUTES, RELAY_SPAN_LINK, &link.dropped_attributes) < 0)
		return -1;
	link.attributes = ctf->scratch.data;
	link.attributes_size = ctf->scratch.size;
	return spans_link(ctf->spans, &link, record->time_ns);
}

static int take_process(struct ctf *ctf, const struct record *record)
{
	struct relay_origin origin = {0};
	uint16_t invalid = 0;

	if (get_fields(ctf, record, PROCESS_RESOURCE, RELAY_RESOURCE, &invalid) < 0)
		return -1;
	if (invalid)
		return 0; /* as if it had not come */
	return output_process(ctf->output, get_unsigned(record, PROCESS_INSTANCE), &origin,
			      ctf->scratch.data, ctf->scratch.size, record->time_ns);
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

static bool check_bytes(struct event_class *class, const bt_field_class *sequence)
{
	const bt_field_class *element;
	uint64_t bits;

	if (!bt_field_class_type_is(bt_field_class_get_type(sequence), BT_FIELD_CLASS_TYPE_ARRAY))
		return false;
	element = bt_field_class_array_borrow_element_field_class_const(sequence);
	if (!bt_field_class_type_is(bt_field_class_get_type(element),
				    BT_FIELD_CLASS_TYPE_UNSIGNED_INTEGER))
		return false;
	bits = bt_field_class_integer_get_field_value_range(element);
	class->wide = bits == 64;
	return bits == 8 || bits == 64;
}

static bool check_type(struct event_class *class, const bt_field_class *field, enum type type)
{
	bt_field_class_type actual = bt_field_class_get_type(field);

	switch (type) {
	case UNSIGNED:
		return bt_field_class_type_is(actual, BT_FIELD_CLASS_TYPE_UNSIGNED_INTEGER);
	case SIGNED:
		return bt_field_class_type_is(actual, BT_FIELD_CLASS_TYPE_SIGNED_INTEGER);
	case TEXT:
		return actual == BT_FIELD_CLASS_TYPE_STRING;
	default:
		return check_bytes(class, field);
	}
}

static bool find_field(struct event_class *class, const bt_field_class *payload, unsigned int which)
{
	const struct field_layout *wanted = class->layout->fields + which;
	uint64_t count = bt_field_class_structure_get_member_count(payload);

	for (uint64_t i = 0; i < count && i <= UINT8_MAX; i++) {
		const bt_field_class_structure_member *member =
			bt_field_class_structure_borrow_member_by_index_const(payload, i);

		if (strcmp(bt_field_class_structure_member_get_name(member), wanted->name) != 0)
			continue;
		class->index[which] = i;
		return check_type(class,
				  bt_field_class_structure_member_borrow_field_class_const(member),
				  wanted->type);
	}
	return false;
}

static bool has_layout(struct event_class *class)
{
	const bt_stream_class *stream = bt_event_class_borrow_stream_class_const(class->class);
	const bt_field_class *payload =
		bt_event_class_borrow_payload_field_class_const(class->class);

	if (!payload || !bt_stream_class_borrow_default_clock_class_const(stream))
		return false;
	for (unsigned int i = 0; i < FIELDS_MAX && class->layout->fields[i].name; i++) {
		if (!find_field(class, payload, i))
			return false;
	}
	return true;
}

/* What we know of an event class: looked up by its address, after the first event of it. */
static const struct event_class *classify(struct table *classes, const bt_event_class *event_class)
{
	uint64_t address = (uintptr_t)event_class;
	struct event_class *class = table_get(classes, address);

	if (class)
		return class;
	class = calloc(1, sizeof(*class));
	if (!class)
		return NULL;
	if (table_add(classes, address, class) < 0) {
		free(class);
		return NULL;
	}
	bt_event_class_get_ref(event_class); /* else another one might come to this address */
	class->class = event_class;
	class->layout = layout_by_name(bt_event_class_get_name(event_class));
	class->wrong = class->layout && !has_layout(class);
	return class;
}

void events_forget_classes(struct table *classes)
{
	for (size_t i = 0; classes->count && i <= classes->mask; i++) {
		struct event_class *class = classes->entries[i].value;

		if (!class)
			continue;
		bt_event_class_put_ref(class->class);
		free(class);
		classes->entries[i].value = NULL;
		classes->count--;
	}
}

static int64_t event_time_ns(const bt_message *message)
{
	int64_t time_ns;

	if (bt_clock_snapshot_get_ns_from_origin(
		    bt_message_event_borrow_default_clock_snapshot_const(message), &time_ns) !=
	    BT_CLOCK_SNAPSHOT_GET_NS_FROM_ORIGIN_STATUS_OK) {
		bt_current_thread_clear_error();
		return 0; /* past what 64 bits can hold */
	}
	return time_ns < 0 ? 0 : time_ns;
}

int event_handle(struct ctf *ctf, const bt_message *message)
{
	const bt_event *event = bt_message_event_borrow_event_const(message);
	const struct event_class *class =
		classify(&ctf->event_classes, bt_event_borrow_class_const(event));
	struct record record = {.class = class};

	if (!class)
		return -1;
	if (!class->layout)
		return 0;
	ctf->stats->events++;
	if (class->wrong) {
		ctf->stats->invalid_events++;
		return 0;
	}
	record.payload = bt_event_borrow_payload_field_const(event);
	record.time_ns = event_time_ns(message);
	return class->layout->take(ctf, &record);
}
