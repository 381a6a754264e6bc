# SPDX-License-Identifier: Apache-2.0
"""The GPUs that a run has, seen from inside it: asked of the NVML library that programs there
find, which is ours.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable

from bitfusion.client.pool import Listed, Overview, Row, as_json
from bitfusion.errors import DriverUnusable

LIBRARY = "libnvidia-ml.so.1"
TEXT = 96


class Memory(ctypes.Structure):
    """nvmlMemory_t"""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Utilization(ctypes.Structure):
    """nvmlUtilization_t, in percent"""

    _fields_ = [(name, ctypes.c_uint) for name in ("gpu", "memory")]


def call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise DriverUnusable(path=LIBRARY, why=f"{name} answered {status}")


def text(library: ctypes.CDLL, name: str, device: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(TEXT)
    call(library, name, device, buffer, ctypes.c_uint(TEXT))
    return buffer.value.decode("utf-8", "replace")


def row(library: ctypes.CDLL, index: int) -> Row:
    device, memory, busy = ctypes.c_void_p(), Memory(), Utilization()
    call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
    call(library, "nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    known = library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(busy)) == 0
    return Row(
        index,
        text(library, "nvmlDeviceGetName", device),
        text(library, "nvmlDeviceGetUUID", device),
        memory.total,
        memory.free,
        [],
        busy.gpu / 100 if known else None,
    )


def find() -> Listed:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DriverUnusable(path=LIBRARY, why=str(error)) from None
    count = ctypes.c_uint()
    call(library, "nvmlInit_v2")
    call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    return Listed("this run", "", [row(library, index) for index in range(count.value)])


def run(json_wanted: bool, show: Callable[[Overview], str]) -> int:
    overview = Overview([find()], [], {})
    text = json.dumps(as_json(overview), indent=2) + "\n" if json_wanted else show(overview)
    sys.stdout.write(text)
    return 0


def inside() -> bool:
    """Whether this process belongs to a run."""
    return "BITFUSION_SOCKET" in os.environ
