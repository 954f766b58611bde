// SPDX-License-Identifier: Apache-2.0
#include "relay_process.h"

#include "relay_validate.h"

#define SCOPES_STEP 4 /* so many more are added at once */
#define SCOPES_MAX (PROCESS_SCOPES_MAX - SCOPES_STEP)
#define SCOPE_TEXT_MAX 1024

/* A process announces itself again before it records after a pause, so an idle one can be
 * forgotten. */
#define MANY 1024
#define IDLE_NS (60 * INT64_C(1000000000))

enum tag {
	SCOPE_NAME = 0x0a,
	SCOPE_VERSION = 0x12,
};

int processes_init(struct processes *processes, const struct relay_clock *clock, uint64_t bytes_max)
{
	*processes = (struct processes){.clock = clock, .bytes_max = bytes_max};
	return table_init(&processes->table);
}

static void free_process(struct process *process)
{
	for (size_t i = 0; i < process->scope_count; i++) {
		bytes_free(&process->scopes[i].spans);
		bytes_free(&process->scopes[i].fields);
	}
	free(process->scopes);
	bytes_free(&process->resource);
	free(process);
}

void processes_free(struct processes *processes)
{
	struct table *table = &processes->table;

	for (size_t i = 0; table->entries && i <= table->mask; i++) {
		if (table->entries[i].value)
			free_process(table->entries[i].value);
	}
	table_free(table);
}

/* What the identity takes; the spans that wait with it are counted by the output. */
static uint64_t identity_bytes(const struct process *process)
{
	uint64_t bytes = sizeof(*process) + process->resource.capacity +
			 process->scope_count * sizeof(*process->scopes);

	for (size_t i = 0; i < process->scope_count; i++)
		bytes += process->scopes[i].fields.capacity;
	return bytes;
}

struct process *process_add(struct processes *processes, uint64_t instance_id)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return NULL;
	process->instance_id = instance_id;
	if (table_add(&processes->table, instance_id, process) < 0) {
		free(process);
		return NULL;
	}
	processes->bytes += identity_bytes(process);
	return process;
}

struct process *process_get(struct processes *processes, uint64_t instance_id, int64_t now_ns)
{
	struct process *process = table_get(&processes->table, instance_id);

	if (!process && processes->bytes > processes->bytes_max) {
		instance_id = 0;
		process = table_get(&processes->table, instance_id);
	}
	if (!process)
		process = process_add(processes, instance_id);
	if (process) {
		process->idle_since_ns = processes->clock->now_ns;
		process_see(process, now_ns);
	}
	return process;
}

int process_add_scopes(struct processes *processes, struct process *process, size_t count)
{
	size_t before = process->scope_count;
	struct scope *scopes;

	if (!count)
		return 0;
	scopes = realloc(process->scopes, (before + count) * sizeof(*scopes));
	if (!scopes)
		return -1;
	memset(scopes + before, 0, count * sizeof(*scopes));
	scopes[0].known = true; /* the empty scope needs no announcement */
	processes->bytes += count * sizeof(*scopes);
	process->scopes = scopes;
	process->scope_count += count;
	return 0;
}

struct scope *process_scope(struct processes *processes, struct process *process, uint16_t id)
{
	if (id < process->scope_count)
		return process->scopes + id;
	if (id >= SCOPES_MAX || processes->bytes > processes->bytes_max)
		id = 0;
	if (id >= process->scope_count &&
	    process_add_scopes(processes, process, id + SCOPES_STEP - process->scope_count) < 0)
		return NULL;
	return process->scopes + id;
}

/* Replace bytes by others; the old ones stay without memory. */
static int replace(struct processes *processes, struct bytes *bytes, const uint8_t *data,
		   size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return -1;
	put_bytes(copy, data, size);
	processes->bytes += size - bytes->capacity;
	free(bytes->data);
	*bytes = (struct bytes){.data = copy, .size = size, .capacity = size};
	return 0;
}

bool process_contradicts(const struct process *process, const struct relay_origin *origin)
{
	return process->known &&
	       (process->origin.vpid != origin->vpid || process->origin.pid_ns != origin->pid_ns);
}

void process_ask(struct processes *processes, struct process *process)
{
	struct process **at = &processes->new;

	while (*at && *at != process)
		at = &(*at)->next_new;
	if (!*at) {
		*at = process;
		process->next_new = NULL;
	}
}

int process_announce(struct processes *processes, struct process *process,
		     const struct relay_origin *origin, const uint8_t *resource, size_t size)
{
	uint64_t claim = checksum(resource, size);

	if (!process->instance_id || processes->bytes > processes->bytes_max)
		return 0;
	if (process->known && process->claim == claim)
		return 0;
	if (replace(processes, &process->resource, resource, size) < 0)
		return -1;
	process->known = true;
	process->claim = claim;
	process->origin = *origin;
	process->identified = !processes->identify;
	if (processes->identify)
		process_ask(processes, process);
	return 0;
}

int process_identify(struct processes *processes, struct process *process, const uint8_t *resource,
		     size_t size)
{
	struct process **at = &processes->new;

	if (resource && replace(processes, &process->resource, resource, size) < 0)
		return -1;
	process->identified = true;
	while (*at && *at != process)
		at = &(*at)->next_new;
	if (*at)
		*at = process->next_new;
	return 0;
}

static uint8_t *put_text(uint8_t *at, uint8_t tag, const char *text)
{
	uint8_t repaired[UTF8_REPAIRED_MAX(SCOPE_TEXT_MAX)];
	size_t size =
		utf8_copy_repaired(repaired, (const uint8_t *)text, strnlen(text, SCOPE_TEXT_MAX));

	return size ? put_length_field(at, tag, repaired, size) : at;
}

int process_announce_scope(struct processes *processes, struct process *process, uint16_t id,
			   const char *name, const char *version)
{
	uint8_t fields[2 * (1 + LENGTH_MAX + UTF8_REPAIRED_MAX(SCOPE_TEXT_MAX))];
	struct scope *scope = process_scope(processes, process, id);
	uint8_t *end;

	if (!scope)
		return -1;
	if (scope == process->scopes)
		return 0;
	end = put_text(put_text(fields, SCOPE_NAME, name), SCOPE_VERSION, version);
	if (replace(processes, &scope->fields, fields, end - fields) < 0)
		return -1;
	scope->known = true;
	return 0;
}

void processes_forget_idle(struct processes *processes)
{
	struct table *table = &processes->table;

	if (table->count < MANY)
		return;
	for (size_t i = 0; i <= table->mask;) {
		struct process *process = table->entries[i].value;

		if (!process || process->pending || process->open_spans ||
		    (process->known && !process->identified) ||
		    processes->clock->now_ns - process->idle_since_ns < IDLE_NS) {
			i++;
			continue;
		}
		processes->bytes -= identity_bytes(process);
		table_remove(table, process->instance_id); /* another one may move to here */
		free_process(process);
	}
}
