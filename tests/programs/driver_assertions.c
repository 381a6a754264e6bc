/* SPDX-License-Identifier: Apache-2.0
 *
 * What threads say whose assertion failed: a line each, on stderr, which is there when the call that told of it has
 * returned, whichever call that was.
 */
#define _GNU_SOURCE
#include "program.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

/* check(first): of the threads with this number and those up to 33 `x < 30` fails; thread 0 prints "hello\n" before */
static const char code[] = PTX_HEADER
	".extern .func (.param .b32 result) vprintf(.param .b64 format, .param .b64 list);\n"
	".extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);\n"
	".global .align 1 .b8 hello[8] = {104, 101, 108, 108, 111, 10, 0};\n"
	".global .align 1 .b8 message[8] = {120, 32, 60, 32, 51, 48, 0};\n"
	".global .align 1 .b8 file[8] = {97, 46, 99, 117, 0};\n"
	".global .align 1 .b8 name[8] = {99, 104, 101, 99, 107, 0};\n"
	".visible .entry check(.param .u32 first)\n{\n    .reg .pred %q<3>;\n" PTX_REGISTERS
	"    ld.param.u32 %r1, [first];\n    mov.u32 %r2, %tid.x;\n    setp.ne.u32 %q1, %r2, 0;\n    @%q1 bra ASSERT;\n"
	"    mov.u64 %d1, hello;\n    cvta.global.u64 %d1, %d1;\n    mov.u64 %d2, 0;\n    {\n"
	"    .param .b64 p0, p1;\n    .param .b32 r0;\n    st.param.b64 [p0], %d1;\n    st.param.b64 [p1], %d2;\n"
	"    call (r0), vprintf, (p0, p1);\n    }\n"
	"ASSERT:\n    setp.lt.u32 %q1, %r2, %r1;\n    setp.gt.or.u32 %q1, %r2, 33, %q1;\n    @%q1 bra DONE;\n"
	"    mov.u64 %d1, message;\n    cvta.global.u64 %d1, %d1;\n    mov.u64 %d2, file;\n    cvta.global.u64 %d2, %d2;\n"
	"    mov.u64 %d3, name;\n    cvta.global.u64 %d3, %d3;\n    {\n"
	"    .param .b64 m, f, n, c;\n    .param .b32 l;\n    st.param.b64 [m], %d1;\n    st.param.b64 [f], %d2;\n"
	"    st.param.b32 [l], 17;\n    st.param.b64 [n], %d3;\n    st.param.b64 [c], 1;\n"
	"    call __assertfail, (m, f, l, n, c);\n    }\n"
	"DONE:\n    ret;\n}\n";

static atomic_int is_open;
static CUstream stream;
static CUevent event;
static CUdeviceptr memory;

/* Kernels behind it fail when everything has been enqueued. */
static void gate(void *unused)
{
	(void)unused;
	while (!is_open)
		usleep(100);
}

static CUresult wait_context(void)
{
	return cuCtxSynchronize();
}

static CUresult wait_stream(void)
{
	return cuStreamSynchronize(stream);
}

static CUresult wait_event(void)
{
	return cuEventSynchronize(event);
}

static CUresult wait_copy(void)
{
	int word;
	return cuMemcpyDtoH_v2(&word, memory, sizeof word);
}

static CUresult ask_stream(void)
{
	CUresult status;
	while ((status = cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY)
		usleep(1000);
	return status;
}

static CUresult ask_event(void)
{
	CUresult status;
	while ((status = cuEventQuery(event)) == CUDA_ERROR_NOT_READY)
		usleep(1000);
	return status;
}

static CUresult wait_late(void) /* the fault is known to the driver when the wait begins */
{
	usleep(20000);
	return cuCtxSynchronize();
}

static CUresult wait_stream_late(void)
{
	usleep(20000);
	return cuStreamSynchronize(stream);
}

static const struct {
	const char *name;
	CUresult (*call)(void);
} ways[] = {
	{ "cuCtxSynchronize", wait_context },    { "cuStreamSynchronize", wait_stream },
	{ "cuEventSynchronize", wait_event },    { "cuMemcpyDtoH", wait_copy },
	{ "cuStreamQuery", ask_stream },         { "cuEventQuery", ask_event },
	{ "cuCtxSynchronize, late", wait_late }, { "cuStreamSynchronize, late", wait_stream_late },
};

/* What is on stderr by now; a driver may add lines of its own. */
static void show_errors(int from)
{
	static char text[1 << 16];
	ssize_t size = read(from, text, sizeof text - 1);
	text[size > 0 ? size : 0] = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strstr(line, "Assertion"))
			printf("stderr: %s\n", line);
}

int main(void)
{
	int ends[2], first = 30;
	void *parameters[] = { &first };
	CUcontext context = open_device();
	CUmodule module;

	if (pipe(ends) != 0)
		return 1;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	dup2(ends[1], STDERR_FILENO);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		CHECK(cuModuleLoadData(&module, code));
		CHECK(cuMemAlloc_v2(&memory, sizeof(int)));
		CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
		CHECK(cuEventCreate(&event, 0));
		CUstream where = ways[i].call == wait_copy ? NULL : stream;
		is_open = 0;
		CHECK(cuLaunchHostFunc(where, gate, NULL));
		CHECK(cuLaunchKernel(get_function(module, "check"), 1, 1, 1, 40, 1, 1, 0, where, parameters, NULL));
		CHECK(cuEventRecord(event, where));
		is_open = 1;
		CUresult status = ways[i].call();
		printf("%s: %s\n", ways[i].name, error_name(status));
		show_errors(ends[0]);
		CHECK(cuDevicePrimaryCtxReset_v2(0));
		CHECK(cuDevicePrimaryCtxRetain(&context, 0));
		CHECK(cuCtxSetCurrent(context));
	}
	return 0;
}
