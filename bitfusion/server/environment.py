# SPDX-License-Identifier: Apache-2.0
"""What workers have of the server's environment: what a driver, the software GPU and its compiler
look at. The rest may hold secrets of whoever started the server, or names libraries for programs
of theirs.
"""

from __future__ import annotations

import ctypes
import os
import posix

MORE = "BITFUSION_WORKER_ENVIRONMENT"  # more names, separated by commas; one may end in a star
KEPT = (
    "BITFUSION_CACHE",
    "BITFUSION_DEBUG",
    "BITFUSION_HOME",
    "BITFUSION_LIBDIR",
    "BITFUSION_PYTHON",
    "BITFUSION_SOFTGPU_*",
    "CUDA_*",  # the driver's own
    "HOME",
    "LANG",
    "LC_*",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
)
NOT_KEPT = ("CUDA_INJECTION64_PATH",)  # a library for the driver to load, unless it is named


def keeps(name: str, more: str = "") -> bool:
    named = [one for one in more.split(",") if one]
    if any(_is(name, one) for one in named):
        return True
    return name not in NOT_KEPT and any(_is(name, one) for one in KEPT)


def _is(name: str, known: str) -> bool:
    return name.startswith(known[:-1]) if known.endswith("*") else name == known


def clean() -> None:
    """Of this process and those that it forks; for good, so the values are overwritten."""
    more = os.environ.get(MORE, "")
    kept = {name: value for name, value in os.environ.items() if keeps(name, more)}
    _overwrite(set(map(os.fsencode, kept)))
    posix.environ.clear()
    os.environ.clear()
    os.environ.update(kept)


def _overwrite(kept: set[bytes]) -> None:
    """Where they lie since the process began, and where /proc shows them."""
    entries = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    place = 0
    while entries and entries[place]:
        address = entries[place]
        name, _, value = ctypes.string_at(address).partition(b"=")
        if name not in kept:
            ctypes.memset(address + len(name) + 1, 0, len(value))
        place += 1
