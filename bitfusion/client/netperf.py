# SPDX-License-Identifier: Apache-2.0
"""A CUDA program that measures what lies between it and its GPU: `bitfusion netperf` runs it.

It makes real driver calls, so the figures are those that programs get: the transport, the wire
protocol and the worker included. Writes one JSON object to a file.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable

MIB = 1 << 20
SIZE = 64 * MIB
SMALL = 4096
ROUNDS = 2000


class CudaFailure(Exception):
    pass


class Driver:
    """Driver calls that raise where they fail."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CudaFailure(f"{name} answered {status}")


def open_device(driver: Driver) -> None:
    context = ctypes.c_void_p()
    driver.call("cuInit", 0)
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    driver.call("cuCtxSetCurrent", context)


def median_us(seconds: float, once: Callable[[], None]) -> tuple[float, float]:
    """Median and 99th percentile of one call, in microseconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 20 or (time.perf_counter() < end and len(times) < ROUNDS):
        started = time.perf_counter()
        once()
        times.append((time.perf_counter() - started) * 1e6)
    times.sort()
    return statistics.median(times), times[len(times) * 99 // 100]


def rate(seconds: float, size: int, copy: Callable[[], None]) -> float:
    """Bytes a second; the best round, as others use the link too."""
    best, end, rounds = 0.0, time.perf_counter() + seconds, 0
    while rounds < 2 or time.perf_counter() < end:
        started = time.perf_counter()
        copy()
        best = max(best, size / (time.perf_counter() - started))
        rounds += 1
    return best


def measure(driver: Driver, seconds: float) -> dict[str, float]:
    """Of each thing for so long."""
    device, pinned = ctypes.c_uint64(), ctypes.c_void_p()
    driver.call("cuMemAlloc_v2", ctypes.byref(device), ctypes.c_size_t(SIZE))
    driver.call("cuMemAllocHost_v2", ctypes.byref(pinned), ctypes.c_size_t(SIZE))
    ordinary = ctypes.create_string_buffer(SIZE)
    size, stream = ctypes.c_size_t(SIZE), ctypes.c_void_p()

    def synchronize() -> None:
        driver.call("cuMemsetD8Async", device, 0, ctypes.c_size_t(1), stream)
        driver.call("cuStreamSynchronize", stream)

    def small() -> None:
        driver.call("cuMemcpyDtoH_v2", ordinary, device, ctypes.c_size_t(SMALL))

    synchronize()
    call, call_99 = median_us(seconds, synchronize)
    download, _ = median_us(seconds, small)
    found = {"sync_us": call, "sync_p99_us": call_99, "download_4k_us": download}
    ways: dict[str, Callable[[], None]] = {
        "upload": lambda: driver.call("cuMemcpyHtoD_v2", device, ordinary, size),
        "download": lambda: driver.call("cuMemcpyDtoH_v2", ordinary, device, size),
        "upload_pinned": lambda: driver.call("cuMemcpyHtoD_v2", device, pinned, size),
        "download_pinned": lambda: driver.call("cuMemcpyDtoH_v2", pinned, device, size),
    }
    for name, way in ways.items():

        def copy(way: Callable[[], None] = way) -> None:
            way()
            driver.call("cuStreamSynchronize", stream)

        found[f"{name}_bytes_per_s"] = rate(seconds, SIZE, copy)
    return found


def main() -> int:
    driver = Driver()
    try:
        open_device(driver)
        found = measure(driver, float(sys.argv[1]))
        with open(sys.argv[2], "w") as file:
            json.dump(found, file)
    except (CudaFailure, OSError) as error:
        sys.stderr.write(f"bitfusion: cannot measure: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
