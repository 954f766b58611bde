// SPDX-License-Identifier: Apache-2.0
/*
 * All that a relay knows between two chunks, as bytes and back.
 *
 * A header of four little-endian numbers (magic, version, size of the rest, its checksum), then
 * varints and byte strings. What a record has is written once, for both directions. The checksum
 * says whether the bytes are those that were written; what is read is checked all the same so far
 * that no bytes whatever make us touch memory that is not ours.
 */
#include "relay_archive.h"
#include "relay_parts.h"

#define MAGIC UINT64_C(0x3179616c65527473) /* "stRelay1" */
#define VERSION 2
#define HEADER_NUMBERS 4
#define HEADER_SIZE (HEADER_NUMBERS * sizeof(uint64_t))

static void span_record(struct archive *archive, struct span *span)
{
	NUMBER(archive, span->trace_id_high);
	NUMBER(archive, span->trace_id_low);
	NUMBER(archive, span->parent_span_id);
	NUMBER(archive, span->start_ns);
	NUMBER(archive, span->end_ns);
	NUMBER(archive, span->ended_at_ns);
	NUMBER(archive, span->chunk);
	NUMBER(archive, span->name_at);
	NUMBER(archive, span->name_size);
	NUMBER(archive, span->last_event_ns);
	NUMBER(archive, span->details);
	NUMBER(archive, span->dropped_attributes);
	NUMBER(archive, span->dropped_events);
	NUMBER(archive, span->dropped_links);
	NUMBER(archive, span->scope_id);
	NUMBER(archive, span->kind);
	NUMBER(archive, span->flags);
	NUMBER(archive, span->started_at_ns);
	NUMBER(archive, span->since_ns);
	NUMBER(archive, span->end);
	NUMBER(archive, span->renamed);
	NUMBER(archive, span->events_disordered);
	byte_string(archive, &span->fields, 0);
}

/* Where an open span began, for what its thread did. */
static void place_record(struct archive *archive, struct cpu_moment *start, bool *shared)
{
	NUMBER(archive, start->origin.vtid);
	if (!start->origin.vtid)
		return;
	NUMBER(archive, start->origin.vpid);
	NUMBER(archive, start->origin.pid_ns);
	NUMBER(archive, start->ns);
	NUMBER(archive, *shared);
}

static void restore_place(struct archive *archive, struct spans *spans, struct span *span)
{
	struct cpu_moment start = {0};
	bool shared = false;

	place_record(archive, &start, &shared);
	if (!start.origin.vtid || failed(archive))
		return;
	if (span->list != &spans->open || !cpu_is_place(&start))
		archive->invalid = true;
	else if (cpu_put_back(&spans->cpu, span, &start, shared) < 0)
		archive->no_memory = true;
}

static void save_list(struct archive *archive, const struct span_list *list)
{
	number(archive, list->count);
	for (struct span *span = list->first; span; span = span->next) {
		struct cpu_moment start = cpu_place(span);

		number(archive, span->span_id);
		if (span->process)
			number(archive, span->process->instance_id);
		span_record(archive, span);
		place_record(archive, &start, &span->cpu.shared);
	}
}

/* Does the span stand in the right list? */
static bool belongs(const struct spans *spans, const struct span *span)
{
	if (span->chunk > spans->chunk)
		return false;
	if (span->list == &spans->orphans)
		return span->end == SPAN_OPEN || span->end == SPAN_ENDED;
	return span->end == (span->list == &spans->held ? SPAN_ENDED : SPAN_OPEN);
}

static void restore_span(struct archive *archive, struct spans *spans, struct span_list *list)
{
	uint64_t id = read_number(archive);
	struct process *process = NULL;
	struct span *span;
	size_t capacity;

	if (list != &spans->orphans) {
		process = table_get(&spans->output->processes.table, read_number(archive));
		archive->invalid |= !process;
	}
	archive->invalid |= !id || pool_get(&spans->pool, id);
	if (failed(archive))
		return;
	span = pool_add(&spans->pool, id, list);
	if (!span) {
		archive->no_memory = true;
		return;
	}
	span->process = process;
	if (process)
		process->open_spans++;
	capacity = span->fields.capacity;
	span_record(archive, span);
	pool_count_growth(&spans->pool, span, capacity);
	restore_place(archive, spans, span);
	archive->invalid |= !encode_wrote(span) || !belongs(spans, span);
}

static void restore_list(struct archive *archive, struct spans *spans, struct span_list *list)
{
	for (uint64_t count = read_number(archive); count && !failed(archive); count--)
		restore_span(archive, spans, list);
}

static void scope_record(struct archive *archive, struct scope *scope)
{
	NUMBER(archive, scope->known);
	NUMBER(archive, scope->given_up);
	NUMBER(archive, scope->count);
	byte_string(archive, &scope->fields, 0);
	byte_string(archive, &scope->spans, scope->taken);
}

static void process_record(struct archive *archive, struct process *process)
{
	NUMBER(archive, process->known);
	NUMBER(archive, process->given_up);
	NUMBER(archive, process->gone);
	NUMBER(archive, process->identified);
	NUMBER(archive, process->origin.vpid);
	NUMBER(archive, process->origin.vtid);
	NUMBER(archive, process->origin.pid_ns);
	NUMBER(archive, process->origin.cgroup_ns);
	NUMBER(archive, process->claim);
	NUMBER(archive, process->buffers);
	NUMBER(archive, process->last_seen_ns);
	NUMBER(archive, process->idle_since_ns);
	NUMBER(archive, process->waiting_since_ns);
	byte_string(archive, &process->resource, 0);
}

static void save_processes(struct archive *archive, const struct processes *processes)
{
	const struct table *table = &processes->table;

	number(archive, table->count);
	for (size_t i = 0; i <= table->mask; i++) {
		struct process *process = table->entries[i].value;

		if (!process)
			continue;
		number(archive, process->instance_id);
		process_record(archive, process);
		number(archive, process->scope_count);
		for (size_t j = 0; j < process->scope_count; j++)
			scope_record(archive, process->scopes + j);
	}
}

static void restore_process(struct archive *archive, struct output *output)
{
	uint64_t id = read_number(archive);
	struct process *process;
	uint64_t scopes;

	archive->invalid |= table_get(&output->processes.table, id) != NULL;
	if (failed(archive))
		return;
	process = process_add(&output->processes, id);
	if (!process) {
		archive->no_memory = true;
		return;
	}
	process_record(archive, process);
	scopes = read_number(archive);
	archive->invalid |= scopes > PROCESS_SCOPES_MAX;
	if (failed(archive))
		return;
	archive->no_memory |= process_add_scopes(&output->processes, process, scopes) < 0;
	for (size_t i = 0; i < scopes && !failed(archive); i++)
		scope_record(archive, process->scopes + i);
	if (!failed(archive))
		archive->invalid |= output_restored(output, process) < 0;
}

static void restore_processes(struct archive *archive, struct output *output)
{
	for (uint64_t count = read_number(archive); count && !failed(archive); count--)
		restore_process(archive, output);
}

static void loss_record(struct archive *archive, struct buffer_loss *buffer)
{
	NUMBER(archive, buffer->chunk);
	NUMBER(archive, buffer->end_ns);
	NUMBER(archive, buffer->packets.value);
	NUMBER(archive, buffer->packets.known);
	NUMBER(archive, buffer->discarded.value);
	NUMBER(archive, buffer->discarded.known);
}

static void save_losses(struct archive *archive, const struct loss *loss)
{
	const struct table *table = &loss->buffers;

	number(archive, loss->chunk);
	number(archive, table->count);
	for (size_t i = 0; i <= table->mask; i++) {
		struct buffer_loss *buffer = table->entries[i].value;

		if (!buffer)
			continue;
		number(archive, buffer->key);
		loss_record(archive, buffer);
	}
}

static void restore_losses(struct archive *archive, struct loss *loss)
{
	loss->chunk = read_number(archive);
	for (uint64_t count = read_number(archive); count && !failed(archive); count--) {
		struct buffer_loss *buffer = loss_get(loss, read_number(archive));

		if (buffer)
			loss_record(archive, buffer);
		else
			archive->no_memory = true;
	}
}

static void gap_record(struct archive *archive, struct gap *gap)
{
	NUMBER(archive, gap->buffers);
	NUMBER(archive, gap->begin_ns);
	NUMBER(archive, gap->end_ns);
	NUMBER(archive, gap->events);
}

static void save_gaps(struct archive *archive, struct gaps *gaps)
{
	number(archive, gaps->count);
	NUMBER(archive, gaps->end_ns);
	for (size_t i = 0; i < GAPS_MAX && i < gaps->count; i++)
		gap_record(archive, gaps->gaps + i);
	number(archive, gaps->buffers_count);
	for (size_t i = 0; i < gaps->buffers_count; i++) {
		struct lossy_buffers *buffers = gaps->buffers + i;
		struct bytes name = {(uint8_t *)buffers->name, strlen(buffers->name), 0};

		byte_string(archive, &name, 0);
		number(archive, buffers->lost_events);
		number(archive, buffers->gaps);
		number(archive, buffers->until_ns);
	}
}

static void restore_buffers(struct archive *archive, struct gaps *gaps)
{
	struct lossy_buffers *buffers = NULL;
	struct bytes name = {0};
	uint8_t *end;

	byte_string(archive, &name, 0);
	end = bytes_extend(&name, 1);
	if (end) {
		*end = 0;
		buffers = gaps_count(gaps, (const char *)name.data);
	}
	if (buffers) {
		buffers->lost_events += read_number(archive);
		buffers->gaps += read_number(archive);
		buffers->until_ns = read_number(archive);
		archive->invalid |= buffers->until_ns < 0;
	} else {
		archive->no_memory = true;
	}
	bytes_free(&name);
}

static void restore_gaps(struct archive *archive, struct gaps *gaps)
{
	gaps->count = read_number(archive);
	NUMBER(archive, gaps->end_ns);
	for (size_t i = 0; i < GAPS_MAX && i < gaps->count; i++)
		gap_record(archive, gaps->gaps + i);
	for (uint64_t count = read_number(archive); count && !failed(archive); count--)
		restore_buffers(archive, gaps);
}

/* The counters. Where another build has others, the state is another version's. */
static void stats_record(struct archive *archive, struct relay_stats *stats)
{
	uint64_t values[sizeof(*stats) / sizeof(uint64_t)];
	size_t count = sizeof(values) / sizeof(*values);

	memcpy(values, stats, sizeof(values));
	if (number(archive, count) != count)
		archive->invalid = true;
	for (size_t i = 0; i < count; i++)
		NUMBER(archive, values[i]);
	memcpy(stats, values, sizeof(values));
}

static void relay_record(struct archive *archive, struct relay *relay)
{
	byte_string(archive, &relay->chunks, 0);
	stats_record(archive, &relay->stats);
	NUMBER(archive, relay->clock.now_ns);
	NUMBER(archive, relay->clock.previous_ns);
	NUMBER(archive, relay->spans.chunk);
	NUMBER(archive, relay->spans.processes_gone);
}

/* Times of CLOCK_MONOTONIC and numbers of threads mean nothing in another one. */
static void boot_record(struct archive *archive, uint64_t *boot_id)
{
	NUMBER(archive, boot_id[0]);
	NUMBER(archive, boot_id[1]);
}

static void write_header(struct bytes *state)
{
	const uint8_t *body = state->data + HEADER_SIZE;
	size_t size = state->size - HEADER_SIZE;
	const uint64_t header[HEADER_NUMBERS] = {
		htole64(MAGIC),
		htole64(VERSION),
		htole64(size),
		htole64(checksum(body, size)),
	};

	memcpy(state->data, header, sizeof(header));
}

int relay_save(struct relay *relay, const uint8_t *chunks, uint64_t size, struct relay_bytes *state)
{
	struct archive archive = {.to = &relay->state};

	if (relay->in_chunk || relay->output.first || relay->output.ready_bytes)
		return relay_fail(relay,
				  "a chunk has to be read to its end before the state is saved");
	relay->chunks.size = 0;
	relay->state.size = 0;
	if ((size && !bytes_extend(&relay->chunks, size)) ||
	    !bytes_extend(&relay->state, HEADER_SIZE))
		return relay_fail(relay, "out of memory");
	put_bytes(relay->chunks.data, chunks, size);
	relay_record(&archive, relay);
	save_losses(&archive, &relay->ctf.loss);
	save_gaps(&archive, &relay->spans.gaps);
	save_processes(&archive, &relay->output.processes);
	boot_record(&archive, relay->spans.cpu.boot_id);
	save_list(&archive, &relay->spans.open);
	save_list(&archive, &relay->spans.reported);
	save_list(&archive, &relay->spans.held);
	save_list(&archive, &relay->spans.orphans);
	if (failed(&archive))
		return relay_fail(relay, "out of memory");
	write_header(&relay->state);
	*state = (struct relay_bytes){relay->state.data, relay->state.size};
	return 0;
}

/* Why it is none of ours, or NULL. */
static const char *check_header(const uint8_t *bytes, uint64_t size)
{
	uint64_t header[HEADER_NUMBERS];

	if (size < HEADER_SIZE)
		return "the saved state is truncated";
	memcpy(header, bytes, sizeof(header));
	if (le64toh(header[0]) != MAGIC)
		return "this is no saved state of a relay";
	if (le64toh(header[1]) != VERSION)
		return "the saved state is of another version of the relay";
	if (le64toh(header[2]) != size - HEADER_SIZE)
		return "the saved state is truncated";
	if (le64toh(header[3]) != checksum(bytes + HEADER_SIZE, size - HEADER_SIZE))
		return "the saved state is damaged: its checksum is wrong";
	return NULL;
}

static int refuse(struct relay *relay, const char *why)
{
	relay_free_parts(relay);
	loss_free(&relay->ctf.loss);
	if (relay_init_parts(relay) < 0 || loss_init(&relay->ctf.loss) < 0)
		why = "out of memory";
	return relay_fail(relay, why);
}

int relay_restore(struct relay *relay, const uint8_t *bytes, uint64_t size)
{
	struct archive archive = {.at = bytes + HEADER_SIZE, .end = bytes + size};
	const char *why = check_header(bytes, size);
	uint64_t boot_id[2] = {0};

	if (relay->in_chunk || relay->spans.chunk || relay->output.processes.table.count)
		return relay_fail(relay, "a state can be restored only before the first chunk");
	if (why)
		return relay_fail(relay, why);
	relay_record(&archive, relay);
	relay->stats.waiting_spans = 0;
	restore_losses(&archive, &relay->ctf.loss);
	restore_gaps(&archive, &relay->spans.gaps);
	restore_processes(&archive, &relay->output);
	boot_record(&archive, boot_id);
	restore_list(&archive, &relay->spans, &relay->spans.open);
	restore_list(&archive, &relay->spans, &relay->spans.reported);
	restore_list(&archive, &relay->spans, &relay->spans.held);
	restore_list(&archive, &relay->spans, &relay->spans.orphans);
	if (archive.no_memory)
		return refuse(relay, "out of memory");
	if (archive.invalid || archive.at != archive.end)
		return refuse(relay, "the saved state is damaged: it contradicts itself");
	if (memcmp(boot_id, relay->spans.cpu.boot_id, sizeof(boot_id)) != 0)
		cpu_forget(&relay->spans);
	return 0;
}

void relay_get_chunks(const struct relay *relay, struct relay_bytes *chunks)
{
	*chunks = (struct relay_bytes){relay->chunks.data, relay->chunks.size};
}
