// SPDX-License-Identifier: Apache-2.0
/*
 * The relay on a trace folder that lies in memory: its metadata or its streams are the fuzzer's.
 *
 * An input is one byte and the rest. The byte's lowest bits say what the rest is:
 *
 *     0   a stream, beside the golden metadata
 *     1   the metadata of the golden stream
 *     2   both: four bytes with the size of the metadata, the metadata, a stream
 *
 * and the fourth bit reads the same folder again, as the next chunk. The golden trace is the folder
 * that the environment variable FUZZ_TRACE names. Linked with the relay's sources but for
 * relay_file.c, whose place this takes.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"
#include "relay_file.h"

struct content {
	uint8_t *data;
	size_t size;
};

static struct content golden_metadata, golden_stream;
static struct content metadata, stream;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const char *file_map(struct mapped_file *file, const char *folder, const char *name)
{
	const struct content *content = strcmp(name, "metadata") == 0 ? &metadata : &stream;

	*file = (struct mapped_file){content->data, content->size};
	return NULL;
}

void file_unmap(struct mapped_file *file)
{
}

/* The golden trace was recorded a moment ago. */
int file_boot_id(char *id)
{
	static const char before[] = "clock {\n\tname = \"monotonic\";\n\tuuid = \"";
	const size_t size = sizeof(before) - 1;
	const uint8_t *at = memmem(golden_metadata.data, golden_metadata.size, before, size);

	if (!at) {
		fprintf(stderr, "the clock of the golden trace has no uuid\n");
		exit(1);
	}
	memcpy(id, at + size, FILE_UUID_SIZE);
	return 0;
}

/* A scheduler that says whatever there is to be said. */
static int cpu_times(void *scheduler, uint64_t pid_ns, int64_t vpid, int64_t vtid, int64_t begin_ns,
		     int64_t end_ns, int64_t *times_ns)
{
	times_ns[0] = pid_ns ^ end_ns;
	times_ns[1] = vpid ^ begin_ns;
	times_ns[2] = vtid ^ end_ns ^ begin_ns;
	return begin_ns & 1;
}

int folder_list(const char *folder, char ***names)
{
	*names = calloc(3, sizeof(**names));
	(*names)[0] = strdup("metadata");
	(*names)[1] = strdup("spans_0");
	return 2;
}

static struct content read_file(const char *folder, const char *name)
{
	struct content content = {0};
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder ? folder : "", name);
	file = fopen(path, "rb");
	if (!file) {
		fprintf(stderr, "FUZZ_TRACE must name a trace folder: %s: %s\n", path,
			strerror(errno));
		exit(1);
	}
	content.data = malloc(1 << 20);
	content.size = fread(content.data, 1, 1 << 20, file);
	fclose(file);
	return content;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	golden_metadata = read_file(getenv("FUZZ_TRACE"), "metadata");
	golden_stream = read_file(getenv("FUZZ_TRACE"), "spans_1");
	return 0;
}

/* A copy of just that size: so the sanitizer sees what is read behind it. */
static struct content copy(const uint8_t *data, size_t size)
{
	struct content content = {malloc(size ? size : 1), size};

	memcpy(content.data, data, size);
	return content;
}

static void take_requests(struct relay *relay)
{
	struct relay_request request;

	while (relay_next(relay, &request) > 0) {
		/* Each byte is touched. */
		volatile uint8_t sum = 0;

		for (uint64_t i = 0; i < request.size; i++)
			sum += request.bytes[i];
	}
}

static void read_folder(struct relay *relay)
{
	if (relay_open(relay, "folder", "buffers") == 0)
		take_requests(relay);
	relay_end_chunk(relay, 1000000000);
	take_requests(relay);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct relay_options options = {
		.request_bytes = 4096,
		.memory_bytes = 1 << 20,
		.cpu_times = cpu_times,
	};
	struct relay *relay;
	uint32_t split = 0;

	if (!size)
		return 0;
	metadata = copy(golden_metadata.data, golden_metadata.size);
	stream = copy(golden_stream.data, golden_stream.size);
	if ((data[0] & 3) == 0) {
		free(stream.data);
		stream = copy(data + 1, size - 1);
	} else if ((data[0] & 3) == 1) {
		free(metadata.data);
		metadata = copy(data + 1, size - 1);
	} else if (size >= 5) {
		memcpy(&split, data + 1, sizeof(split));
		if (split > size - 5)
			split = size - 5;
		free(metadata.data);
		free(stream.data);
		metadata = copy(data + 5, split);
		stream = copy(data + 5 + split, size - 5 - split);
	}
	relay = relay_new(&options);
	read_folder(relay);
	if (data[0] & 8)
		read_folder(relay);
	relay_finish(relay, 1);
	take_requests(relay);
	relay_free(relay);
	free(metadata.data);
	free(stream.data);
	return 0;
}
