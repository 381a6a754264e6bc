/* SPDX-License-Identifier: Apache-2.0
 *
 * The functions that device code calls and nobody compiled: vprintf, malloc, free, __assertfail. Results and
 * arguments lie behind one another at base, each aligned to its size, results first.
 */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

static char *arguments_of(struct sg_warp *w, uint32_t lane, uint32_t base)
{
	return w->local + (uint64_t)lane * w->local_size + base;
}

static uint64_t word(const char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* A string of the kernel's, copied and ended within size. */
static void read_string(struct sg_warp *w, uint32_t lane, uint64_t address, char *text, size_t size)
{
	uint64_t room = 0;
	const char *host = sg_host_span(w, lane, address, &room);
	const size_t length = host ? strnlen(host, room < size - 1 ? room : size - 1) : 0;

	memcpy(text, host ? host : "", length);
	text[length] = 0;
}

#define FORMAT_SIZE 4096

static bool print_lane(struct sg_warp *w, const struct sg_op *i, uint32_t lane, char *at)
{
	const uint64_t packed = word(at + 16);
	char format[FORMAT_SIZE], small[2048], *text = small;
	uint64_t room = 0;
	const char *arguments = packed ? sg_host_span(w, lane, packed, &room) : "";
	int32_t answer = -1;
	size_t length;

	if (!sg_host(w, lane, word(at + 8), 1) || !arguments) {
		sg_fault(w, i, 1u << lane, SG_ILLEGAL_ADDRESS, "printf's format or arguments are not in memory");
		return false;
	}
	read_string(w, lane, word(at + 8), format, sizeof(format));
	length = sg_printf_format(w, lane, format, arguments, room, small, sizeof(small));
	if (length > sizeof(small)) {
		text = malloc(length);
		if (text)
			length = sg_printf_format(w, lane, format, arguments, room, text, length);
	}
	if (text && sg_context_print(w->block->run->launch->context, text, length))
		answer = (int32_t)length;
	if (text != small)
		free(text);
	memcpy(at, &answer, sizeof(answer));
	return true;
}

#define TEXT_SIZE 400 /* of what a template makes of a function's name, or of a path */

static void fail_assertion(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const char *at)
{
	const uint32_t *tid = (const uint32_t *)w->base[SG_AREA_WARP], *block = w->block->index;
	char message[TEXT_SIZE], file[TEXT_SIZE], function[TEXT_SIZE], text[4 * TEXT_SIZE];
	const uint32_t line = (uint32_t)word(at + 16);
	int length;

	read_string(w, lane, word(at), message, sizeof(message));
	read_string(w, lane, word(at + 8), file, sizeof(file));
	read_string(w, lane, word(at + 24), function, sizeof(function));
	length = snprintf(text, sizeof(text),
			  "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", file, line,
			  function, block[0], block[1], block[2], tid[lane], tid[SG_LANES + lane],
			  tid[2 * SG_LANES + lane], message);
	if (length > 0)
		sg_context_tell_assertion(w->block->run->launch->context, text, (size_t)length);
	sg_fault_at_leisure(w, i, 1u << lane, SG_ASSERT, "%s:%u: %s: assertion '%s' failed", file, line, function,
			    message);
}

bool sg_system_call(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t base)
{
	struct sg_context *context = w->block->run->launch->context;

	SG_EACH(lane, m)
	{
		char *at = arguments_of(w, lane, base);
		uint64_t address;

		switch (i->d) {
		case SG_SYSTEM_VPRINTF:
			if (!print_lane(w, i, lane, at))
				return false;
			break;
		case SG_SYSTEM_MALLOC:
			address = sg_context_malloc(context, word(at + 8));
			memcpy(at, &address, sizeof(address));
			break;
		case SG_SYSTEM_FREE:
			if (word(at) && sg_context_free(context, word(at))) {
				sg_fault(w, i, 1u << lane, SG_ILLEGAL_ADDRESS,
					 "free of 0x%llx, which malloc did not give", (unsigned long long)word(at));
				return false;
			}
			break;
		default: fail_assertion(w, i, lane, at);
		}
	}
	if (i->d == SG_SYSTEM_ASSERT) {
		w->groups[0].pc = i + 1;
		sg_warp_leave(w, m);
	}
	return i->d != SG_SYSTEM_ASSERT;
}
