/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 512, ABSENT_SLOTS = 1024 };

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

/* One write, so that lines of several threads do not mix. */
static void write_line(const char *format, va_list arguments)
{
	char line[LINE_BYTES] = "bitfusion: ";
	size_t used = strlen(line);
	int size = vsnprintf(line + used, sizeof line - used - 1, format, arguments);

	if (size < 0)
		return;
	used += (size_t)size < sizeof line - used - 1 ? (size_t)size : sizeof line - used - 2;
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

/* Names are literals of the stubs: the address tells them apart. */
CUresult bf_absent(const char *name)
{
	static _Atomic(const char *) named[ABSENT_SLOTS];
	unsigned slot = (unsigned)((uintptr_t)name * 2654435761u) % ABSENT_SLOTS;

	if (bf_debugging() && atomic_exchange(&named[slot], name) != name)
		bf_debug("%s is not implemented", name);
	return CUDA_ERROR_NOT_SUPPORTED;
}

const char *bf_call_name(unsigned call)
{
	static const char *const operations[] = {
		[BF_OP_DEVICES] = "device list",
		[BF_OP_LAUNCH] = "cuLaunchKernel",
		[BF_OP_HTOD] = "copy to the device",
		[BF_OP_DTOH] = "copy to the host",
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
