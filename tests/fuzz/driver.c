// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a fuzz target without a fuzzer: mutated inputs of a corpus, the same ones for the same seed.
 *
 *     driver SECONDS SEED FILE...
 *
 * It knows nothing of coverage. For a long search link the target with clang's -fsanitize=fuzzer
 * in place of this file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INPUT_MAX 65536
#define ROUNDS 64 /* between two looks at the clock */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {
	"integer { size = 7; align = 1; }",
	"string _a;",
	"struct { ",
	"variant <id> {",
	"} _x;",
	"enum : uint16_t { a = 0 ... 5 }",
	"[65535]",
	"align(64)",
	"signed = 1;",
	"event {",
	"k8s_tracing:process",
	"size = 64;",
	"stream {",
	"byte_order = be;",
	"\n};\n",
	"typealias ",
	"fields := ",
	"_length ",
	"\xc1\x1f\xfc\xc1",
	"\"",
	"floating_point { exp_dig = 8; ",
	"id = 65535;",
	"map = clock.a.value;",
};

struct input {
	uint8_t data[INPUT_MAX];
	size_t size;
};

static uint64_t state;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static size_t below(size_t limit)
{
	return limit ? next_random() % limit : 0;
}

static void insert(struct input *input, const void *data, size_t size)
{
	size_t at = below(input->size + 1);

	if (size > INPUT_MAX - input->size)
		return;
	memmove(input->data + at + size, input->data + at, input->size - at);
	memcpy(input->data + at, data, size);
	input->size += size;
}

static void erase(struct input *input)
{
	size_t at = below(input->size);
	size_t size = 1 + below(input->size - at < 256 ? input->size - at : 256);

	if (size > input->size - at)
		return;
	memmove(input->data + at, input->data + at + size, input->size - at - size);
	input->size -= size;
}

static void put_number(struct input *input)
{
	static const uint64_t numbers[] = {
		0, 1, 7, 8, 31, 65535, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX,
	};
	uint64_t number = numbers[below(sizeof(numbers) / sizeof(*numbers))];
	size_t size = (size_t)1 << below(4);

	if (input->size > size)
		memcpy(input->data + below(input->size - size), &number, size);
}

static void mutate(struct input *input, const struct input *other)
{
	const char *word = words[below(sizeof(words) / sizeof(*words))];
	size_t at = below(other->size),
	       size = below(other->size - at < 512 ? other->size - at : 512);

	switch (below(8)) {
	case 0:
	case 1:
	case 2:
		if (input->size)
			input->data[below(input->size)] ^= 1 << below(8);
		break;
	case 3:
	case 4:
		put_number(input);
		break;
	case 5:
		erase(input);
		break;
	case 6:
		insert(input, word, strlen(word));
		break;
	default:
		insert(input, other->data + at, size);
	}
}

static void read_input(struct input *input, const char *path)
{
	FILE *file = fopen(path, "rb");

	if (!file) {
		perror(path);
		exit(1);
	}
	input->size = fread(input->data, 1, INPUT_MAX, file);
	fclose(file);
}

int main(int argc, char **argv)
{
	size_t count = argc > 3 ? argc - 3 : 0;
	struct input *corpus = calloc(count + 1, sizeof(*corpus));
	struct input *input = corpus + count;
	uint64_t runs = 0;
	time_t end;

	if (!count || !corpus)
		return 2;
	for (size_t i = 0; i < count; i++)
		read_input(corpus + i, argv[i + 3]);
	state = strtoull(argv[2], NULL, 10) | 1;
	LLVMFuzzerInitialize(&argc, &argv);
	for (size_t i = 0; i < count; i++, runs++)
		LLVMFuzzerTestOneInput(corpus[i].data, corpus[i].size);
	end = time(NULL) + atol(argv[1]);
	while (time(NULL) < end) {
		for (int i = 0; i < ROUNDS; i++, runs++) {
			*input = corpus[below(count)];
			for (size_t n = 1 + below(6); n; n--)
				mutate(input, corpus + below(count));
			LLVMFuzzerTestOneInput(input->data, input->size);
		}
	}
	printf("%llu\n", (unsigned long long)runs);
	free(corpus);
	return 0;
}
