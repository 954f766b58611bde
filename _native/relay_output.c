// SPDX-License-Identifier: Apache-2.0
#include "relay_output.h"

#include "otlp.h"

/* What spans needed while they waited is not kept for ever: more than so many requests' bytes. */
#define BURST 4

/* Resource fields: service.name=unknown_service, OpenTelemetry's word for it. */
static const uint8_t unknown_resource[] =
	"\x0a\x21\x0a\x0cservice.name\x12\x11\x0a\x0funknown_service";

int output_init(struct output *output, const struct relay_clock *clock,
		const struct relay_options *options, struct relay_stats *stats)
{
	*output = (struct output){.clock = clock, .options = options, .stats = stats};
	output->last = &output->first;
	if (processes_init(&output->processes, clock, options->memory_bytes / 4) < 0)
		return -1;
	output->processes.identify = options->identify;
	return 0;
}

static void free_request(struct request *request)
{
	if (request)
		bytes_free(&request->bytes);
	free(request);
}

void output_free(struct output *output)
{
	while (output->first) {
		struct request *request = output->first;

		output->first = request->next;
		free_request(request);
	}
	free_request(output->handed);
	bytes_free(&output->scratch);
	bytes_free(&output->spare);
	processes_free(&output->processes);
}

static bool has_resource(const struct process *process)
{
	return process->known && process->identified;
}

static bool ready(const struct process *process, const struct scope *scope)
{
	return (has_resource(process) || process->given_up) && (scope->known || scope->given_up);
}

/* Before and after a change of what a process's spans wait for. */
static void count_ready(struct output *output, const struct process *process, int sign)
{
	for (size_t i = 0; i < process->scope_count; i++) {
		const struct scope *scope = process->scopes + i;

		if (ready(process, scope))
			output->ready_bytes += sign * (int64_t)(scope->spans.size - scope->taken);
	}
}

int output_process(struct output *output, uint64_t instance_id, const struct relay_origin *origin,
		   const uint8_t *resource, size_t size, int64_t now_ns)
{
	struct process *process = process_get(&output->processes, instance_id, now_ns);
	int ret;

	if (!process)
		return -1;
	if (process_contradicts(process, origin)) {
		output->stats->contradicting_processes++;
		return 0;
	}
	count_ready(output, process, -1);
	ret = process_announce(&output->processes, process, origin, resource, size);
	count_ready(output, process, 1);
	return ret;
}

int output_identify(struct output *output, struct process *process, const uint8_t *resource,
		    size_t size)
{
	int ret;

	count_ready(output, process, -1);
	ret = process_identify(&output->processes, process, resource, size);
	count_ready(output, process, 1);
	return ret;
}

int output_scope(struct output *output, uint64_t instance_id, uint16_t scope_id, const char *name,
		 const char *version, int64_t now_ns)
{
	struct process *process = process_get(&output->processes, instance_id, now_ns);
	int ret;

	if (!process)
		return -1;
	count_ready(output, process, -1);
	ret = process_announce_scope(&output->processes, process, scope_id, name, version);
	count_ready(output, process, 1);
	return ret;
}

/* The size of the field that stands at `at`: a span, whose tag is one byte. */
static size_t span_field_size(const uint8_t *at)
{
	uint64_t size;

	return take_length(at + 1, &size) + size - at;
}

/*
 * How many bytes of whole spans fit the room, and how many spans they are. At least one span, if
 * asked: a span larger than a request makes a request of its own.
 */
static size_t fitting_spans(const struct scope *scope, size_t room, bool at_least_one,
			    uint64_t *spans)
{
	const uint8_t *from = scope->spans.data + scope->taken;
	size_t left = scope->spans.size - scope->taken;
	size_t size = 0;

	*spans = scope->count;
	if (left <= room)
		return left;
	for (*spans = 0; size < left; (*spans)++) {
		size_t next = span_field_size(from + size);

		if (size + next > room && !(at_least_one && size == 0))
			break;
		size += next;
	}
	return size;
}

static void took_spans(struct output *output, const struct process *process, struct scope *scope,
		       size_t size, uint64_t spans)
{
	scope->taken += size;
	scope->count -= spans;
	output->ready_bytes -= size;
	output->pending_bytes -= size;
	output->stats->spans += spans;
	output->stats->waiting_spans -= spans;
	if (!has_resource(process))
		output->stats->unknown_resources += spans;
	if (!scope->known)
		output->stats->unknown_scopes += spans;
	if (scope->taken < scope->spans.size)
		return;
	scope->taken = 0;
	scope->spans.size = 0;
	if (scope->spans.capacity > BURST * output->options->request_bytes)
		bytes_free(&scope->spans);
}

/* Write ScopeSpans into the scratch bytes, as large as the room lets them be. */
static int64_t write_scope_spans(struct output *output, const struct process *process,
				 struct scope *scope, size_t room, bool at_least_one)
{
	size_t scope_size = length_field_size(scope->fields.size);
	size_t overhead = scope_size + 1 + LENGTH_MAX;
	uint64_t spans;
	size_t size =
		fitting_spans(scope, room > overhead ? room - overhead : 0, at_least_one, &spans);
	uint8_t *at;

	if (!spans)
		return 0;
	at = bytes_extend(&output->scratch, overhead + size);
	if (!at)
		return -1;
	at = put_length(at, OTLP_RESOURCE_SPANS_SCOPE_SPANS, scope_size + size);
	at = put_length_field(at, OTLP_SCOPE_SPANS_SCOPE, scope->fields.data, scope->fields.size);
	at = put_bytes(at, scope->spans.data + scope->taken, size);
	bytes_end_at(&output->scratch, at);
	took_spans(output, process, scope, size, spans);
	return spans;
}

/* Add one process's spans to a request, as far as they can go out and fit. */
static int write_resource_spans(struct output *output, struct request *request,
				struct process *process)
{
	const uint8_t *resource = has_resource(process) ? process->resource.data : unknown_resource;
	size_t resource_size =
		has_resource(process) ? process->resource.size : sizeof(unknown_resource) - 1;
	size_t overhead = 2 * (1 + LENGTH_MAX) + resource_size;
	size_t used = request->bytes.size + overhead;
	size_t limit = output->options->request_bytes;
	uint64_t before = request->spans;
	uint8_t *at;

	output->scratch.size = 0;
	for (size_t i = 0; i < process->scope_count; i++) {
		struct scope *scope = process->scopes + i;
		size_t filled = used + output->scratch.size;
		int64_t spans;

		if (!scope->count || !ready(process, scope))
			continue;
		spans = write_scope_spans(output, process, scope,
					  filled < limit ? limit - filled : 0, !request->spans);
		if (spans < 0)
			return -1;
		request->spans += spans;
	}
	if (request->spans == before)
		return 0;
	at = bytes_extend(&request->bytes, overhead + output->scratch.size);
	if (!at)
		return -1;
	at = put_length(at, OTLP_REQUEST_RESOURCE_SPANS,
			length_field_size(resource_size) + output->scratch.size);
	at = put_length_field(at, OTLP_RESOURCE_SPANS_RESOURCE, resource, resource_size);
	at = put_bytes(at, output->scratch.data, output->scratch.size);
	bytes_end_at(&request->bytes, at);
	return 0;
}

static bool has_spans(const struct process *process)
{
	for (size_t i = 0; i < process->scope_count; i++) {
		if (process->scopes[i].count)
			return true;
	}
	return false;
}

/* Make one request of what can go out. */
static int make_request(struct output *output)
{
	struct request *request = calloc(1, sizeof(*request));
	struct process **at = &output->pending;

	if (!request)
		return -1;
	request->bytes = output->spare;
	output->spare = (struct bytes){0};
	request->bytes.size = 0;
	while (*at) {
		struct process *process = *at;

		if (write_resource_spans(output, request, process) < 0) {
			free_request(request);
			return -1;
		}
		if (has_spans(process)) {
			at = &process->next_pending;
		} else {
			*at = process->next_pending;
			process->pending = false;
		}
		if (request->bytes.size >= output->options->request_bytes)
			break;
	}
	*output->last = request;
	output->last = &request->next;
	return 0;
}

static void add_pending(struct output *output, struct process *process)
{
	process->pending = true;
	process->next_pending = output->pending;
	output->pending = process;
}

int output_add(struct output *output, struct process *process, uint16_t scope_id,
	       const struct bytes *span)
{
	struct scope *scope = process_scope(&output->processes, process, scope_id);
	size_t size = length_field_size(span->size);
	uint8_t *at = scope ? bytes_extend(&scope->spans, size) : NULL;

	if (!at)
		return -1;
	put_length_field(at, OTLP_SCOPE_SPANS_SPANS, span->data, span->size);
	scope->count++;
	output->stats->waiting_spans++;
	output->pending_bytes += size;
	if (!process->pending) {
		process->waiting_since_ns = output->clock->now_ns;
		add_pending(output, process);
	}
	if (ready(process, scope))
		output->ready_bytes += size;
	if (output->pending_bytes - output->ready_bytes > output->options->memory_bytes / 4)
		return output_flush(output, 0);
	return output->ready_bytes >= output->options->request_bytes ? make_request(output) : 0;
}

/* How many fields of spans these bytes are; UINT64_MAX if they are something else. */
static uint64_t count_spans(const struct bytes *spans)
{
	const uint8_t *end = spans->data + spans->size;
	uint64_t count = 0, size;

	for (const uint8_t *at = spans->data; at < end; at += size) {
		at = *at == OTLP_SCOPE_SPANS_SPANS ? take_length_within(at + 1, end, &size) : NULL;
		if (!at)
			return UINT64_MAX;
		count++;
	}
	return count;
}

int output_restored(struct output *output, struct process *process)
{
	for (size_t i = 0; i < process->scope_count; i++) {
		struct scope *scope = process->scopes + i;

		if (count_spans(&scope->spans) != scope->count)
			return -1;
		output->pending_bytes += scope->spans.size;
		output->stats->waiting_spans += scope->count;
	}
	process->identified |= !output->processes.identify;
	if (process->known && !process->identified)
		process_ask(&output->processes, process);
	count_ready(output, process, 1);
	if (has_spans(process))
		add_pending(output, process);
	return 0;
}

static void give_up_waiting(struct output *output, struct process *process)
{
	count_ready(output, process, -1);
	process->given_up = true;
	for (size_t i = 0; i < process->scope_count; i++)
		process->scopes[i].given_up = true;
	count_ready(output, process, 1);
}

int output_flush(struct output *output, int64_t wait_ns)
{
	for (struct process *p = output->pending; p; p = p->next_pending) {
		if (output->clock->now_ns - p->waiting_since_ns >= wait_ns)
			give_up_waiting(output, p);
	}
	while (output->ready_bytes) {
		if (make_request(output) < 0)
			return -1;
	}
	return 0;
}

int output_take(struct output *output, struct relay_request *request)
{
	if (output->handed && !output->spare.data) {
		output->spare = output->handed->bytes;
		output->handed->bytes = (struct bytes){0};
	}
	free_request(output->handed);
	output->handed = output->first;
	if (!output->handed)
		return 0;
	output->first = output->handed->next;
	if (!output->first)
		output->last = &output->first;
	request->bytes = output->handed->bytes.data;
	request->size = output->handed->bytes.size;
	request->spans = output->handed->spans;
	return 1;
}
