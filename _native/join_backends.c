// SPDX-License-Identifier: Apache-2.0
/* Which Services lead to an endpoint, and whether a request asked for one of them. */
#include <strings.h>

#include "join_parts.h"

/* What the join was told of a struct backend. */
struct known_backend {
	struct known_backend *next; /* with the same hash */
	struct place endpoint;
	uint64_t virtual_ip_count;
	size_t service_size, namespace_size, service_fields_size, endpoint_fields_size;
	uint16_t port;
	bool is_only_one;
	uint8_t content[]; /* virtual IPs, the Service's name, its namespace, Span fields of both */
};

static bool is_at(const struct known_backend *backend, const uint8_t *address, uint16_t port)
{
	return backend->endpoint.port == port && !memcmp(backend->endpoint.address, address, 16);
}

int join_backend(struct join *join, const uint8_t *endpoint, uint16_t endpoint_port,
		 const struct backend *backend)
{
	uint64_t hash = flows_hash(&join->flows, endpoint, endpoint_port);
	size_t service_size = strlen(backend->service);
	size_t namespace_size = strlen(backend->in_namespace);
	size_t ips_size = 16 * backend->virtual_ip_count;
	struct known_backend *known =
		malloc(sizeof(*known) + ips_size + service_size + namespace_size +
		       backend->service_fields_size + backend->endpoint_fields_size);
	uint8_t *at;

	if (!known)
		return -1;
	*known = (struct known_backend){
		.next = table_get(&join->backends, hash),
		.endpoint.port = endpoint_port,
		.virtual_ip_count = backend->virtual_ip_count,
		.service_size = service_size,
		.namespace_size = namespace_size,
		.service_fields_size = backend->service_fields_size,
		.endpoint_fields_size = backend->endpoint_fields_size,
		.port = backend->port,
		.is_only_one = backend->is_only_one,
	};
	memcpy(known->endpoint.address, endpoint, sizeof(known->endpoint.address));
	at = put_bytes(known->content, backend->virtual_ips, ips_size);
	at = put_bytes(at, backend->service, service_size);
	at = put_bytes(at, backend->in_namespace, namespace_size);
	at = put_bytes(at, backend->service_fields, backend->service_fields_size);
	put_bytes(at, backend->endpoint_fields, backend->endpoint_fields_size);
	if (known->next)
		table_remove(&join->backends, hash);
	if (table_add(&join->backends, hash, known) < 0) {
		free(known);
		return -1;
	}
	for (uint64_t i = 0; i < backend->virtual_ip_count; i++) {
		if (virtuals_add(join, backend->virtual_ips + 16 * i, backend) < 0)
			return -1;
	}
	return 0;
}

void join_forget_backends(struct join *join, const uint8_t *endpoint, uint16_t endpoint_port)
{
	uint64_t hash = flows_hash(&join->flows, endpoint, endpoint_port);
	struct known_backend *known = table_get(&join->backends, hash), *kept = NULL, *next;

	if (!known)
		return;
	table_remove(&join->backends, hash);
	for (; known; known = next) {
		next = known->next;
		if (is_at(known, endpoint, endpoint_port)) {
			for (uint64_t i = 0; i < known->virtual_ip_count; i++)
				virtuals_remove(join, known->content + 16 * i, known->port);
			free(known);
		} else {
			known->next = kept;
			kept = known;
		}
	}
	if (kept)
		table_add(&join->backends, hash, kept); /* into the room that it just had */
}

void backends_free(struct table *backends)
{
	for (size_t i = 0; backends->entries && i <= backends->mask; i++) {
		struct known_backend *next;

		for (struct known_backend *known = backends->entries[i].value; known;
		     known = next) {
			next = known->next;
			free(known);
		}
	}
	table_free(backends);
}

static const uint8_t *service_of(const struct known_backend *backend)
{
	return backend->content + 16 * backend->virtual_ip_count;
}

static const uint8_t *fields_of(const struct known_backend *backend)
{
	return service_of(backend) + backend->service_size + backend->namespace_size;
}

static bool has_address(const struct known_backend *backend, const uint8_t *address)
{
	for (uint64_t i = 0; i < backend->virtual_ip_count; i++) {
		if (!memcmp(backend->content + 16 * i, address, 16))
			return true;
	}
	return false;
}

int join_add_endpoint(struct join *join, const struct place *virtual, const struct place *endpoint)
{
	const struct known_backend *known = table_get(
		&join->backends, flows_hash(&join->flows, endpoint->address, endpoint->port));

	for (; known; known = known->next) {
		if (is_at(known, endpoint->address, endpoint->port) &&
		    known->port == virtual->port && has_address(known, virtual->address))
			return bytes_append(&join->added,
					    fields_of(known) + known->service_fields_size,
					    known->endpoint_fields_size);
	}
	return 0; /* it has left the Service */
}

/* Span fields: attributes. */
static const uint8_t not_observed[] =
	"\x4a\x2e\x0a\x1ck8s_tracing.service.decision\x12\x0e\x0a\x0cnot observed";

int join_add_decision(struct join *join)
{
	join->stats.unobserved++;
	return bytes_append(&join->added, not_observed, sizeof(not_observed) - 1);
}

/* Take these letters, of either case as in all of DNS, off the front of the text. */
static bool take_text(const uint8_t **at, size_t *size, const void *text, size_t text_size)
{
	if (*size < text_size || strncasecmp((const char *)*at, text, text_size))
		return false;
	*at += text_size;
	*size -= text_size;
	return true;
}

/*
 * The names of a Service in DNS: web, web.shop, web.shop.svc, web.shop.svc.cluster.local. The first
 * one means another Service in each namespace.
 */
static bool is_called(const struct known_backend *backend, const struct asked *asked,
		      const struct wire_field *resource_spans)
{
	static const char *const domains[] = {"", ".svc", ".svc.cluster.local",
					      ".svc.cluster.local."};
	const uint8_t *service = service_of(backend), *namespace = service + backend->service_size;
	const uint8_t *at = asked->host;
	size_t size = asked->host_size;
	struct wire_field from;

	if (!take_text(&at, &size, service, backend->service_size))
		return false;
	if (!size)
		return namespace_read(resource_spans, &from)
			       ? from.size == backend->namespace_size &&
					 !memcmp(from.body, namespace, from.size)
			       : backend->is_only_one;
	if (!take_text(&at, &size, ".", 1) ||
	    !take_text(&at, &size, namespace, backend->namespace_size))
		return false;
	for (size_t i = 0; i < sizeof(domains) / sizeof(*domains); i++) {
		if (size == strlen(domains[i]) && !strncasecmp((const char *)at, domains[i], size))
			return true;
	}
	return false;
}

/* The one backend that the span asked for and whose packets went to that endpoint, or NULL. */
static const struct known_backend *asked_for(const struct join *join, const struct place *endpoint,
					     const struct wire_field *span,
					     const struct wire_field *resource_spans)
{
	const struct known_backend *known, *found = NULL;
	struct wire_field host;
	struct asked asked;
	uint8_t address[16];
	bool by_address;

	known = table_get(&join->backends,
			  flows_hash(&join->flows, endpoint->address, endpoint->port));
	if (!known)
		return NULL; /* as of most spans: nothing else is looked at */
	asked_read(span, &asked);
	if (!asked.host)
		return NULL;
	host = (struct wire_field){.body = asked.host, .size = asked.host_size};
	by_address = address_read(&host, address);
	for (; known; known = known->next) {
		if (!is_at(known, endpoint->address, endpoint->port) ||
		    (asked.port && asked.port != known->port) ||
		    !(by_address ? has_address(known, address)
				 : is_called(known, &asked, resource_spans)))
			continue;
		if (found)
			return NULL;
		found = known;
	}
	return found;
}

/*
 * With kube-proxy a client's socket says that it is connected to the Service's address. One that
 * asked for a Service and is connected to an endpoint of it got there by a decision that is in no
 * packet, and so in no conntrack: a socket's address that was changed in connect(), for one.
 */
int join_unobserved(struct join *join, const struct seen_span *span, const struct wire_field *field,
		    const struct wire_field *resource_spans)
{
	const struct known_backend *backend;
	size_t begin = join->added.size;

	backend = asked_for(join, &span->peer, field, resource_spans);
	if (!backend)
		return join_asked(join, span, field);
	if (bytes_append(&join->added, fields_of(backend),
			 backend->service_fields_size + backend->endpoint_fields_size) < 0 ||
	    join_add_decision(join) < 0)
		return -1;
	return join_note(join, field->body, begin);
}
