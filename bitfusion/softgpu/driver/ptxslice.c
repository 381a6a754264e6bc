/* SPDX-License-Identifier: Apache-2.0
 *
 * What a kernel needs of its module, as a small module. Every word of an item that is an item's name counts as a use:
 * a slice may hold too much, never too little.
 */
#include "ptxtext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = 4096 };
static const char line_mark[] = "@@line ";

static int is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
	       c == '%';
}

static int is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* ------------------------------------------------------------------ looking up */

uint32_t ptx_find_kernel(const struct ptx_text *text, const char *name)
{
	uint32_t item = ptx_first(text, name, strlen(name)), low = 0, high = text->kernel_count;
	while (item != PTX_NONE && (text->items[item].kind != PTX_KERNEL || !text->items[item].body))
		item = text->items[item].twin;
	while (item != PTX_NONE && low < high) {
		const uint32_t middle = low + (high - low) / 2;
		if (text->kernels[middle] < item)
			low = middle + 1;
		else
			high = middle;
	}
	return item == PTX_NONE ? PTX_NONE : low;
}

uint32_t ptx_find_variable(const struct ptx_text *text, const char *name)
{
	uint32_t item = ptx_first(text, name, strlen(name));
	while (item != PTX_NONE) {
		const struct ptx_item *found = &text->items[item];
		if (found->kind == PTX_VARIABLE && !found->shared && !found->is_extern)
			break;
		item = found->twin;
	}
	return item;
}

/* ------------------------------------------------------------------ what is reached */

struct reach {
	const struct ptx_text *text;
	uint8_t *taken;
	uint32_t *waiting, count;
};

static void take(struct reach *r, uint32_t item)
{
	for (; item != PTX_NONE; item = r->text->items[item].twin)
		if (!r->taken[item]) {
			r->taken[item] = 1;
			r->waiting[r->count++] = item;
		}
}

static void take_words(struct reach *r, const struct ptx_item *item)
{
	const char *at = item->begin, *end = at + item->size;
	while (at < end) {
		if (!is_word(*at)) {
			at++;
			continue;
		}
		const char *word = at;
		while (at < end && is_word(*at))
			at++;
		if (!is_digit(*word))
			take(r, ptx_first(r->text, word, (size_t)(at - word)));
	}
}

/* A function's number is what its address is made of: where there are calls through registers, every slice has all
 * functions, so that they have the same numbers in each. */
static int reach(struct reach *r, const uint32_t *roots, uint32_t count)
{
	r->taken = calloc((size_t)r->text->count + 1, 1);
	r->waiting = malloc(((size_t)r->text->count + 1) * sizeof *r->waiting);
	if (!r->taken || !r->waiting)
		return 0;
	for (uint32_t i = 0; i < count; i++)
		take(r, ptx_first(r->text, r->text->items[roots[i]].name, r->text->items[roots[i]].name_size));
	for (uint32_t i = 0; r->text->indirect && i < r->text->count; i++)
		if (r->text->items[i].kind == PTX_FUNCTION)
			take(r, i);
	while (r->count)
		take_words(r, &r->text->items[r->waiting[--r->count]]);
	return 1;
}

/* ------------------------------------------------------------------ the slice */

/* Eight bytes at a time: a byte that is not a newline's has its highest bit set in the sum. */
static uint32_t count_newlines(const char *at, const char *end)
{
	const uint64_t ones = 0x0101010101010101, low = 0x7f * ones, newlines = '\n' * ones;
	uint32_t count = 0;
	for (; end - at >= 8; at += 8) {
		uint64_t word;
		memcpy(&word, at, sizeof word);
		word ^= newlines;
		word = ~(((word & low) + low) | word) & ~low;
		count += (uint32_t)((word >> 7) * ones >> 56);
	}
	for (; at < end; at++)
		count += *at == '\n';
	return count;
}

static void count_lines(struct ptx_text *text)
{
	const char *at = text->bytes;
	uint32_t line = 1;
	for (uint32_t i = 0; i < text->count; i++) {
		line += count_newlines(at, text->items[i].begin);
		text->items[i].line = line;
		at = text->items[i].begin;
	}
}

static char *append(char *to, const char *bytes, size_t size)
{
	memcpy(to, bytes, size);
	to[size] = '\n';
	return to + size + 1;
}

static char *write_slice(const struct ptx_text *text, const uint8_t *taken, size_t *size)
{
	/* the longest line mark has ten digits */
	size_t room = text->header + 2;
	for (uint32_t i = 0; i < text->count; i++)
		room += taken[i] ? text->items[i].size + sizeof line_mark + 12 : 0;
	char *slice = malloc(room), *at = slice;
	if (!slice)
		return NULL;
	at = append(at, text->bytes, text->header);
	for (int kind = PTX_VARIABLE; kind <= PTX_KERNEL; kind++)
		for (uint32_t i = 0; i < text->count; i++) {
			const struct ptx_item *item = &text->items[i];
			if (!taken[i] || item->kind != kind)
				continue;
			at += sprintf(at, "%s%u\n", line_mark, item->line);
			at = append(at, item->begin, item->size);
		}
	*size = (size_t)(at - slice);
	return slice;
}

char *ptx_slice(struct ptx_text *text, const uint32_t *roots, uint32_t count, size_t *size)
{
	struct reach r = { .text = text };
	char *slice = NULL;
	if (text->count && !text->items[0].line)
		count_lines(text);
	if (reach(&r, roots, count))
		slice = write_slice(text, r.taken, size);
	free(r.taken);
	free(r.waiting);
	return slice;
}

/* ------------------------------------------------------------------ parameters */

struct words {
	const char *at, *end;
	const char *word;
	size_t size; /* 0: a character of its own, or the end */
};

/* The next word, with its dot, or character; false at the end or at what is not plain. */
static int next(struct words *w)
{
	while (w->at < w->end && (*w->at == ' ' || (*w->at >= '\t' && *w->at <= '\r')))
		w->at++;
	if (w->at >= w->end || *w->at == '/' || *w->at == '"')
		return 0;
	w->word = w->at++;
	if (*w->word == '.' || is_word(*w->word))
		while (w->at < w->end && is_word(*w->at))
			w->at++;
	w->size = (size_t)(w->at - w->word);
	return 1;
}

static int word_is(const struct words *w, const char *with)
{
	return w->size == strlen(with) && !memcmp(w->word, with, w->size);
}

static uint32_t type_bytes(const struct words *w)
{
	static const struct {
		char name[8];
		uint32_t bytes;
	} types[] = {
		{ ".b8", 1 },  { ".u8", 1 },  { ".s8", 1 },  { ".pred", 1 },  { ".b16", 2 },
		{ ".u16", 2 }, { ".s16", 2 }, { ".f16", 2 }, { ".bf16", 2 },  { ".b32", 4 },
		{ ".u32", 4 }, { ".s32", 4 }, { ".f32", 4 }, { ".f16x2", 4 }, { ".b64", 8 },
		{ ".u64", 8 }, { ".s64", 8 }, { ".f64", 8 }, { ".b128", 16 },
	};
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (word_is(w, types[i].name))
			return types[i].bytes;
	return 0;
}

/* A plain decimal number. */
static int next_number(struct words *w, uint32_t *value)
{
	if (!next(w) || !is_digit(*w->word) || (*w->word == '0' && w->size > 1) || w->size > 9)
		return 0;
	*value = 0;
	for (size_t i = 0; i < w->size; i++) {
		if (!is_digit(w->word[i]))
			return 0;
		*value = *value * 10 + (uint32_t)(w->word[i] - '0');
	}
	return 1;
}

/* From behind ".param" to the comma or parenthesis. */
static int read_parameter(struct words *w, uint32_t *align, uint32_t *size)
{
	uint32_t bytes = 0, number;
	int pointer = 0, named = 0;
	*align = 0;
	*size = 1;
	while (next(w)) {
		if (*w->word == ',' || *w->word == ')') {
			*size *= bytes;
			*align = *align ? *align : bytes;
			return bytes && named && *size <= 1u << 16;
		}
		if (*w->word == '[') {
			if (!next_number(w, &number) || !number || number > 1u << 16 || !next(w) || *w->word != ']')
				return 0;
			if ((uint64_t)*size * number > 1u << 16)
				return 0;
			*size *= number;
		} else if (word_is(w, ".align")) {
			if (!next_number(w, &number) || !number || number & (number - 1))
				return 0;
			*align = pointer ? *align : number;
		} else if (word_is(w, ".ptr")) {
			pointer = 1;
		} else if (*w->word == '.') {
			if (type_bytes(w))
				bytes = type_bytes(w);
			else if (!pointer)
				return 0;
		} else if (is_word(*w->word) && !is_digit(*w->word) && !named) {
			named = 1;
		} else {
			return 0;
		}
	}
	return 0;
}

int ptx_parameters(const struct ptx_item *item, struct ptx_parameter **parameters)
{
	struct words w = { .at = item->name + item->name_size, .end = item->begin + item->size };
	struct ptx_parameter *list = NULL;
	uint32_t at = 0, align, size;
	int count = 0;
	*parameters = NULL;
	if (!next(&w))
		return -1;
	if (*w.word != '(')
		return *w.word == '{' || *w.word == '.' ? 0 : -1;
	if (!next(&w))
		return -1;
	if (*w.word == ')')
		return 0;
	do {
		struct ptx_parameter *more = realloc(list, ((size_t)count + 1) * sizeof *more);
		list = more ? more : list;
		if (!more || count >= MAX_PARAMETERS || !word_is(&w, ".param") || !read_parameter(&w, &align, &size))
			goto unknown;
		at = (at + align - 1) / align * align;
		list[count++] = (struct ptx_parameter){ at, size };
		at += size;
	} while (*w.word == ',' && next(&w));
	if (*w.word == ')') {
		*parameters = list;
		return count;
	}
unknown:
	free(list);
	return -1;
}
