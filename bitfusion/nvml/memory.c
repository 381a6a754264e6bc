/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory: the slice that the run has, and what all its processes use of it now.
 */
#include "library.h"

#include <stdlib.h>
#include <unistd.h>

static nvmlReturn_t ask(nvmlDevice_t device, nvmlMemory_t *memory)
{
	const struct bf_device *found;
	struct bf_devices head;
	struct bf_device *now;
	unsigned index;

	NVML_TRY(library_device(device, &found, &index));
	NVML_TRY(inventory_ask(&head, &now));
	if (index >= head.count) {
		free(now);
		return NVML_ERROR_GPU_IS_LOST;
	}
	memory->total = now[index].total_memory;
	memory->used = now[index].used_memory < memory->total ? now[index].used_memory : memory->total;
	memory->free = memory->total - memory->used;
	free(now);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	return memory ? ask(device, memory) : NVML_ERROR_INVALID_ARGUMENT;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	nvmlMemory_t plain;

	if (!memory)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (memory->version != (sizeof *memory | 2 << 24))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	NVML_TRY(ask(device, &plain));
	memory->total = plain.total;
	memory->reserved = 0;
	memory->free = plain.free;
	memory->used = plain.used;
	return NVML_SUCCESS;
}

/* Processes of other machines have no meaning here, and which of this one's use the GPU is not known: none is
 * named. The call succeeds, because PyTorch's report of exhausted memory takes its failure for a broken driver. */
static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned *count)
{
	const struct bf_device *found;

	NVML_TRY(library_device(device, &found, NULL));
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = 0;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
							    nvmlProcessInfo_t *infos)
{
	return no_processes(device, infoCount);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *infoCount, void *infos);
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *infoCount, void *infos)
{
	return no_processes(device, infoCount);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *infoCount, void *infos);
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *infoCount, void *infos)
{
	return no_processes(device, infoCount);
}
