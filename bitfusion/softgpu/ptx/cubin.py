# SPDX-License-Identifier: Apache-2.0
"""Machine code: whose it is, so that a refusal can say what is missing. Nothing in it is run.

All sizes come from files that we did not make: each is checked before it is used.
"""

from __future__ import annotations

import struct
from typing import Iterator, List

MAX_SECTIONS = 65536
SHOWN, SHOWN_LENGTH = 3, 100

_SECTION = struct.Struct("<IIQQQQIIQQ")


def kernels(data: bytes) -> List[str]:
    """Name the kernels of a cubin; none where it is not understood."""
    sections = list(_section_names(data))
    for prefix in (".nv.constant0.", ".text."):  # every kernel's parameters lie in bank 0
        found = [name[len(prefix) :] for name in sections if name.startswith(prefix)]
        if found:
            return found
    return []


def _section_names(data: bytes) -> Iterator[str]:
    if len(data) < 64 or data[4] != 2:
        return
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, index = struct.unpack_from("<HHH", data, 58)
    if size != _SECTION.size or count > MAX_SECTIONS or index >= count:
        return
    if start > len(data) or count * size > len(data) - start:
        return
    headers = [_SECTION.unpack_from(data, start + k * size) for k in range(count)]
    offset, length = headers[index][4:6]
    if offset > len(data) or length > len(data) - offset:
        return
    strings = data[offset : offset + length]
    for header in headers:
        end = strings.find(b"\0", header[0])
        if end > header[0]:
            yield strings[header[0] : end].decode("ascii", "replace")


def say(names: List[str]) -> str:
    """Write the names for a message: ``'a', 'b' and 3 more``."""
    shown = [n if len(n) <= SHOWN_LENGTH else n[:SHOWN_LENGTH] + "..." for n in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in shown) + more
