/* SPDX-License-Identifier: Apache-2.0
 *
 * What tells a program of events in the driver. Here it has no log beside the program's standard error, and
 * nothing happens to a device behind the program's back: callbacks are taken and never called.
 */
#include "driver.h"

#include <stdio.h>

static char log_registration, notification;

EXPORT CUresult cuLogsRegisterCallback(CUlogsCallback callbackFunc, void *userData, CUlogsCallbackHandle *callback_out)
{
	(void)userData;
	if (!callbackFunc)
		return CUDA_ERROR_INVALID_VALUE;
	if (callback_out)
		*callback_out = (CUlogsCallbackHandle)(void *)&log_registration;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle callback)
{
	return (void *)callback == &log_registration ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuLogsCurrent(CUlogIterator *iterator_out, unsigned int flags)
{
	if (!iterator_out || flags)
		return CUDA_ERROR_INVALID_VALUE;
	*iterator_out = 0;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLogsDumpToMemory(CUlogIterator *iterator, char *buffer, size_t *size, unsigned int flags)
{
	(void)iterator;
	if (!buffer || !size || !*size || flags)
		return CUDA_ERROR_INVALID_VALUE;
	*buffer = 0;
	*size = 0;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuLogsDumpToFile(CUlogIterator *iterator, const char *pathToFile, unsigned int flags)
{
	(void)iterator;
	if (!pathToFile || flags)
		return CUDA_ERROR_INVALID_VALUE;
	FILE *file = fopen(pathToFile, "a");
	if (!file)
		return CUDA_ERROR_OPERATING_SYSTEM;
	fclose(file);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
						  CUasyncCallbackHandle *callback)
{
	ENTER();
	(void)userData;
	if (!callbackFunc || !callback)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_get(device))
		return CUDA_ERROR_INVALID_DEVICE;
	*callback = (CUasyncCallbackHandle)(void *)&notification;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback)
{
	ENTER();
	if (!device_get(device))
		return CUDA_ERROR_INVALID_DEVICE;
	return (void *)callback == &notification ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
