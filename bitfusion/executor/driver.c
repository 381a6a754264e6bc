/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver under the executor: found by path, its functions by their exported names.
 */
#include "core.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct bf_driver bf_driver;

/* What the loader says begins with the path. */
static const char *loader_error(const char *path)
{
	const char *text = dlerror();
	size_t length = strlen(path);
	return strncmp(text, path, length) || strncmp(text + length, ": ", 2) ? text : text + length + 2;
}

static CUresult open_library(struct bf_driver *driver, const char *path, char *text, size_t size)
{
	/* RTLD_LOCAL: its symbols must not meet those of another libcuda in the process */
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(text, size, "the driver '%s' cannot be loaded: %s", path, loader_error(path));
		return CUDA_ERROR_NO_DEVICE;
	}
	driver->library = library;
	snprintf(driver->path, sizeof(driver->path), "%s", path);
#define LOOK_UP(name) driver->name = (__typeof__(driver->name))dlsym(library, #name);
	BF_DRIVER_FUNCTIONS(LOOK_UP)
	if (!driver->cuInit || !driver->cuCtxSetCurrent || !driver->cuDevicePrimaryCtxRetain) {
		snprintf(text, size, "the driver '%s' is none: it lacks cuInit or what else each has", path);
		driver->library = NULL;
		return CUDA_ERROR_NO_DEVICE;
	}
	return CUDA_SUCCESS;
}

CUresult bf_driver_load(struct bf_driver *driver, const char *path, bool init, char *text, size_t size)
{
	if (driver->library && strcmp(driver->path, path) != 0) {
		snprintf(text, size, "this process has loaded the driver '%s' already", driver->path);
		return CUDA_ERROR_NOT_PERMITTED;
	}
	if (!driver->library) {
		CUresult status = open_library(driver, path, text, size);
		if (status != CUDA_SUCCESS)
			return status;
	}
	if (!init || driver->ready)
		return CUDA_SUCCESS;
	CUresult status = driver->cuInit(0);
	if (status != CUDA_SUCCESS)
		snprintf(text, size, "the driver '%s' cannot start: cuInit answered %d", path, status);
	driver->ready = status == CUDA_SUCCESS;
	return status;
}

void *bf_driver_symbol(struct bf_driver *driver, const char *name)
{
	return dlsym(driver->library, name);
}

BF_EXPORT int bf_executor_warm(const char *driver, char *text, size_t size)
{
	return (int)bf_driver_load(&bf_driver, driver, true, text, size);
}
