# SPDX-License-Identifier: Apache-2.0
"""The engine by ctypes: PTX text in, kernels run, faults and printed text out."""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.ptx.frontend import read_image

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = os.environ.get(
    "BITFUSION_TEST_ENGINE", str(ROOT / "build/lib/softgpu/libsoftgpu-engine.so")
)


class Kernel(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("parameter_count", c_uint32),
        ("parameters_size", c_uint32),
        ("parameters", c_void_p),
        ("registers", c_uint32),
        ("static_shared", c_uint32),
        ("local_bytes", c_uint32),
        ("const_bytes", c_uint32),
        ("max_threads", c_uint32),
        ("required_block", c_uint32 * 3),
        ("required_cluster", c_uint32 * 3),
        ("ptx_version", c_int),
        ("target", c_int),
        ("max_cluster", c_uint32),
        ("explicit_cluster", c_int),
    ]


class Variable(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("size", c_uint64),
        ("align", c_uint64),
        ("constant", c_int),
        ("managed", c_int),
    ]


class Launch(Structure):
    _fields_ = [
        ("module", c_void_p),
        ("kernel", POINTER(Kernel)),
        ("context", c_void_p),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("cluster", c_uint32 * 3),
        ("dynamic_shared", c_uint32),
        ("cooperative", c_int),
        ("parameters", c_void_p),
        ("cancel", POINTER(c_int)),
    ]


class Fault(Structure):
    _fields_ = [("error", c_int), ("text", c_char * 400)]


class KernelFault(Exception):
    def __init__(self, error: int, text: str) -> None:
        super().__init__(f"{error}: {text}")
        self.error, self.text = error, text


def _load() -> ctypes.CDLL:
    lib = ctypes.CDLL(LIBRARY)
    for name, answer, arguments in (
        ("sg_space_create", c_void_p, []),
        ("sg_space_destroy", None, [c_void_p]),
        ("sg_space_add", c_int, [c_void_p, c_uint64, c_uint64]),
        ("sg_space_remove", c_int, [c_void_p, c_uint64]),
        ("sg_space_find", c_int, [c_void_p, c_uint64, POINTER(c_uint64), POINTER(c_uint64)]),
        ("sg_image_parse", c_void_p, [c_char_p, c_size_t, c_char_p, c_size_t]),
        ("sg_image_free", None, [c_void_p]),
        ("sg_image_version", c_uint64, []),
        ("sg_image_variable_count", c_uint, [c_void_p]),
        ("sg_image_variable", POINTER(Variable), [c_void_p, c_uint]),
        ("sg_image_kernel_count", c_uint, [c_void_p]),
        ("sg_image_kernel", POINTER(Kernel), [c_void_p, c_uint]),
        ("sg_module_create", c_void_p, [c_void_p, POINTER(c_uint64), c_char_p, c_size_t]),
        ("sg_module_free", None, [c_void_p]),
        ("sg_module_kernel_count", c_uint, [c_void_p]),
        ("sg_module_kernel", POINTER(Kernel), [c_void_p, c_uint]),
        ("sg_context_create", c_void_p, [c_void_p, c_uint64, c_uint64]),
        ("sg_context_destroy", None, [c_void_p]),
        ("sg_context_take_output", c_size_t, [c_void_p, c_char_p, c_size_t]),
        ("sg_context_take_assertions", c_size_t, [c_void_p, c_char_p, c_size_t]),
        ("sg_pool_create", c_void_p, [c_uint]),
        ("sg_pool_destroy", None, [c_void_p]),
        ("sg_launch", c_int, [c_void_p, POINTER(Launch), POINTER(Fault)]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = answer, arguments
    return lib


_lib: Optional[ctypes.CDLL] = None


def library() -> ctypes.CDLL:
    global _lib
    if _lib is None:
        _lib = _load()
    return _lib


class ImageError(Exception):
    pass


class Buffer:
    """Device memory: host memory that the engine's space knows."""

    def __init__(self, engine: Engine, data: bytes) -> None:
        self._engine, self.size = engine, len(data)
        self._memory = ctypes.create_string_buffer(len(data) + 256)
        self.address = (ctypes.addressof(self._memory) + 255) & ~255
        ctypes.memmove(self.address, data, len(data))
        assert library().sg_space_add(engine.space, self.address, max(len(data), 1)) == 0

    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, self.size)

    def read(self, code: str) -> Tuple[Any, ...]:
        """All values, by struct's letter."""
        return struct.unpack(f"<{self.size // struct.calcsize(code)}{code}", self.bytes())

    def free(self) -> None:
        assert library().sg_space_remove(self._engine.space, self.address) == 0


Argument = Union[int, float, Buffer, bytes]


class Program:
    """A loaded module."""

    def __init__(self, engine: Engine, image: bytes) -> None:
        lib, reason = library(), ctypes.create_string_buffer(256)
        self.engine = engine
        self.image = lib.sg_image_parse(image, len(image), reason, len(reason))
        if not self.image:
            raise ImageError(reason.value.decode())
        count = lib.sg_image_variable_count(self.image)
        self.variables: Dict[str, Buffer] = {}
        addresses = (c_uint64 * max(count, 1))()
        for index in range(count):
            variable = lib.sg_image_variable(self.image, index).contents
            buffer = engine.buffer(b"\xcc" * variable.size)
            self.variables[variable.name.decode()] = buffer
            addresses[index] = buffer.address
        self.module = lib.sg_module_create(self.image, addresses, reason, len(reason))
        assert self.module, reason.value
        self.kernels: Dict[str, Any] = {}
        for index in range(lib.sg_module_kernel_count(self.module)):
            kernel = lib.sg_module_kernel(self.module, index)
            self.kernels[kernel.contents.name.decode()] = kernel

    def pack(self, name: str, arguments: Sequence[Argument]) -> bytes:
        kernel = self.kernels[name].contents
        assert kernel.parameter_count == len(arguments)
        packed = bytearray(kernel.parameters_size)
        for index, argument in enumerate(arguments):
            offset, size = struct.unpack("<II", ctypes.string_at(kernel.parameters + 8 * index, 8))
            if isinstance(argument, Buffer):
                data = struct.pack("<Q", argument.address)
            elif isinstance(argument, float):
                data = struct.pack("<f" if size == 4 else "<d", argument)
            elif isinstance(argument, int):
                data = (argument & (1 << 8 * size) - 1).to_bytes(size, "little")
            else:
                data = argument
            packed[offset : offset + len(data)] = data
        return bytes(packed)

    def launch(
        self,
        name: str,
        grid: Union[int, Tuple[int, ...]],
        block: Union[int, Tuple[int, ...]],
        *arguments: Argument,
        shared: int = 0,
        cooperative: bool = False,
        cancel: Optional[Any] = None,
        cluster: Tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        packed = self.pack(name, arguments)
        launch = Launch(self.module, self.kernels[name], self.engine.context)
        launch.grid[:], launch.block[:] = _three(grid), _three(block)
        launch.cluster[:] = cluster
        launch.dynamic_shared, launch.cooperative = shared, cooperative
        launch.parameters = ctypes.cast(ctypes.c_char_p(packed), c_void_p)
        if cancel is not None:
            launch.cancel = ctypes.pointer(cancel)
        fault = Fault()
        if library().sg_launch(self.engine.pool, launch, fault):
            raise KernelFault(fault.error, fault.text.decode())


def _three(size: Union[int, Tuple[int, ...]]) -> Tuple[int, int, int]:
    given = (size,) if isinstance(size, int) else size
    return (*given, *(1,) * (3 - len(given)))  # type: ignore[return-value]


class Engine:
    """A space, a context and a pool."""

    def __init__(self, threads: int = 1, heap: int = 1 << 20, printf: int = 1 << 20) -> None:
        lib = library()
        self.space = lib.sg_space_create()
        self.context = lib.sg_context_create(self.space, heap, printf)
        self.pool = lib.sg_pool_create(threads)
        self.buffers: List[Buffer] = []
        self.programs: List[Program] = []

    def buffer(self, data: Union[bytes, int]) -> Buffer:
        made = Buffer(self, bytes(data) if isinstance(data, int) else data)
        self.buffers.append(made)
        return made

    def values(self, code: str, values: Sequence[Any]) -> Buffer:
        return self.buffer(struct.pack(f"<{len(values)}{code}", *values))

    def load(self, text: str) -> Program:
        return self.load_image(encode_module(read_image(text.encode())))

    def load_image(self, image: bytes) -> Program:
        program = Program(self, image)
        self.programs.append(program)
        return program

    def output(self) -> str:
        text = ctypes.create_string_buffer(1 << 20)
        size = library().sg_context_take_output(self.context, text, len(text))
        return text.raw[:size].decode()

    def assertions(self) -> List[str]:
        text = ctypes.create_string_buffer(1 << 20)
        size = library().sg_context_take_assertions(self.context, text, len(text))
        return text.raw[:size].decode().splitlines()

    def close(self) -> None:
        lib = library()
        for program in self.programs:
            lib.sg_module_free(program.module)
            lib.sg_image_free(program.image)
        lib.sg_pool_destroy(self.pool)
        lib.sg_context_destroy(self.context)
        lib.sg_space_destroy(self.space)
