# SPDX-License-Identifier: Apache-2.0
"""LZ4 block decoding: older fat binaries are packed with it and Python has no decoder."""

from __future__ import annotations


class DamagedBlock(Exception):
    """The bytes are not an LZ4 block of the promised size."""


def _length(data: bytes, position: int, length: int) -> tuple[int, int]:
    """Add the bytes that continue a length of 15."""
    while True:
        more = data[position]
        position += 1
        length += more
        if more != 255:
            return length, position


def decompress(data: bytes, size: int) -> bytes:
    """Decode a block that must give exactly ``size`` bytes."""
    out = bytearray()
    position, end = 0, len(data)
    try:
        while position < end:
            token = data[position]
            position += 1
            literals = token >> 4
            if literals == 15:
                literals, position = _length(data, position, 15)
            if literals > end - position or len(out) + literals > size:
                raise DamagedBlock("literals run over the end")
            out += data[position : position + literals]
            position += literals
            if position == end:
                break
            distance = data[position] | data[position + 1] << 8
            position += 2
            length = token & 15
            if length == 15:
                length, position = _length(data, position, 15)
            _copy(out, distance, length + 4, size)
    except IndexError:
        raise DamagedBlock("the block ends early") from None
    if len(out) != size:
        raise DamagedBlock(f"{len(out)} bytes instead of {size}")
    return bytes(out)


def _copy(out: bytearray, distance: int, length: int, size: int) -> None:
    start = len(out) - distance
    if distance == 0 or start < 0:
        raise DamagedBlock("a match starts before the data")
    if len(out) + length > size:
        raise DamagedBlock("a match runs over the end")
    if distance >= length:
        out += out[start : start + length]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]
