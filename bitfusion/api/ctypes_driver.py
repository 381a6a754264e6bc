# SPDX-License-Identifier: Apache-2.0
"""Any libcuda.so.1 for tests: loaded by ctypes, with every function's argument types.

Reads the generated cuda.h, so that it needs neither a CUDA toolkit nor the cuda-bindings package.
Pointers and handles are c_void_p: pass ctypes.byref(...), an array, bytes or a number.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

HEADER = Path(__file__).resolve().parents[1] / "wire" / "generated" / "cuda.h"

_INTEGERS: Dict[str, Any] = {
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "unsigned int": ctypes.c_uint,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
    "unsigned char": ctypes.c_ubyte,
    "unsigned short": ctypes.c_ushort,
    "size_t": ctypes.c_size_t,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float,
}
_PROTOTYPE = re.compile(r"^CUresult (cu\w+)\((.*)\);$", re.MULTILINE)
_TYPEDEF = re.compile(r"^typedef ([\w ]+?) (\**)(\w+);$", re.MULTILINE)
_CALLBACK = re.compile(r"^typedef \w[\w ]* \(\*(\w+)\)\(", re.MULTILINE)


class CUmemLocation(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


def scalar_types(header: str) -> Dict[str, Any]:
    """The ctypes of every name in the header that a function can take by value."""
    found: Dict[str, Any] = dict(_INTEGERS, CUmemLocation=CUmemLocation)
    for name in _CALLBACK.findall(header):
        found[name] = ctypes.c_void_p
    for base, stars, name in _TYPEDEF.findall(header):
        if name in found:
            continue
        if stars:
            found[name] = ctypes.c_void_p
        elif base.startswith("enum "):
            found[name] = ctypes.c_int
        elif base in found:
            found[name] = found[base]
    return found


def argument_types(arguments: str, scalars: Dict[str, Any]) -> Optional[List[Any]]:
    """None where an argument is a struct by value that nobody described."""
    if arguments == "void":
        return []
    types = []
    for argument in arguments.split(", "):
        kind = ctypes.c_void_p if "*" in argument else scalars.get(argument.rsplit(" ", 1)[0])
        if kind is None:
            return None
        types.append(kind)
    return types


def prototypes(header: str) -> Dict[str, Optional[List[Any]]]:
    scalars = scalar_types(header)
    return {name: argument_types(text, scalars) for name, text in _PROTOTYPE.findall(header)}


def load(library: str) -> ctypes.CDLL:
    """`library`, with argtypes on each function that it exports and the header declares."""
    driver = ctypes.CDLL(library)
    for name, types in prototypes(HEADER.read_text(encoding="utf-8")).items():
        function = getattr(driver, name, None)
        if function is not None and types is not None:
            function.argtypes = types
            function.restype = ctypes.c_int
    return driver
