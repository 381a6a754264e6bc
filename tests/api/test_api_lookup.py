# SPDX-License-Identifier: Apache-2.0
"""bitfusion/abi/lookup.c on the proxy's own table: a request gets exactly the ABI it means."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Iterator, Optional, Tuple

import pytest
from api_helpers import HERE, ROOT, compile_c

DRIVER = 13000
SUCCESS, INVALID_VALUE, NOT_FOUND = 0, 1, 500
FOUND, NO_SYMBOL, NO_VERSION = 0, 1, 2
DEFAULT, LEGACY, PER_THREAD = 0, 1, 2
PROXY = ROOT / "bitfusion" / "proxy" / "generated"


class Table:
    """The lookup, with an empty function behind each exported name."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        names = re.findall(r"^\t\t(cu\w+);", (PROXY / "exports.map").read_text(), re.MULTILINE)
        self.names = {
            ctypes.cast(getattr(self.library, n), ctypes.c_void_p).value: n for n in names
        }

    def ask(
        self, name: Optional[bytes], version: int, flags: int = 0, driver: int = DRIVER
    ) -> Tuple[int, Optional[str], int]:
        """The result, the exported name of what was given, the status."""
        function, status = ctypes.c_void_p(0xDEAD), ctypes.c_int(77)
        result = self.library.abi_get_proc_address(
            name,
            ctypes.byref(function),
            version,
            ctypes.c_uint64(flags),
            ctypes.byref(status),
            driver,
        )
        return result, self.names[function.value] if function.value else None, status.value


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("lookup")
    names = re.findall(r"^\t\t(cu\w+);", (PROXY / "exports.map").read_text(), re.MULTILINE)
    functions = folder / "functions.c"
    functions.write_text(
        "".join(f"int {n}(void);\nint {n}(void) {{ return 0; }}\n" for n in names)
    )
    sources = [functions, PROXY / "symbols.c", ROOT / "bitfusion" / "abi" / "lookup.c"]
    flags = ["-shared", "-fPIC", "-fno-ipa-icf", "-O0"]
    return Table(compile_c(folder / "liblookup.so", sources, flags))


def requests() -> Iterator[Tuple[str, int, int]]:
    for line in (HERE / "cudart_lookups.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, *versions = line.split()
        for version in versions:
            match = re.match(r"^(\d+)(t?)(\[.*\])?$", version)
            assert match, line
            yield name, int(match.group(1)), PER_THREAD if match.group(2) else DEFAULT


# One runtime asks for these with several versions: each must get its own arguments.
SEVERAL = {
    ("cuCtxCreate", 3020): "cuCtxCreate_v2",
    ("cuCtxCreate", 11040): "cuCtxCreate_v3",
    ("cuCtxCreate", 12050): "cuCtxCreate_v4",
    ("cuCtxGetDevice", 2000): "cuCtxGetDevice",
    ("cuCtxGetDevice", 13000): "cuCtxGetDevice_v2",
    ("cuCtxSynchronize", 2000): "cuCtxSynchronize",
    ("cuCtxSynchronize", 13000): "cuCtxSynchronize_v2",
    ("cuEventElapsedTime", 2000): "cuEventElapsedTime",
    ("cuEventElapsedTime", 12080): "cuEventElapsedTime_v2",
    ("cuGetProcAddress", 11030): "cuGetProcAddress",
    ("cuGetProcAddress", 12000): "cuGetProcAddress_v2",
    ("cuMemAdvise", 8000): "cuMemAdvise",
    ("cuMemAdvise", 12020): "cuMemAdvise_v2",
    ("cuMemAlloc", 3020): "cuMemAlloc_v2",
    ("cuMemHostRegister", 4000): "cuMemHostRegister",
    ("cuMemHostRegister", 6050): "cuMemHostRegister_v2",
    ("cuStreamGetCaptureInfo", 10010): "cuStreamGetCaptureInfo",
    ("cuStreamGetCaptureInfo", 11030): "cuStreamGetCaptureInfo_v2",
    ("cuStreamGetCaptureInfo", 12030): "cuStreamGetCaptureInfo_v3",
    ("cuStreamWaitValue32", 8000): "cuStreamWaitValue32",
    ("cuStreamWaitValue32", 11070): "cuStreamWaitValue32_v2",
}


@pytest.mark.parametrize("name, version", sorted(SEVERAL))
def test_abi(table: Table, name: str, version: int) -> None:
    assert table.ask(name.encode(), version) == (SUCCESS, SEVERAL[name, version], FOUND)


@pytest.mark.parametrize(
    "name, version, flags, exported",
    [
        ("cuMemcpyHtoD", 7000, PER_THREAD, "cuMemcpyHtoD_v2_ptds"),
        ("cuMemcpyHtoD", 7000, LEGACY, "cuMemcpyHtoD_v2"),
        ("cuMemcpyHtoD", 4000, PER_THREAD, "cuMemcpyHtoD_v2"),
        ("cuMemcpyHtoD", 12090, DEFAULT, "cuMemcpyHtoD_v2"),
        ("cuLaunchKernel", 7000, PER_THREAD, "cuLaunchKernel_ptsz"),
        ("cuLaunchKernel", 4000, DEFAULT, "cuLaunchKernel"),
        ("cuMemAlloc", 13000, PER_THREAD, "cuMemAlloc_v2"),
        ("cuMemPrefetchAsync", 8000, PER_THREAD, "cuMemPrefetchAsync_ptsz"),
        ("cuMemPrefetchAsync", 12020, PER_THREAD, "cuMemPrefetchAsync_v2_ptsz"),
        ("cuStreamGetCaptureInfo", 11030, PER_THREAD, "cuStreamGetCaptureInfo_v2_ptsz"),
    ],
)
def test_flavour(table: Table, name: str, version: int, flags: int, exported: str) -> None:
    assert table.ask(name.encode(), version, flags) == (SUCCESS, exported, FOUND)


@pytest.mark.parametrize(
    "name, version, flags, status",
    [
        (b"", 0, DEFAULT, NO_SYMBOL),
        (b"cuNoSuchFunction", 12000, DEFAULT, NO_SYMBOL),
        (b"cuMemAlloc_v2", 12000, DEFAULT, NO_SYMBOL),
        (b"cuGraphInstantiateWithParams_ptsz", 12000, PER_THREAD, NO_SYMBOL),
        (b"cuLaunchKernel", 3020, DEFAULT, NO_VERSION),
        (b"cuLaunchKernel", 0, PER_THREAD, NO_VERSION),
        (b"cuLibraryLoadData", 11080, DEFAULT, NO_VERSION),
        (b"cuIpcOpenMemHandle", 12000, DEFAULT, NO_SYMBOL),
        (b"zzz", 12000, DEFAULT, NO_SYMBOL),
    ],
)
def test_nothing(table: Table, name: bytes, version: int, flags: int, status: int) -> None:
    assert table.ask(name, version, flags) == (SUCCESS, None, status)


def test_older_abi_never_stands_in(table: Table) -> None:
    """cuMemAlloc of 2.0 is missing: its 32-bit successor must not be handed out for it."""
    assert table.ask(b"cuMemAlloc", 2000) == (SUCCESS, None, NO_SYMBOL)


@pytest.mark.parametrize(
    "name, version, flags",
    [(None, 12000, 0), (b"cuInit", 13010, 0), (b"cuInit", 12000, 4), (b"cuInit", 12000, 3)],
)
def test_refused(table: Table, name: Optional[bytes], version: int, flags: int) -> None:
    assert table.ask(name, version, flags) == (INVALID_VALUE, None, NO_SYMBOL)


def test_newest_is_the_drivers(table: Table) -> None:
    assert table.ask(b"cuCtxGetDevice", 12080, driver=12080)[1] == "cuCtxGetDevice"
    assert table.ask(b"cuCtxGetDevice", 13000, driver=12080)[0] == INVALID_VALUE


def test_null_pointers(table: Table) -> None:
    function = ctypes.c_void_p(1)
    lookup = table.library.abi_get_proc_address
    assert lookup(b"cuInit", None, 2000, ctypes.c_uint64(0), None, DRIVER) == INVALID_VALUE
    assert lookup(b"cuInit", ctypes.byref(function), 2000, ctypes.c_uint64(0), None, DRIVER) == 0
    assert function.value and table.names[function.value] == "cuInit"


def test_first_version(table: Table) -> None:
    function = ctypes.c_void_p(1)
    lookup = table.library.abi_get_proc_address_v1
    found = lookup(b"cuInit", ctypes.byref(function), 2000, ctypes.c_uint64(0), DRIVER)
    assert (found, table.names[function.value or 0]) == (SUCCESS, "cuInit")
    found = lookup(b"cuNone", ctypes.byref(function), 2000, ctypes.c_uint64(0), DRIVER)
    assert (found, function.value) == (NOT_FOUND, None)


def test_table_is_sorted() -> None:
    text = (PROXY / "symbols.c").read_text()
    rows = re.findall(r'^\t\{"(\w+)", "\w+", (\d+), (\d),', text, re.MULTILINE)
    keys = [(name, int(flavour), int(version)) for name, version, flavour in rows]
    assert keys == sorted(keys) and len(keys) == len(set(keys)) > 600


def test_every_request_of_the_runtimes_is_known(table: Table) -> None:
    """A name or version that the table lacks would be a hole in cuda.toml, not a decision."""
    for name, version, flags in requests():
        result, exported, status = table.ask(name.encode(), version, flags)
        assert result == SUCCESS
        if name.endswith("_ptsz"):
            assert exported is None
            continue
        assert status != NO_VERSION, f"{name} {version}"
        if exported is None:
            assert f'"{name}", "' in (PROXY / "symbols.c").read_text(), name
        elif flags == PER_THREAD:
            assert exported.endswith(("_ptsz", "_ptds")), f"{name} {version} {exported}"
        else:
            assert not exported.endswith(("_ptsz", "_ptds"))


# Without any one of these a program of the 13.0 runtime does not start.
NEEDED = """cuCtxGetCurrent cuCtxGetDevice cuCtxSetCurrent cuDeviceGet cuDeviceGetAttribute
cuDeviceGetCount cuDeviceGetName cuDeviceGetUuid cuDevicePrimaryCtxRetain cuDeviceTotalMem
cuDriverGetVersion cuGetExportTable cuGetProcAddress cuInit cuLaunchKernel cuLibraryGetKernel
cuLibraryLoadData cuMemAlloc cuMemFree cuMemcpyDtoH cuMemcpyHtoD cuStreamSynchronize"""


def test_what_every_program_needs_is_there(table: Table) -> None:
    for name in NEEDED.split():
        assert table.ask(name.encode(), DRIVER)[1] is not None, name


# What PyTorch, cuBLAS and cuDNN link against or dlsym: exported under exactly these names.
LINKED = """cuLinkCreate_v2 cuLinkAddData_v2 cuLinkComplete cuLinkDestroy cuTensorMapEncodeTiled
cuLaunchCooperativeKernel cuInit cuCtxGetCurrent cuCtxGetLimit cuLibraryLoadData cuLibraryGetKernel
cuOccupancyMaxActiveClusters cuFuncSetAttribute cuModuleLoadData cuGetProcAddress
cuGetProcAddress_v2 cuMemcpyHtoD_v2_ptds cuStreamSynchronize_ptsz cuMemAlloc cuCtxCreate
cuStreamGetCaptureInfo_v3 cuGLGetDevices_v2 cuVDPAUCtxCreate_v2 cuEGLStreamConsumerConnect"""


def test_linked_names_are_exported(table: Table) -> None:
    assert set(LINKED.split()) <= set(table.names.values())
