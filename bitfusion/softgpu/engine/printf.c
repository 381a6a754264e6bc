/* SPDX-License-Identifier: Apache-2.0
 *
 * vprintf's formats. Arguments lie packed behind one another, each aligned to its own size; 4 bytes for int and
 * what promotes to it, 8 for the rest. Every conversion is given to the C library with checked flags and lengths.
 */
#include <stdio.h>

#include "internal.h"

struct reader {
	struct sg_warp *w;
	uint32_t lane;
	const char *arguments;
	uint64_t size, at;
};

struct writer {
	char *text;
	size_t size, length;
};

static uint64_t argument(struct reader *reader, unsigned bytes)
{
	uint64_t value = 0;

	reader->at = (reader->at + bytes - 1) / bytes * bytes;
	if (reader->at + bytes <= reader->size)
		memcpy(&value, reader->arguments + reader->at, bytes);
	reader->at += bytes;
	return value;
}

static void emit(struct writer *out, const char *text, size_t length)
{
	for (size_t k = 0; k < length; k++, out->length++)
		if (out->length < out->size)
			out->text[out->length] = text[k];
}

struct conversion {
	char flags[8];
	int width, precision; /* -1: none */
	unsigned bytes; /* of an integer argument */
	char letter;
};

static const char *number(struct reader *reader, const char *p, int *value)
{
	if (*p == '*') {
		*value = (int32_t)argument(reader, 4);
		return p + 1;
	}
	*value = 0;
	while (*p >= '0' && *p <= '9')
		*value = *value < 100000 ? *value * 10 + (*p++ - '0') : (p++, *value);
	return p;
}

/* p is after the percent sign; returns what follows the conversion, or NULL where there is none. */
static const char *parse(struct reader *reader, const char *p, struct conversion *c)
{
	size_t flags = 0;

	*c = (struct conversion){ .width = -1, .precision = -1, .bytes = 4 };
	for (; *p && strchr("-+ #0", *p); p++)
		if (flags < sizeof(c->flags) - 2 && !strchr(c->flags, *p))
			c->flags[flags++] = *p;
	if (*p == '*' || (*p >= '0' && *p <= '9'))
		p = number(reader, p, &c->width);
	if (c->width < -1) {
		c->width = -c->width;
		c->flags[flags++] = '-';
	}
	if (*p == '.') {
		p = number(reader, p + 1, &c->precision);
		if (c->precision < 0)
			c->precision = -1;
	}
	for (; *p && strchr("hlLjzt", *p); p++)
		if (*p != 'h')
			c->bytes = 8;
	c->letter = *p;
	return *p ? p + 1 : NULL;
}

static void emit_string(struct reader *reader, struct writer *out, const struct conversion *c)
{
	static const char null[] = "(null)";
	const uint64_t address = argument(reader, 8);
	uint64_t room = 0;
	const char *text = address ? sg_host_span(reader->w, reader->lane, address, &room) : null;
	size_t length, pad;

	if (!address)
		room = sizeof(null);
	length = text ? strnlen(text, room) : 0;
	if (c->precision >= 0 && (size_t)c->precision < length)
		length = (size_t)c->precision;
	pad = c->width > 0 && (size_t)c->width > length ? (size_t)c->width - length : 0;
	for (size_t k = 0; k < pad && !strchr(c->flags, '-'); k++)
		emit(out, " ", 1);
	emit(out, text ? text : "", length);
	for (size_t k = 0; k < pad && strchr(c->flags, '-'); k++)
		emit(out, " ", 1);
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void emit_number(struct reader *reader, struct writer *out, const struct conversion *c)
{
	char format[24], made[1024];
	const bool real = strchr("aAeEfFgG", c->letter) != NULL;
	const int width = c->width < 0 ? 0 : c->width > 400 ? 400 : c->width;
	const int precision = c->precision > 400 ? 400 : c->precision;
	int length;

	snprintf(format, sizeof(format), "%%%s*.*%s%c", c->flags, real || strchr("cp", c->letter) ? "" : "ll",
		 c->letter);
	if (real) {
		const uint64_t bits = argument(reader, 8);
		double value;

		memcpy(&value, &bits, sizeof(value));
		length = snprintf(made, sizeof(made), format, width, precision, value);
	} else if (c->letter == 'c') {
		snprintf(format, sizeof(format), "%%%s*c", c->flags);
		length = snprintf(made, sizeof(made), format, width, (int)argument(reader, 4));
	} else if (c->letter == 'p') {
		snprintf(format, sizeof(format), "%%%s*p", c->flags);
		length = snprintf(made, sizeof(made), format, width, (void *)(uintptr_t)argument(reader, 8));
	} else {
		const uint64_t bits = argument(reader, c->bytes);
		const bool is_signed = c->letter == 'd' || c->letter == 'i';

		length = snprintf(made, sizeof(made), format, width, precision,
				  is_signed && c->bytes == 4 ? (long long)(int32_t)bits : (long long)bits);
	}
	if (length > 0)
		emit(out, made, (size_t)length < sizeof(made) ? (size_t)length : sizeof(made) - 1);
}

size_t sg_printf_format(struct sg_warp *w, uint32_t lane, const char *format, const char *arguments,
			uint64_t argument_bytes, char *text, size_t size)
{
	struct reader reader = { .w = w, .lane = lane, .arguments = arguments, .size = argument_bytes };
	struct writer out = { .text = text, .size = size };

	for (const char *p = format; *p;) {
		const char *stop = p + strcspn(p, "%");
		struct conversion c;

		emit(&out, p, (size_t)(stop - p));
		if (!*stop)
			break;
		p = parse(&reader, stop + 1, &c);
		if (!p)
			break;
		if (c.letter == '%')
			emit(&out, "%", 1);
		else if (c.letter == 's')
			emit_string(&reader, &out, &c);
		else if (strchr("diouxXcpaAeEfFgG", c.letter))
			emit_number(&reader, &out, &c);
		else
			emit(&out, stop, (size_t)(p - stop));
	}
	return out.length;
}
