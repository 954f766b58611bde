// SPDX-License-Identifier: Apache-2.0
#include "relay_metadata.h"

#include <stdlib.h>
#include <string.h>

#include "relay_bytes.h"
#include "relay_decode.h"
#include "relay_file.h"

#define METADATA_MAX (64 * 1024 * 1024) /* bytes */
#define EVENT_ID_MAX 65535
#define S_NS 1000000000

/* Metadata comes in packets (CTF 1.8, section 7.1), or as plain text. */
#define PACKET_MAGIC 0x75d11d57
#define PACKET_HEADER_SIZE 37
#define PACKET_CONTENT_SIZE 24 /* where it stands, in bits; the size of the packet follows */

static uint32_t take_u32(const uint8_t *at, bool swap)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return swap ? __builtin_bswap32(value) : value;
}

/* Take the text out of the packets, in place. A packet that is not whole is not there yet. */
static const char *unpack(uint8_t *content, size_t *size)
{
	bool swap;
	size_t at = 0, text = 0;

	if (*size < 4)
		return NULL;
	swap = take_u32(content, false) == __builtin_bswap32(PACKET_MAGIC);
	if (take_u32(content, swap) != PACKET_MAGIC)
		return NULL;
	while (*size - at >= PACKET_HEADER_SIZE) {
		size_t used = take_u32(content + at + PACKET_CONTENT_SIZE, swap) / 8;
		size_t whole = take_u32(content + at + PACKET_CONTENT_SIZE + 4, swap) / 8;

		if (take_u32(content + at, swap) != PACKET_MAGIC || used < PACKET_HEADER_SIZE ||
		    used > whole)
			return "its packets are damaged";
		if (whole > *size - at)
			break;
		memmove(content + text, content + at + PACKET_HEADER_SIZE,
			used - PACKET_HEADER_SIZE);
		text += used - PACKET_HEADER_SIZE;
		at += whole;
	}
	*size = text;
	return NULL;
}

static int read_uuid(struct tsdl_text text, uint8_t *uuid)
{
	size_t digits = 0;

	for (size_t i = 0; i < text.size; i++) {
		char c = text.at[i];
		uint8_t value = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;

		if (c == '-')
			continue;
		if (value > 15 || digits == 2 * CTF_UUID_SIZE)
			return -1;
		uuid[digits / 2] = uuid[digits / 2] << 4 | value;
		digits++;
	}
	return digits == 2 * CTF_UUID_SIZE ? 0 : -1;
}

static int read_trace(struct metadata *m)
{
	struct tsdl_attribute a;
	int more;

	while ((more = tsdl_attribute(&m->tsdl, &a)) > 0) {
		if (tsdl_equal(a.name, "byte_order")) {
			if (!tsdl_equal(a.text, "le") && !tsdl_equal(a.text, "be"))
				return tsdl_fail(&m->tsdl, "the trace's byte order is none");
			m->byte_order =
				tsdl_equal(a.text, "be") ? CTF_BIG_ENDIAN : CTF_LITTLE_ENDIAN;
		} else if (tsdl_equal(a.name, "uuid")) {
			if (read_uuid(a.text, m->uuid) < 0)
				return tsdl_fail(&m->tsdl, "the trace's uuid is none");
			m->has_uuid = true;
		} else if (tsdl_equal(a.name, "packet.header")) {
			m->packet_header = a.type;
		} else if (tsdl_equal(a.name, "major") && a.number != 1) {
			return tsdl_fail(&m->tsdl, "it is not of CTF 1.8");
		}
	}
	m->has_trace = true;
	return more;
}

static int read_clock(struct metadata *m)
{
	struct ctf_clock clock = {.frequency = S_NS};
	struct tsdl_attribute a;
	int more;

	while ((more = tsdl_attribute(&m->tsdl, &a)) > 0) {
		if (tsdl_equal(a.name, "freq"))
			clock.frequency = a.number;
		else if (tsdl_equal(a.name, "offset_s"))
			clock.offset_s = a.number;
		else if (tsdl_equal(a.name, "offset"))
			clock.offset = a.number;
	}
	if (!clock.frequency)
		return tsdl_fail(&m->tsdl, "the clock stands still");
	if (!m->has_clock)
		m->clock = clock;
	m->has_clock = true;
	return more;
}

static int read_stream(struct metadata *m)
{
	struct ctf_stream_class *stream = tsdl_allocate(&m->tsdl, sizeof(*stream));
	struct tsdl_attribute a;
	int more;

	if (!stream)
		return -1;
	while ((more = tsdl_attribute(&m->tsdl, &a)) > 0) {
		if (tsdl_equal(a.name, "id"))
			stream->id = a.number;
		else if (tsdl_equal(a.name, "packet.context"))
			stream->packet_context = a.type;
		else if (tsdl_equal(a.name, "event.header"))
			stream->event_header = a.type;
		else if (tsdl_equal(a.name, "event.context"))
			stream->event_context = a.type;
	}
	if (metadata_stream(m, stream->id))
		return tsdl_fail(&m->tsdl, "two streams have the same number");
	stream->next = m->streams;
	m->streams = stream;
	return more;
}

static int read_event(struct metadata *m)
{
	struct ctf_event_class *event = tsdl_allocate(&m->tsdl, sizeof(*event));
	struct tsdl_attribute a;
	int more;

	if (!event)
		return -1;
	while ((more = tsdl_attribute(&m->tsdl, &a)) > 0) {
		if (tsdl_equal(a.name, "id"))
			event->id = a.number;
		else if (tsdl_equal(a.name, "stream_id"))
			event->stream_id = a.number;
		else if (tsdl_equal(a.name, "name"))
			event->name = tsdl_copy(&m->tsdl, a.text);
		else if (tsdl_equal(a.name, "context"))
			event->context = a.type;
		else if (tsdl_equal(a.name, "fields"))
			event->fields = a.type;
	}
	if (more < 0 || m->tsdl.out_of_memory)
		return -1;
	event->next = m->events;
	m->events = event;
	return 0;
}

static int skip(struct metadata *m)
{
	struct tsdl_attribute a;
	int more;

	while ((more = tsdl_attribute(&m->tsdl, &a)) > 0)
		;
	return more;
}

static int read_block(struct metadata *m, int (*read)(struct metadata *))
{
	struct tsdl *tsdl = &m->tsdl;

	if (tsdl_next(tsdl) < 0 || tsdl_expect(tsdl, '{') < 0 || read(m) < 0 ||
	    tsdl_expect(tsdl, '}') < 0)
		return -1;
	return tsdl_expect(tsdl, ';');
}

/*
 * A block that only some events need. If it is nothing that we understand, the next one begins
 * behind its brace; if even its words are none, behind a brace at the beginning of a line, where
 * LTTng puts it.
 */
static int read_block_or_skip(struct metadata *m, int (*read)(struct metadata *))
{
	struct tsdl *tsdl = &m->tsdl;
	const char *start = tsdl->at, *end;

	if (read_block(m, read) == 0 || tsdl->out_of_memory)
		return tsdl->error ? -1 : 0;
	tsdl->error = NULL;
	tsdl->at = start;
	if (tsdl_next(tsdl) == 0 && tsdl_expect(tsdl, '{') == 0 && tsdl_skip_block(tsdl) == 0 &&
	    tsdl_expect(tsdl, ';') == 0)
		return 0;
	tsdl->error = NULL;
	end = memmem(start, tsdl->end - start, "\n};", 3);
	tsdl->at = end ? end + 3 : tsdl->end;
	return tsdl_next(tsdl);
}

static int read_declaration(struct metadata *m)
{
	struct tsdl *tsdl = &m->tsdl;

	if (tsdl_is_word(tsdl, "typealias"))
		return tsdl_next(tsdl) < 0 ? -1 : tsdl_typealias(tsdl);
	if (tsdl_is_word(tsdl, "struct") || tsdl_is_word(tsdl, "enum"))
		return tsdl_type(tsdl) ? tsdl_expect(tsdl, ';') : -1;
	if (tsdl_is_word(tsdl, "trace"))
		return read_block(m, read_trace);
	if (tsdl_is_word(tsdl, "clock"))
		return read_block(m, read_clock);
	if (tsdl_is_word(tsdl, "stream"))
		return read_block(m, read_stream);
	if (tsdl_is_word(tsdl, "event"))
		return read_block_or_skip(m, read_event);
	if (tsdl_is_word(tsdl, "env") || tsdl_is_word(tsdl, "callsite"))
		return read_block_or_skip(m, skip);
	return tsdl_fail(tsdl, "it is not metadata of CTF 1.8");
}

struct ctf_stream_class *metadata_stream(const struct metadata *m, uint64_t id)
{
	struct ctf_stream_class *stream = m->streams;

	while (stream && stream->id != id)
		stream = stream->next;
	return stream;
}

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

static int link_all(struct metadata *m)
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

static const char *parse(struct metadata *m, const char *text, size_t size)
{
	struct tsdl *tsdl = &m->tsdl;

	if (!size)
		return "its metadata is empty";
	if (*text == 0x1e)
		return "it is of CTF 2: record it with --trace-format=ctf-1.8";
	tsdl_init(tsdl, text, size);
	if (tsdl_next(tsdl) == 0) {
		while (tsdl->token != TSDL_END && read_declaration(m) == 0)
			;
	}
	if (tsdl->error)
		return tsdl->error;
	if (!m->has_trace || !m->byte_order)
		return "its metadata describes no trace";
	return link_all(m) < 0 ? tsdl->error : NULL;
}

const char *metadata_parse(struct metadata *m, const uint8_t *content, size_t size)
{
	uint8_t *text = malloc(size ? size : 1);
	const char *error;

	*m = (struct metadata){.clock.frequency = S_NS};
	if (!text)
		return "out of memory";
	put_bytes(text, content, size);
	error = unpack(text, &size);
	if (!error)
		error = parse(m, (const char *)text, size);
	free(text);
	return error;
}

const char *metadata_read(struct metadata *m, const char *folder)
{
	struct mapped_file file;
	const char *error;

	*m = (struct metadata){0};
	error = file_map(&file, folder, "metadata");
	if (error)
		return error;
	error = file.size > METADATA_MAX ? "its metadata is too large"
					 : metadata_parse(m, file.data, file.size);
	file_unmap(&file);
	return error;
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

void metadata_free(struct metadata *m)
{
	tsdl_free(&m->tsdl);
	*m = (struct metadata){0};
}

int64_t metadata_time_ns(const struct metadata *m, uint64_t cycles)
{
	const struct ctf_clock *clock = &m->clock;
	__int128 ns = (__int128)cycles + clock->offset;

	if (clock->frequency != S_NS)
		ns = ns * S_NS / clock->frequency;
	ns += (__int128)clock->offset_s * S_NS;
	return ns < 0 || ns > INT64_MAX ? 0 : (int64_t)ns;
}
