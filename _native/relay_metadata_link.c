// SPDX-License-Identifier: Apache-2.0
/* What follows from all declarations together: which event is whose, and what is read where. */
#include "relay_metadata.h"

#include <string.h>

#include "relay_decode.h"

#define EVENT_ID_MAX 65535

uint32_t metadata_slot(struct metadata *m, struct ctf_member *member)
{
	if (!member)
		return CTF_NO_SLOT;
	if (member->slot == CTF_NO_SLOT)
		member->slot = m->tsdl.slot_count++;
	return member->slot;
}

uint32_t metadata_integer_slot(struct metadata *m, struct ctf_type *type, const char *name)
{
	struct ctf_member *member = ctf_find_member(type, name);

	return member && member->type->kind == CTF_INTEGER ? metadata_slot(m, member) : CTF_NO_SLOT;
}

/* All members of that name, those in variants too, go to one slot: the last one read counts. */
static void share_slot(struct ctf_type *type, const char *name, uint32_t slot)
{
	for (uint32_t i = 0; i < type->member_count; i++) {
		struct ctf_member *member = type->members + i;

		if (member->type->kind == CTF_INTEGER && strcmp(member->name, name) == 0)
			member->slot = slot;
		share_slot(member->type, name, slot);
	}
}

static bool has_clock(const struct ctf_type *type)
{
	if (type->is_clock)
		return true;
	for (uint32_t i = 0; i < type->member_count; i++) {
		if (has_clock(type->members[i].type))
			return true;
	}
	return false;
}

static uint32_t integer_bits(const struct ctf_type *type, const char *name)
{
	const struct ctf_member *member = ctf_find_member(type, name);

	return member && member->type->kind == CTF_INTEGER ? member->type->size : 64;
}

static void link_stream(struct metadata *m, struct ctf_stream_class *stream)
{
	struct ctf_type *context = stream->packet_context;

	stream->slots = (struct ctf_packet_slots){
		.timestamp_begin = metadata_integer_slot(m, context, "timestamp_begin"),
		.timestamp_end = metadata_integer_slot(m, context, "timestamp_end"),
		.content_size = metadata_integer_slot(m, context, "content_size"),
		.packet_size = metadata_integer_slot(m, context, "packet_size"),
		.packet_seq_num = metadata_integer_slot(m, context, "packet_seq_num"),
		.events_discarded = metadata_integer_slot(m, context, "events_discarded"),
		.seq_num_bits = integer_bits(context, "packet_seq_num"),
		.discarded_bits = integer_bits(context, "events_discarded"),
	};
	context = stream->event_context;
	stream->vpid = metadata_integer_slot(m, context, "vpid");
	stream->vtid = metadata_integer_slot(m, context, "vtid");
	stream->pid_ns = metadata_integer_slot(m, context, "pid_ns");
	stream->cgroup_ns = metadata_integer_slot(m, context, "cgroup_ns");
	stream->id_slot = metadata_integer_slot(m, stream->event_header, "id");
	if (stream->event_header && stream->id_slot != CTF_NO_SLOT)
		share_slot(stream->event_header, "id", stream->id_slot);
	stream->has_clock = m->has_clock && stream->event_header && has_clock(stream->event_header);
}

/* Put the event classes of each stream into an array. The first one with an id has it. */
static int link_events(struct metadata *m, struct ctf_stream_class *stream)
{
	for (const struct ctf_event_class *e = m->events; e; e = e->next) {
		if (e->stream_id == stream->id && e->id <= EVENT_ID_MAX &&
		    e->id >= stream->event_count)
			stream->event_count = e->id + 1;
	}
	stream->events = tsdl_allocate(&m->tsdl, stream->event_count * sizeof(*stream->events));
	if (!stream->events)
		return -1;
	for (struct ctf_event_class *e = m->events; e; e = e->next) {
		if (e->stream_id == stream->id && e->id <= EVENT_ID_MAX)
			stream->events[e->id] = e; /* they are listed last first */
	}
	return 0;
}

int metadata_link(struct metadata *m)
{
	struct ctf_member *uuid = ctf_find_member(m->packet_header, "uuid");

	for (struct ctf_type *type = m->tsdl.types; type; type = type->next) {
		if (type->byte_order == CTF_NATIVE)
			type->byte_order = m->byte_order;
	}
	m->magic_slot = metadata_integer_slot(m, m->packet_header, "magic");
	m->stream_id_slot = metadata_integer_slot(m, m->packet_header, "stream_id");
	m->uuid_slot = CTF_NO_SLOT;
	if (uuid && uuid->type->kind == CTF_ARRAY && uuid->type->size == 8 * CTF_UUID_SIZE)
		m->uuid_slot = metadata_slot(m, uuid);
	for (struct ctf_stream_class *stream = m->streams; stream; stream = stream->next) {
		link_stream(m, stream);
		if (link_events(m, stream) < 0)
			return -1;
	}
	return 0;
}

int metadata_prepare(struct metadata *m)
{
	for (struct ctf_type *type = m->tsdl.types; type; type = type->next) {
		struct ctf_load *loads;

		if (type->kind != CTF_STRUCT)
			continue;
		loads = tsdl_allocate(&m->tsdl, type->member_count * sizeof(*loads));
		if (!loads)
			return -1;
		decode_prepare(type, loads);
	}
	return 0;
}
