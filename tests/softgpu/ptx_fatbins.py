# SPDX-License-Identifier: Apache-2.0
"""Builds fat binaries and LZ4 blocks for tests."""

from __future__ import annotations

import struct
from typing import Sequence

PTX = """.version 9.0
.target {target}
.address_size 64
.visible .entry {name}(.param .u64 p) {{ ret; }}
"""


def ptx(target: str = "sm_90", name: str = "k") -> bytes:
    return PTX.format(target=target, name=name).encode()


def entry(
    kind: int,
    arch: int,
    payload: bytes,
    flags: int = 0x11,
    size: int = 0,
    compressed: int = 0,
    header_size: int = 64,
) -> bytes:
    padded = payload + bytes(-len(payload) % 8)
    head = struct.pack(
        "<HHIQIIHHIIIQQQ",
        kind, 0x101, header_size, len(padded), compressed, 0, 0, 9, arch, 0, 0, flags, 0, size,
    )  # fmt: skip
    return head + bytes(header_size - len(head)) + padded


def container(entries: Sequence[bytes]) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def lz4_literals(data: bytes) -> bytes:
    """Pack as one run of literals, the simplest block there is."""
    length = len(data)
    if length < 15:
        return bytes([length << 4]) + data
    rest = length - 15
    return bytes([0xF0]) + b"\xff" * (rest // 255) + bytes([rest % 255]) + data
