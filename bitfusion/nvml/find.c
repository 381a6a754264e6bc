/* SPDX-License-Identifier: Apache-2.0
 *
 * From numbers and names to handles, and back.
 */
#include "cuda.h"
#include "library.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *deviceCount)
{
	NVML_TRY(library_ready());
	if (!deviceCount)
		return NVML_ERROR_INVALID_ARGUMENT;
	*deviceCount = library_count();
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *deviceCount);
EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *deviceCount)
{
	return nvmlDeviceGetCount_v2(deviceCount);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	return library_handle(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
	return library_handle(index, device);
}

static void uuid_text(const struct bf_device *device, char text[41])
{
	char *at = text + sprintf(text, "GPU-");

	for (int i = 0; i < 16; i++)
		at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", device->uuid[i]);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	NVML_TRY(library_ready());
	if (!uuid || !device)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned i = 0; !library_handle(i, device); i++) {
		char own[41];

		uuid_text((const struct bf_device *)*device, own);
		if (!strcasecmp(uuid, own))
			return NVML_SUCCESS;
	}
	return NVML_ERROR_NOT_FOUND;
}

/* "domain:bus:device.function", the domain and the function being optional. */
static int parse_pci(const char *text, unsigned id[3])
{
	id[0] = 0;
	return sscanf(text, "%x:%x:%x", &id[0], &id[1], &id[2]) == 3 ||
	       (id[0] = 0, sscanf(text, "%x:%x", &id[1], &id[2]) == 2);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
	unsigned wanted[3], own[3];

	NVML_TRY(library_ready());
	if (!pciBusId || !device || !parse_pci(pciBusId, wanted))
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned i = 0; !library_handle(i, device); i++)
		if (parse_pci(((const struct bf_device *)*device)->pci_bus_id, own) && !memcmp(wanted, own, sizeof own))
			return NVML_SUCCESS;
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device)
{
	return nvmlDeviceGetHandleByPciBusId_v2(pciBusId, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
	const struct bf_device *found;

	return index ? library_device(device, &found, index) : NVML_ERROR_INVALID_ARGUMENT;
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minorNumber)
{
	return nvmlDeviceGetIndex(device, minorNumber);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	return library_text(name, length, found->name);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
	const struct bf_device *found;
	char text[41];

	NVML_TRY(library_device(device, &found, NULL));
	uuid_text(found, text);
	return library_text(uuid, length, text);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	const struct bf_device *found;
	unsigned id[3];

	NVML_TRY(library_device(device, &found, NULL));
	if (!pci)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!parse_pci(found->pci_bus_id, id))
		return NVML_ERROR_NOT_SUPPORTED;
	*pci = (nvmlPciInfo_t){ .domain = id[0], .bus = id[1], .device = id[2] };
	snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", id[0] & 0xffff, id[1] & 0xff,
		 id[2] & 0xff);
	snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", id[0], id[1], id[2]);
	return NVML_SUCCESS;
}
