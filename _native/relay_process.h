/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who records: the processes and their instrumentation scopes, as `process` and `scope` events
 * announce them.
 *
 * Instance ids and scope ids come from strangers, so there is a limit. Past it, a new process is
 * taken for the process 0, whom nobody announces, and a new scope for the scope 0, which is empty.
 */
#ifndef K8S_TRACING_RELAY_PROCESS_H
#define K8S_TRACING_RELAY_PROCESS_H

#include <stdbool.h>

#include "relay_bytes.h"
#include "relay_clock.h"
#include "relay_table.h"

/* Who recorded an event, by LTTng's contexts; 0 is what the session did not ask for. */
struct relay_origin {
	int32_t vpid; /* and the thread: as their own PID namespace numbers them */
	int32_t vtid;
	uint64_t pid_ns; /* inode numbers of the namespaces */
	uint64_t cgroup_ns;
};

#define PROCESS_SCOPES_MAX 1028 /* more than that a process cannot have */

struct scope {
	struct bytes fields; /* InstrumentationScope fields */
	bool known;
	bool given_up; /* its spans no longer wait for it */

	/* The output's: finished spans that are in no request yet. */
	struct bytes spans; /* ScopeSpans.spans fields */
	size_t taken;	    /* of them: already in a request */
	uint64_t count;	    /* of them: not yet in a request */
};

struct process {
	uint64_t instance_id;
	struct bytes resource; /* Resource fields */
	struct scope *scopes;  /* by scope id */
	size_t scope_count;
	bool known;	 /* it was announced */
	bool identified; /* and its resource is what may be handed out */
	bool given_up;
	bool gone;		    /* it has ended */
	struct relay_origin origin; /* of the announcement */
	uint64_t claim;		    /* checksum of the announced resource */
	uint64_t buffers;	    /* that it records to; see relay_gaps.h */
	struct process *next_new;
	int64_t last_seen_ns;  /* the time of its last event */
	int64_t idle_since_ns; /* by the relay's clock */
	uint64_t open_spans;

	/* The output's. */
	bool pending;
	struct process *next_pending;
	int64_t waiting_since_ns;
};

struct processes {
	bool identify;	     /* somebody says what the resource of each is */
	struct process *new; /* those that he was not asked for yet */
	struct table table;
	const struct relay_clock *clock;
	uint64_t bytes; /* that the identities take */
	uint64_t bytes_max;
};

/* Functions that return an int return 0, or -1 without memory. */
int processes_init(struct processes *processes, const struct relay_clock *clock,
		   uint64_t bytes_max);
void processes_free(struct processes *processes);

/* The process with that id, announced or not; NULL without memory. */
struct process *process_get(struct processes *processes, uint64_t instance_id, int64_t now_ns);

/* It recorded an event then. */
static inline void process_see(struct process *process, int64_t now_ns)
{
	if (process->last_seen_ns < now_ns)
		process->last_seen_ns = now_ns;
}

/* A process that is not there yet, and its first scopes; for those of a saved state. */
struct process *process_add(struct processes *processes, uint64_t instance_id);
int process_add_scopes(struct processes *processes, struct process *process, size_t count);

/* The scope with that id, announced or not; NULL without memory. It moves when another one is
 * added. */
struct scope *process_scope(struct processes *processes, struct process *process, uint16_t id);

/* What the events say. The resource is Resource fields that were checked. */
int process_announce(struct processes *processes, struct process *process,
		     const struct relay_origin *origin, const uint8_t *resource, size_t size);
int process_announce_scope(struct processes *processes, struct process *process, uint16_t id,
			   const char *name, const char *version);

/* Its resource is this one (Resource fields that were checked); NULL: the announced one. */
int process_identify(struct processes *processes, struct process *process, const uint8_t *resource,
		     size_t size);

/* It is to be asked what its resource is. */
void process_ask(struct processes *processes, struct process *process);

/* Is this somebody else than who announced the process first? His namespaces are not his to choose.
 */
bool process_contradicts(const struct process *process, const struct relay_origin *origin);

/* Forget processes that have nothing open and nothing pending, if there are many. */
void processes_forget_idle(struct processes *processes);

#endif
