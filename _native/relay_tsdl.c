// SPDX-License-Identifier: Apache-2.0
#include "relay_tsdl.h"

#include <stdlib.h>
#include <string.h>

/* Marks of more than one character. */
#define ASSIGN 'A'   /* := */
#define ELLIPSIS 'E' /* ... */

struct tsdl_memory {
	struct tsdl_memory *next;
	max_align_t bytes[];
};

void tsdl_init(struct tsdl *tsdl, const char *text, size_t size)
{
	*tsdl = (struct tsdl){.at = text, .end = text + size};
}

void tsdl_free(struct tsdl *tsdl)
{
	while (tsdl->memory) {
		struct tsdl_memory *memory = tsdl->memory;

		tsdl->memory = memory->next;
		free(memory);
	}
	*tsdl = (struct tsdl){0};
}

void *tsdl_allocate(struct tsdl *tsdl, size_t size)
{
	struct tsdl_memory *memory = calloc(1, sizeof(*memory) + size);

	if (!memory) {
		tsdl->out_of_memory = true;
		tsdl_fail(tsdl, "out of memory");
		return NULL;
	}
	memory->next = tsdl->memory;
	tsdl->memory = memory;
	return memory->bytes;
}

char *tsdl_copy(struct tsdl *tsdl, struct tsdl_text text)
{
	char *copy = tsdl_allocate(tsdl, text.size + 1);

	if (copy)
		memcpy(copy, text.at, text.size);
	return copy;
}

int tsdl_fail(struct tsdl *tsdl, const char *error)
{
	if (!tsdl->error)
		tsdl->error = error;
	return -1;
}

bool tsdl_equal(struct tsdl_text text, const char *word)
{
	return strlen(word) == text.size && memcmp(text.at, word, text.size) == 0;
}

bool tsdl_is_mark(const struct tsdl *tsdl, char mark)
{
	return tsdl->token == TSDL_MARK && tsdl->mark == mark;
}

bool tsdl_is_word(const struct tsdl *tsdl, const char *word)
{
	return tsdl->token == TSDL_WORD && tsdl_equal(tsdl->text, word);
}

static bool starts(const struct tsdl *tsdl, const char *text)
{
	size_t size = strlen(text);

	return (size_t)(tsdl->end - tsdl->at) >= size && memcmp(tsdl->at, text, size) == 0;
}

static const char *find(const struct tsdl *tsdl, const char *text)
{
	return memmem(tsdl->at, tsdl->end - tsdl->at, text, strlen(text));
}

static int skip_space(struct tsdl *tsdl)
{
	while (tsdl->at < tsdl->end) {
		const char *end;

		if (strchr(" \t\r\n", *tsdl->at) && *tsdl->at) {
			tsdl->at++;
		} else if (starts(tsdl, "/*")) {
			tsdl->at += 2;
			end = find(tsdl, "*/");
			if (!end)
				return tsdl_fail(tsdl, "a comment does not end");
			tsdl->at = end + 2;
		} else if (starts(tsdl, "//")) {
			end = find(tsdl, "\n");
			tsdl->at = end ? end : tsdl->end;
		} else {
			break;
		}
	}
	return 0;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int take_word(struct tsdl *tsdl)
{
	tsdl->token = TSDL_WORD;
	tsdl->text.at = tsdl->at;
	while (tsdl->at < tsdl->end && (is_letter(*tsdl->at) || is_digit(*tsdl->at)))
		tsdl->at++;
	tsdl->text.size = tsdl->at - tsdl->text.at;
	return 0;
}

static int digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* C's integers, without suffixes. */
static int take_number(struct tsdl *tsdl)
{
	unsigned int base = 10;

	tsdl->token = TSDL_NUMBER;
	tsdl->text.at = tsdl->at;
	tsdl->number = 0;
	tsdl->negative = *tsdl->at == '-';
	tsdl->at += tsdl->negative;
	if (starts(tsdl, "0x") || starts(tsdl, "0X")) {
		base = 16;
		tsdl->at += 2;
	} else if (starts(tsdl, "0")) {
		base = 8;
	}
	for (; tsdl->at < tsdl->end && (is_letter(*tsdl->at) || is_digit(*tsdl->at)); tsdl->at++) {
		unsigned int value = digit(*tsdl->at);

		if (value >= base || __builtin_mul_overflow(tsdl->number, base, &tsdl->number) ||
		    __builtin_add_overflow(tsdl->number, value, &tsdl->number))
			return tsdl_fail(tsdl, "a number is none, or too large");
	}
	tsdl->text.size = tsdl->at - tsdl->text.at;
	if (tsdl->negative)
		tsdl->number = -tsdl->number;
	return 0;
}

static int take_string(struct tsdl *tsdl)
{
	tsdl->token = TSDL_STRING;
	tsdl->text.at = ++tsdl->at;
	for (; tsdl->at < tsdl->end && *tsdl->at != '"' && *tsdl->at != '\n'; tsdl->at++) {
		if (*tsdl->at == '\\' && tsdl->end - tsdl->at > 1)
			tsdl->at++;
	}
	if (tsdl->at >= tsdl->end || *tsdl->at != '"')
		return tsdl_fail(tsdl, "a string does not end");
	tsdl->text.size = tsdl->at++ - tsdl->text.at;
	return 0;
}

static int take_mark(struct tsdl *tsdl)
{
	tsdl->token = TSDL_MARK;
	tsdl->text = (struct tsdl_text){tsdl->at, 1};
	tsdl->mark = *tsdl->at;
	if (starts(tsdl, ":=")) {
		tsdl->mark = ASSIGN;
		tsdl->text.size = 2;
	} else if (starts(tsdl, "...")) {
		tsdl->mark = ELLIPSIS;
		tsdl->text.size = 3;
	} else if (!tsdl->mark || !strchr("{}()[]<>:;,.=", tsdl->mark)) {
		return tsdl_fail(tsdl, "a character has no meaning");
	}
	tsdl->at += tsdl->text.size;
	return 0;
}

int tsdl_next(struct tsdl *tsdl)
{
	if (tsdl->error || skip_space(tsdl) < 0)
		return -1;
	if (tsdl->at == tsdl->end) {
		tsdl->token = TSDL_END;
		tsdl->text = (struct tsdl_text){tsdl->at, 0};
		return 0;
	}
	if (is_letter(*tsdl->at))
		return take_word(tsdl);
	if (is_digit(*tsdl->at) || (*tsdl->at == '-' && tsdl->end - tsdl->at > 1))
		return take_number(tsdl);
	return *tsdl->at == '"' ? take_string(tsdl) : take_mark(tsdl);
}

int tsdl_expect(struct tsdl *tsdl, char mark)
{
	return tsdl_is_mark(tsdl, mark) ? tsdl_next(tsdl)
					: tsdl_fail(tsdl, "something else was expected");
}

/* Words with dots between them. */
static int take_path(struct tsdl *tsdl, struct tsdl_text *path)
{
	*path = tsdl->text;
	for (;;) {
		if (tsdl->token != TSDL_WORD)
			return tsdl_fail(tsdl, "a name was expected");
		path->size = tsdl->text.at + tsdl->text.size - path->at;
		if (tsdl_next(tsdl) < 0)
			return -1;
		if (!tsdl_is_mark(tsdl, '.'))
			return 0;
		if (tsdl_next(tsdl) < 0)
			return -1;
	}
}

static int take_value(struct tsdl *tsdl, struct tsdl_attribute *attribute)
{
	switch (tsdl->token) {
	case TSDL_WORD:
		return take_path(tsdl, &attribute->text);
	case TSDL_NUMBER:
		attribute->is_number = true;
		attribute->number = tsdl->number;
		attribute->negative = tsdl->negative;
		break;
	case TSDL_STRING:
		break;
	default:
		return tsdl_fail(tsdl, "a value was expected");
	}
	attribute->text = tsdl->text;
	return tsdl_next(tsdl);
}

int tsdl_attribute(struct tsdl *tsdl, struct tsdl_attribute *attribute)
{
	*attribute = (struct tsdl_attribute){0};
	if (tsdl_is_mark(tsdl, '}'))
		return 0;
	if (take_path(tsdl, &attribute->name) < 0)
		return -1;
	if (tsdl_is_mark(tsdl, ASSIGN)) {
		if (tsdl_next(tsdl) < 0 || !(attribute->type = tsdl_type(tsdl)))
			return -1;
	} else if (tsdl_expect(tsdl, '=') < 0 || take_value(tsdl, attribute) < 0) {
		return -1;
	}
	return tsdl_expect(tsdl, ';') < 0 ? -1 : 1;
}

int tsdl_skip_block(struct tsdl *tsdl)
{
	unsigned int depth = 1;

	while (depth) {
		if (tsdl->token == TSDL_END)
			return tsdl_fail(tsdl, "a block does not end");
		if (tsdl_is_mark(tsdl, '{'))
			depth++;
		else if (tsdl_is_mark(tsdl, '}'))
			depth--;
		if (tsdl_next(tsdl) < 0)
			return -1;
	}
	return 0;
}
