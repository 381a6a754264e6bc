# SPDX-License-Identifier: Apache-2.0
"""The GPUs of this machine: real ones by NVML, those of a given driver, or software ones.

The only importer of pynvml, which is optional.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from bitfusion import linux, paths
from bitfusion.errors import DriverUnusable, NoDriver

MAX_SOFTWARE_GPUS = 16
MAX_SOFTWARE_MEMORY = 128 << 30  # the driver's addresses leave room for no more on one GPU
SOFTWARE_NAME = "Bitfusion Software GPU"
SOFTWARE_CUDA = 13000  # what its cuDriverGetVersion says
SOFTWARE_DRIVER = "580.65.06"  # what its NVML says: the release that first had this CUDA version
PROBE_TIMEOUT_S = 60


class Gpu(NamedTuple):
    name: str
    memory: int  # bytes
    uuid: str = ""


class Inventory(NamedTuple):
    gpus: tuple[Gpu, ...]
    driver: str  # the libcuda.so.1 to load
    origin: str  # in words, for log lines
    environment: dict[str, str]  # what a process that loads the driver needs
    driver_version: str = ""
    software: bool = False
    cuda_version: str = ""  # as 12.4


def cuda_text(version: int) -> str:
    """Of a number as cuDriverGetVersion has it; '' for none."""
    return f"{version // 1000}.{version % 1000 // 10}" if version > 0 else ""


def software(count: int, memory: int) -> Inventory:
    count = max(1, min(count, MAX_SOFTWARE_GPUS))
    environment = {"BITFUSION_SOFTGPU_GPUS": str(count), "BITFUSION_SOFTGPU_MEMORY": str(memory)}
    seed = machine_id()
    gpus = tuple(Gpu(SOFTWARE_NAME, memory, software_uuid(index, seed)) for index in range(count))
    return Inventory(
        gpus,
        paths.library(paths.SOFTGPU_LIBRARY),
        "software GPUs",
        environment,
        SOFTWARE_DRIVER,
        software=True,
        cuda_version=cuda_text(SOFTWARE_CUDA),
    )


def software_uuid(index: int, seed: str) -> str:
    """In the form that NVIDIA's have; always the same of one seed."""
    parts = [zlib.crc32(f"{seed} {index} {part}".encode()) for part in range(4)]
    text = "".join(f"{part:08x}" for part in parts)
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def machine_id(file: str = "/etc/machine-id") -> str:
    try:
        with open(file) as found:
            return found.read().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def name_software(found: Inventory, server: str) -> Inventory:
    """With UUIDs of this server: there may be several on one machine, and a filter is to tell
    their GPUs apart. Always the same: sessions outlive the server's process.
    """
    gpus = [
        gpu._replace(uuid=software_uuid(index, server)) if gpu.name == SOFTWARE_NAME else gpu
        for index, gpu in enumerate(found.gpus)
    ]
    return found._replace(gpus=tuple(gpus))


def has_nvidia_driver() -> bool:
    """Cheap: decides whether it is worth loading NVML at all.

    Inside a run on a machine without the driver its files only seem to exist (presence.c).
    """
    if "BITFUSION_DEVICES" in os.environ:
        return False
    return any(map(os.path.exists, ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")))


def nvidia() -> Inventory:
    """The machine's own GPUs; without pynvml the driver itself is asked."""
    try:
        import pynvml
    except ImportError:
        return of_driver("libcuda.so.1")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DriverUnusable(path="libnvidia-ml.so.1", why=str(error)) from None
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        gpus.append(
            Gpu(
                _text(pynvml.nvmlDeviceGetName(handle)),
                int(memory.total),
                _text(pynvml.nvmlDeviceGetUUID(handle)),
            )
        )
    version = _text(pynvml.nvmlSystemGetDriverVersion())
    cuda = cuda_text(int(pynvml.nvmlSystemGetCudaDriverVersion_v2()))
    pynvml.nvmlShutdown()
    return Inventory(
        tuple(gpus), "libcuda.so.1", "this machine's GPUs", {}, version, cuda_version=cuda
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def of_driver(path: str) -> Inventory:
    """Ask a driver; in a child process, because it may crash and can never be unloaded."""
    answer = _in_child(path)
    if "error" in answer:
        why = str(answer["error"]).removeprefix(f"the driver '{path}' ")
        raise DriverUnusable(path=path, why=why)
    devices = answer.get("devices")
    if not isinstance(devices, list) or not devices:
        raise DriverUnusable(path=path, why="it has no device")
    gpus = tuple(Gpu(str(d["name"]), int(d["total_memory"]), str(d["uuid"])) for d in devices)
    cuda = cuda_text(int(devices[0].get("driver_version", 0)))
    return Inventory(gpus, path, f"driver '{path}'", {}, cuda_version=cuda)


def _in_child(path: str) -> dict[str, object]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer_and_end(path, writer)
    os.close(writer)
    try:
        text = _read_all(reader)
    finally:
        os.close(reader)
        _, status = os.waitpid(child, 0)
    if not text:
        return {"error": f"it ended the process that loaded it (wait status {status})"}
    loaded = json.loads(text)
    return loaded if isinstance(loaded, dict) else {"error": "no answer"}


def _read_all(reader: int) -> bytes:
    return b"".join(iter(lambda: os.read(reader, 65536), b""))


def _answer_and_end(path: str, writer: int) -> None:
    """In the child: whatever happens, write one JSON text at most and end."""
    try:
        import signal

        from bitfusion.executor import core

        signal.alarm(PROBE_TIMEOUT_S)
        linux.silence((0, 1))
        text = json.dumps({"devices": core.probe(path)})
    except BaseException as error:
        text = json.dumps({"error": str(error) or type(error).__name__})
    os.write(writer, text.encode())
    os._exit(0)


def find(driver: str, software_gpus: int, software_memory: int) -> Inventory:
    """What a server on this machine would serve."""
    if driver:
        if os.path.exists(driver):
            return of_driver(os.path.abspath(driver))
        if "/" in driver:
            raise NoDriver(path=driver)
        return of_driver(driver)  # the dynamic linker may find it
    if has_nvidia_driver():
        found = nvidia()
        if found.gpus:
            return found
    return software(software_gpus, software_memory)


def describe(gpus: Iterable[Gpu]) -> str:
    return ", ".join(gpu.name for gpu in gpus)
