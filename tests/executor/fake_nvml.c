/* SPDX-License-Identifier: Apache-2.0
 *
 * A libnvidia-ml.so.1 that knows two processes on one GPU: a neighbour, which takes a gigabyte every time that somebody
 * looks, and (unless FAKE_NVML=stranger) this one, which has taken 64 MiB more; FAKE_NVML=unknown: it cannot say how much.
 */
#include "../../bitfusion/nvml/generated/nvml.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

nvmlReturn_t nvmlInit_v2(void)
{
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
	*device = (nvmlDevice_t)device;
	return strcmp(pciBusId, "0000:42:00.0") ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
						     nvmlProcessInfo_t *infos)
{
	static unsigned long long looks;
	const char *how = getenv("FAKE_NVML");

	if (*infoCount < 2)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	*infoCount = 2;
	looks++;
	infos[0] = (nvmlProcessInfo_t){ .pid = 1, .usedGpuMemory = looks << 30 };
	infos[1] = (nvmlProcessInfo_t){ .pid = (unsigned)getpid(), .usedGpuMemory = looks << 26 };
	if (!strcmp(how, "stranger"))
		infos[1].pid++;
	if (!strcmp(how, "unknown"))
		infos[1].usedGpuMemory = ~0ull;
	return NVML_SUCCESS;
}
