// SPDX-License-Identifier: Apache-2.0
/*
 * Requests to a virtual IP on connections that no flow tells of. Conntrack is asked: what it
 * translates it knows for as long as the connection lives and for a while after. So a connection
 * that it does not know went to its endpoint by somebody else's decision; one that it knows is only
 * older than we.
 */
#include "conntrack_ask.h"
#include "join_parts.h"

#define SLACK_NS 1000000

/* A port is used again, and the answer is of another connection then: it is asked for anew. */
#define ANSWER_NS (10 * SECOND_NS)
#define ANSWERS 16384 /* a power of 2; what falls on the place of another one replaces it */

/* Each takes some 10 us of the thread that passes spans on. */
#define QUESTIONS_A_SECOND 5000

int asking_init(struct asking *asking)
{
	asking->fd = -1;
	asking->answers = calloc(ANSWERS, sizeof(*asking->answers));
	return asking->answers ? 0 : -1;
}

void join_ask(struct join *join, int fd, int64_t kept_ns, uint8_t is_stamped)
{
	struct asking *asking = &join->asking;

	asking->fd = fd;
	asking->kept_ns = kept_ns;
	asking->is_stamped = is_stamped;
	memset(asking->answers, 0, ANSWERS * sizeof(*asking->answers));
}

static bool is_same(const struct place *one, const struct place *other)
{
	return one->port == other->port &&
	       !memcmp(one->address, other->address, sizeof(one->address));
}

/* A socket that is connected has an address; `::` and `0.0.0.0` are none. */
static bool is_somewhere(const struct place *place)
{
	static const uint8_t any[2][16] = {[1] = {[10] = 0xff, 0xff}};

	return place->port && memcmp(place->address, any[0], 16) &&
	       memcmp(place->address, any[1], 16);
}

static bool may_ask(struct asking *asking)
{
	int64_t second = asking->now_ns / SECOND_NS;

	if (second != asking->second) {
		asking->second = second;
		asking->in_second = 0;
	}
	return asking->in_second++ < QUESTIONS_A_SECOND;
}

/* Put what conntrack says of the connection; false: it says nothing. */
static bool ask(struct join *join, const struct seen_span *span, struct answer *answer)
{
	struct asking *asking = &join->asking;
	struct event event = {
		.flow = {.client_port = span->local.port, .virtual_port = span->peer.port}};

	if (!may_ask(asking))
		return false;
	memcpy(event.flow.client, span->local.address, sizeof(event.flow.client));
	memcpy(event.flow.virtual_ip, span->peer.address, sizeof(event.flow.virtual_ip));
	*answer = (struct answer){.local = span->local, .peer = span->peer};
	join->stats.questions++;
	switch (conntrack_ask(asking->fd, ++asking->number, &event)) {
	case CONNTRACK_NONE:
		break;
	case CONNTRACK_FOUND:
		memcpy(answer->endpoint.address, event.flow.endpoint,
		       sizeof(answer->endpoint.address));
		answer->endpoint.port = event.flow.endpoint_port;
		answer->began_ns = event.began_ns;
		/* Somebody behind this node chose, or whoever has that address. */
		answer->proves_nothing =
			!answer->endpoint.port || is_same(&answer->endpoint, &span->peer);
		break;
	default:
		return false;
	}
	answer->asked_ns = asking->now_ns;
	return true;
}

static const struct answer *answer_to(struct join *join, const struct seen_span *span)
{
	const struct asking *asking = &join->asking;
	uint64_t hash = flows_hash(&join->flows, span->local.address, span->local.port);
	struct answer *answer = asking->answers + (hash & (ANSWERS - 1));
	int64_t ago_ns = asking->now_ns - span->end_ns;

	if (asking->fd < 0 || !is_somewhere(&span->local) || ago_ns > asking->kept_ns ||
	    ago_ns < -SECOND_NS)
		return NULL;
	ago_ns = asking->now_ns - answer->asked_ns;
	if (answer->asked_ns && ago_ns >= 0 && ago_ns < ANSWER_NS &&
	    is_same(&answer->local, &span->local) && is_same(&answer->peer, &span->peer))
		return answer;
	return ask(join, span, answer) ? answer : NULL;
}

int join_asked(struct join *join, const struct seen_span *span, const struct wire_field *field)
{
	const struct virtual_place *virtual;
	const struct answer *answer;
	size_t begin = join->added.size;

	if (!join->asking.now_ns)
		return 0;
	virtual = virtuals_get(join, &span->peer);
	if (!virtual)
		return 0;
	answer = answer_to(join, span);
	if (!answer || answer->proves_nothing || answer->began_ns > span->end_ns + SLACK_NS) {
		join->stats.unanswered++;
		return 0;
	}
	if (bytes_append(&join->added, virtual->fields.data, virtual->fields.size) < 0)
		return -1;
	if (!answer->endpoint.port)
		return join_add_decision(join) < 0 ? -1 : join_note(join, field->body, begin);
	join->stats.untold++;
	/* Without stamps the port may have been used again since. */
	if ((answer->began_ns || join->asking.is_stamped) &&
	    join_add_endpoint(join, &span->peer, &answer->endpoint) < 0)
		return -1;
	return join_note(join, field->body, begin);
}
