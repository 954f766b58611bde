// SPDX-License-Identifier: Apache-2.0
/*
 * Joins connections that were sent to a Service's endpoint with the spans of both ends.
 *
 * A CLIENT span is found by its own address, a SERVER span by its peer's. The request that opened a
 * connection is a CLIENT span during which it began: seen by its own address, or as the parent of a
 * SERVER span that was seen by its peer's. The Service gets a span below it. Other requests that
 * the connection carries get the Service's attributes and a link to that span. Where two
 * connections fit, or nobody shows that a request opened the connection, nothing is joined, and it
 * is counted.
 */
#include <sys/random.h>

#include "join_parts.h"
#include "otlp.h"

#define SLACK_NS 1000000

/* Spans of a connection come for as long as a receiver is down; what is older is not joined. */
#define REMEMBER_NS (300 * SECOND_NS)

#define RECENT 65536 /* CLIENT spans, and SERVER spans whose parent was not seen yet */

static int recents_init(struct recents *recents)
{
	recents->ring = calloc(RECENT, sizeof(*recents->ring));
	return recents->ring ? table_init(&recents->by_id) : -1;
}

static struct recent *recents_get(const struct recents *recents, uint64_t span_id)
{
	return table_get(&recents->by_id, span_id);
}

static void recents_remove(struct recents *recents, struct recent *recent)
{
	table_remove(&recents->by_id, recent->span_id);
	recent->span_id = 0;
}

/* Remember one more; the oldest gives way. */
static struct recent *recents_add(struct recents *recents, uint64_t span_id)
{
	struct recent *recent = recents_get(recents, span_id);

	if (recent)
		recents_remove(recents, recent);
	recent = recents->ring + recents->next;
	recents->next = (recents->next + 1) % RECENT;
	if (recent->span_id)
		recents_remove(recents, recent);
	*recent = (struct recent){.span_id = span_id};
	if (table_add(&recents->by_id, span_id, recent) < 0)
		return NULL;
	return recent;
}

struct join *join_new(uint64_t max_flows)
{
	struct join *join = calloc(1, sizeof(*join));

	if (!join)
		return NULL;
	if (flows_init(&join->flows, max_flows) == 0 && recents_init(&join->clients) == 0 &&
	    recents_init(&join->waiting) == 0 && table_init(&join->backends) == 0 &&
	    table_init(&join->virtuals) == 0 && asking_init(&join->asking) == 0 &&
	    getrandom(&join->random, sizeof(join->random), 0) == sizeof(join->random))
		return join;
	join_free(join);
	return NULL;
}

void join_free(struct join *join)
{
	if (!join)
		return;
	flows_free(&join->flows);
	backends_free(&join->backends);
	virtuals_free(&join->virtuals);
	free(join->asking.answers);
	free(join->clients.ring);
	free(join->waiting.ring);
	table_free(&join->clients.by_id);
	table_free(&join->waiting.by_id);
	bytes_free(&join->added);
	bytes_free(&join->additions);
	bytes_free(&join->made);
	bytes_free(&join->scope_spans);
	bytes_free(&join->resource_spans);
	bytes_free(&join->result);
	free(join);
}

/* splitmix64: ids need not be secret, only different. */
static uint64_t new_id(struct join *join)
{
	uint64_t id;

	do {
		id = join->random += 0x9e3779b97f4a7c15;
		id = (id ^ id >> 30) * 0xbf58476d1ce4e5b9;
		id = (id ^ id >> 27) * 0x94d049bb133111eb;
		id ^= id >> 31;
	} while (!id);
	return id;
}

int join_service(struct join *join, const uint8_t *virtual_ip, uint16_t virtual_port,
		 const uint8_t *resource, uint64_t resource_size, const uint8_t *fields,
		 uint64_t fields_size, const uint8_t *attributes, uint64_t attributes_size)
{
	struct place place = {.port = virtual_port};

	memcpy(place.address, virtual_ip, sizeof(place.address));
	return flows_name(&join->flows, &join->flows.services, &place, resource, resource_size,
			  fields, fields_size, attributes, attributes_size);
}

int join_endpoint(struct join *join, const uint8_t *endpoint, uint16_t endpoint_port,
		  const uint8_t *fields, uint64_t fields_size)
{
	struct place place = {.port = endpoint_port};

	memcpy(place.address, endpoint, sizeof(place.address));
	return flows_name(&join->flows, &join->flows.endpoints, &place, NULL, 0, fields,
			  fields_size, NULL, 0);
}

/* Nobody's request: the client's span has no address of its own when it did not get a connection.
 */
static int tell_failure(struct join *join, struct known_flow *known)
{
	known->trace_id_high = new_id(join);
	known->trace_id_low = new_id(join);
	join->stats.failed++;
	return join_make_span(join, known, 0);
}

int join_flows(struct join *join, const struct flow *flows, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		const struct flow *flow = flows + i;
		struct known_flow *known;
		bool added;

		if (flows_add(&join->flows, flow, new_id(join), &known, &added) < 0)
			return -1;
		join->stats.flows += added;
		if (added && (flow->outcome == FLOW_REFUSED || flow->outcome == FLOW_UNANSWERED) &&
		    tell_failure(join, known) < 0)
			return -1;
		if (join->latest_ns < flow->new_ns)
			join->latest_ns = flow->new_ns;
	}
	flows_forget(&join->flows, join->latest_ns - REMEMBER_NS);
	return 0;
}

/* Is that the request that opened the connection? Then its Service gets a span. */
static int consider(struct join *join, struct known_flow *known, const struct recent *client)
{
	if (known->joined || client->start_ns > known->flow.new_ns + SLACK_NS ||
	    client->end_ns + SLACK_NS < known->flow.new_ns)
		return 0;
	known->joined = true;
	known->opener_id = client->span_id;
	known->trace_id_high = client->trace_id_high;
	known->trace_id_low = client->trace_id_low;
	join->stats.joined++;
	return join_make_span(join, known, client->span_id);
}

int join_note(struct join *join, const uint8_t *content, size_t at)
{
	struct addition addition = {.span = content, .at = at, .size = join->added.size - at};

	if (!addition.size)
		return 0;
	return bytes_append(&join->additions, &addition, sizeof(addition));
}

/* Note what a span gets: the Service's attributes, and a link if another one opened the connection.
 */
static int add_to(struct join *join, const uint8_t *content, struct known_flow *known,
		  uint64_t client_id)
{
	const struct named *service = flows_named(&join->flows, &join->flows.services,
						  known->flow.virtual_ip, known->flow.virtual_port);
	bool reused = known->joined && known->opener_id != client_id;
	size_t begin = join->added.size;
	uint8_t *at;

	known->used = true;
	if (service &&
	    bytes_append(&join->added, service->attributes.data, service->attributes.size) < 0)
		return -1;
	if (reused) {
		at = bytes_extend(&join->added, 2 + 18 + 10);
		if (!at)
			return -1;
		at = put_length(at, OTLP_SPAN_LINKS, 18 + 10);
		at = put_length(at, OTLP_LINK_TRACE_ID, 16);
		at = put_id(put_id(at, known->trace_id_high), known->trace_id_low);
		put_id(put_length(at, OTLP_LINK_SPAN_ID, 8), known->span_id);
		join->stats.reused++;
	}
	return join_note(join, content, begin);
}

static bool same_trace(const struct recent *recent, const struct seen_span *span)
{
	return recent->trace_id_high == span->trace_id_high &&
	       recent->trace_id_low == span->trace_id_low;
}

static struct recent *remember(struct recents *recents, uint64_t span_id,
			       const struct seen_span *span)
{
	struct recent *recent = recents_add(recents, span_id);

	if (recent) {
		recent->trace_id_high = span->trace_id_high;
		recent->trace_id_low = span->trace_id_low;
	}
	return recent;
}

static int join_client(struct join *join, const struct seen_span *span,
		       const struct wire_field *field, const struct wire_field *resource_spans)
{
	struct recent *client = remember(&join->clients, span->span_id, span);
	struct recent *waiting = recents_get(&join->waiting, span->span_id);
	struct known_flow *known;
	bool ambiguous = false, seen = false;

	if (!client)
		return -1;
	client->start_ns = span->start_ns;
	client->end_ns = span->end_ns;
	if (waiting) {
		known = flows_by_serial(&join->flows, waiting->serial);
		if (!same_trace(waiting, span))
			known = NULL;
		recents_remove(&join->waiting, waiting);
		if (known && consider(join, known, client) < 0)
			return -1;
		seen = known;
	}
	if (span->local.port) {
		known = flows_of_client(&join->flows, &span->local, &span->peer, span->start_ns,
					span->end_ns, &ambiguous);
		join->stats.ambiguous += ambiguous;
		if (known)
			return consider(join, known, client) < 0
				       ? -1
				       : add_to(join, field->body, known, span->span_id);
	}
	if (seen || ambiguous || !span->peer.port)
		return 0;
	return join_unobserved(join, span, field, resource_spans);
}

static int join_server(struct join *join, const struct seen_span *span, const uint8_t *content)
{
	bool ambiguous = false;
	struct known_flow *known =
		span->peer.port ? flows_of_server(&join->flows, &span->peer, &span->local,
						  span->start_ns, span->end_ns, &ambiguous)
				: NULL;
	struct recent *client;

	join->stats.ambiguous += ambiguous;
	if (!known)
		return 0;
	if (!known->joined && span->parent_span_id) {
		client = recents_get(&join->clients, span->parent_span_id);
		if (client && !same_trace(client, span))
			return add_to(join, content, known, span->parent_span_id);
		if (client && consider(join, known, client) < 0)
			return -1;
		if (!client) {
			client = remember(&join->waiting, span->parent_span_id, span);
			if (!client)
				return -1;
			client->serial = known->serial;
		}
	}
	return add_to(join, content, known, span->parent_span_id);
}

static int look_at(struct join *join, const struct wire_field *field,
		   const struct wire_field *resource_spans)
{
	struct seen_span span;

	if (!seen_span_read(field->body, field->after, &span))
		return 0;
	if (!span.span_id || !(span.trace_id_high | span.trace_id_low))
		return 0;
	if (span.kind == OTLP_KIND_CLIENT)
		return join_client(join, &span, field, resource_spans);
	return span.kind == OTLP_KIND_SERVER ? join_server(join, &span, field->body) : 0;
}

/* Look at all spans: 1; 0 if these bytes are no request; -1 without memory. */
static int look_at_all(struct join *join, const uint8_t *at, const uint8_t *end)
{
	struct wire_field resource_spans, scope_spans, span;

	while (wire_take(&at, end, &resource_spans)) {
		const uint8_t *in = resource_spans.body;

		if (resource_spans.tag != OTLP_REQUEST_RESOURCE_SPANS)
			continue;
		while (wire_take(&in, resource_spans.after, &scope_spans)) {
			const uint8_t *inner = scope_spans.body;

			if (scope_spans.tag != OTLP_RESOURCE_SPANS_SCOPE_SPANS)
				continue;
			while (wire_take(&inner, scope_spans.after, &span)) {
				if (span.tag == OTLP_SCOPE_SPANS_SPANS &&
				    look_at(join, &span, &resource_spans) < 0)
					return -1;
			}
			if (inner != scope_spans.after)
				return 0;
		}
		if (in != resource_spans.after)
			return 0;
	}
	return at == end;
}

static void take_made(struct join *join, struct join_bytes *result)
{
	result->bytes = join->result.data;
	result->size = join->result.size;
	result->spans = join->made_spans;
	join->made.size = 0;
	join->made_spans = 0;
}

int join_request(struct join *join, const uint8_t *request, uint64_t size, int64_t now_ns,
		 struct join_bytes *result)
{
	int ret;

	*result = (struct join_bytes){.bytes = request, .size = size};
	if (!join->flows.last_serial && !join->backends.count)
		return 0;
	join->added.size = 0;
	join->additions.size = 0;
	join->asking.now_ns = now_ns;
	ret = look_at_all(join, request, request + size);
	if (ret < 1) {
		join->stats.malformed += ret == 0;
		return ret;
	}
	if (!join->additions.size && !join->made.size)
		return 0;
	join->result.size = 0;
	if (join->additions.size ? join_copy_request(join, request, request + size) < 0
				 : bytes_append(&join->result, request, size) < 0)
		return -1;
	if (bytes_append(&join->result, join->made.data, join->made.size) < 0)
		return -1;
	take_made(join, result);
	return 0;
}

int join_flush(struct join *join, struct join_bytes *result)
{
	join->result.size = 0;
	if (bytes_append(&join->result, join->made.data, join->made.size) < 0)
		return -1;
	take_made(join, result);
	return 0;
}

void join_get_stats(const struct join *join, struct join_stats *stats)
{
	*stats = join->stats;
	stats->evicted = join->flows.evicted;
	stats->unverified = join->flows.unverified;
	stats->open = join->flows.open.count + join->flows.closed.count;
}
