/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flows that are known, found by either of their ends: the client's own address, or that
 * address as the endpoint sees it. Ports are used again, so an address has several flows, one after
 * the other.
 */
#ifndef K8S_TRACING_JOIN_FLOWS_H
#define K8S_TRACING_JOIN_FLOWS_H

#include <stdbool.h>

#include "dataplane.h"
#include "relay_bytes.h"
#include "relay_table.h"

struct place {
	uint8_t address[16];
	uint16_t port; /* 0: unknown */
};

/* What a Service or an endpoint is called. */
struct named {
	struct named *next; /* with the same hash */
	struct place place;
	struct bytes resource, fields, attributes;
};

struct known_flow {
	struct known_flow *older, *newer; /* in its list */
	struct known_flow *next_client, *next_source;
	struct flow flow;
	uint64_t serial;
	uint64_t span_id; /* of the Service's span, made or to be made */
	uint64_t trace_id_high, trace_id_low;
	uint64_t opener_id; /* the CLIENT span that opened it */
	bool joined;
	bool used; /* by a request that was seen */
};

struct flow_list {
	struct known_flow *first, *last;
	uint64_t count;
};

struct flows {
	struct table by_client, by_source, by_serial;
	struct table services, endpoints;
	struct flow_list open, closed;
	uint64_t max;
	uint64_t last_serial;
	uint64_t evicted;
	uint64_t unverified; /* used, never joined, and forgotten */
	uint64_t hash_key;
};

/* Functions that return an int return 0, or -1 without memory. */
int flows_init(struct flows *flows, uint64_t max);
void flows_free(struct flows *flows);

/* 64 bits for an address and a port; what has the same is told apart by comparison. */
uint64_t flows_hash(const struct flows *flows, const uint8_t *address, uint16_t port);

/* A new flow, or what is new of one that is known; `added` is set for a new one. */
int flows_add(struct flows *flows, const struct flow *flow, uint64_t span_id,
	      struct known_flow **known, bool *added);

/* Flows that ended before that time are not needed any more. */
void flows_forget(struct flows *flows, int64_t before_ns);

int flows_name(struct flows *flows, struct table *table, const struct place *place,
	       const uint8_t *resource, size_t resource_size, const uint8_t *fields,
	       size_t fields_size, const uint8_t *attributes, size_t attributes_size);
const struct named *flows_named(const struct flows *flows, const struct table *table,
				const uint8_t *address, uint16_t port);

/*
 * The flow that was used between these times by whoever has that address. What is not known of the
 * other end fits any. NULL if there is none; `ambiguous` is set if there are several.
 */
struct known_flow *flows_of_client(const struct flows *flows, const struct place *local,
				   const struct place *peer, int64_t start_ns, int64_t end_ns,
				   bool *ambiguous);
struct known_flow *flows_of_server(const struct flows *flows, const struct place *peer,
				   const struct place *local, int64_t start_ns, int64_t end_ns,
				   bool *ambiguous);
struct known_flow *flows_by_serial(const struct flows *flows, uint64_t serial);

#endif
