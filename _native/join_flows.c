// SPDX-License-Identifier: Apache-2.0
#include "join_flows.h"

#include <sys/random.h>

/* Two clocks tell the times: the kernel's, and LTTng's, which is set by it once. */
#define SLACK_NS 1000000

int flows_init(struct flows *flows, uint64_t max)
{
	*flows = (struct flows){.max = max};
	if (getrandom(&flows->hash_key, sizeof(flows->hash_key), GRND_NONBLOCK) < 0)
		flows->hash_key = 0x9e3779b97f4a7c15;
	if (table_init(&flows->by_client) < 0 || table_init(&flows->by_source) < 0 ||
	    table_init(&flows->by_serial) < 0 || table_init(&flows->services) < 0 ||
	    table_init(&flows->endpoints) < 0)
		return -1;
	return 0;
}

static void free_names(struct table *table)
{
	for (size_t i = 0; table->entries && i <= table->mask; i++) {
		struct named *next;

		for (struct named *named = table->entries[i].value; named; named = next) {
			next = named->next;
			bytes_free(&named->resource);
			bytes_free(&named->fields);
			bytes_free(&named->attributes);
			free(named);
		}
	}
	table_free(table);
}

static void free_list(struct flow_list *list)
{
	while (list->first) {
		struct known_flow *known = list->first;

		list->first = known->newer;
		free(known);
	}
}

void flows_free(struct flows *flows)
{
	free_list(&flows->open);
	free_list(&flows->closed);
	table_free(&flows->by_client);
	table_free(&flows->by_source);
	table_free(&flows->by_serial);
	free_names(&flows->services);
	free_names(&flows->endpoints);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 32;
}

uint64_t flows_hash(const struct flows *flows, const uint8_t *address, uint16_t port)
{
	uint64_t high, low;

	memcpy(&high, address, sizeof(high));
	memcpy(&low, address + sizeof(high), sizeof(low));
	return mix(mix(mix(flows->hash_key, high), low), port);
}

static void unlink_flow(struct flow_list *list, struct known_flow *known)
{
	if (known->older)
		known->older->newer = known->newer;
	else
		list->first = known->newer;
	if (known->newer)
		known->newer->older = known->older;
	else
		list->last = known->older;
	list->count--;
}

static void append(struct flow_list *list, struct known_flow *known)
{
	known->older = list->last;
	known->newer = NULL;
	if (list->last)
		list->last->newer = known;
	else
		list->first = known;
	list->last = known;
	list->count++;
}

/* Put a flow at the head of its chain, or take it out: the table has the head. */
static int chain(struct table *table, uint64_t hash, struct known_flow *known,
		 struct known_flow **next)
{
	*next = table_get(table, hash);
	if (*next)
		table_remove(table, hash);
	return table_add(table, hash, known);
}

static void unchain(struct table *table, uint64_t hash, struct known_flow *known, size_t next_at)
{
	struct known_flow *at = table_get(table, hash);
	struct known_flow **next = (struct known_flow **)((uint8_t *)known + next_at);

	if (at == known) {
		table_remove(table, hash);
		if (*next)
			table_add(table, hash, *next); /* into the room that it just had */
		return;
	}
	for (; at; at = *(struct known_flow **)((uint8_t *)at + next_at)) {
		struct known_flow **link = (struct known_flow **)((uint8_t *)at + next_at);

		if (*link == known) {
			*link = *next;
			return;
		}
	}
}

static void forget(struct flows *flows, struct flow_list *list, struct known_flow *known)
{
	const struct flow *flow = &known->flow;

	flows->unverified += known->used && !known->joined;
	unchain(&flows->by_client, flows_hash(flows, flow->client, flow->client_port), known,
		offsetof(struct known_flow, next_client));
	unchain(&flows->by_source, flows_hash(flows, flow->source, flow->source_port), known,
		offsetof(struct known_flow, next_source));
	table_remove(&flows->by_serial, known->serial);
	unlink_flow(list, known);
	free(known);
}

void flows_forget(struct flows *flows, int64_t before_ns)
{
	while (flows->closed.first && flows->closed.first->flow.closed_ns < before_ns)
		forget(flows, &flows->closed, flows->closed.first);
}

static struct known_flow *find_same(const struct flows *flows, const struct flow *flow)
{
	struct known_flow *known =
		table_get(&flows->by_client, flows_hash(flows, flow->client, flow->client_port));

	for (; known; known = known->next_client) {
		if (known->flow.id == flow->id && known->flow.new_ns == flow->new_ns)
			return known;
	}
	return NULL;
}

int flows_add(struct flows *flows, const struct flow *flow, uint64_t span_id,
	      struct known_flow **known, bool *added)
{
	struct known_flow *new;

	*added = false;
	*known = find_same(flows, flow);
	if (*known) {
		if (!(*known)->flow.closed_ns && flow->closed_ns) {
			unlink_flow(&flows->open, *known);
			append(&flows->closed, *known);
		}
		(*known)->flow = *flow;
		return 0;
	}
	while (flows->open.count + flows->closed.count >= flows->max) {
		struct flow_list *list = flows->closed.first ? &flows->closed : &flows->open;

		flows->evicted++;
		forget(flows, list, list->first);
	}
	new = calloc(1, sizeof(*new));
	if (!new)
		return -1;
	new->flow = *flow;
	new->span_id = span_id;
	new->serial = ++flows->last_serial;
	append(flow->closed_ns ? &flows->closed : &flows->open, new);
	*known = new;
	*added = true;
	if (table_add(&flows->by_serial, new->serial, new) < 0 ||
	    chain(&flows->by_client, flows_hash(flows, flow->client, flow->client_port), new,
		  &new->next_client) < 0 ||
	    chain(&flows->by_source, flows_hash(flows, flow->source, flow->source_port), new,
		  &new->next_source) < 0)
		return -1;
	return 0;
}

struct known_flow *flows_by_serial(const struct flows *flows, uint64_t serial)
{
	return table_get(&flows->by_serial, serial);
}

static int set_bytes(struct bytes *bytes, const uint8_t *data, size_t size)
{
	bytes->size = 0;
	return bytes_append(bytes, data, size);
}

static struct named *find_named(const struct flows *flows, const struct table *table,
				const uint8_t *address, uint16_t port)
{
	struct named *named = table_get(table, flows_hash(flows, address, port));

	while (named && (named->place.port != port || memcmp(named->place.address, address, 16)))
		named = named->next;
	return named;
}

const struct named *flows_named(const struct flows *flows, const struct table *table,
				const uint8_t *address, uint16_t port)
{
	return find_named(flows, table, address, port);
}

int flows_name(struct flows *flows, struct table *table, const struct place *place,
	       const uint8_t *resource, size_t resource_size, const uint8_t *fields,
	       size_t fields_size, const uint8_t *attributes, size_t attributes_size)
{
	struct named *named = find_named(flows, table, place->address, place->port);
	uint64_t hash = flows_hash(flows, place->address, place->port);

	if (!named) {
		named = calloc(1, sizeof(*named));
		if (!named)
			return -1;
		named->place = *place;
		named->next = table_get(table, hash);
		if (named->next)
			table_remove(table, hash);
		if (table_add(table, hash, named) < 0)
			return -1;
	}
	if (set_bytes(&named->resource, resource, resource_size) < 0 ||
	    set_bytes(&named->fields, fields, fields_size) < 0 ||
	    set_bytes(&named->attributes, attributes, attributes_size) < 0)
		return -1;
	return 0;
}

/* Could the flow have carried a request of that time? */
static bool alive(const struct known_flow *known, int64_t start_ns, int64_t end_ns)
{
	const struct flow *flow = &known->flow;

	return flow->outcome != FLOW_REFUSED && flow->outcome != FLOW_UNANSWERED &&
	       flow->new_ns <= end_ns + SLACK_NS &&
	       (!flow->closed_ns || start_ns <= flow->closed_ns + SLACK_NS);
}

static bool is_at(const uint8_t *address, uint16_t port, const struct place *place)
{
	return port == place->port && !memcmp(address, place->address, 16);
}

struct known_flow *flows_of_client(const struct flows *flows, const struct place *local,
				   const struct place *peer, int64_t start_ns, int64_t end_ns,
				   bool *ambiguous)
{
	struct known_flow *known =
		table_get(&flows->by_client, flows_hash(flows, local->address, local->port));
	struct known_flow *found = NULL;

	for (; known; known = known->next_client) {
		const struct flow *flow = &known->flow;

		if (!is_at(flow->client, flow->client_port, local) ||
		    !alive(known, start_ns, end_ns) ||
		    (peer->port && !is_at(flow->virtual_ip, flow->virtual_port, peer)))
			continue;
		*ambiguous |= found != NULL;
		found = known;
	}
	return *ambiguous ? NULL : found;
}

struct known_flow *flows_of_server(const struct flows *flows, const struct place *peer,
				   const struct place *local, int64_t start_ns, int64_t end_ns,
				   bool *ambiguous)
{
	struct known_flow *known =
		table_get(&flows->by_source, flows_hash(flows, peer->address, peer->port));
	struct known_flow *found = NULL;

	for (; known; known = known->next_source) {
		const struct flow *flow = &known->flow;

		/* A server's own address may be a wildcard; its port is not. */
		if (!is_at(flow->source, flow->source_port, peer) ||
		    !alive(known, start_ns, end_ns) || start_ns + SLACK_NS < flow->new_ns ||
		    (local->port && local->port != flow->endpoint_port))
			continue;
		*ambiguous |= found != NULL;
		found = known;
	}
	return *ambiguous ? NULL : found;
}
