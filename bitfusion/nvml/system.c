/* SPDX-License-Identifier: Apache-2.0
 *
 * The library and the driver as such.
 */
#include "library.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const struct {
	nvmlReturn_t status;
	const char *text;
} texts[] = {
	{ NVML_SUCCESS, "success" },
	{ NVML_ERROR_UNINITIALIZED, "nvmlInit has not been called" },
	{ NVML_ERROR_INVALID_ARGUMENT, "an argument is not valid" },
	{ NVML_ERROR_NOT_SUPPORTED, "not supported" },
	{ NVML_ERROR_NO_PERMISSION, "not permitted" },
	{ NVML_ERROR_ALREADY_INITIALIZED, "already initialised" },
	{ NVML_ERROR_NOT_FOUND, "not found" },
	{ NVML_ERROR_INSUFFICIENT_SIZE, "the buffer is too small" },
	{ NVML_ERROR_DRIVER_NOT_LOADED, "no GPU driver: the program was not started with `bitfusion run`" },
	{ NVML_ERROR_TIMEOUT, "timed out" },
	{ NVML_ERROR_LIBRARY_NOT_FOUND, "a library was not found" },
	{ NVML_ERROR_FUNCTION_NOT_FOUND, "the function was not found" },
	{ NVML_ERROR_GPU_IS_LOST, "the connection to the GPU is lost" },
	{ NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "a structure of a version that is not known" },
	{ NVML_ERROR_MEMORY, "out of memory" },
	{ NVML_ERROR_UNKNOWN, "an unknown error" },
};

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i].status == result)
			return texts[i].text;
	return "an error of an unknown number";
}

/* The release of NVIDIA's driver that first had this CUDA version: the nearest true thing that can be said. */
static const char *release_of(int version)
{
	static const struct {
		int cuda;
		const char *driver;
	} releases[] = { { 13000, "580.65.06" }, { 12080, "570.26" }, { 12040, "550.54.14" } };

	for (unsigned i = 0; i < sizeof releases / sizeof *releases; i++)
		if (version >= releases[i].cuda)
			return releases[i].driver;
	return "525.60.13";
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	NVML_TRY(library_ready());
	return library_text(version, length, release_of(library_driver_version()));
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	char text[48];

	NVML_TRY(library_ready());
	snprintf(text, sizeof text, "%d.%s", library_driver_version() / 1000, release_of(library_driver_version()));
	return library_text(version, length, text);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *cudaDriverVersion)
{
	if (!cudaDriverVersion)
		return NVML_ERROR_INVALID_ARGUMENT;
	NVML_TRY(library_ready());
	*cudaDriverVersion = library_driver_version();
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *cudaDriverVersion)
{
	return nvmlSystemGetCudaDriverVersion(cudaDriverVersion);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
	char path[48], text[1024];
	ssize_t size;
	int fd;

	NVML_TRY(library_ready());
	snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NVML_ERROR_NOT_FOUND;
	size = read(fd, text, sizeof text - 1); /* up to the first NUL: the program */
	close(fd);
	if (size < 0)
		return NVML_ERROR_NO_PERMISSION;
	text[size] = 0;
	return library_text(name, length, text);
}
