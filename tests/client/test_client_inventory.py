# SPDX-License-Identifier: Apache-2.0
"""What a machine is said to have: software GPUs, NVML's answer, a driver's, broken drivers."""

from __future__ import annotations

import os
import pathlib
import re
import sys
import types

import pytest

from bitfusion import inventory, paths
from bitfusion.errors import DriverUnusable, NoDriver, NotBuilt
from bitfusion.executor import core


@pytest.fixture()
def libraries(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("BITFUSION_LIBDIR", str(tmp_path))
    (tmp_path / "softgpu").mkdir()
    (tmp_path / "softgpu" / "libcuda.so.1").touch()
    return tmp_path


def test_software(libraries: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "has_nvidia_driver", lambda: False)
    found = inventory.find("", 3, 512 << 20)
    assert found.software and [gpu.memory for gpu in found.gpus] == [512 << 20] * 3
    assert found.environment == {
        "BITFUSION_SOFTGPU_GPUS": "3",
        "BITFUSION_SOFTGPU_MEMORY": str(512 << 20),
    }
    assert len({gpu.uuid for gpu in found.gpus}) == 3
    assert found.driver == str(libraries / "softgpu" / "libcuda.so.1")


def test_the_software_gpus_version_is_its_drivers() -> None:
    header = pathlib.Path(paths.__file__).with_name("softgpu") / "driver" / "driver.h"
    assert f"DRIVER_VERSION = {inventory.SOFTWARE_CUDA}," in header.read_text("utf-8")
    found = inventory.software(1, 1 << 30)
    assert found.cuda_version == "13.0"
    nvml = pathlib.Path(paths.__file__).with_name("nvml") / "system.c"
    row = f'{{ {inventory.SOFTWARE_CUDA}, "{found.driver_version}" }}'
    assert row in nvml.read_text("utf-8")


def test_software_gpus_of_two_machines_differ(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"machine {name}\n")
    one, other, none = (inventory.machine_id(str(tmp_path / name)) for name in ("a", "b", "none"))
    assert one == "machine a" and len({one, other, none}) == 3


def test_software_gpus_of_two_servers_of_a_machine_differ() -> None:
    found = inventory.software(2, 1 << 30)
    seen = set()
    for server in ("0123456789abcdef", "0123456789abcdee"):
        named = inventory.name_software(found, server)
        assert named == inventory.name_software(found, server)
        seen |= {gpu.uuid for gpu in named.gpus}
    assert len(seen) == 4
    form = r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert all(re.fullmatch(form, uuid) for uuid in seen), seen
    real = inventory.Inventory((inventory.Gpu("A100", 1, "GPU-1"),), "", "", {})
    assert inventory.name_software(real, "x") == real


class NVMLError(Exception):
    pass


def fake_nvml(memories: list[int], fails: bool = False) -> types.ModuleType:
    module = types.ModuleType("pynvml")

    def init() -> None:
        if fails:
            raise NVMLError("Driver/library version mismatch")

    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(memories),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda index: types.SimpleNamespace(total=memories[index]),
        nvmlDeviceGetName=lambda index: b"NVIDIA H200",
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
        nvmlSystemGetDriverVersion=lambda: "570.00",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 12080,
    )
    return module


def test_nvml(libraries: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "has_nvidia_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([1 << 37, 1 << 36]))
    found = inventory.find("", 1, 1 << 30)
    assert found.gpus == (
        inventory.Gpu("NVIDIA H200", 1 << 37, "GPU-0"),
        inventory.Gpu("NVIDIA H200", 1 << 36, "GPU-1"),
    )
    assert (found.driver, found.software) == ("libcuda.so.1", False)
    assert (found.driver_version, found.cuda_version) == ("570.00", "12.8")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([]))
    assert inventory.find("", 1, 1 << 30).software
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([], fails=True))
    with pytest.raises(DriverUnusable, match="version mismatch"):
        inventory.find("", 1, 1 << 30)


def test_a_driver_that_is_not_there() -> None:
    with pytest.raises(NoDriver):
        inventory.find("/no/such/libcuda.so.1", 1, 1)


def ask(monkeypatch: pytest.MonkeyPatch, probe: object) -> inventory.Inventory:
    monkeypatch.setattr(core, "probe", probe)
    return inventory.of_driver("/drivers/libcuda.so.1")


def test_a_driver_is_asked_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(path: str) -> list[dict[str, object]]:
        os.environ["MARK"] = "child"
        return [{"name": path, "total_memory": 5, "uuid": "u", "driver_version": 13000}]

    found = ask(monkeypatch, probe)
    assert found.gpus == (inventory.Gpu("/drivers/libcuda.so.1", 5, "u"),)
    assert found.cuda_version == "13.0" and not found.driver_version and "MARK" not in os.environ


def fail(path: str) -> list[dict[str, object]]:
    raise RuntimeError(f"the driver '{path}' cannot start: 100")


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        (lambda path: [], "it has no device"),
        (fail, "^cannot use driver '/drivers/libcuda.so.1': cannot start: 100$"),
        (lambda path: os.kill(os.getpid(), 9), "it ended the process that loaded it"),
        (lambda path: os._exit(3), "it ended the process"),
    ],
)
def test_broken_drivers(monkeypatch: pytest.MonkeyPatch, probe: object, why: str) -> None:
    with pytest.raises(DriverUnusable, match=why):
        ask(monkeypatch, probe)


def test_missing_libraries_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITFUSION_LIBDIR", str(tmp_path))
    with pytest.raises(NotBuilt, match="client/libcuda.so.1"):
        paths.library(paths.CLIENT_LIBRARY)
