// SPDX-License-Identifier: Apache-2.0
#include "relay_ctf.h"

#include <stdio.h>

#include "relay_events.h"

int ctf_init(struct ctf *ctf, struct spans *spans, struct output *output, struct relay_stats *stats)
{
	*ctf = (struct ctf){.spans = spans, .output = output, .stats = stats};
	return table_init(&ctf->event_classes);
}

void ctf_free(struct ctf *ctf)
{
	ctf_close(ctf);
	bt_component_class_source_put_ref(ctf->fs_class);
	bt_component_class_filter_put_ref(ctf->muxer_class);
	table_free(&ctf->event_classes);
	bytes_free(&ctf->scratch);
}

void ctf_close(struct ctf *ctf)
{
	bt_graph_put_ref(ctf->graph);
	ctf->graph = NULL;
	events_forget_classes(&ctf->event_classes);
	free(ctf->folder);
	ctf->folder = NULL;
}

/* Say what failed, with the first cause that libbabeltrace2 gives, and close the folder. */
static int fail(struct ctf *ctf, const char *what)
{
	const bt_error *error = bt_current_thread_take_error();
	const char *cause = NULL;

	if (error && bt_error_get_cause_count(error))
		cause = bt_error_cause_get_message(bt_error_borrow_cause_by_index(error, 0));
	snprintf(ctf->error, sizeof(ctf->error), "%s %s%s%s", what,
		 ctf->folder ? ctf->folder : "the trace", cause ? ": " : "", cause ? cause : "");
	if (error)
		bt_error_release(error);
	ctf_close(ctf);
	return -1;
}

static const bt_plugin *find_plugin(const char *name)
{
	const bt_plugin *plugin = NULL;

	if (bt_plugin_find(name, BT_TRUE, BT_TRUE, BT_TRUE, BT_TRUE, BT_FALSE, &plugin) !=
	    BT_PLUGIN_FIND_STATUS_OK)
		return NULL;
	return plugin;
}

/* Find the component classes, once. */
static int load_classes(struct ctf *ctf)
{
	const bt_plugin *plugin;

	if (ctf->fs_class && ctf->muxer_class)
		return 0;
	plugin = find_plugin("ctf");
	if (plugin) {
		ctf->fs_class = bt_plugin_borrow_source_component_class_by_name_const(plugin, "fs");
		bt_component_class_source_get_ref(ctf->fs_class);
		bt_plugin_put_ref(plugin);
	}
	plugin = find_plugin("utils");
	if (plugin) {
		ctf->muxer_class =
			bt_plugin_borrow_filter_component_class_by_name_const(plugin, "muxer");
		bt_component_class_filter_get_ref(ctf->muxer_class);
		bt_plugin_put_ref(plugin);
	}
	if (ctf->fs_class && ctf->muxer_class)
		return 0;
	return fail(ctf, "babeltrace2's plugins ctf and utils are needed (on Debian and Ubuntu: "
			 "apt-get install libbabeltrace2-0) to read");
}

static void count_lost(struct ctf *ctf, const bt_message *message)
{
	uint64_t count = 0;

	if (bt_message_get_type(message) == BT_MESSAGE_TYPE_DISCARDED_EVENTS) {
		bt_message_discarded_events_get_count(message, &count);
		spans_lost(ctf->spans, count, 0, INT64_MAX);
	} else {
		bt_message_discarded_packets_get_count(message, &count);
		ctf->stats->lost_packets += count;
	}
}

/* A rotation ends a packet in every buffer, used or not: so time goes on when nobody records. */
static void see_packet_end(struct ctf *ctf, const bt_message *message)
{
	const bt_packet *packet = bt_message_packet_end_borrow_packet_const(message);
	const bt_stream_class *class =
		bt_stream_borrow_class_const(bt_packet_borrow_stream_const(packet));
	int64_t now_ns;

	if (!bt_stream_class_packets_have_end_default_clock_snapshot(class))
		return;
	if (bt_clock_snapshot_get_ns_from_origin(
		    bt_message_packet_end_borrow_default_clock_snapshot_const(message), &now_ns) ==
	    BT_CLOCK_SNAPSHOT_GET_NS_FROM_ORIGIN_STATUS_OK)
		spans_see(ctf->spans, now_ns);
	else
		bt_current_thread_clear_error();
}

static int handle(struct ctf *ctf, const bt_message *message)
{
	switch (bt_message_get_type(message)) {
	case BT_MESSAGE_TYPE_EVENT:
		return event_handle(ctf, message);
	case BT_MESSAGE_TYPE_DISCARDED_EVENTS:
	case BT_MESSAGE_TYPE_DISCARDED_PACKETS:
		count_lost(ctf, message);
		return 0;
	case BT_MESSAGE_TYPE_PACKET_END:
		see_packet_end(ctf, message);
		return 0;
	default:
		return 0;
	}
}

static bt_graph_simple_sink_component_consume_func_status consume(bt_message_iterator *messages,
								  void *data)
{
	struct ctf *ctf = data;
	bt_message_array_const batch;
	uint64_t count;
	int failed = 0;

	switch (bt_message_iterator_next(messages, &batch, &count)) {
	case BT_MESSAGE_ITERATOR_NEXT_STATUS_OK:
		break;
	case BT_MESSAGE_ITERATOR_NEXT_STATUS_END:
		return BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_END;
	case BT_MESSAGE_ITERATOR_NEXT_STATUS_AGAIN:
		return BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_AGAIN;
	case BT_MESSAGE_ITERATOR_NEXT_STATUS_MEMORY_ERROR:
		return BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_MEMORY_ERROR;
	default:
		return BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_ERROR;
	}
	for (uint64_t i = 0; i < count; i++) {
		if (handle(ctf, batch[i]) < 0)
			failed = 1;
		bt_message_put_ref(batch[i]);
	}
	return failed ? BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_MEMORY_ERROR
		      : BT_GRAPH_SIMPLE_SINK_COMPONENT_CONSUME_FUNC_STATUS_OK;
}

static const bt_component_source *add_source(struct ctf *ctf)
{
	const bt_component_source *source = NULL;
	bt_value *params = bt_value_map_create();
	bt_value *inputs = NULL;

	if (params &&
	    bt_value_map_insert_empty_array_entry(params, "inputs", &inputs) ==
		    BT_VALUE_MAP_INSERT_ENTRY_STATUS_OK &&
	    bt_value_array_append_string_element(inputs, ctf->folder) ==
		    BT_VALUE_ARRAY_APPEND_ELEMENT_STATUS_OK)
		bt_graph_add_source_component(ctf->graph, ctf->fs_class, "folder", params,
					      BT_LOGGING_LEVEL_NONE, &source);
	bt_value_put_ref(params);
	return source;
}

static int connect_ports(struct ctf *ctf, const bt_port_output *from, const bt_port_input *to)
{
	return bt_graph_connect_ports(ctf->graph, from, to, NULL) ==
			       BT_GRAPH_CONNECT_PORTS_STATUS_OK
		       ? 0
		       : -1;
}

/* Streams -> muxer -> sink. The muxer adds an input each time that its last one is taken. */
static int connect_all(struct ctf *ctf, const bt_component_source *source,
		       const bt_component_filter *muxer, const bt_component_sink *sink)
{
	uint64_t count = bt_component_source_get_output_port_count(source);

	for (uint64_t i = 0; i < count; i++) {
		if (connect_ports(
			    ctf, bt_component_source_borrow_output_port_by_index_const(source, i),
			    bt_component_filter_borrow_input_port_by_index_const(muxer, i)) < 0)
			return -1;
	}
	return connect_ports(ctf, bt_component_filter_borrow_output_port_by_index_const(muxer, 0),
			     bt_component_sink_borrow_input_port_by_index_const(sink, 0));
}

int ctf_open(struct ctf *ctf, const char *folder)
{
	const bt_component_source *source;
	const bt_component_filter *muxer;
	const bt_component_sink *sink;

	ctf->folder = strdup(folder);
	if (!ctf->folder)
		return fail(ctf, "out of memory before");
	if (load_classes(ctf) < 0)
		return -1;
	ctf->graph = bt_graph_create(0);
	if (!ctf->graph)
		return fail(ctf, "out of memory before");
	source = add_source(ctf);
	if (!source)
		return fail(ctf, "cannot read");
	ctf->has_streams = bt_component_source_get_output_port_count(source) > 0;
	if (!ctf->has_streams)
		return 0;
	if (bt_graph_add_filter_component(ctf->graph, ctf->muxer_class, "muxer", NULL,
					  BT_LOGGING_LEVEL_NONE,
					  &muxer) != BT_GRAPH_ADD_COMPONENT_STATUS_OK ||
	    bt_graph_add_simple_sink_component(ctf->graph, "relay", NULL, consume, NULL, ctf,
					       &sink) != BT_GRAPH_ADD_COMPONENT_STATUS_OK ||
	    connect_all(ctf, source, muxer, sink) < 0)
		return fail(ctf, "cannot read");
	return 0;
}

int ctf_step(struct ctf *ctf)
{
	if (!ctf->has_streams) {
		ctf_close(ctf);
		return 0;
	}
	switch (bt_graph_run_once(ctf->graph)) {
	case BT_GRAPH_RUN_ONCE_STATUS_OK:
	case BT_GRAPH_RUN_ONCE_STATUS_AGAIN:
		/*
		 * ctf.fs first hands out the messages before a bad event and then fails again, but
		 * leaves the error behind, with which the next call would abort the process.
		 */
		bt_current_thread_clear_error();
		return 1;
	case BT_GRAPH_RUN_ONCE_STATUS_END:
		ctf_close(ctf);
		return 0;
	case BT_GRAPH_RUN_ONCE_STATUS_MEMORY_ERROR:
		return fail(ctf, "out of memory while reading");
	default:
		return fail(ctf, "cannot read");
	}
}
