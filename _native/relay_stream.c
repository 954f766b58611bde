// SPDX-License-Identifier: Apache-2.0
#include "relay_stream.h"

#include <string.h>

#include "relay_ctf.h"

#define MAGIC 0xc1fc1fc1

/* For a packet: what a sane one has of members and paddings, for each byte, several times over. */
#define BUDGET_PER_BYTE 16
#define BUDGET 65536

static uint64_t value_of(const struct stream *stream, uint32_t slot, uint64_t missing)
{
	return slot == CTF_NO_SLOT ? missing : stream->cursor.values[slot].number;
}

static void start_clock(struct stream *stream)
{
	const struct ctf_packet_slots *slots = &stream->class->slots;

	stream->clock = value_of(stream, slots->timestamp_begin, 0);
	stream->end_clock = value_of(stream, slots->timestamp_end, UINT64_MAX);
	if (stream->end_clock < stream->clock)
		stream->end_clock = UINT64_MAX;
}

/*
 * What the packet says of what was lost. Events are counted until its end, so they are missing
 * between the end of the packet before and its own.
 */
static void count_lost(struct ctf *ctf, struct stream *stream)
{
	const struct ctf_packet_slots *slots = &stream->class->slots;
	struct buffer_loss *loss = stream->loss;
	uint64_t number = value_of(stream, slots->packet_seq_num, 1);
	uint64_t packets = 0, events = 0;
	int64_t before_ns = loss->end_ns;
	int64_t begin_ns = metadata_time_ns(&ctf->metadata, stream->clock);
	int64_t end_ns = INT64_MAX;
	uint64_t until = stream->clock;

	if (stream->end_clock != UINT64_MAX) {
		end_ns = loss->end_ns = metadata_time_ns(&ctf->metadata, stream->end_clock);
		until = stream->end_clock;
	}
	if (slots->packet_seq_num != CTF_NO_SLOT)
		packets = loss_packets(loss, number, slots->seq_num_bits);
	if (slots->events_discarded != CTF_NO_SLOT)
		events = loss_discarded(loss, value_of(stream, slots->events_discarded, 0),
					slots->discarded_bits, number == 0);
	ctf->stats->lost_packets += packets;
	if (packets)
		spans_lost(ctf->spans, 0, before_ns, begin_ns, stream->clock);
	if (events)
		spans_lost(ctf->spans, events, before_ns, end_ns, until);
}

/* Its header; NULL, or what is wrong with it. */
static const char *read_header(struct ctf *ctf, struct stream *stream)
{
	const struct metadata *metadata = &ctf->metadata;
	struct cursor *cursor = &stream->cursor;

	stream->class = NULL;
	if (metadata->packet_header && decode(cursor, metadata->packet_header, CTF_NO_SLOT) < 0)
		return "a packet's header is cut off";
	stream->class = metadata_stream(metadata, value_of(stream, metadata->stream_id_slot, 0));
	if (value_of(stream, metadata->magic_slot, MAGIC) != MAGIC)
		return "a packet has no magic number";
	if (metadata->has_uuid && metadata->uuid_slot != CTF_NO_SLOT &&
	    memcmp(cursor->values[metadata->uuid_slot].at, metadata->uuid, CTF_UUID_SIZE) != 0)
		return "a packet is of another trace";
	return stream->class ? NULL : "a packet is of a stream that is not declared";
}

/* Its context, and where it ends; NULL, or what is wrong with it. */
static const char *read_context(struct ctf *ctf, struct stream *stream)
{
	struct cursor *cursor = &stream->cursor;
	const struct ctf_type *context = stream->class->packet_context;
	uint64_t content, whole;

	if (context && decode(cursor, context, CTF_NO_SLOT) < 0)
		return "a packet's context is cut off";
	whole = value_of(stream, stream->class->slots.packet_size, cursor->end);
	content = value_of(stream, stream->class->slots.content_size, whole);
	if (!whole || whole < cursor->at || whole % 8)
		return "a packet's size is none";
	if (whole > cursor->end)
		return "the last packet is cut off";
	stream->next = stream->packet + whole / 8;
	if (content < cursor->at || content > whole)
		return "a packet's content exceeds it";
	cursor->end = content;
	cursor->budget = BUDGET + BUDGET_PER_BYTE * (content / 8);
	return NULL;
}

/* Begin the next packet that can be read: 1, or 0 if there is none. */
static int open_packet(struct ctf *ctf, struct stream *stream)
{
	while (stream->next < stream->file.size) {
		const char *error, *worse = NULL;

		stream->packet = stream->next;
		stream->next = stream->file.size;
		stream->cursor = (struct cursor){
			.data = stream->file.data + stream->packet,
			.end = 8 * (uint64_t)(stream->file.size - stream->packet),
			.budget = BUDGET,
			.values = ctf->values,
		};
		error = read_header(ctf, stream);
		if (stream->class) /* the context has the size, by which a bad packet is left out */
			worse = read_context(ctf, stream);
		if (!error)
			error = worse;
		if (!error) {
			start_clock(stream);
			count_lost(ctf, stream);
			stream->in_packet = true;
			return 1;
		}
		ctf_damaged(ctf, stream, error);
	}
	return 0;
}

/* The time of an event from the bits that its header has of it. */
static void move_clock(struct ctf *ctf, struct stream *stream)
{
	const struct cursor *cursor = &stream->cursor;
	uint64_t now = cursor->clock;

	if (!cursor->clock_bits)
		return;
	if (cursor->clock_bits < 64) {
		uint64_t turn = UINT64_C(1) << cursor->clock_bits;

		now |= stream->clock & ~(turn - 1);
		/* The bits began anew, unless the packet had ended before. */
		if (now < stream->clock && turn <= stream->end_clock &&
		    now <= stream->end_clock - turn)
			now += turn;
	}
	ctf->stats->disordered_events += now < stream->clock;
	stream->clock = now;
}

static const struct ctf_event_class *event_class(const struct stream *stream)
{
	const struct ctf_stream_class *class = stream->class;
	uint64_t id = value_of(stream, class->id_slot, 0);

	return id < class->event_count ? class->events[id] : NULL;
}

/* The header of the event at the cursor; NULL, or what is wrong with it. */
static const char *read_event_header(struct ctf *ctf, struct stream *stream)
{
	const struct ctf_type *header = stream->class->event_header;

	if (!stream->cursor.budget--)
		return "its events are empty";
	stream->cursor.clock_bits = 0;
	if (header && decode(&stream->cursor, header, CTF_NO_SLOT) < 0)
		return "an event's header is cut off";
	stream->event = event_class(stream);
	if (!stream->event)
		return "an event is of a class that is not declared";
	move_clock(ctf, stream);
	return NULL;
}

/* What is left of the packet is lost to us. */
static void leave_packet(struct ctf *ctf, struct stream *stream, const char *error)
{
	ctf_damaged(ctf, stream, error);
	stream->cursor.at = stream->cursor.end;
}

int stream_next(struct ctf *ctf, struct stream *stream)
{
	if (!stream->in_packet && !open_packet(ctf, stream))
		return 0;
	stream->event = NULL;
	if (stream->cursor.at < stream->cursor.end) {
		const char *error = read_event_header(ctf, stream);

		if (error)
			leave_packet(ctf, stream, error);
		else
			stream->time_ns = metadata_time_ns(&ctf->metadata, stream->clock);
	}
	if (!stream->event) {
		uint64_t end = stream->end_clock;

		stream->in_packet = false;
		stream->time_ns =
			metadata_time_ns(&ctf->metadata, end == UINT64_MAX ? stream->clock : end);
	}
	return 1;
}

int stream_read_event(struct ctf *ctf, struct stream *stream)
{
	const struct ctf_type *const parts[] = {stream->event->context, stream->event->fields};
	struct cursor *cursor = &stream->cursor;
	const char *error = NULL;

	stream->event_context = cursor->at;
	if (decode_skip(cursor, stream->class->event_context) < 0)
		error = "an event is cut off";
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && !error; i++) {
		if (parts[i] && decode(cursor, parts[i], CTF_NO_SLOT) < 0)
			error = "an event is cut off";
	}
	if (!error)
		return 0;
	leave_packet(ctf, stream, error);
	return -1;
}

void stream_read_context(const struct stream *stream)
{
	struct cursor cursor = stream->cursor;

	cursor.at = stream->event_context;
	if (stream->class->event_context)
		decode(&cursor, stream->class->event_context, CTF_NO_SLOT);
}
