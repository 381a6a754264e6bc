# SPDX-License-Identifier: Apache-2.0
"""What pynvml, unmodified, sees of the run's GPUs; before a fork, in the child and after it."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import pynvml

SIZE = 64 << 20


def show() -> None:
    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
    print("devices", count, "CUDA", pynvml.nvmlSystemGetCudaDriverVersion())
    print("driver", pynvml.nvmlSystemGetDriverVersion())
    for index in range(count):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        pci = pynvml.nvmlDeviceGetPciInfo(device)
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(pci.busId)) == index
        uuid = pynvml.nvmlDeviceGetUUID(device)
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == index
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        again = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)
        assert memory.total == again.total == again.free + again.used
        print(pynvml.nvmlDeviceGetName(device), uuid, pci.busId, memory.total, memory.used)
        print(pynvml.nvmlDeviceGetCudaComputeCapability(device))
        print(pynvml.nvmlDeviceGetComputeRunningProcesses(device))
        try:
            pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)
        except pynvml.NVMLError_NotSupported as error:
            print("temperature:", error)
    pynvml.nvmlShutdown()
    try:
        pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError_Uninitialized:
        print("shut down")
    sys.stdout.flush()


show()
child = os.fork()
if child == 0:
    show()
    os._exit(0)
print("child", os.waitpid(child, 0)[1])
show()


def used() -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


# NVML was asked before a fork and before the driver: neither disturbs CUDA.
cuda = ctypes.CDLL("libcuda.so.1")
context, address = ctypes.c_void_p(), ctypes.c_uint64()
assert cuda.cuInit(0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
pynvml.nvmlInit()
before = used()
assert cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(SIZE)) == 0
print("an allocation counts", used() - before == SIZE)
assert cuda.cuMemFree_v2(address) == 0
deadline = (
    time.monotonic() + 30
)  # a free is not waited for, and NVML asks beside the program's own stream
while used() != before and time.monotonic() < deadline:
    time.sleep(0.01)
print("until it is freed", used() == before)
