/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of devices: it comes in one message at cuInit, and CUDA_VISIBLE_DEVICES chooses from it.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

enum { KNOWN_DRIVER = 13000 };

static struct {
	int driver_version;
	struct bf_device *all; /* as the server numbers them */
	unsigned all_count;
	uint32_t visible[BF_MAX_DEVICES]; /* the program's numbers to the server's */
	unsigned count;
} devices;

/* What cannot work from another machine, or what this library does not have yet. A program that is told so
 * takes another way. Of memory that both sides use (shared.h) it is that the two see what the other one wrote only
 * when the program has waited, and that memory which is merely registered has two addresses. */
static const CUdevice_attribute unavailable[] = {
	CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS,
	CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS,
	CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
	CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1,
	CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1,
	CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1,
	CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS,
	CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR,
	CU_DEVICE_ATTRIBUTE_COOPERATIVE_MULTI_DEVICE_LAUNCH,
	CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES,
	CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
	CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST,
	CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS,
	CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES,
	CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED,
	CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED,
};

static void hide_unavailable(struct bf_device *device)
{
	for (size_t i = 0; i < sizeof unavailable / sizeof *unavailable; i++)
		if ((int)unavailable[i] < (int)BF_DEVICE_ATTRIBUTES)
			device->attribute[unavailable[i]].value = 0;
	/* shared memory needs no more of the driver than that it puts memory at an address of ours */
	device->attribute[CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY] =
		device->attribute[CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED];
	device->attribute[CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY] =
		device->attribute[CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED];
}

static void uuid_of(uint8_t uuid[16], int device)
{
	memcpy(uuid, devices.all[device].uuid, 16);
}

static CUresult take_devices(const struct bf_wait *wait)
{
	struct bf_devices head;
	struct bf_device *all;

	if (wait->body_size < sizeof head)
		return CUDA_ERROR_UNKNOWN;
	memcpy(&head, wait->body, sizeof head);
	if (head.count > BF_MAX_DEVICES || wait->body_size < sizeof head + head.count * sizeof *all)
		return CUDA_ERROR_UNKNOWN;
	all = calloc(head.count + 1, sizeof *all);
	if (!all)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(all, wait->body + sizeof head, head.count * sizeof *all);
	free(devices.all);
	devices.all = all;
	devices.all_count = head.count;
	devices.driver_version = head.driver_version < KNOWN_DRIVER ? head.driver_version : KNOWN_DRIVER;
	for (unsigned i = 0; i < head.count; i++) {
		all[i].name[sizeof all[i].name - 1] = 0;
		all[i].pci_bus_id[sizeof all[i].pci_bus_id - 1] = 0;
		hide_unavailable(&all[i]);
	}
	devices.count = abi_visible_devices(devices.all_count, uuid_of, devices.visible);
	return devices.count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult bf_devices_load(void)
{
	struct bf_wait wait = { 0 };
	struct bf_command *command;
	CUresult status;

	command = bf_queue_begin(BF_OP_DEVICES, sizeof *command, BF_WANTS_REPLY, 0);
	if (!command)
		return CUDA_ERROR_SYSTEM_NOT_READY;
	command->request = bf_wait_add(&wait, BF_OP_DEVICES);
	bf_queue_end(BF_NOW);
	status = bf_wait_for(&wait);
	if (!status)
		status = take_devices(&wait);
	bf_wait_drop(&wait);
	return status;
}

unsigned bf_device_count(void)
{
	return devices.count;
}

bool bf_device_valid(CUdevice device)
{
	return device >= 0 && (unsigned)device < devices.count;
}

uint32_t bf_device_index(CUdevice device)
{
	return devices.visible[device];
}

const struct bf_device *bf_device(CUdevice device)
{
	return bf_device_valid(device) ? &devices.all[devices.visible[device]] : NULL;
}

int bf_device_attribute(CUdevice device, int attribute)
{
	const struct bf_device *found = bf_device(device);

	if (!found || attribute <= 0 || attribute >= BF_DEVICE_ATTRIBUTES || found->attribute[attribute].status)
		return 0;
	return found->attribute[attribute].value;
}

int bf_driver_version(void)
{
	return devices.driver_version ? devices.driver_version : KNOWN_DRIVER;
}
