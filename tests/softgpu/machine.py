# SPDX-License-Identifier: Apache-2.0
"""Runs PTX on the engine alone: compile, place variables, launch, look at memory.

Device memory is the memory of numpy arrays; an array is in the device's address space for the
launches it is an argument of.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(
    os.environ.get("BITFUSION_TEST_ENGINE", ROOT / "build/lib/softgpu/libsoftgpu-engine.so")
)
Argument = Union[int, float, bytes, "numpy.ndarray"]


class DeviceFault(Exception):
    """A kernel failed: ``error`` is the CUresult."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(f"{error}: {text}")
        self.error = error
        self.text = text


class _Variable(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("size", ctypes.c_uint64), ("align", ctypes.c_uint64),
        ("constant", ctypes.c_int), ("managed", ctypes.c_int),
    ]  # fmt: skip


class _Parameter(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint32), ("size", ctypes.c_uint32)]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("parameter_count", ctypes.c_uint32),
        ("parameters_size", ctypes.c_uint32), ("parameters", ctypes.POINTER(_Parameter)),
        ("registers", ctypes.c_uint32), ("static_shared", ctypes.c_uint32),
        ("local_bytes", ctypes.c_uint32), ("const_bytes", ctypes.c_uint32),
        ("max_threads", ctypes.c_uint32), ("required_block", ctypes.c_uint32 * 3),
        ("required_cluster", ctypes.c_uint32 * 3), ("ptx_version", ctypes.c_int),
        ("target", ctypes.c_int), ("max_cluster", ctypes.c_uint32),
        ("explicit_cluster", ctypes.c_int),
    ]  # fmt: skip


class _Launch(ctypes.Structure):
    _fields_ = [
        ("module", ctypes.c_void_p), ("kernel", ctypes.POINTER(_Kernel)),
        ("context", ctypes.c_void_p), ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3), ("cluster", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint32), ("cooperative", ctypes.c_int),
        ("parameters", ctypes.c_void_p), ("cancel", ctypes.c_void_p),
    ]  # fmt: skip


class _Fault(ctypes.Structure):
    _fields_ = [("error", ctypes.c_int), ("text", ctypes.c_char * 400)]


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    p, u64, n = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint
    for name, result, arguments in (
        ("sg_space_create", p, []),
        ("sg_space_add", ctypes.c_int, [p, u64, u64]),
        ("sg_space_remove", ctypes.c_int, [p, u64]),
        (
            "sg_image_parse",
            p,
            [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t],
        ),
        ("sg_image_variable_count", n, [p]),
        ("sg_image_variable", ctypes.POINTER(_Variable), [p, n]),
        ("sg_module_create", p, [p, ctypes.POINTER(u64), ctypes.c_char_p, ctypes.c_size_t]),
        ("sg_module_kernel_count", n, [p]),
        ("sg_module_kernel", ctypes.POINTER(_Kernel), [p, n]),
        ("sg_context_create", p, [p, u64, u64]),
        ("sg_context_take_output", ctypes.c_size_t, [p, ctypes.c_char_p, ctypes.c_size_t]),
        ("sg_context_take_assertions", ctypes.c_size_t, [p, ctypes.c_char_p, ctypes.c_size_t]),
        ("sg_pool_create", p, [n]),
        ("sg_launch", ctypes.c_int, [p, ctypes.POINTER(_Launch), ctypes.POINTER(_Fault)]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Machine:
    """One software device."""

    def __init__(self, threads: int = 2) -> None:
        self.library = _load()
        self.space = self.library.sg_space_create()
        self.context = self.library.sg_context_create(self.space, 1 << 20, 1 << 16)
        self.pool = self.library.sg_pool_create(threads)

    def compile(self, source: Union[str, bytes]) -> Program:
        from bitfusion.softgpu.engine.encode import encode_module
        from bitfusion.softgpu.ptx.frontend import read_image

        data = source.encode() if isinstance(source, str) else source
        return Program(self, encode_module(read_image(data)))

    def output(self) -> str:
        """Take what kernels printed."""
        buffer = ctypes.create_string_buffer(1 << 16)
        size = self.library.sg_context_take_output(self.context, buffer, len(buffer))
        return buffer.raw[:size].decode()

    def assertions(self) -> str:
        """Take what kernels said of assertions that failed."""
        buffer = ctypes.create_string_buffer(1 << 16)
        size = self.library.sg_context_take_assertions(self.context, buffer, len(buffer))
        return buffer.raw[:size].decode()

    def add(self, array: numpy.ndarray) -> int:
        """Put an array into the address space; returns its address."""
        base = int(array.ctypes.data)
        assert array.nbytes and self.library.sg_space_add(self.space, base, array.nbytes) == 0
        return base

    def remove(self, array: numpy.ndarray) -> None:
        assert self.library.sg_space_remove(self.space, int(array.ctypes.data)) == 0


class Program:
    """A module in the machine's memory."""

    def __init__(self, machine: Machine, image: bytes) -> None:
        self.machine = machine
        self.memory: List[numpy.ndarray] = []
        library = machine.library
        reason = ctypes.create_string_buffer(400)
        self.image = library.sg_image_parse(image, len(image), reason, len(reason))
        if not self.image:
            raise AssertionError(reason.value.decode())
        self.variables: Dict[str, numpy.ndarray] = {}
        count = library.sg_image_variable_count(self.image)
        addresses = (ctypes.c_uint64 * max(count, 1))()
        for i in range(count):
            variable = library.sg_image_variable(self.image, i).contents
            memory = aligned(max(int(variable.size), 1), max(int(variable.align), 16))
            addresses[i] = machine.add(memory)
            self.memory.append(memory)
            self.variables[variable.name.decode()] = memory[: variable.size]
        self.module = library.sg_module_create(self.image, addresses, reason, len(reason))
        if not self.module:
            raise AssertionError(reason.value.decode())
        self.kernels: Dict[str, ctypes._Pointer[_Kernel]] = {}
        for i in range(library.sg_module_kernel_count(self.module)):
            kernel = library.sg_module_kernel(self.module, i)
            self.kernels[kernel.contents.name.decode()] = kernel

    def __del__(self) -> None:
        for memory in self.memory:
            self.machine.remove(memory)

    def find(self, part: str) -> str:
        """Give the only kernel whose name contains ``part``: C++ names are mangled."""
        found = [name for name in self.kernels if part in name]
        assert len(found) == 1, found
        return found[0]

    def launch(
        self,
        name: str,
        grid: Union[int, Tuple[int, ...]],
        block: Union[int, Tuple[int, ...]],
        *arguments: Argument,
        shared: int = 0,
        cooperative: bool = False,
        cluster: Union[int, Tuple[int, ...]] = (0, 0, 0),
        visible: Sequence[numpy.ndarray] = (),
    ) -> None:
        """Run a kernel to its end; ``visible`` are arrays it reaches by other ways."""
        kernel = self.kernels[name]
        arrays: List[numpy.ndarray] = list(visible)
        arrays += [a for a in arguments if isinstance(a, numpy.ndarray)]
        unique = {int(a.ctypes.data): a for a in arrays}
        launch = _Launch(self.module, kernel, self.machine.context)
        launch.grid[:], launch.block[:] = _three(grid), _three(block)
        launch.cluster[:] = _three(cluster)
        launch.dynamic_shared, launch.cooperative = shared, int(cooperative)
        parameters = ctypes.create_string_buffer(self._pack(kernel.contents, arguments) + b"\0")
        launch.parameters = ctypes.cast(parameters, ctypes.c_void_p)
        for array in unique.values():
            self.machine.add(array)
        fault = _Fault()
        try:
            error = self.machine.library.sg_launch(
                self.machine.pool, ctypes.byref(launch), ctypes.byref(fault)
            )
        finally:
            for array in unique.values():
                self.machine.remove(array)
        if error:
            raise DeviceFault(error, fault.text.decode("utf-8", "replace"))

    def _pack(self, kernel: _Kernel, arguments: Sequence[Argument]) -> bytes:
        assert kernel.parameter_count == len(arguments), (kernel.parameter_count, len(arguments))
        data = bytearray(kernel.parameters_size)
        for i, argument in enumerate(arguments):
            where = kernel.parameters[i]
            if isinstance(argument, numpy.ndarray):
                value = int(argument.ctypes.data).to_bytes(8, "little")
            elif isinstance(argument, float):
                value = numpy.dtype(f"f{where.size}").type(argument).tobytes()
            elif isinstance(argument, int):
                value = (argument & ((1 << (8 * where.size)) - 1)).to_bytes(where.size, "little")
            else:
                value = argument
            assert len(value) == where.size, (i, len(value), where.size)
            data[where.offset : where.offset + where.size] = value
        return bytes(data)


def _three(size: Union[int, Tuple[int, ...]]) -> Tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else size
    return (*sizes, 1, 1)[:3]


def aligned(size: int, align: int = 256) -> numpy.ndarray:
    """Zeroed bytes at an aligned address."""
    raw = numpy.zeros(size + align, numpy.uint8)
    start = -int(raw.ctypes.data) % align
    return raw[start : start + size]


def array(values: object, dtype: str) -> numpy.ndarray:
    """An aligned copy of values, as device memory is."""
    plain = numpy.asarray(values, dtype=dtype)
    memory = aligned(max(plain.nbytes, 1))[: plain.nbytes].view(plain.dtype)
    memory[:] = plain.ravel()
    return memory


def zeros(count: int, dtype: str) -> numpy.ndarray:
    return array(numpy.zeros(count, dtype), dtype)


_machine: Optional[Machine] = None


def machine() -> Machine:
    """The machine that all tests of a process share."""
    global _machine
    if _machine is None:
        _machine = Machine()
    return _machine
