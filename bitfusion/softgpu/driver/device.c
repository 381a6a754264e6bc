/* SPDX-License-Identifier: Apache-2.0
 *
 * The devices there are, and what a program may ask about them.
 */
#include "driver.h"
#include "hardware.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CUresult devices_create(void)
{
	uint32_t hardware[MAX_DEVICES];
	uint64_t memory = hardware_memory();
	int count = (int)abi_visible_devices((unsigned)hardware_count(), hardware_uuid, hardware);
	driver.devices = calloc((size_t)count + 1, sizeof *driver.devices);
	if (!driver.devices)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (int i = 0; i < count; i++) {
		struct device *device = &driver.devices[i];
		*device = (struct device){ .index = i, .hardware = (int)hardware[i], .memory = memory };
		hardware_uuid(device->uuid, (int)hardware[i]);
		TRY(arena_create(&device->arena, device));
		device->primary = object_new(OBJECT_CONTEXT, sizeof *device->primary);
		if (!device->primary)
			return CUDA_ERROR_OUT_OF_MEMORY;
		device->primary->device = device;
		device->primary->primary = 1;
		context_defaults(device->primary);
		TRY(pool_defaults(device));
	}
	driver.device_count = count;
	return CUDA_SUCCESS;
}

struct device *device_get(CUdevice index)
{
	return index >= 0 && index < driver.device_count ? &driver.devices[index] : NULL;
}

/* Opens a function about a device. */
#define ENTER_DEVICE(name, index, valid) \
	ENTER(); \
	if (!(valid)) \
		return CUDA_ERROR_INVALID_VALUE; \
	struct device *name = device_get(index); \
	if (!name) \
	return CUDA_ERROR_INVALID_DEVICE

EXPORT CUresult cuDeviceGetCount(int *count)
{
	ENTER();
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	*count = driver.device_count;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	ENTER_DEVICE(found, ordinal, device);
	*device = found->index;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
	ENTER_DEVICE(device, dev, name && len > 0);
	(void)device;
	snprintf(name, (size_t)len, "%s", HARDWARE_NAME);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
	ENTER_DEVICE(device, dev, uuid);
	memcpy(uuid, device->uuid, sizeof device->uuid);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
	return cuDeviceGetUuid_v2(uuid, dev);
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	ENTER_DEVICE(device, dev, bytes);
	*bytes = device->memory;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
	ENTER_DEVICE(device, dev, pi);
	return device_attribute(device, attrib, pi) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
	ENTER_DEVICE(device, dev, major && minor);
	device_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, major);
	device_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, minor);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
	ENTER_DEVICE(device, dev, prop);
	*prop = (CUdevprop){
		.maxThreadsPerBlock = MAX_BLOCK_THREADS,
		.maxThreadsDim = { 1024, 1024, 64 },
		.maxGridSize = { 2147483647, 65535, 65535 },
		.sharedMemPerBlock = STATIC_SHARED,
		.totalConstantMemory = 65536,
		.SIMDWidth = WARP,
		.memPitch = 2147483647,
		.regsPerBlock = 65536,
		.textureAlign = 512,
	};
	device_attribute(device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE, &prop->clockRate);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
	ENTER_DEVICE(device, dev, pciBusId && len > 0);
	snprintf(pciBusId, (size_t)len, HARDWARE_PCI, device->hardware + 1);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
	ENTER();
	if (!dev || !pciBusId)
		return CUDA_ERROR_INVALID_VALUE;
	unsigned domain = 0, bus = 0, slot = 0, function = 0;
	if (sscanf(pciBusId, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3 &&
	    (domain = 0, sscanf(pciBusId, "%x:%x.%x", &bus, &slot, &function) < 2))
		return CUDA_ERROR_INVALID_VALUE;
	for (int i = 0; i < driver.device_count; i++)
		if (!domain && !slot && bus == (unsigned)driver.devices[i].hardware + 1) {
			*dev = i;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuDeviceCanAccessPeer(int *canAccessPeer, CUdevice dev, CUdevice peerDev)
{
	ENTER_DEVICE(device, dev, canAccessPeer);
	if (!device_get(peerDev))
		return CUDA_ERROR_INVALID_DEVICE;
	*canAccessPeer = device->index != peerDev;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attrib, CUdevice srcDevice,
					CUdevice dstDevice)
{
	ENTER_DEVICE(device, srcDevice, value);
	if (!device_get(dstDevice))
		return CUDA_ERROR_INVALID_DEVICE;
	if (device->index == dstDevice)
		return CUDA_ERROR_INVALID_DEVICE;
	switch ((int)attrib) {
	case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK: *value = 0; return CUDA_SUCCESS;
	case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
	case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
	case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED: *value = 1; return CUDA_SUCCESS;
	}
	return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice dev)
{
	ENTER_DEVICE(device, dev, pi);
	(void)device, (void)type;
	*pi = 0;
	return CUDA_SUCCESS;
}
