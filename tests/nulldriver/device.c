/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting, devices and contexts of the null driver.
 */
#include "null.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONTEXT_BASE 0x6e756c6c00000000ull /* "null" */

static long fail_at;
static CUresult fail_with = CUDA_ERROR_UNKNOWN;
static int allowed;
static int calls_log = -1; /* a file: what a program's end leaves unread of a worker's stderr is lost */
static _Atomic long calls, minted;

static _Thread_local struct {
	CUcontext stack[64];
	int depth;
} thread;

__attribute__((constructor)) static void read_environment(void)
{
	const char *on = getenv("BITFUSION_NULL_DRIVER"), *fail = getenv("BITFUSION_NULL_FAIL"), *code;
	const char *log = getenv("BITFUSION_NULL_CALLS");

	allowed = on && !strcmp(on, "1");
	if (log)
		calls_log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (!fail)
		return;
	fail_at = atol(fail);
	code = strchr(fail, ':');
	if (code)
		fail_with = (CUresult)atoi(code + 1);
}

CUresult null_enter(const char *function)
{
	long number;

	if (__builtin_expect(!fail_at && calls_log < 0, 1))
		return CUDA_SUCCESS;
	if (!strncmp(function, "cuDeviceGet", 11)) /* hundreds at every start */
		return CUDA_SUCCESS;
	number = atomic_fetch_add(&calls, 1) + 1;
	if (calls_log >= 0)
		dprintf(calls_log, "call %ld (%s)\n", number, function);
	if (number != fail_at)
		return CUDA_SUCCESS;
	fprintf(stderr, "null driver: call %ld (%s) fails with %d as asked\n", number, function, fail_with);
	return fail_with;
}

void *null_mint(void)
{
	return (void *)(uintptr_t)(CONTEXT_BASE + 0x10000 + 16 * (uint64_t)atomic_fetch_add(&minted, 1));
}

void *null_found(void)
{
	return (void *)(uintptr_t)(CONTEXT_BASE + 0x8000);
}

/* ------------------------------------------------------------------ starting */

CUresult cuInit(unsigned int flags)
{
	NULL_ENTER();
	if (allowed)
		return CUDA_SUCCESS;
	fprintf(stderr, "This libcuda.so.1 is Bitfusion's null driver. It runs nothing; BITFUSION_NULL_DRIVER=1 allows "
			"it for benchmarks and tests.\n");
	return CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
	NULL_ENTER();
	*version = 13000;
	return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status)
{
	return abi_get_proc_address(symbol, function, version, flags, status, 13000);
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
	return abi_get_proc_address_v1(symbol, function, version, flags, 13000);
}

CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
	return abi_get_export_table(table, id, __builtin_return_address(0));
}

CUresult cuGetErrorName(CUresult error, const char **text)
{
	return abi_error_name(error, text);
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
	return abi_error_string(error, text);
}

/* ------------------------------------------------------------------ devices */

static int is_device(CUdevice device)
{
	return allowed && device >= 0 && device < NULL_DEVICES;
}

CUresult cuDeviceGetCount(int *count)
{
	NULL_ENTER();
	*count = allowed ? NULL_DEVICES : 0;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	NULL_ENTER();
	*device = ordinal;
	return is_device(ordinal) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
	NULL_ENTER();
	if (!is_device(device))
		return CUDA_ERROR_INVALID_DEVICE;
	snprintf(name, size, "Bitfusion null device (runs nothing)");
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
	NULL_ENTER();
	memcpy(uuid, "bitfusion null \0", 16);
	uuid->bytes[15] = (char)device;
	return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
	return cuDeviceGetUuid_v2(uuid, device);
}

CUresult cuDeviceGetPCIBusId(char *text, int size, CUdevice device)
{
	NULL_ENTER();
	snprintf(text, size, "0000:%02X:00.0", 1 + device);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text)
{
	unsigned domain, bus;

	NULL_ENTER();
	if (sscanf(text, "%x:%x", &domain, &bus) != 2 || !is_device((int)bus - 1))
		return CUDA_ERROR_INVALID_VALUE;
	*device = (int)bus - 1;
	return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
	NULL_ENTER();
	*bytes = NULL_MEMORY;
	return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static const struct {
	CUdevice_attribute attribute;
	int value;
} attributes[] = {
	{ CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024 },
	{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024 },
	{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024 },
	{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64 },
	{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 0x7fffffff },
	{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535 },
	{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535 },
	{ CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152 },
	{ CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 65536 },
	{ CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32 },
	{ CU_DEVICE_ATTRIBUTE_MAX_PITCH, 0x7fffffff },
	{ CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536 },
	{ CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000 },
	{ CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512 },
	{ CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16 },
	{ CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1 },
	{ CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1 },
	{ CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2 },
	{ CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1 },
	{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 12 },
	{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0 },
	{ CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1 },
	{ CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 1536 },
	{ CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 102400 },
	{ CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536 },
	{ CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 101376 },
	{ CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1 },
};

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
	NULL_ENTER();
	if (!is_device(device))
		return CUDA_ERROR_INVALID_DEVICE;
	*value = attribute == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID ? 1 + device : 0;
	for (unsigned i = 0; i < sizeof attributes / sizeof *attributes; i++)
		if (attributes[i].attribute == attribute)
			*value = attributes[i].value;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ contexts: the primary one of each device */

static CUcontext primary_context(CUdevice device)
{
	return is_device(device) ? (CUcontext)(uintptr_t)(CONTEXT_BASE + 16 * (1 + device)) : NULL;
}

CUdevice null_current_device(void)
{
	uintptr_t context = thread.depth ? (uintptr_t)thread.stack[thread.depth - 1] : 0;
	uintptr_t index = (context - CONTEXT_BASE) / 16 - 1;

	return index < NULL_DEVICES ? (CUdevice)index : 0;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	NULL_ENTER();
	*context = primary_context(device);
	return *context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
	NULL_ENTER();
	*flags = 0;
	*active = 1;
	return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
	NULL_ENTER();
	*context = primary_context(device);
	if (!*context)
		return CUDA_ERROR_INVALID_DEVICE;
	return cuCtxPushCurrent_v2(*context);
}

CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *parameters, int count, unsigned int flags,
			CUdevice device)
{
	return cuCtxCreate_v2(context, flags, device);
}

CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *parameters, unsigned int flags, CUdevice device)
{
	return cuCtxCreate_v2(context, flags, device);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
	NULL_ENTER();
	if (!thread.depth)
		thread.depth = 1;
	thread.stack[thread.depth - 1] = context;
	if (!context)
		thread.depth--;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
	NULL_ENTER();
	*context = thread.depth ? thread.stack[thread.depth - 1] : NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
	NULL_ENTER();
	if (thread.depth == sizeof thread.stack / sizeof *thread.stack)
		return CUDA_ERROR_OUT_OF_MEMORY;
	thread.stack[thread.depth++] = context;
	return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
	NULL_ENTER();
	if (!thread.depth)
		return CUDA_ERROR_INVALID_CONTEXT;
	thread.depth--;
	if (context)
		*context = thread.stack[thread.depth];
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
	NULL_ENTER();
	*device = null_current_device();
	return thread.depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *version)
{
	NULL_ENTER();
	*version = 3020;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
	NULL_ENTER();
	*id = 1 + (unsigned long long)null_current_device();
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ for the hidden tables */

static int host_driver_version(void)
{
	return 13000;
}

static int host_device_count(void)
{
	return allowed ? NULL_DEVICES : 0;
}

static void host_device_identity(int device, uint8_t uuid[16], uint32_t pci[3])
{
	cuDeviceGetUuid_v2((CUuuid *)uuid, device);
	pci[0] = pci[2] = 0;
	pci[1] = 1 + device;
}

static CUcontext host_current_context(void)
{
	return thread.depth ? thread.stack[thread.depth - 1] : NULL;
}

static CUresult host_context_device(CUcontext context, CUdevice *device)
{
	return cuCtxGetDevice(device);
}

static uint64_t host_context_id(CUcontext context)
{
	return (uintptr_t)context;
}

static uint64_t host_stream_id(CUcontext context, CUstream stream)
{
	return (uintptr_t)stream;
}

const struct abi_host abi_host = {
	.driver_version = host_driver_version,
	.device_count = host_device_count,
	.device_identity = host_device_identity,
	.primary_context = primary_context,
	.current_context = host_current_context,
	.context_device = host_context_device,
	.context_id = host_context_id,
	.stream_id = host_stream_id,
	.load_module = cuModuleLoadData,
};
