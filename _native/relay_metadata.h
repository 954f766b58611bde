/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata of a trace: what its streams, packets and events consist of.
 *
 * An event class that cannot be read is left out; an event of it then ends its packet for us.
 */
#ifndef K8S_TRACING_RELAY_METADATA_H
#define K8S_TRACING_RELAY_METADATA_H

#include "relay_tsdl.h"

#define CTF_UUID_SIZE 16

struct event_binding;

struct ctf_event_class {
	struct ctf_event_class *next;
	uint64_t id;
	uint64_t stream_id;
	const char *name;
	struct ctf_type *context; /* these may be NULL */
	struct ctf_type *fields;
	const struct event_binding *binding; /* relay_events.c: what the event is to us */
};

/* The slots of what a reader of packets asks for; CTF_NO_SLOT: the trace does not have it. */
struct ctf_packet_slots {
	uint32_t timestamp_begin, timestamp_end, content_size, packet_size, packet_seq_num,
		events_discarded;
	uint32_t seq_num_bits, discarded_bits;
};

struct ctf_stream_class {
	struct ctf_stream_class *next;
	uint64_t id;
	struct ctf_type *packet_context; /* these may be NULL */
	struct ctf_type *event_header;
	struct ctf_type *event_context;
	struct ctf_packet_slots slots;
	uint32_t id_slot;
	bool has_clock;
	uint32_t vpid, vtid, pid_ns, cgroup_ns; /* slots */
	struct ctf_event_class **events;	/* by id */
	uint64_t event_count;
};

struct ctf_clock {
	uint64_t frequency;
	int64_t offset_s;
	int64_t offset; /* cycles */
	bool has_uuid;
	uint8_t uuid[CTF_UUID_SIZE]; /* LTTng's is the id of the boot, if it is CLOCK_MONOTONIC */
};

struct metadata {
	struct tsdl tsdl;
	bool has_trace;
	bool has_uuid;
	bool has_clock;
	enum ctf_byte_order byte_order;
	uint8_t uuid[CTF_UUID_SIZE];
	struct ctf_clock clock;
	struct ctf_type *packet_header; /* may be NULL */
	uint32_t magic_slot, uuid_slot, stream_id_slot;
	struct ctf_stream_class *streams;
	struct ctf_event_class *events;
};

/* Read a folder's file `metadata`. NULL, or what is wrong with it; to be freed in either case. */
const char *metadata_read(struct metadata *metadata, const char *folder);
/* The same of its content. */
const char *metadata_parse(struct metadata *metadata, const uint8_t *content, size_t size);
/* To be called when all slots are given. Return 0, or -1 without memory. */
int metadata_prepare(struct metadata *metadata);
void metadata_free(struct metadata *metadata);

/* All was read: give streams their events, and slots to what readers of packets ask for. Return 0,
 * or -1 without memory. */
int metadata_link(struct metadata *metadata);

struct ctf_stream_class *metadata_stream(const struct metadata *metadata, uint64_t id);

/* A slot for a field; CTF_NO_SLOT if there is none. */
uint32_t metadata_slot(struct metadata *metadata, struct ctf_member *member);

/* A slot for a field of that name; CTF_NO_SLOT if there is none that is an integer. */
uint32_t metadata_integer_slot(struct metadata *metadata, struct ctf_type *type, const char *name);

/* The bytes of a uuid: 0, or -1 if the text is none. */
int metadata_uuid(struct tsdl_text text, uint8_t *uuid);

/* Nanoseconds since the Unix epoch; 0 past what 64 bits can hold. */
int64_t metadata_time_ns(const struct metadata *metadata, uint64_t cycles);

#endif
