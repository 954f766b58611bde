// SPDX-License-Identifier: Apache-2.0
/* The virtual IPs and ports of Services that lead anywhere. */
#include "join_parts.h"

static struct virtual_place *find_virtual(const struct join *join, uint64_t hash,
					  const uint8_t *address, uint16_t port)
{
	struct virtual_place *virtual = table_get(&join->virtuals, hash);

	while (virtual && (virtual->place.port != port ||
			   memcmp(virtual->place.address, address, sizeof(virtual->place.address))))
		virtual = virtual->next;
	return virtual;
}

const struct virtual_place *virtuals_get(const struct join *join, const struct place *place)
{
	uint64_t hash = flows_hash(&join->flows, place->address, place->port);

	return find_virtual(join, hash, place->address, place->port);
}

int virtuals_add(struct join *join, const uint8_t *address, const struct backend *backend)
{
	uint64_t hash = flows_hash(&join->flows, address, backend->port);
	struct virtual_place *virtual = find_virtual(join, hash, address, backend->port);

	if (!virtual) {
		virtual = calloc(1, sizeof(*virtual));
		if (!virtual)
			return -1;
		memcpy(virtual->place.address, address, sizeof(virtual->place.address));
		virtual->place.port = backend->port;
		virtual->next = table_get(&join->virtuals, hash);
		if (virtual->next)
			table_remove(&join->virtuals, hash);
		if (table_add(&join->virtuals, hash, virtual) < 0) {
			free(virtual);
			return -1;
		}
	}
	virtual->backends++;
	virtual->fields.size = 0;
	return bytes_append(&virtual->fields, backend->service_fields,
			    backend->service_fields_size);
}

void virtuals_remove(struct join *join, const uint8_t *address, uint16_t port)
{
	uint64_t hash = flows_hash(&join->flows, address, port);
	struct virtual_place *virtual = find_virtual(join, hash, address, port);
	struct virtual_place *first = table_get(&join->virtuals, hash);

	if (!virtual || --virtual->backends)
		return;
	table_remove(&join->virtuals, hash);
	if (first == virtual) {
		first = virtual->next;
	} else {
		struct virtual_place *before = first;

		while (before->next != virtual)
			before = before->next;
		before->next = virtual->next;
	}
	if (first)
		table_add(&join->virtuals, hash, first); /* into the room that it just had */
	bytes_free(&virtual->fields);
	free(virtual);
}

void virtuals_free(struct table *virtuals)
{
	for (size_t i = 0; virtuals->entries && i <= virtuals->mask; i++) {
		struct virtual_place *next;

		for (struct virtual_place *virtual = virtuals->entries[i].value; virtual;
		     virtual = next) {
			next = virtual->next;
			bytes_free(&virtual->fields);
			free(virtual);
		}
	}
	table_free(virtuals);
}
