/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a trace folder, mapped into memory.
 *
 * Nobody may make a file shorter while it is mapped (the kernel would end the process): LTTng only
 * ever appends to the files of a trace, or deletes them as a whole.
 */
#ifndef K8S_TRACING_RELAY_FILE_H
#define K8S_TRACING_RELAY_FILE_H

#include <stddef.h>
#include <stdint.h>

struct mapped_file {
	const uint8_t *data; /* NULL: the file is empty */
	size_t size;
};

/* NULL, or what is wrong. What is not a plain file counts as empty: a pipe would never end. */
const char *file_map(struct mapped_file *file, const char *folder, const char *name);
void file_unmap(struct mapped_file *file);

/* The names of what lies in a folder, in their order, hidden ones left out; each one and the array
 * are to be freed. Return how many, or -1 with errno. */
int folder_list(const char *folder, char ***names);

/* The id of this boot, a uuid of FILE_UUID_SIZE characters, into as much memory: 0, or -1. */
#define FILE_UUID_SIZE 36
int file_boot_id(char *id);

#endif
