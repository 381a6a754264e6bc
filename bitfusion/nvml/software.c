/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of GPUs of a program that runs directly on software GPUs. How much memory is used is known to the driver
 * in this process, once it is loaded; software GPUs are not shared with other processes.
 */
#define _GNU_SOURCE
#include "../softgpu/driver/driver.h"
#include "../softgpu/driver/hardware.h"
#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t used_memory(int hardware)
{
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	const struct hardware_usage *usage = NULL;
	CUresult (*get_table)(const void **, const CUuuid *) = NULL;

	if (!driver)
		return 0;
	*(void **)&get_table = dlsym(driver, "cuGetExportTable");
	if (!get_table || get_table((const void **)&usage, (const CUuuid *)HARDWARE_USAGE_ID))
		usage = NULL;
	dlclose(driver);
	return usage ? usage->used(hardware) : 0;
}

static void describe(struct bf_device *out, int hardware)
{
	struct device device = { .hardware = hardware };

	snprintf(out->name, sizeof out->name, "%s", HARDWARE_NAME);
	snprintf(out->pci_bus_id, sizeof out->pci_bus_id, HARDWARE_PCI, hardware + 1);
	hardware_uuid(out->uuid, hardware);
	out->total_memory = hardware_memory();
	out->used_memory = used_memory(hardware);
	for (int i = 1; i < BF_DEVICE_ATTRIBUTES; i++)
		out->attribute[i].status = !device_attribute(&device, (CUdevice_attribute)i, &out->attribute[i].value);
}

nvmlReturn_t inventory_ask(struct bf_devices *head, struct bf_device **devices)
{
	head->driver_version = DRIVER_VERSION;
	head->count = (uint32_t)hardware_count();
	*devices = calloc(head->count + 1, sizeof **devices);
	if (!*devices)
		return NVML_ERROR_MEMORY;
	for (uint32_t i = 0; i < head->count; i++)
		describe(&(*devices)[i], (int)i);
	return NVML_SUCCESS;
}
