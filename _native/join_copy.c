// SPDX-License-Identifier: Apache-2.0
/* A request with fields added to some of its spans: the lengths of all that they lie in change. */
#include "join_parts.h"
#include "otlp.h"

static int append_field(struct bytes *to, uint8_t tag, const struct bytes *content)
{
	uint8_t *at = bytes_extend(to, 1 + VARINT_MAX + content->size);

	if (!at)
		return -1;
	bytes_end_at(to, put_length_field(at, tag, content->data, content->size));
	return 0;
}

/* Copy ScopeSpans with what was added to its spans; `next` moves past the additions made. */
static int copy_scope_spans(struct join *join, const struct wire_field *scope_spans,
			    const struct addition **next, const struct addition *last)
{
	const uint8_t *at = scope_spans->body;
	struct bytes *to = &join->scope_spans;
	struct wire_field field;

	to->size = 0;
	while (wire_take(&at, scope_spans->after, &field)) {
		uint8_t *copy;

		if (*next == last || field.body != (*next)->span) {
			if (bytes_append(to, field.at, field.after - field.at) < 0)
				return -1;
			continue;
		}
		copy = bytes_extend(to, 1 + VARINT_MAX + field.size + (*next)->size);
		if (!copy)
			return -1;
		copy = put_length(copy, OTLP_SCOPE_SPANS_SPANS, field.size + (*next)->size);
		copy = put_bytes(copy, field.body, field.size);
		copy = put_bytes(copy, join->added.data + (*next)->at, (*next)->size);
		bytes_end_at(to, copy);
		(*next)++;
	}
	return append_field(&join->resource_spans, OTLP_RESOURCE_SPANS_SCOPE_SPANS, to);
}

int join_copy_request(struct join *join, const uint8_t *at, const uint8_t *end)
{
	const struct addition *next = (const struct addition *)join->additions.data;
	const struct addition *last = next + join->additions.size / sizeof(*next);
	struct wire_field resource_spans, field;

	while (wire_take(&at, end, &resource_spans)) {
		const uint8_t *in = resource_spans.body;

		if (next == last || next->span > resource_spans.after) {
			if (bytes_append(&join->result, resource_spans.at,
					 resource_spans.after - resource_spans.at) < 0)
				return -1;
			continue;
		}
		join->resource_spans.size = 0;
		while (wire_take(&in, resource_spans.after, &field)) {
			if (field.tag == OTLP_RESOURCE_SPANS_SCOPE_SPANS
				    ? copy_scope_spans(join, &field, &next, last) < 0
				    : bytes_append(&join->resource_spans, field.at,
						   field.after - field.at) < 0)
				return -1;
		}
		if (append_field(&join->result, OTLP_REQUEST_RESOURCE_SPANS,
				 &join->resource_spans) < 0)
			return -1;
	}
	return 0;
}
