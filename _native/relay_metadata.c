// SPDX-License-Identifier: Apache-2.0
#include "relay_metadata.h"

#include <stdlib.h>
#include <string.h>

#include "relay_bytes.h"
#include "relay_file.h"

#define METADATA_MAX (64 * 1024 * 1024) /* bytes */
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

int metadata_uuid(struct tsdl_text text, uint8_t *uuid)
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
			if (metadata_uuid(a.text, m->uuid) < 0)
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
		else if (tsdl_equal(a.name, "uuid"))
			clock.has_uuid = metadata_uuid(a.text, clock.uuid) == 0;
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
	return metadata_link(m) < 0 ? tsdl->error : NULL;
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
