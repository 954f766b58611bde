/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable bytes, and writing protobuf into them.
 *
 * Writers take and return a cursor into memory that the caller has reserved with bytes_extend: one
 * check of the room for a whole message instead of one for each field.
 */
#ifndef K8S_TRACING_RELAY_BYTES_H
#define K8S_TRACING_RELAY_BYTES_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VARINT_MAX 10 /* bytes that a varint needs at most */
#define LENGTH_MAX 5  /* and one that holds a length below 2^32 */

struct bytes {
	uint8_t *data;
	size_t size;
	size_t capacity;
};

/* Room for that many more bytes at the end, which count as written; NULL without memory. */
static inline uint8_t *bytes_extend(struct bytes *bytes, size_t more)
{
	size_t needed = bytes->size + more;

	if (needed > bytes->capacity) {
		size_t capacity = bytes->capacity ? bytes->capacity * 2 : 256;
		uint8_t *data;

		if (capacity < needed)
			capacity = needed;
		data = realloc(bytes->data, capacity);
		if (!data)
			return NULL;
		bytes->data = data;
		bytes->capacity = capacity;
	}
	bytes->size = needed;
	return bytes->data + needed - more;
}

/* Copy bytes to the end: 0, or -1 without memory. */
static inline int bytes_append(struct bytes *bytes, const void *data, size_t size)
{
	uint8_t *at = size ? bytes_extend(bytes, size) : NULL;

	if (size && !at)
		return -1;
	if (size)
		memcpy(at, data, size);
	return 0;
}

/* Give back what was extended but not written. */
static inline void bytes_end_at(struct bytes *bytes, const uint8_t *end)
{
	bytes->size = end - bytes->data;
}

static inline void bytes_free(struct bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct bytes){0};
}

static inline uint8_t *put_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = value | 0x80;
		value >>= 7;
	}
	*at++ = value;
	return at;
}

static inline uint8_t *put_bytes(uint8_t *at, const void *data, size_t size)
{
	if (size)
		memcpy(at, data, size);
	return at + size;
}

static inline uint8_t *put_length(uint8_t *at, uint8_t tag, size_t size)
{
	*at++ = tag;
	return put_varint(at, size);
}

static inline uint8_t *put_length_field(uint8_t *at, uint8_t tag, const void *data, size_t size)
{
	return put_bytes(put_length(at, tag, size), data, size);
}

/* The length that was written there, and where what has it begins. */
static inline const uint8_t *take_length(const uint8_t *at, uint64_t *size)
{
	*size = 0;
	for (unsigned int shift = 0;; shift += 7) {
		*size |= (uint64_t)(*at & 0x7f) << shift;
		if (*at++ < 0x80)
			return at;
	}
}

/* The same where the bytes may be anything; NULL if there is no length, or too few bytes for it. */
static inline const uint8_t *take_length_within(const uint8_t *at, const uint8_t *end,
						uint64_t *size)
{
	const uint8_t *last = at;

	while (last < end && *last >= 0x80)
		last++;
	if (last == end || last - at >= LENGTH_MAX)
		return NULL;
	at = take_length(at, size);
	return *size <= (uint64_t)(end - at) ? at : NULL;
}

/* A number in a varint field; protobuf leaves out what is zero. */
static inline uint8_t *put_count(uint8_t *at, uint8_t tag, uint64_t value)
{
	if (!value)
		return at;
	*at++ = tag;
	return put_varint(at, value);
}

static inline uint8_t *put_fixed64(uint8_t *at, uint8_t tag, uint64_t value)
{
	value = htole64(value);
	*at++ = tag;
	return put_bytes(at, &value, sizeof(value));
}

/* An id of 8 or 16 bytes: its numbers, most significant byte first. */
static inline uint8_t *put_id(uint8_t *at, uint64_t part)
{
	part = htobe64(part);
	return put_bytes(at, &part, sizeof(part));
}

/* Damage within eight bytes, for one, is never missed: every step can be undone. */
static inline uint64_t checksum(const uint8_t *bytes, size_t size)
{
	uint64_t sum = size;

	for (uint64_t word; size; bytes += sizeof(word)) {
		size_t step = size < sizeof(word) ? size : sizeof(word);

		word = 0;
		memcpy(&word, bytes, step);
		sum = (sum ^ le64toh(word)) * 0x9e3779b97f4a7c15;
		sum ^= sum >> 32;
		size -= step;
	}
	return sum;
}

static inline size_t varint_size(uint64_t value)
{
	size_t size = 1;

	for (; value >= 0x80; value >>= 7)
		size++;
	return size;
}

/* The size of a field whose tag is one byte and whose content has that size. */
static inline size_t length_field_size(size_t size)
{
	return 1 + varint_size(size) + size;
}

#endif
