# SPDX-License-Identifier: Apache-2.0
"""Why a program that failed had no GPU, where its file tells: our library is found by the dynamic
linker, and some programs are not that linker's, or do not let it be told where to look.
"""

from __future__ import annotations

import os
import stat
import struct

from bitfusion import log

ELF = b"\x7fELF"
CLASS_64 = 2
PT_INTERP = 3
HEADER = struct.Struct("=32xQ14xHH")  # of a 64-bit file: its program headers, their size, number
RIGHTS = "security.capability"


def tell(path: str, program: str) -> None:
    why = why_no_gpu(path)
    if why:
        log.warn(f"'{program}' cannot have used the GPUs: {why}")


def why_no_gpu(path: str) -> str:
    """'' where nothing speaks against it, as with scripts."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:4] != ELF:
                return ""
            if head[4] != CLASS_64:
                return "it is a 32-bit program, and CUDA has no libraries for these"
            offset, size, count = HEADER.unpack_from(head)
            file.seek(offset)
            headers = file.read(size * count)
    except OSError:
        return ""
    kinds = [headers[at : at + 4] for at in range(0, len(headers), size or 1)]
    if PT_INTERP.to_bytes(4, "little") not in kinds:
        return "it is statically linked, so it loads no libcuda.so.1"
    if has_other_rights(path):
        return "it runs with other rights than yours, so it does not look where ours is"
    return ""


def has_other_rights(path: str) -> bool:
    """The dynamic linker then ignores LD_LIBRARY_PATH."""
    status = os.stat(path)
    other_user = status.st_mode & stat.S_ISUID and status.st_uid != os.getuid()
    other_group = status.st_mode & stat.S_ISGID and status.st_gid != os.getgid()
    if other_user or other_group:
        return True
    try:
        return bool(os.getxattr(path, RIGHTS)) and os.getuid() != 0
    except OSError:
        return False
