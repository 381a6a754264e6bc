/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything about the devices, in one answer; and the same as text for the server's inventory.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe(struct bf_driver *driver, CUdevice ordinal, struct bf_device *device)
{
	CUuuid uuid = { { 0 } };
	size_t total = 0;
	driver->cuDeviceGetName(device->name, sizeof(device->name), ordinal);
	device->name[sizeof(device->name) - 1] = 0;
	if (driver->cuDeviceGetPCIBusId)
		driver->cuDeviceGetPCIBusId(device->pci_bus_id, sizeof(device->pci_bus_id), ordinal);
	device->pci_bus_id[sizeof(device->pci_bus_id) - 1] = 0;
	if (driver->cuDeviceGetUuid_v2)
		driver->cuDeviceGetUuid_v2(&uuid, ordinal);
	else if (driver->cuDeviceGetUuid)
		driver->cuDeviceGetUuid(&uuid, ordinal);
	memcpy(device->uuid, &uuid, sizeof(device->uuid));
	driver->cuDeviceTotalMem_v2(&total, ordinal);
	device->total_memory = total;
	for (int i = 1; i < BF_DEVICE_ATTRIBUTES; i++)
		device->attribute[i].status = (int32_t)driver->cuDeviceGetAttribute(&device->attribute[i].value,
										    (CUdevice_attribute)i, ordinal);
}

void bf_op_devices(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct bf_driver *driver = session->driver;
	uint32_t count = session->options.device_count;
	size_t bytes = sizeof(struct bf_devices) + count * sizeof(struct bf_device);
	struct bf_devices *answer = calloc(1, bytes);
	if (!answer) {
		bf_done(session, command, CUDA_ERROR_OUT_OF_MEMORY, NULL, 0);
		return;
	}
	struct bf_device *device = (struct bf_device *)(answer + 1);
	uint64_t used[BF_MAX_DEVICES] = { 0 };
	int version = 0;
	driver->cuDriverGetVersion(&version);
	if (session->ledger)
		bf_ledger_used(session->ledger, -1, used, BF_MAX_DEVICES);
	answer->driver_version = version;
	answer->count = count;
	for (uint32_t i = 0; i < count; i++) {
		describe(driver, session->ordinal[i], &device[i]);
		device[i].total_memory = bf_memory_total(session, i, device[i].total_memory);
		device[i].used_memory = used[i];
		/* the range of stream priorities is asked of a context; all devices of today have the same */
		device[i].least_priority = 0;
		device[i].greatest_priority =
			device[i].attribute[CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED].value ? -5 : 0;
	}
	bf_done(session, command, CUDA_SUCCESS, answer, bytes);
	free(answer);
}

/* ------------------------------------------------------------------ as text */

struct text {
	char *at, *end;
};

static void put(struct text *text, const char *string)
{
	for (; *string && text->at < text->end; string++)
		*text->at++ = *string;
	*text->at = 0;
}

static void put_string(struct text *text, const char *string)
{
	put(text, "\"");
	for (; *string; string++) {
		char c[8];
		unsigned char byte = (unsigned char)*string;
		if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\\')
			snprintf(c, sizeof(c), "\\u%04x", byte);
		else
			snprintf(c, sizeof(c), "%c", byte);
		put(text, c);
	}
	put(text, "\"");
}

static void put_device(struct text *text, int index, int version, const struct bf_device *device)
{
	char part[512], uuid[33];
	for (int i = 0; i < 16; i++)
		snprintf(uuid + 2 * i, 3, "%02x", device->uuid[i]);
	snprintf(part, sizeof(part), "%s{\"index\":%d,\"name\":", index ? "," : "", index);
	put(text, part);
	put_string(text, device->name);
	put(text, ",\"pci_bus_id\":");
	put_string(text, device->pci_bus_id);
	snprintf(part, sizeof(part),
		 ",\"uuid\":\"%s\",\"total_memory\":%llu,\"compute_capability\":\"%d.%d\","
		 "\"multiprocessors\":%d,\"driver_version\":%d}",
		 uuid, (unsigned long long)device->total_memory,
		 device->attribute[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR].value,
		 device->attribute[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR].value,
		 device->attribute[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT].value, version);
	put(text, part);
}

BF_EXPORT int bf_executor_probe(const char *path, char *buffer, size_t size)
{
	struct bf_driver *driver = &bf_driver;
	struct text text = { buffer, buffer + size - 1 };
	int count = 0, version = 0;
	CUresult status = bf_driver_load(driver, path, true, buffer, size);
	if (status != CUDA_SUCCESS)
		return (int)status;
	driver->cuDriverGetVersion(&version);
	status = driver->cuDeviceGetCount(&count);
	if (status != CUDA_SUCCESS) {
		snprintf(buffer, size, "the driver '%s' cannot count its devices: %d", path, status);
		return (int)status;
	}
	put(&text, "[");
	for (int i = 0; i < count && i < BF_MAX_DEVICES; i++) {
		struct bf_device device;
		memset(&device, 0, sizeof(device));
		CUdevice ordinal;
		if (driver->cuDeviceGet(&ordinal, i) == CUDA_SUCCESS)
			describe(driver, ordinal, &device);
		put_device(&text, i, version, &device);
	}
	put(&text, "]");
	return 0;
}
