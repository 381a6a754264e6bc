/* SPDX-License-Identifier: Apache-2.0
 *
 * Several devices: who they are, and memory of one used from another.
 */
#include "program.h"

static void describe(CUdevice device)
{
	char name[100], bus[32];
	CUuuid uuid;
	size_t bytes;
	int major, minor, number;
	CUdevice same;

	CHECK(cuDeviceGetName(name, sizeof name, device));
	CHECK(cuDeviceTotalMem_v2(&bytes, device));
	CHECK(cuDeviceGetUuid_v2(&uuid, device));
	CHECK(cuDeviceGetPCIBusId(bus, sizeof bus, device));
	CHECK(cuDeviceGetByPCIBusId(&same, bus));
	CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
	CHECK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
	CHECK(cuDeviceGetAttribute(&number, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device));
	printf("%d: %s, %zu MiB, %d.%d, last byte of the UUID %d, bus %d, found by it: %s\n", device, name, bytes >> 20,
	       major, minor, uuid.bytes[15], number, same == device ? "yes" : "no");
}

int main(void)
{
	CUcontext contexts[2];
	CUdeviceptr memory[2];
	unsigned value = 123, back = 0;
	int count, can;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CUresult result = cuInit(0);
	printf("cuInit: %s\n", error_name(result));
	if (result)
		return 0;
	CHECK(cuDeviceGetCount(&count));
	for (int i = 0; i < count; i++)
		describe(i);
	if (count < 2)
		return 0;
	for (int i = 0; i < 2; i++) {
		CHECK(cuDevicePrimaryCtxRetain(&contexts[i], i));
		CHECK(cuCtxSetCurrent(contexts[i]));
		CHECK(cuMemAlloc_v2(&memory[i], 4096));
	}
	CHECK(cuDeviceCanAccessPeer(&can, 0, 1));
	printf("peers: %d\n", can);
	CHECK(cuCtxEnablePeerAccess(contexts[0], 0));
	SHOW(cuCtxEnablePeerAccess(contexts[0], 0));
	CHECK(cuMemcpyHtoD_v2(memory[0], &value, 4));
	CHECK(cuMemcpyPeer(memory[1], contexts[1], memory[0], contexts[0], 4));
	CHECK(cuMemcpyDtoH_v2(&back, memory[1], 4));
	printf("over there and back: %u\n", back);
	CHECK(cuPointerGetAttribute(&count, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory[1]));
	printf("the second block is on device %d\n", count);
	CHECK(cuCtxDisablePeerAccess(contexts[0]));
	SHOW(cuCtxDisablePeerAccess(contexts[0]));
	return 0;
}
