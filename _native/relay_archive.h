/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and byte strings, written and read by the same code: what a record has is said once.
 *
 * Whatever the bytes are, reading them ends, touches no other memory, and says whether they were
 * what they should be.
 */
#ifndef K8S_TRACING_RELAY_ARCHIVE_H
#define K8S_TRACING_RELAY_ARCHIVE_H

#include <stdbool.h>

#include "relay_bytes.h"

/* One of the two directions. */
struct archive {
	struct bytes *to; /* NULL: reading */
	const uint8_t *at;
	const uint8_t *end;
	bool no_memory;
	bool invalid;
};

static inline bool failed(const struct archive *archive)
{
	return archive->no_memory || archive->invalid;
}

static inline void write_number(struct archive *archive, uint64_t value)
{
	uint8_t *at = bytes_extend(archive->to, VARINT_MAX);

	if (!at)
		archive->no_memory = true;
	else
		bytes_end_at(archive->to, put_varint(at, value));
}

/* 0 where there is none: loops end. */
static inline uint64_t read_number(struct archive *archive)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64 && archive->at < archive->end; shift += 7) {
		uint8_t byte = *archive->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
	}
	archive->invalid = true;
	return 0;
}

static inline uint64_t number(struct archive *archive, uint64_t value)
{
	if (!archive->to)
		return read_number(archive);
	write_number(archive, value);
	return value;
}

/* A field of any integer type, which must be able to hold what is read. */
#define NUMBER(archive, field)                                     \
	do {                                                       \
		uint64_t value_ = number(archive, field);          \
                                                                   \
		(field) = value_;                                  \
		(archive)->invalid |= (uint64_t)(field) != value_; \
	} while (0)

static inline void byte_string(struct archive *archive, struct bytes *bytes, size_t from)
{
	uint64_t size = number(archive, bytes->size - from);
	uint8_t *at;

	if (!archive->to && size > (uint64_t)(archive->end - archive->at)) {
		archive->invalid = true;
		return;
	}
	if (!size)
		return;
	at = bytes_extend(archive->to ? archive->to : bytes, size);
	if (!at) {
		archive->no_memory = true;
		return;
	}
	put_bytes(at, archive->to ? bytes->data + from : archive->at, size);
	if (!archive->to)
		archive->at += size;
}

#endif
