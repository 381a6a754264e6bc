/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver as a whole: initialisation, lookup, what becomes of it in a fork child and at exit.
 */
#include "driver.h"
#include "hardware.h"
#include "memory.h"
#include "queue.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct driver driver;
__thread int in_host_function;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

void driver_debug(const char *format, ...)
{
	if (!driver.debug)
		return;
	char line[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	driver_say(line);
}

void driver_say(const char *text)
{
	fprintf(stderr, "bitfusion softgpu: %s\n", text);
}

CUresult driver_enter(void)
{
	switch (atomic_load_explicit(&driver.state, memory_order_acquire)) {
	case DRIVER_READY: return in_host_function ? CUDA_ERROR_NOT_PERMITTED : CUDA_SUCCESS;
	case DRIVER_GONE: return CUDA_ERROR_DEINITIALIZED;
	default: return CUDA_ERROR_NOT_INITIALIZED;
	}
}

/* Threads and locks of the parent do not exist in its child, so nothing of the driver may be used there. */
static void after_fork(void)
{
	if (driver.state != DRIVER_FRESH)
		driver.state = DRIVER_FORKED;
}

static CUresult start(void)
{
	const char *debug = getenv("BITFUSION_DEBUG");
	driver.debug = debug && *debug && strcmp(debug, "0");
	driver.space = sg_space_create();
	if (!driver.space)
		return CUDA_ERROR_OUT_OF_MEMORY;
	TRY(devices_create());
	if (!driver.device_count)
		return CUDA_ERROR_NO_DEVICE;
	pthread_atfork(NULL, NULL, after_fork);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuInit(unsigned int Flags)
{
	if (Flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (driver.state == DRIVER_READY)
		return CUDA_SUCCESS;
	if (driver.state == DRIVER_FORKED)
		return CUDA_ERROR_NOT_INITIALIZED;
	pthread_mutex_lock(&init_lock);
	CUresult result = CUDA_SUCCESS;
	if (driver.state == DRIVER_FRESH) {
		result = start();
		if (result == CUDA_SUCCESS)
			driver.state = DRIVER_READY;
	}
	pthread_mutex_unlock(&init_lock);
	return result;
}

/* Runs after the program's own exit handlers: what is still running must not keep the process. */
__attribute__((destructor)) static void leave(void)
{
	if (driver.state != DRIVER_READY)
		return;
	context_cancel_all();
	driver.state = DRIVER_GONE;
}

struct sg_pool *driver_pool(void)
{
	pthread_mutex_lock(&init_lock);
	if (!driver.pool)
		driver.pool = sg_pool_create(0);
	struct sg_pool *pool = driver.pool;
	pthread_mutex_unlock(&init_lock);
	return pool;
}

EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
	if (!driverVersion)
		return CUDA_ERROR_INVALID_VALUE;
	*driverVersion = DRIVER_VERSION;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
				    CUdriverProcAddressQueryResult *symbolStatus)
{
	return abi_get_proc_address(symbol, pfn, cudaVersion, flags, symbolStatus, DRIVER_VERSION);
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
	CUdriverProcAddressQueryResult status = 0;
	CUresult result = abi_get_proc_address(symbol, pfn, cudaVersion, flags, &status, DRIVER_VERSION);
	return result == CUDA_SUCCESS && pfn && !*pfn ? CUDA_ERROR_NOT_FOUND : result;
}

static uint64_t hardware_used(int hardware)
{
	uint64_t used = 0;
	pthread_mutex_lock(&memory_lock);
	for (int i = 0; i < driver.device_count; i++)
		if (driver.devices[i].hardware == hardware)
			used = driver.devices[i].arena->used;
	pthread_mutex_unlock(&memory_lock);
	return used;
}

EXPORT CUresult cuGetExportTable(const void **ppExportTable, const CUuuid *pExportTableId)
{
	static const struct hardware_usage usage = { sizeof usage, hardware_used };
	if (!ppExportTable || !pExportTableId)
		return CUDA_ERROR_INVALID_VALUE;
	if (!memcmp(pExportTableId, HARDWARE_USAGE_ID, sizeof *pExportTableId)) {
		*ppExportTable = &usage;
		return CUDA_SUCCESS;
	}
	return abi_get_export_table(ppExportTable, pExportTableId, __builtin_return_address(0));
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **pStr)
{
	return pStr ? abi_error_name(error, pStr) : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **pStr)
{
	return pStr ? abi_error_string(error, pStr) : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ what the hidden tables ask of us */

static int host_version(void)
{
	return DRIVER_VERSION;
}

static int host_device_count(void)
{
	return driver.device_count;
}

static void host_identity(int index, uint8_t uuid[16], uint32_t pci[3])
{
	static const CUdevice_attribute parts[3] = { CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID,
						     CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID };
	struct device *device = device_get(index);
	memset(uuid, 0, 16);
	memset(pci, 0, 3 * sizeof *pci);
	if (!device)
		return;
	memcpy(uuid, device->uuid, 16);
	for (int i = 0; i < 3; i++) {
		int value = 0;
		device_attribute(device, parts[i], &value);
		pci[i] = (uint32_t)value;
	}
}

static CUcontext host_primary(CUdevice index)
{
	struct device *device = device_get(index);
	return device ? (CUcontext)device->primary : NULL;
}

static CUcontext host_current(void)
{
	return (CUcontext)context_current();
}

static CUresult host_context_device(CUcontext handle, CUdevice *device)
{
	struct context *context = handle ? context_get(handle) : context_current();
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	*device = context->device->index;
	return CUDA_SUCCESS;
}

static uint64_t host_context_id(CUcontext handle)
{
	struct context *context = handle ? context_get(handle) : context_current();
	return context ? context->id : 0;
}

static uint64_t host_stream_id(CUcontext handle, CUstream stream)
{
	struct context *context = handle ? context_get(handle) : context_current();
	struct stream *found = context ? stream_resolve(context, stream) : NULL;
	return found ? found->id : 0;
}

static CUresult host_load_module(CUmodule *module, const void *image)
{
	return cuModuleLoadData(module, image);
}

const struct abi_host abi_host = {
	.driver_version = host_version,
	.device_count = host_device_count,
	.device_identity = host_identity,
	.primary_context = host_primary,
	.current_context = host_current,
	.context_device = host_context_device,
	.context_id = host_context_id,
	.stream_id = host_stream_id,
	.load_module = host_load_module,
};

/* Every function that is known and not here comes to this. */
int sg_absent(const char *name);
int sg_absent(const char *name)
{
	static char named[64][64];
	static unsigned count;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const char *debug = getenv("BITFUSION_DEBUG");
	if (!debug || !*debug || !strcmp(debug, "0"))
		return CUDA_ERROR_NOT_SUPPORTED;
	pthread_mutex_lock(&lock);
	unsigned i = 0;
	while (i < count && strcmp(named[i], name))
		i++;
	if (i == count && count < 64) {
		snprintf(named[count++], sizeof named[0], "%s", name);
		fprintf(stderr, "bitfusion softgpu: %s is not supported\n", name);
	}
	pthread_mutex_unlock(&lock);
	return CUDA_ERROR_NOT_SUPPORTED;
}
