/* SPDX-License-Identifier: Apache-2.0
 *
 * How a program finds everything else: look-up by name, error names, the hidden tables. None of it needs cuInit.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <string.h>

BF_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
				       CUdriverProcAddressQueryResult *symbolStatus)
{
	CUresult status = abi_get_proc_address(symbol, pfn, cudaVersion, flags, symbolStatus, bf_driver_version());

	if (!status && pfn && !*pfn && symbol && *symbol)
		bf_not_found(symbol, cudaVersion);
	return status;
}

BF_EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
	CUresult status = abi_get_proc_address_v1(symbol, pfn, cudaVersion, flags, bf_driver_version());

	if (status == CUDA_ERROR_NOT_FOUND && symbol && *symbol)
		bf_not_found(symbol, cudaVersion);
	return status;
}

/* What a program built for per-thread default streams calls. */
BF_EXPORT CUresult cuGetProcAddress_v2_ptsz(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
					    CUdriverProcAddressQueryResult *symbolStatus)
{
	if (!(flags & (CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)))
		flags |= CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
	return cuGetProcAddress_v2(symbol, pfn, cudaVersion, flags, symbolStatus);
}

BF_EXPORT CUresult cuGetExportTable(const void **ppExportTable, const CUuuid *pExportTableId)
{
	return abi_get_export_table(ppExportTable, pExportTableId, __builtin_return_address(0));
}

BF_EXPORT CUresult cuGetErrorName(CUresult error, const char **pStr)
{
	return abi_error_name(error, pStr);
}

BF_EXPORT CUresult cuGetErrorString(CUresult error, const char **pStr)
{
	return abi_error_string(error, pStr);
}

static int device_count(void)
{
	return (int)bf_device_count();
}

static void device_identity(int device, uint8_t uuid[16], uint32_t pci[3])
{
	memcpy(uuid, bf_device(device)->uuid, 16);
	pci[0] = (uint32_t)bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID);
	pci[1] = (uint32_t)bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
	pci[2] = (uint32_t)bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID);
}

static CUcontext primary_context(CUdevice device)
{
	return bf_device_valid(device) ? bf_context_handle(bf_device_index(device) + 1) : NULL;
}

static CUcontext current_context(void)
{
	return bf_context_handle(bf_self.current);
}

static CUresult context_device(CUcontext handle, CUdevice *device)
{
	const struct bf_context *context = bf_context_find(handle);

	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	*device = context->device;
	return CUDA_SUCCESS;
}

static uint64_t context_id(CUcontext handle)
{
	const struct bf_context *context = bf_context_find(handle);

	return context ? context->id : 0;
}

static uint64_t stream_id(CUcontext context, CUstream stream)
{
	return bf_stream_number(stream);
}

const struct abi_host abi_host = {
	.driver_version = bf_driver_version,
	.device_count = device_count,
	.device_identity = device_identity,
	.primary_context = primary_context,
	.current_context = current_context,
	.context_device = context_device,
	.context_id = context_id,
	.stream_id = stream_id,
	.load_module = cuModuleLoadData,
};

/* There is no profiler on this side, and no log of the driver's. */
BF_EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, CUoutput_mode outputMode)
{
	return bf_check();
}

BF_EXPORT CUresult cuProfilerStart(void)
{
	return bf_check();
}

BF_EXPORT CUresult cuProfilerStop(void)
{
	return bf_check();
}

BF_EXPORT CUresult cuLogsRegisterCallback(CUlogsCallback callbackFunc, void *userData,
					  CUlogsCallbackHandle *callback_out)
{
	if (!callbackFunc || !callback_out)
		return CUDA_ERROR_INVALID_VALUE;
	*callback_out = (CUlogsCallbackHandle)(uintptr_t)callbackFunc; /* never called, only given back */
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle callback)
{
	return callback ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
