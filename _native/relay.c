// SPDX-License-Identifier: Apache-2.0
/* The relay's parts, put together: events (ctf) -> spans -> requests (output). */
#include "relay.h"

#include <stdlib.h>

#include "relay_parts.h"
#include "relay_release.h"
#include "relay_validate.h"

#define DEFAULT_REQUEST_BYTES (1024 * 1024)
#define DEFAULT_MEMORY_BYTES (256 * 1024 * 1024)
#define DEFAULT_WAIT_NS (15 * INT64_C(1000000000))
#define DEFAULT_MAX_AGE_NS (3600 * INT64_C(1000000000))

static void set_defaults(struct relay_options *options)
{
	if (!options->request_bytes)
		options->request_bytes = DEFAULT_REQUEST_BYTES;
	if (!options->memory_bytes)
		options->memory_bytes = DEFAULT_MEMORY_BYTES;
	if (!options->wait_ns)
		options->wait_ns = DEFAULT_WAIT_NS;
	if (!options->max_age_ns)
		options->max_age_ns = DEFAULT_MAX_AGE_NS;
}

int relay_init_parts(struct relay *relay)
{
	relay->stats = (struct relay_stats){0};
	relay->clock = (struct relay_clock){0};
	if (output_init(&relay->output, &relay->clock, &relay->options, &relay->stats) < 0 ||
	    spans_init(&relay->spans, &relay->output, &relay->clock, &relay->options,
		       &relay->stats) < 0)
		return -1;
	return 0;
}

void relay_free_parts(struct relay *relay)
{
	spans_free(&relay->spans);
	output_free(&relay->output);
	bytes_free(&relay->chunks);
}

struct relay *relay_new(const struct relay_options *options)
{
	struct relay *relay = calloc(1, sizeof(*relay));

	if (!relay)
		return NULL;
	relay->error = "";
	relay->options = *options;
	set_defaults(&relay->options);
	if (relay_init_parts(relay) == 0 &&
	    ctf_init(&relay->ctf, &relay->spans, &relay->output, &relay->stats) == 0)
		return relay;
	relay_free(relay);
	return NULL;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	ctf_free(&relay->ctf);
	relay_free_parts(relay);
	bytes_free(&relay->state);
	free(relay);
}

int relay_fail(struct relay *relay, const char *error)
{
	relay->error = error;
	return -1;
}

static int out_of_memory(struct relay *relay)
{
	return relay_fail(relay, "out of memory");
}

/* Whether a folder was read to its end or not: what came from it is complete. */
static int end_folder(struct relay *relay)
{
	ctf_close(&relay->ctf);
	clock_see(&relay->clock, relay->spans.first_ns, relay->spans.last_ns);
	return spans_end_folder(&relay->spans);
}

int relay_open(struct relay *relay, const char *folder, const char *buffers)
{
	if (end_folder(relay) < 0 || spans_begin_folder(&relay->spans, buffers) < 0)
		return out_of_memory(relay);
	relay->in_chunk = true;
	return ctf_open(&relay->ctf, folder) < 0 ? relay_fail(relay, relay->ctf.error) : 0;
}

int relay_next(struct relay *relay, struct relay_request *request)
{
	while (!output_take(&relay->output, request)) {
		int more;

		if (relay->output.processes.new)
			return 2;
		if (!relay->ctf.folder)
			return 0;
		more = ctf_step(&relay->ctf);
		if (more < 1 && end_folder(relay) < 0)
			return out_of_memory(relay);
		if (more < 0)
			return relay_fail(relay, relay->ctf.error);
	}
	return 1;
}

static void describe(const struct process *process, struct relay_process *to)
{
	*to = (struct relay_process){
		.instance_id = process->instance_id,
		.pid_ns = process->origin.pid_ns,
		.cgroup_ns = process->origin.cgroup_ns,
		.vpid = process->origin.vpid,
		.buffers = process->buffers,
		.resource = process->resource.data,
		.resource_size = process->resource.size,
	};
}

int relay_new_process(const struct relay *relay, struct relay_process *process)
{
	if (!relay->output.processes.new)
		return 0;
	describe(relay->output.processes.new, process);
	return 1;
}

int relay_identify(struct relay *relay, uint64_t instance_id, const uint8_t *resource,
		   uint64_t size)
{
	struct process *process = table_get(&relay->output.processes.table, instance_id);

	if (!process || !process->known)
		return 0;
	if (resource && fields_size(RELAY_RESOURCE, resource, size, false) < 0)
		return relay_fail(relay, "this is no resource");
	if (output_identify(&relay->output, process, resource, size) < 0)
		return out_of_memory(relay);
	return 1;
}

int relay_each_process(const struct relay *relay, uint64_t *cursor, struct relay_process *process)
{
	const struct table *table = &relay->output.processes.table;

	while (*cursor <= table->mask) {
		const struct process *found = table->entries[(*cursor)++].value;

		if (found && found->known) {
			describe(found, process);
			return 1;
		}
	}
	return 0;
}

int relay_lossy_buffers(const struct relay *relay, uint64_t number, struct relay_buffers *buffers)
{
	const struct gaps *gaps = &relay->spans.gaps;

	if (number >= gaps->buffers_count)
		return 0;
	*buffers = (struct relay_buffers){
		.key = gaps->buffers[number].key,
		.name = gaps->buffers[number].name,
		.lost_events = gaps->buffers[number].lost_events,
		.gaps = gaps->buffers[number].gaps,
	};
	return 1;
}

int relay_end_chunk(struct relay *relay, int64_t duration_ns)
{
	relay->in_chunk = false;
	if (end_folder(relay) < 0 || spans_end_chunk(&relay->spans) < 0)
		return out_of_memory(relay);
	clock_end_chunk(&relay->clock, duration_ns);
	if (release_abandoned(&relay->spans) < 0 ||
	    output_flush(&relay->output, relay->options.wait_ns) < 0)
		return out_of_memory(relay);
	loss_end_chunk(&relay->ctf.loss);
	processes_forget_idle(&relay->output.processes);
	return 0;
}

int relay_finish(struct relay *relay, int unfinished)
{
	relay->in_chunk = false;
	if (end_folder(relay) < 0 || spans_finish(&relay->spans, unfinished) < 0 ||
	    output_flush(&relay->output, unfinished ? 0 : relay->options.wait_ns) < 0)
		return out_of_memory(relay);
	return 0;
}

int relay_process_gone(struct relay *relay, uint64_t instance_id)
{
	struct process *process = table_get(&relay->output.processes.table, instance_id);

	if (process)
		spans_process_gone(&relay->spans, process);
	return process != NULL;
}

void relay_get_stats(const struct relay *relay, struct relay_stats *stats)
{
	*stats = relay->stats;
	stats->open_spans = relay->spans.open.count;
	stats->waiting_spans += relay->spans.held.count + relay->spans.finished.count;
	stats->orphans = relay->spans.orphans.count;
	stats->reported_spans = relay->spans.reported.count;
}

const char *relay_error(const struct relay *relay)
{
	return relay->error;
}
