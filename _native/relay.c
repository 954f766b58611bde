// SPDX-License-Identifier: Apache-2.0
/* The relay's parts, put together: events (ctf) -> spans -> requests (output). */
#include "relay.h"

#include <stdlib.h>

#include "relay_ctf.h"

#define DEFAULT_REQUEST_BYTES (1024 * 1024)
#define DEFAULT_MEMORY_BYTES (256 * 1024 * 1024)
#define DEFAULT_WAIT_NS (15 * INT64_C(1000000000))

struct relay {
	struct relay_options options;
	struct relay_stats stats;
	struct output output;
	struct spans spans;
	struct ctf ctf;
	uint64_t waiting_chunks; /* since when spans have been waiting for their process */
	int64_t latest_ns;	 /* the latest time seen in any folder */
	const char *error;
};

static void set_defaults(struct relay_options *options)
{
	if (!options->request_bytes)
		options->request_bytes = DEFAULT_REQUEST_BYTES;
	if (!options->memory_bytes)
		options->memory_bytes = DEFAULT_MEMORY_BYTES;
	if (!options->wait_ns)
		options->wait_ns = DEFAULT_WAIT_NS;
}

struct relay *relay_new(const struct relay_options *options)
{
	struct relay *relay = calloc(1, sizeof(*relay));
	int failed;

	if (!relay)
		return NULL;
	relay->error = "";
	relay->options = *options;
	set_defaults(&relay->options);
	failed = output_init(&relay->output, &relay->options, &relay->stats);
	failed |= spans_init(&relay->spans, &relay->output, &relay->options, &relay->stats);
	failed |= ctf_init(&relay->ctf, &relay->spans, &relay->output, &relay->stats);
	if (!failed)
		return relay;
	relay_free(relay);
	return NULL;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	ctf_free(&relay->ctf);
	spans_free(&relay->spans);
	output_free(&relay->output);
	free(relay);
}

static int fail(struct relay *relay, const char *error)
{
	relay->error = error;
	return -1;
}

static int out_of_memory(struct relay *relay)
{
	return fail(relay, "out of memory");
}

/* Whether a folder was read to its end or not: what came from it is complete. */
static int end_folder(struct relay *relay)
{
	ctf_close(&relay->ctf);
	if (relay->latest_ns < relay->spans.last_ns)
		relay->latest_ns = relay->spans.last_ns;
	return spans_end_folder(&relay->spans);
}

int relay_open(struct relay *relay, const char *folder)
{
	if (end_folder(relay) < 0)
		return out_of_memory(relay);
	return ctf_open(&relay->ctf, folder) < 0 ? fail(relay, relay->ctf.error) : 0;
}

int relay_next(struct relay *relay, struct relay_request *request)
{
	while (!output_take(&relay->output, request)) {
		int more;

		if (!relay->ctf.graph)
			return 0;
		more = ctf_step(&relay->ctf);
		if (more < 1 && end_folder(relay) < 0)
			return out_of_memory(relay);
		if (more < 0)
			return fail(relay, relay->ctf.error);
	}
	return 1;
}

int relay_end_chunk(struct relay *relay)
{
	if (end_folder(relay) < 0 || spans_end_chunk(&relay->spans) < 0 ||
	    output_flush(&relay->output, relay->latest_ns - relay->options.wait_ns) < 0)
		return out_of_memory(relay);
	/* What begins to wait now may have been held back, out of the chunk before. */
	if (!relay->output.pending)
		relay->waiting_chunks = 0;
	else
		relay->waiting_chunks += relay->waiting_chunks ? 1 : 2;
	processes_forget_idle(&relay->output.processes, relay->latest_ns);
	return 0;
}

int relay_finish(struct relay *relay)
{
	if (end_folder(relay) < 0 || spans_finish(&relay->spans) < 0 ||
	    output_flush(&relay->output, INT64_MAX) < 0)
		return out_of_memory(relay);
	return 0;
}

static uint64_t held_chunks(const struct relay *relay)
{
	const struct span *orphan = relay->spans.orphans.first;
	uint64_t chunks = relay->waiting_chunks;

	for (const struct span *span = relay->spans.held.first; span; span = span->next)
		if (chunks < relay->spans.chunk - span->first_chunk)
			chunks = relay->spans.chunk - span->first_chunk;
	if (orphan && chunks < relay->spans.chunk - orphan->chunk)
		chunks = relay->spans.chunk - orphan->chunk;
	return chunks < relay->spans.chunk ? chunks : relay->spans.chunk;
}

void relay_get_stats(const struct relay *relay, struct relay_stats *stats)
{
	*stats = relay->stats;
	stats->open_spans = relay->spans.open.count;
	stats->waiting_spans += relay->spans.held.count + relay->spans.finished.count;
	stats->orphans = relay->spans.orphans.count;
	stats->held_chunks = held_chunks(relay);
}

const char *relay_error(const struct relay *relay)
{
	return relay->error;
}
