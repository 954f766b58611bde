/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints every field of every event of a trace folder, one line of JSON an event, as the relay's
 * decoder reads them: tests compare it with babeltrace2. Strings and floats are hexadecimal.
 *
 * Linked with the relay's sources; what relay_events.c and relay_spans.c do is not needed.
 */
#include <inttypes.h>
#include <stdio.h>

#include "relay_ctf.h"
#include "relay_events.h"

int events_bind(struct ctf *ctf)
{
	return 0;
}

int event_handle(struct ctf *ctf, const struct stream *stream)
{
	return 0;
}

void spans_see(struct spans *spans, int64_t now_ns)
{
}

void spans_lost(struct spans *spans, uint64_t events, int64_t begin_ns, int64_t end_ns,
		uint64_t until)
{
}

static void print_text(const uint8_t *at, uint64_t size)
{
	putchar('"');
	for (uint64_t i = 0; i < size; i++)
		printf("%02x", at[i]);
	putchar('"');
}

static void check(int failed)
{
	if (failed) {
		fprintf(stderr, "a value that was read cannot be read again\n");
		exit(2);
	}
}

/* A value that the metadata may have no slot for. */
static struct value read_alone(struct cursor *c, const struct ctf_type *type)
{
	struct value *values = c->values;
	struct value value;

	c->values = &value;
	check(decode(c, type, 0));
	c->values = values;
	return value;
}

static void print_value(struct cursor *c, const struct ctf_type *type, uint32_t slot);

static void print_members(struct cursor *c, const struct ctf_type *type)
{
	const char *comma = "";

	putchar('{');
	for (uint32_t i = 0; i < type->member_count; i++) {
		const struct ctf_member *member = type->members + i;

		printf("%s\"%s\": ", comma, member->name + (*member->name == '_'));
		print_value(c, member->type, member->slot);
		comma = ", ";
	}
	putchar('}');
}

static void print_elements(struct cursor *c, const struct ctf_type *type, uint64_t count)
{
	putchar('[');
	for (uint64_t i = 0; i < count; i++) {
		if (i)
			printf(", ");
		print_value(c, type->element, CTF_NO_SLOT);
	}
	putchar(']');
}

/* The option that the decoder chooses. */
static const struct ctf_type *option(const struct cursor *c, const struct ctf_type *type)
{
	struct cursor probe = *c;

	for (uint32_t i = 0; i < type->range_count; i++) {
		uint64_t tag = c->values[type->slot].number;
		const struct ctf_range *range = type->ranges + i;

		if (tag - range->first <= range->last - range->first)
			return range->option;
	}
	check(decode(&probe, type, CTF_NO_SLOT));
	exit(2);
}

static void print_value(struct cursor *c, const struct ctf_type *type, uint32_t slot)
{
	uint32_t alignment = type->alignment;
	struct cursor after = *c;
	struct value value;

	check(decode(&after, type, slot));
	c->at = (c->at + alignment - 1) & ~(uint64_t)(alignment - 1);
	switch (type->kind) {
	case CTF_INTEGER:
		value = read_alone(c, type);
		if (type->is_signed)
			printf("%" PRId64, (int64_t)value.number);
		else
			printf("%" PRIu64, value.number);
		break;
	case CTF_STRING:
		value = read_alone(c, type);
		print_text(value.at, value.number);
		break;
	case CTF_FLOAT:
		print_text(c->data + c->at / 8, type->size / 8);
		check(decode(c, type, CTF_NO_SLOT));
		break;
	case CTF_ARRAY:
		print_elements(c, type, type->length);
		break;
	case CTF_SEQUENCE:
		print_elements(c, type, c->values[type->slot].number);
		break;
	case CTF_STRUCT:
		print_members(c, type);
		break;
	default:
		print_value(c, option(c, type), CTF_NO_SLOT);
	}
	check(c->at != after.at);
}

static void print_part(const char *name, struct cursor *c, const struct ctf_type *type)
{
	printf(", \"%s\": ", name);
	if (type)
		print_value(c, type, CTF_NO_SLOT);
	else
		printf("{}");
}

static void print_event(struct stream *stream, struct cursor c)
{
	printf("{\"file\": \"%s\", \"time_ns\": %" PRId64 ", \"name\": \"%s\"", stream->name,
	       stream->time_ns, stream->event->name);
	print_part("context", &c, stream->class->event_context);
	print_part("fields", &c, stream->event->fields);
	printf("}\n");
}

int main(int argc, char **argv)
{
	struct relay_stats stats = {0};
	struct ctf ctf;

	if (argc != 2 || ctf_init(&ctf, NULL, NULL, &stats) < 0 || ctf_open(&ctf, argv[1]) < 0) {
		fprintf(stderr, "%s\n", ctf.error);
		return 1;
	}
	for (struct stream *stream; (stream = ctf_first(&ctf)); ctf_advance(&ctf)) {
		struct cursor body = stream->cursor;

		if (stream->event && stream_read_event(&ctf, stream) == 0)
			print_event(stream, body);
	}
	if (stats.unreadable_packets) {
		fprintf(stderr, "%s\n", ctf.damage);
		return 1;
	}
	ctf_free(&ctf);
	return 0;
}
