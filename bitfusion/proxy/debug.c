/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "proxy.h"
#include "printable.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 512, NAME_SLOTS = 1024 };

bool bf_debugging(void)
{
	static _Atomic int known; /* 0 not asked yet, 1 no, 2 yes */
	int answer = atomic_load_explicit(&known, memory_order_relaxed);

	if (!answer) {
		const char *value = getenv("BITFUSION_DEBUG");

		answer = value && *value && strcmp(value, "0") ? 2 : 1;
		atomic_store_explicit(&known, answer, memory_order_relaxed);
	}
	return answer == 2;
}

/* One write, so that lines of several threads do not mix; and one line, whatever a server wrote of it. */
static void write_line(const char *format, va_list arguments)
{
	char text[LINE_BYTES], line[LINE_BYTES] = "bitfusion: ";
	size_t used = strlen(line);

	if (vsnprintf(text, sizeof text, format, arguments) < 0)
		return;
	used += bf_printable(line + used, sizeof line - used - 1, text);
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return; /* nobody to tell */
}

void bf_debug(const char *format, ...)
{
	va_list arguments;

	if (!bf_debugging())
		return;
	va_start(arguments, format);
	write_line(format, arguments);
	va_end(arguments);
}

void bf_tell(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_line(format, arguments);
	va_end(arguments);
}

/* Two texts that share a slot may be told more often than once, never not at all. */
bool bf_first_time(const char *text)
{
	static _Atomic uint64_t named[NAME_SLOTS];
	uint64_t hash = 0xcbf29ce484222325u;

	for (const char *c = text; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
	return atomic_exchange(&named[hash % NAME_SLOTS], hash) != hash;
}

CUresult bf_absent(const char *name)
{
	if (bf_debugging() && bf_first_time(name))
		bf_debug("%s is not implemented", name);
	return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult bf_absent_instead(const char *name, const char *instead)
{
	if (bf_first_time(name))
		bf_tell("%s is not supported on a server's GPU: %s instead", name, instead);
	return CUDA_ERROR_NOT_SUPPORTED;
}

void bf_not_found(const char *name, int version)
{
	if (bf_debugging() && bf_first_time(name))
		bf_debug("%s at version %d is not there", name, version);
}

const char *bf_call_name(unsigned call)
{
	static const char *const operations[] = {
		[BF_OP_DEVICES] = "device list",
		[BF_OP_LAUNCH] = "cuLaunchKernel",
		[BF_OP_HTOD] = "copy to the device",
		[BF_OP_DTOH] = "copy to the host",
		[BF_OP_REFRESH] = "fetch of shared memory",
		[BF_OP_KERNEL_NODE] = "cuGraphKernelNodeGetParams",
		[BF_OP_PROGRAM_NODE] = "question for a graph's node",
		[BF_OP_GRAPH_SHAPE] = "question for a graph's order",
		[BF_OP_COPY3D] = "2D or 3D copy",
		[BF_OP_ALLOC] = "cuMemAlloc",
		[BF_OP_FREE] = "cuMemFree",
		[BF_OP_LOAD] = "load of code",
		[BF_OP_GET_FUNCTION] = "look-up of a function",
		[BF_OP_HOST_FUNCTION] = "cuLaunchHostFunc",
		[BF_OP_CALLBACK_DONE] = "end of a host function",
		[BF_OP_MEMORY_INFO] = "cuMemGetInfo",
	};

	if (call < sizeof operations / sizeof *operations && operations[call])
		return operations[call];
	if (call >= BF_FIRST_ROW && call - BF_FIRST_ROW < bf_row_count)
		return bf_rows[call - BF_FIRST_ROW].name;
	return "unknown call";
}
