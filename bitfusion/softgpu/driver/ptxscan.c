/* SPDX-License-Identifier: Apache-2.0
 *
 * Splits PTX text at its top level. One pass over all bytes: 20 MB of text take some hundredths of a second.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "fatbin.h"
#include "ptxtext.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)1 << 31)
enum { MAX_ITEMS = 1 << 20, MAX_NAME = 1 << 16, MAX_DEPTH = 1024, MAX_MAJOR = 9 };

/* What a byte is. */
enum { WORD = 1, DIGIT = 2, BLANK = 4, STOP = 8 /* ends a stretch of a body */ };
static const unsigned char class_of[256] = {
	['A' ... 'Z'] = WORD, ['a' ... 'z'] = WORD, ['0' ... '9'] = WORD | DIGIT, ['_'] = WORD, ['$'] = WORD,
	['%'] = WORD,         [' '] = BLANK,        ['\t' ... '\r'] = BLANK,      ['{'] = STOP, ['}'] = STOP,
	['/'] = STOP,         ['"'] = STOP,
};

struct reader {
	struct ptx_text *text;
	const char *at, *end;
};

static int is(const char *at, int class)
{
	return class_of[(unsigned char)*at] & class;
}

static const char *behind_line(const char *at, const char *end)
{
	const char *newline = memchr(at, '\n', (size_t)(end - at));
	return newline ? newline + 1 : end;
}

/* Behind the comment or the string that begins here, at + 1 where none does, NULL where it has no end. */
static const char *behind_aside(const char *at, const char *end)
{
	if (*at == '/' && at[1] == '/')
		return behind_line(at, end);
	if (*at == '/' && at[1] == '*') {
		const char *close = memmem(at + 2, (size_t)(end - at - 2), "*/", 2);
		return close ? close + 2 : NULL;
	}
	if (*at != '"')
		return at + 1;
	for (at++; at < end && *at != '"' && *at != '\n'; at++)
		if (*at == '\\' && at + 1 < end)
			at++;
	return at < end && *at == '"' ? at + 1 : NULL;
}

/* To the next byte that means something. */
static int skip_blanks(struct reader *r)
{
	while (r->at && r->at < r->end) {
		if (is(r->at, BLANK))
			r->at++;
		else if (*r->at == '/' && (r->at[1] == '/' || r->at[1] == '*'))
			r->at = behind_aside(r->at, r->end);
		else
			break;
	}
	return r->at != NULL;
}

/* The word in hand without its dot; its length. */
static size_t take_word(struct reader *r, const char **word)
{
	if (r->at < r->end && *r->at == '.')
		r->at++;
	*word = r->at;
	while (r->at < r->end && is(r->at, WORD))
		r->at++;
	return (size_t)(r->at - *word);
}

static int equals(const char *word, size_t size, const char *with)
{
	return size == strlen(with) && !memcmp(word, with, size);
}

static int one_of(const char *word, size_t size, const char *const *list)
{
	for (; *list; list++)
		if (equals(word, size, *list))
			return 1;
	return 0;
}

/* From an opening brace to behind the one that closes it. */
static int skip_braces(struct reader *r)
{
	unsigned depth = 0;
	const char *at = r->at, *end = r->end;
	do {
		while (at < end && !is(at, STOP))
			at++;
		if (at >= end)
			return 0;
		if (*at == '{')
			depth++, at++;
		else if (*at == '}')
			depth--, at++;
		else
			at = behind_aside(at, end);
	} while (at && depth && depth < MAX_DEPTH);
	r->at = at;
	return at && !depth;
}

/* ------------------------------------------------------------------ items */

static struct ptx_item *new_item(struct ptx_text *text)
{
	if (text->count == text->room) {
		uint32_t room = text->room ? 2 * text->room : 256;
		struct ptx_item *more = room > MAX_ITEMS ? NULL : realloc(text->items, room * sizeof *more);
		if (!more)
			return NULL;
		text->items = more;
		text->room = room;
	}
	struct ptx_item *item = &text->items[text->count++];
	*item = (struct ptx_item){ .twin = PTX_NONE };
	return item;
}

/* Up to what ends a declaration: its semicolon, its body or, for a variable, its initialiser. Finds the name. */
static int read_declaration(struct reader *r, struct ptx_item *item)
{
	unsigned depth = 0;
	while (skip_blanks(r) && r->at < r->end) {
		const char *word = r->at;
		if (*word == '"') {
			r->at = behind_aside(word, r->end);
		} else if (*word == '.' || is(word, WORD)) {
			size_t size = take_word(r, &word);
			if (size > MAX_NAME)
				return 0;
			if (equals(word, size, "managed"))
				item->managed = 1;
			if (equals(word, size, "pragma") && !depth)
				return 0;
			if (!depth && word[-1] != '.' && !is(word, DIGIT) && !item->name) {
				item->name = word;
				item->name_size = (uint32_t)size;
			}
		} else if (!depth && (*word == ';' || *word == '{' || *word == '=')) {
			return item->name != NULL;
		} else if (*word == ',' && !depth && item->kind != PTX_FUNCTION && item->kind != PTX_KERNEL) {
			return 0; /* several variables in one declaration */
		} else {
			depth += *word == '(' || *word == '[';
			depth -= *word == ')' || *word == ']';
			r->at++;
		}
	}
	return 0;
}

/* Behind the semicolon. */
static int skip_statement(struct reader *r)
{
	while (skip_blanks(r) && r->at < r->end && *r->at != ';') {
		if (*r->at == '{') {
			if (!skip_braces(r))
				return 0;
		} else {
			r->at = behind_aside(r->at, r->end);
		}
	}
	if (!r->at || r->at >= r->end)
		return 0;
	r->at++;
	return 1;
}

static int finish_item(struct reader *r, struct ptx_item *item)
{
	if (!read_declaration(r, item))
		return 0;
	if (*r->at == '{') {
		if (item->kind == PTX_VARIABLE || !skip_braces(r))
			return 0;
		item->body = 1;
	} else if (!skip_statement(r)) {
		return 0;
	}
	item->size = (uint32_t)(r->at - item->begin);
	return 1;
}

static int read_alias(struct reader *r, struct ptx_item *item)
{
	if (!skip_blanks(r))
		return 0;
	item->kind = PTX_ALIAS;
	item->name_size = (uint32_t)take_word(r, &item->name);
	if (!item->name_size || !skip_statement(r))
		return 0;
	item->size = (uint32_t)(r->at - item->begin);
	return 1;
}

static int read_item(struct reader *r, const char *begin, const char *word, size_t size)
{
	static const char *const linkages[] = { "visible", "extern", "weak", "common", NULL };
	static const char *const spaces[] = { "global", "const", "shared", "local", "tex", NULL };
	struct ptx_item *item = new_item(r->text);
	if (!item)
		return 0;
	item->begin = begin;
	while (one_of(word, size, linkages)) {
		item->is_extern |= *word == 'e';
		if (!skip_blanks(r) || r->at >= r->end || *r->at != '.')
			return 0;
		size = take_word(r, &word);
	}
	if (equals(word, size, "alias"))
		return read_alias(r, item);
	if (equals(word, size, "entry"))
		item->kind = PTX_KERNEL;
	else if (equals(word, size, "func"))
		item->kind = PTX_FUNCTION;
	else if (!one_of(word, size, spaces))
		return 0;
	item->shared = item->kind == PTX_VARIABLE && (*word == 's' || *word == 'l');
	return finish_item(r, item);
}

/* ------------------------------------------------------------------ the top level */

/* Behind the words and numbers of .version, .target, .address_size. */
static int skip_header(struct reader *r)
{
	const char *word;
	do {
		if (r->at < r->end && *r->at == ',')
			r->at++;
		if (!skip_blanks(r) || !take_word(r, &word))
			return 0;
		if (r->at < r->end && *r->at == '.' && r->at + 1 < r->end && is(r->at + 1, DIGIT))
			take_word(r, &word);
		while (r->at < r->end && is(r->at, BLANK) && *r->at != '\n')
			r->at++;
	} while (r->at < r->end && *r->at == ',');
	return 1;
}

/* What the front end refuses, it must get to see. */
static int header_is_good(const struct ptx_text *text, const char *word, size_t size)
{
	if (equals(word, size, "address_size"))
		return strtol(word + size, NULL, 10) == 64;
	if (equals(word, size, "target")) {
		const char *name = word + size + strspn(word + size, " \t\r\n");
		return text->header && !strncmp(name, "sm_", 3) && strtol(name + 3, NULL, 10) <= NEWEST_PTX;
	}
	if (!equals(word, size, "version"))
		return text->header != 0; /* the version comes first */
	const long major = strtol(word + size, NULL, 10);
	return major > 0 && major <= MAX_MAJOR && !text->header;
}

static int skip_section(struct reader *r)
{
	const char *open = memchr(r->at, '{', (size_t)(r->end - r->at));
	const char *close = open ? memchr(open, '}', (size_t)(r->end - open)) : NULL;
	r->at = close ? close + 1 : NULL;
	return close != NULL;
}

static int read_directive(struct reader *r)
{
	static const char *const header[] = { "version", "target", "address_size", NULL };
	const char *begin = r->at, *word;
	if (*begin == ';') {
		r->at++;
		return 1;
	}
	if (*begin == '@') {
		r->at = behind_line(begin, r->end);
		return 1;
	}
	size_t size = *begin == '.' ? take_word(r, &word) : 0;
	if (!size)
		return 0;
	if (one_of(word, size, header)) {
		if (r->text->count || !header_is_good(r->text, word, size) || !skip_header(r))
			return 0; /* or it comes too late to be in a slice's header */
		r->text->header = (size_t)(r->at - r->text->bytes);
		return 1;
	}
	if (equals(word, size, "file") || equals(word, size, "loc")) {
		r->at = behind_line(r->at, r->end);
		return 1;
	}
	if (equals(word, size, "section"))
		return skip_section(r);
	if (equals(word, size, "pragma"))
		return skip_statement(r);
	return read_item(r, begin, word, size);
}

static int scan(struct ptx_text *text)
{
	struct reader r = { .text = text, .at = text->bytes, .end = text->bytes + text->size };
	while (skip_blanks(&r) && r.at < r.end)
		if (!read_directive(&r) || !r.at)
			return 0;
	return r.at && text->header;
}

/* ------------------------------------------------------------------ the whole */

static void look_over(struct ptx_text *text)
{
	/* a call through a register names the shape of what it calls */
	text->indirect = memmem(text->bytes, text->size, ".callprototype", 14) ||
			 memmem(text->bytes, text->size, ".calltargets", 12);
	for (uint32_t i = 0; i < text->count; i++) {
		const struct ptx_item *item = &text->items[i];
		if (item->kind != PTX_VARIABLE)
			continue;
		text->managed |= item->managed;
		text->variable_bytes += item->size;
	}
}

struct ptx_text *ptx_scan(char *bytes, size_t size)
{
	struct ptx_text *text = size < MAX_TEXT ? calloc(1, sizeof *text) : NULL;
	if (!text)
		return NULL;
	text->bytes = bytes;
	text->size = strnlen(bytes, size);
	if (scan(text) && ptx_index_names(text) && ptx_check_twins(text) && ptx_list_kernels(text)) {
		look_over(text);
		return text;
	}
	text->bytes = NULL;
	ptx_free(text);
	return NULL;
}

void ptx_free(struct ptx_text *text)
{
	if (!text)
		return;
	free(text->bytes);
	free(text->items);
	free(text->kernels);
	free(text->names);
	free(text->name_bytes);
	free(text->table);
	free(text);
}
