// SPDX-License-Identifier: Apache-2.0
#include "relay_ctf.h"

#include <errno.h>
#include <stdio.h>

#include "relay_events.h"

#define STEP_EVENTS 256

int ctf_init(struct ctf *ctf, struct spans *spans, struct output *output, struct relay_stats *stats)
{
	*ctf = (struct ctf){.spans = spans, .output = output, .stats = stats};
	return loss_init(&ctf->loss);
}

void ctf_free(struct ctf *ctf)
{
	ctf_close(ctf);
	loss_free(&ctf->loss);
}

void ctf_close(struct ctf *ctf)
{
	for (size_t i = 0; i < ctf->stream_count; i++) {
		file_unmap(&ctf->streams[i].file);
		free(ctf->streams[i].name);
	}
	free(ctf->streams);
	free(ctf->heap);
	free(ctf->values);
	ctf->streams = NULL;
	ctf->heap = NULL;
	ctf->values = NULL;
	ctf->stream_count = ctf->heap_size = 0;
	metadata_free(&ctf->metadata);
	free(ctf->folder);
	ctf->folder = NULL;
	ctf->damages = 0;
}

/* Say what failed, and close the folder. */
static int fail(struct ctf *ctf, const char *why)
{
	snprintf(ctf->error, sizeof(ctf->error), "cannot read %s: %s",
		 ctf->folder ? ctf->folder : "the trace", why);
	ctf_close(ctf);
	return -1;
}

static int out_of_memory(struct ctf *ctf)
{
	return fail(ctf, "out of memory");
}

static void damaged(struct ctf *ctf, const char *file, uint64_t at, const char *what)
{
	if (!ctf->damages++)
		snprintf(ctf->damage, sizeof(ctf->damage), "%s, packet at byte %llu: %s", file,
			 (unsigned long long)at, what);
	ctf->stats->unreadable_packets++;
}

void ctf_damaged(struct ctf *ctf, const struct stream *stream, const char *what)
{
	damaged(ctf, stream->name, stream->packet, what);
}

/* At the end of the folder: was there anything that could not be read? */
static int end(struct ctf *ctf)
{
	if (!ctf->damages) {
		ctf_close(ctf);
		return 0;
	}
	snprintf(ctf->error, sizeof(ctf->error),
		 "cannot read all of %s: %s (of packets left out or cut short: %llu)", ctf->folder,
		 ctf->damage, (unsigned long long)ctf->damages);
	ctf_close(ctf);
	return -1;
}

static bool earlier(const struct stream *a, const struct stream *b)
{
	return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a < b;
}

/* Put the stream where it belongs, from that place in the heap downwards. */
static void sift_down(struct ctf *ctf, size_t at, struct stream *stream)
{
	size_t child;

	while ((child = 2 * at + 1) < ctf->heap_size) {
		if (child + 1 < ctf->heap_size && earlier(ctf->heap[child + 1], ctf->heap[child]))
			child++;
		if (!earlier(ctf->heap[child], stream))
			break;
		ctf->heap[at] = ctf->heap[child];
		at = child;
	}
	ctf->heap[at] = stream;
}

static int add_stream(struct ctf *ctf, const char *name)
{
	const struct metadata *metadata = &ctf->metadata;
	struct stream *stream = ctf->streams + ctf->stream_count;
	struct mapped_file file;
	const char *error = file_map(&file, ctf->folder, name);

	if (error) {
		damaged(ctf, name, 0, error);
		return 0;
	}
	if (!file.size)
		return 0;
	*stream = (struct stream){.file = file, .name = strdup(name)};
	ctf->stream_count++;
	stream->loss = metadata->has_uuid
			       ? loss_buffer(&ctf->loss, metadata->uuid, CTF_UUID_SIZE, name)
			       : loss_buffer(&ctf->loss, ctf->folder, strlen(ctf->folder), name);
	return stream->name && stream->loss ? 0 : -1;
}

static int add_streams(struct ctf *ctf)
{
	char **names;
	int count = folder_list(ctf->folder, &names);
	int ret = 0;

	if (count < 0)
		return fail(ctf, strerror(errno));
	ctf->streams = calloc(count + 1, sizeof(*ctf->streams));
	ctf->heap = calloc(count + 1, sizeof(*ctf->heap));
	if (!ctf->streams || !ctf->heap)
		ret = -1;
	for (int i = 0; i < count; i++) {
		if (!names[i])
			ret = -1;
		else if (ret == 0 && strcmp(names[i], "metadata") != 0)
			ret = add_stream(ctf, names[i]);
		free(names[i]);
	}
	free(names);
	return ret < 0 ? out_of_memory(ctf) : 0;
}

int ctf_open(struct ctf *ctf, const char *folder)
{
	const char *error;

	ctf->folder = strdup(folder);
	if (!ctf->folder)
		return out_of_memory(ctf);
	error = metadata_read(&ctf->metadata, folder);
	if (error)
		return fail(ctf, error);
	if (events_bind(ctf) < 0 || metadata_prepare(&ctf->metadata) < 0)
		return out_of_memory(ctf);
	ctf->values = calloc(ctf->metadata.tsdl.slot_count + 1, sizeof(*ctf->values));
	if (!ctf->values)
		return out_of_memory(ctf);
	if (add_streams(ctf) < 0)
		return -1;
	for (size_t i = 0; i < ctf->stream_count; i++) {
		if (stream_next(ctf, ctf->streams + i))
			ctf->heap[ctf->heap_size++] = ctf->streams + i;
	}
	for (size_t i = ctf->heap_size / 2; i > 0; i--)
		sift_down(ctf, i - 1, ctf->heap[i - 1]);
	return 0;
}

struct stream *ctf_first(const struct ctf *ctf)
{
	return ctf->heap_size ? ctf->heap[0] : NULL;
}

void ctf_advance(struct ctf *ctf)
{
	struct stream *stream = ctf->heap[0];

	if (!stream_next(ctf, stream)) {
		if (!--ctf->heap_size)
			return;
		stream = ctf->heap[ctf->heap_size];
	}
	sift_down(ctf, 0, stream);
}

static int handle(struct ctf *ctf, struct stream *stream)
{
	/* A rotation ends a packet in every buffer, used or not: so time goes on when nobody
	 * records. */
	if (!stream->event) {
		spans_see(ctf->spans, stream->time_ns);
		return 0;
	}
	return stream_read_event(ctf, stream) < 0 ? 0 : event_handle(ctf, stream);
}

int ctf_step(struct ctf *ctf)
{
	for (unsigned int i = 0; i < STEP_EVENTS; i++) {
		struct stream *stream = ctf_first(ctf);

		if (!stream)
			return end(ctf);
		if (handle(ctf, stream) < 0)
			return out_of_memory(ctf);
		ctf_advance(ctf);
	}
	return 1;
}
