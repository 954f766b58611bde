// SPDX-License-Identifier: Apache-2.0
/* The span of a Service: what conntrack saw of a connection, as OTLP. */
#include <arpa/inet.h>

#include "join_parts.h"
#include "otlp.h"

static uint8_t *put_text_attribute(uint8_t *at, const char *key, const char *text)
{
	size_t key_size = strlen(key), size = strlen(text);
	size_t value_size = length_field_size(size);

	at = put_length(at, OTLP_SPAN_ATTRIBUTES,
			length_field_size(key_size) + length_field_size(value_size));
	at = put_length_field(at, OTLP_KEY, key, key_size);
	at = put_length(at, OTLP_VALUE, value_size);
	return put_length_field(at, OTLP_STRING_VALUE, text, size);
}

static uint8_t *put_int_attribute(uint8_t *at, const char *key, uint64_t number)
{
	size_t key_size = strlen(key), value_size = 1 + varint_size(number);

	at = put_length(at, OTLP_SPAN_ATTRIBUTES,
			length_field_size(key_size) + length_field_size(value_size));
	at = put_length_field(at, OTLP_KEY, key, key_size);
	at = put_length(at, OTLP_VALUE, value_size);
	*at++ = OTLP_INT_VALUE;
	return put_varint(at, number);
}

static uint8_t *put_place(uint8_t *at, const char *address_key, const char *port_key,
			  const uint8_t *address, uint16_t port)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
	char text[INET6_ADDRSTRLEN];

	if (!memcmp(address, mapped, sizeof(mapped)))
		inet_ntop(AF_INET, address + 12, text, sizeof(text));
	else
		inet_ntop(AF_INET6, address, text, sizeof(text));
	return put_int_attribute(put_text_attribute(at, address_key, text), port_key, port);
}

#define FLOW_FIELDS_MAX 1024

/*
 * How often the first packet was sent again. Nobody counts it for us; but TCP sends it again after
 * 1, 3, 7, ... seconds (RFC 6298), and a network without loss answers in less.
 */
static unsigned int retransmissions(const struct flow *flow)
{
	int64_t answer_ns = (flow->reply_ns ? flow->reply_ns : flow->closed_ns) - flow->new_ns;
	unsigned int count = 0;

	for (int64_t sent_ns = SECOND_NS; sent_ns <= answer_ns && count < 6; count++)
		sent_ns = 2 * sent_ns + SECOND_NS;
	return count;
}

static uint8_t *put_flow(uint8_t *at, const struct flow *flow)
{
	unsigned int again = flow->outcome == FLOW_REFUSED ? 0 : retransmissions(flow);

	at = put_text_attribute(at, "network.transport", "tcp");
	at = put_place(at, "source.address", "source.port", flow->client, flow->client_port);
	at = put_place(at, "destination.address", "destination.port", flow->virtual_ip,
		       flow->virtual_port);
	at = put_place(at, "network.peer.address", "network.peer.port", flow->endpoint,
		       flow->endpoint_port);
	if (flow->reply_ns)
		at = put_int_attribute(at, "k8s_tracing.service.syn_ack_ns",
				       flow->reply_ns - flow->new_ns);
	if (flow->reply_ns && flow->established_ns)
		at = put_int_attribute(at, "k8s_tracing.service.ack_ns",
				       flow->established_ns - flow->reply_ns);
	if (again)
		at = put_int_attribute(at, "k8s_tracing.service.syn_retransmissions", again);
	at = put_text_attribute(at, "k8s_tracing.service.clock",
				flow->kernel_times ? "kernel" : "received");
	if (flow->outcome == FLOW_REFUSED || flow->outcome == FLOW_UNANSWERED) {
		bool refused = flow->outcome == FLOW_REFUSED;
		uint8_t status[2] = {OTLP_STATUS_CODE, OTLP_STATUS_ERROR};

		at = put_text_attribute(at, "error.type",
					refused ? "connection_refused" : "timeout");
		at = put_length_field(at, OTLP_SPAN_STATUS, status, sizeof(status));
	}
	return at;
}

/* Scope fields: name=k8s_tracing.service. */
static const uint8_t scope[] = "\x0a\x13k8s_tracing.service";
/* Resource fields of a Service without a name: service.name=kubernetes-service. */
static const uint8_t unnamed_resource[] =
	"\x0a\x24\x0a\x0cservice.name\x12\x14\x0a\x12kubernetes-service";
/* Span fields: name. */
static const uint8_t unnamed_fields[] = "\x2a\x07service";

int join_make_span(struct join *join, const struct known_flow *known, uint64_t parent_span_id)
{
	const struct flow *flow = &known->flow;
	const struct named *service = flows_named(&join->flows, &join->flows.services,
						  flow->virtual_ip, flow->virtual_port);
	const struct named *endpoint = flows_named(&join->flows, &join->flows.endpoints,
						   flow->endpoint, flow->endpoint_port);
	struct bytes resource = service ? service->resource
					: (struct bytes){.data = (uint8_t *)unnamed_resource,
							 .size = sizeof(unnamed_resource) - 1};
	struct bytes fields = service ? service->fields
				      : (struct bytes){.data = (uint8_t *)unnamed_fields,
						       .size = sizeof(unnamed_fields) - 1};
	size_t endpoint_size = endpoint ? endpoint->fields.size : 0;
	int64_t end_ns = flow->established_ns ? flow->established_ns : flow->closed_ns;
	size_t scope_size = length_field_size(sizeof(scope) - 1);
	size_t size, scope_spans_size, all_size;
	uint8_t *at, *body, *content;

	body = malloc(FLOW_FIELDS_MAX + fields.size + endpoint_size);
	if (!body)
		return -1;
	content = put_length(body, OTLP_SPAN_TRACE_ID, 16);
	content = put_id(put_id(content, known->trace_id_high), known->trace_id_low);
	content = put_id(put_length(content, OTLP_SPAN_SPAN_ID, 8), known->span_id);
	if (parent_span_id)
		content = put_id(put_length(content, OTLP_SPAN_PARENT_SPAN_ID, 8), parent_span_id);
	content = put_count(content, OTLP_SPAN_KIND, OTLP_KIND_INTERNAL);
	content = put_fixed64(content, OTLP_SPAN_START_TIME, flow->new_ns);
	content = put_fixed64(content, OTLP_SPAN_END_TIME,
			      end_ns > flow->new_ns ? end_ns : flow->new_ns);
	content = put_bytes(content, fields.data, fields.size);
	if (endpoint)
		content = put_bytes(content, endpoint->fields.data, endpoint_size);
	content = put_flow(content, flow);
	size = content - body;
	scope_spans_size = scope_size + length_field_size(size);
	all_size = length_field_size(resource.size) + length_field_size(scope_spans_size);
	at = bytes_extend(&join->made, length_field_size(all_size));
	if (at) {
		at = put_length(at, OTLP_REQUEST_RESOURCE_SPANS, all_size);
		at = put_length_field(at, OTLP_RESOURCE_SPANS_RESOURCE, resource.data,
				      resource.size);
		at = put_length(at, OTLP_RESOURCE_SPANS_SCOPE_SPANS, scope_spans_size);
		at = put_length_field(at, OTLP_SCOPE_SPANS_SCOPE, scope, sizeof(scope) - 1);
		put_length_field(at, OTLP_SCOPE_SPANS_SPANS, body, size);
		join->made_spans++;
	}
	free(body);
	return at ? 0 : -1;
}
