/* SPDX-License-Identifier: Apache-2.0
 *
 * What a GPU is: what the CUDA driver says of it. Sensors (temperature, power, fans, utilisation) belong to the
 * server's operator and are not supported here.
 */
#include "cuda.h"
#include "library.h"

#define ATTRIBUTE(device, name) library_attribute(device, CU_DEVICE_ATTRIBUTE_##name)

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!major || !minor)
		return NVML_ERROR_INVALID_ARGUMENT;
	*major = ATTRIBUTE(found, COMPUTE_CAPABILITY_MAJOR);
	*minor = ATTRIBUTE(found, COMPUTE_CAPABILITY_MINOR);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t *type)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!type)
		return NVML_ERROR_INVALID_ARGUMENT;
	*type = NVML_BRAND_UNKNOWN;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *arch)
{
	static const struct {
		int capability, architecture; /* NVML_DEVICE_ARCH_*, as documented */
	} known[] = { { 50, 3 }, { 60, 4 }, { 70, 5 }, { 75, 6 }, { 80, 7 }, { 89, 8 }, { 90, 9 }, { 100, 10 } };
	int major, minor;

	if (!arch)
		return NVML_ERROR_INVALID_ARGUMENT;
	NVML_TRY(nvmlDeviceGetCudaComputeCapability(device, &major, &minor));
	*arch = 2;
	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (10 * major + minor >= known[i].capability)
			*arch = known[i].architecture;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!mode)
		return NVML_ERROR_INVALID_ARGUMENT;
	*mode = (nvmlComputeMode_t)ATTRIBUTE(found, COMPUTE_MODE);
	return NVML_SUCCESS;
}

/* A number that is not known (0) is not supported: a program must not compute with it. */
static nvmlReturn_t number(nvmlDevice_t device, int attribute, unsigned divisor, unsigned *out)
{
	const struct bf_device *found;
	int value;

	NVML_TRY(library_device(device, &found, NULL));
	if (!out)
		return NVML_ERROR_INVALID_ARGUMENT;
	value = library_attribute(found, attribute);
	if (value <= 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*out = (unsigned)value / divisor;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int *busWidth)
{
	return number(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 1, busWidth);
}

/* MHz; the CUDA driver counts in kHz. */
EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
	int memory = type == NVML_CLOCK_MEM;

	if (type > NVML_CLOCK_MEM)
		return NVML_ERROR_NOT_SUPPORTED;
	return number(device, memory ? CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE : CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000,
		      clock);
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
	return nvmlDeviceGetMaxClockInfo(device, type, clock);
}

EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!mode)
		return NVML_ERROR_INVALID_ARGUMENT;
	*mode = NVML_FEATURE_ENABLED; /* the server's worker keeps the driver loaded */
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *isMigDevice)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!isMigDevice)
		return NVML_ERROR_INVALID_ARGUMENT;
	*isMigDevice = 0;
	return NVML_SUCCESS;
}
