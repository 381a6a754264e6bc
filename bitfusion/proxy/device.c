/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about devices: all are answered here.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

static CUresult find_device(CUdevice device, const void *result, const struct bf_device **found)
{
	CUresult status = bf_check();

	if (status)
		return status;
	if (!result)
		return CUDA_ERROR_INVALID_VALUE;
	*found = bf_device(device);
	return *found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

BF_EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
	if (!driverVersion)
		return CUDA_ERROR_INVALID_VALUE;
	*driverVersion = bf_driver_version();
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGetCount(int *count)
{
	CUresult status = bf_check();

	if (status)
		return status;
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	*count = (int)bf_device_count();
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	const struct bf_device *found;
	CUresult status = find_device(ordinal, device, &found);

	if (!status)
		*device = ordinal;
	return status;
}

BF_EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, name, &found);
	size_t size;

	if (status)
		return status;
	if (len <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	size = strnlen(found->name, (size_t)len - 1);
	memcpy(name, found->name, size);
	name[size] = 0;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, uuid, &found);

	if (!status)
		memcpy(uuid, found->uuid, sizeof found->uuid);
	return status;
}

BF_EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
	return cuDeviceGetUuid_v2(uuid, dev);
}

BF_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, bytes, &found);

	if (!status)
		*bytes = found->total_memory;
	return status;
}

BF_EXPORT CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, pi, &found);

	if (status)
		return status;
	if ((int)attrib <= 0 || (int)attrib >= BF_DEVICE_ATTRIBUTES)
		return CUDA_ERROR_INVALID_VALUE;
	if (!found->attribute[attrib].status)
		*pi = found->attribute[attrib].value;
	return (CUresult)found->attribute[attrib].status;
}

/* The whole device is what a context has: green contexts, which have parts, are absent. */
CUresult bf_device_resource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
	if (!resource)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_DEV_RESOURCE_TYPE_SM)
		return CUDA_ERROR_INVALID_RESOURCE_TYPE;
	memset(resource, 0, sizeof *resource);
	resource->type = type;
	resource->sm.smCount = (unsigned)bf_device_attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
	resource->sm.minSmPartitionSize = resource->sm.smCount;
	resource->sm.smCoscheduledAlignment = resource->sm.smCount;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
	if (bf_check())
		return bf_check();
	return bf_device_valid(device) ? bf_device_resource(device, resource, type) : CUDA_ERROR_INVALID_DEVICE;
}

BF_EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
	if (!major || !minor)
		return CUDA_ERROR_INVALID_VALUE;
	*major = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
	*minor = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
	return bf_check() ? bf_check() : bf_device_valid(dev) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

BF_EXPORT CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, prop, &found);

	if (status)
		return status;
	*prop = (CUdevprop){
		.maxThreadsPerBlock = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
		.sharedMemPerBlock = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
		.totalConstantMemory = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
		.SIMDWidth = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_WARP_SIZE),
		.memPitch = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_PITCH),
		.regsPerBlock = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK),
		.clockRate = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
		.textureAlign = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
	};
	for (int i = 0; i < 3; i++) {
		prop->maxThreadsDim[i] = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i);
		prop->maxGridSize[i] = bf_device_attribute(dev, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i);
	}
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, pciBusId, &found);
	size_t size;

	if (status)
		return status;
	size = strlen(found->pci_bus_id) + 1;
	if (len < (int)size)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(pciBusId, found->pci_bus_id, size);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice dev)
{
	const struct bf_device *found;
	CUresult status = find_device(dev, pi, &found);

	if (!status)
		*pi = 0;
	return status;
}

/* "domain:bus:device.function" in hexadecimal; the domain and the function may be left out. */
static bool parse_bus_id(const char *text, unsigned id[3])
{
	unsigned long part[3];
	char *end;
	int count = 0;

	while (count < 3) {
		part[count++] = strtoul(text, &end, 16);
		if (end == text)
			return false;
		text = end + 1;
		if (*end != ':')
			break;
	}
	if (count < 2 || (*end && *end != '.'))
		return false;
	id[0] = count == 3 ? (unsigned)part[0] : 0;
	id[1] = (unsigned)part[count - 2];
	id[2] = (unsigned)part[count - 1];
	return true;
}

BF_EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
	CUresult status = bf_check();
	unsigned id[3];

	if (status)
		return status;
	if (!dev || !pciBusId || !parse_bus_id(pciBusId, id))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < bf_device_count(); i++) {
		if ((unsigned)bf_device_attribute(i, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID) == id[0] &&
		    (unsigned)bf_device_attribute(i, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID) == id[1] &&
		    (unsigned)bf_device_attribute(i, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID) == id[2]) {
			*dev = (CUdevice)i;
			return CUDA_SUCCESS;
		}
	}
	return CUDA_ERROR_INVALID_DEVICE;
}
