/* SPDX-License-Identifier: Apache-2.0
 *
 * What this process alone uses of a GPU. cuMemGetInfo tells of all processes on it, so NVIDIA's management library is
 * asked, which lists them by process id. In a container with process ids of its own it lists others than ours.
 */
#include "hostview.h"
#include "../nvml/generated/nvml.h"
#include "core.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_PROCESSES = 1024 };

static struct {
	pthread_once_t once;
	bool ready;
	__typeof__(&nvmlDeviceGetHandleByPciBusId_v2) find;
	__typeof__(&nvmlDeviceGetComputeRunningProcesses_v3) processes;
} nvml = { .once = PTHREAD_ONCE_INIT };

static void start_nvml(void)
{
	void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	__typeof__(&nvmlInit_v2) start = NULL;
	if (!library)
		return;
	*(void **)&start = dlsym(library, "nvmlInit_v2");
	*(void **)&nvml.find = dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
	*(void **)&nvml.processes = dlsym(library, "nvmlDeviceGetComputeRunningProcesses_v3");
	nvml.ready = start && nvml.find && nvml.processes && start() == NVML_SUCCESS;
}

/* ULLONG_MAX is the library's way to say that it does not know. */
static bool find_process(nvmlDevice_t gpu, nvmlProcessInfo_t *found, uint64_t *used)
{
	unsigned count = MOST_PROCESSES, pid = (unsigned)getpid();
	if (nvml.processes(gpu, &count, found) != NVML_SUCCESS)
		return false;
	for (unsigned i = 0; i < count && i < MOST_PROCESSES; i++)
		if (found[i].pid == pid) {
			*used = found[i].usedGpuMemory;
			return *used != UINT64_MAX;
		}
	return false;
}

static bool ask_nvml(struct bf_driver *driver, CUdevice ordinal, uint64_t *used)
{
	char bus[32] = "";
	nvmlDevice_t gpu;
	pthread_once(&nvml.once, start_nvml);
	if (!nvml.ready || !driver->cuDeviceGetPCIBusId ||
	    driver->cuDeviceGetPCIBusId(bus, sizeof bus, ordinal) != CUDA_SUCCESS ||
	    nvml.find(bus, &gpu) != NVML_SUCCESS)
		return false;
	nvmlProcessInfo_t *found = calloc(MOST_PROCESSES, sizeof(*found));
	bool known = found && find_process(gpu, found, used);
	free(found);
	return known;
}

bool bf_process_memory(struct bf_session *session, int device, uint64_t *used)
{
	CUdevice ordinal = session->ordinal[device];
	size_t free_bytes, total;
	int own = 0;
	if (session->driver->cuDeviceGetAttribute(&own, BF_DEVICE_ATTRIBUTE_OWN_MEMORY, ordinal) != CUDA_SUCCESS ||
	    own != 1)
		return ask_nvml(session->driver, ordinal, used);
	if (session->driver->cuMemGetInfo_v2(&free_bytes, &total) != CUDA_SUCCESS)
		return false;
	*used = total - free_bytes;
	return true;
}
