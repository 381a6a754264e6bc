/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks the device for its architecture and compiles for it, as NVIDIA's samples do, linked against NVRTC and nvJitLink in the usual way.
 */
#include <cuda.h>
#include <nvJitLink.h>
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call) check((int)(call), #call)

static const char kernel[] = "extern \"C\" __device__ int twice(int);\n"
			     "extern \"C\" __global__ void k(int *a) { *a = twice(*a) + 1; }\n";
static const char function[] = "extern \"C\" __device__ int twice(int x) { return 2 * x; }\n";

struct code {
	size_t size;
	char *bytes;
};

static void check(int status, const char *call)
{
	if (!status)
		return;
	printf("%s: %d\n", call, status);
	exit(1);
}

typedef nvrtcResult size_call(nvrtcProgram, size_t *);
typedef nvrtcResult bytes_call(nvrtcProgram, char *);

static struct code compile(const char *arch, const char *more, const char *head, const char *text, size_call *size,
			   bytes_call *bytes)
{
	const char *options[] = { arch, more };
	char *whole = malloc(strlen(head) + strlen(text) + 1);
	struct code code;
	nvrtcProgram program;

	strcat(strcpy(whole, head), text);
	CHECK(nvrtcCreateProgram(&program, whole, "k.cu", 0, NULL, NULL));
	CHECK(nvrtcCompileProgram(program, 2, options));
	CHECK(size(program, &code.size));
	code.bytes = malloc(code.size);
	CHECK(bytes(program, code.bytes));
	CHECK(nvrtcDestroyProgram(&program));
	free(whole);
	return code;
}

static struct code join(const char *arch, const char *lto, nvJitLinkInputType type, const struct code *parts)
{
	const char *options[] = { arch, lto };
	nvJitLinkHandle link;
	struct code code;

	CHECK(nvJitLinkCreate(&link, lto ? 2 : 1, options));
	CHECK(nvJitLinkAddData(link, type, parts[0].bytes, parts[0].size, "kernel"));
	CHECK(nvJitLinkAddData(link, type, parts[1].bytes, parts[1].size, "function"));
	CHECK(nvJitLinkComplete(link));
	CHECK(nvJitLinkGetLinkedCubinSize(link, &code.size));
	code.bytes = malloc(code.size);
	CHECK(nvJitLinkGetLinkedCubin(link, code.bytes));
	CHECK(nvJitLinkDestroy(&link));
	return code;
}

static void run(const char *what, struct code code)
{
	CUmodule module;
	CUfunction found;
	CUdeviceptr at;
	void *parameters[] = { &at };
	int value = 20;

	CHECK(cuModuleLoadData(&module, code.bytes));
	CHECK(cuModuleGetFunction(&found, module, "k"));
	CHECK(cuMemAlloc(&at, sizeof value));
	CHECK(cuMemcpyHtoD(at, &value, sizeof value));
	CHECK(cuLaunchKernel(found, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH(&value, at, sizeof value));
	printf("%s: %d\n", what, value);
}

static int knows(int arch)
{
	int count = 0, *archs, found = 0;

	CHECK(nvrtcGetNumSupportedArchs(&count));
	archs = calloc((size_t)count, sizeof *archs);
	CHECK(nvrtcGetSupportedArchs(archs));
	for (int i = 0; i < count; i++)
		found += archs[i] == arch;
	free(archs);
	return found;
}

int main(void)
{
	char sm[64], compute[64], link[64];
	struct code parts[2];
	CUcontext context;
	CUdevice device;
	int major, minor;

	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	CHECK(cuDevicePrimaryCtxRetain(&context, device));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
	CHECK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
	snprintf(sm, sizeof sm, "--gpu-architecture=sm_%d%d", major, minor);
	snprintf(compute, sizeof compute, "--gpu-architecture=compute_%d%d", major, minor);
	snprintf(link, sizeof link, "-arch=sm_%d%d", major, minor);

	printf("known: %d\n", knows(10 * major + minor));
	run("cubin", compile(sm, "-DX", function, kernel, nvrtcGetCUBINSize, nvrtcGetCUBIN));
	run("PTX", compile(compute, "-DX", function, kernel, nvrtcGetPTXSize, nvrtcGetPTX));
	parts[0] = compile(compute, "-rdc=true", "", kernel, nvrtcGetPTXSize, nvrtcGetPTX);
	parts[1] = compile(compute, "-rdc=true", "", function, nvrtcGetPTXSize, nvrtcGetPTX);
	run("linked", join(link, NULL, NVJITLINK_INPUT_PTX, parts));
	parts[0] = compile(compute, "-dlto", "", kernel, nvrtcGetLTOIRSize, nvrtcGetLTOIR);
	parts[1] = compile(compute, "-dlto", "", function, nvrtcGetLTOIRSize, nvrtcGetLTOIR);
	run("linked when optimised", join(link, "-lto", NVJITLINK_INPUT_LTOIR, parts));
	return 0;
}
