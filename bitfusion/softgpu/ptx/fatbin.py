# SPDX-License-Identifier: Apache-2.0
"""Fat binaries: find the entries, unpack them, choose the PTX that the device takes.

All sizes come from files that we did not make: each is checked before it is used.
"""

from __future__ import annotations

import struct
from typing import List, Optional, Tuple

from . import cubin
from .ir import PtxError
from .record import dataclass
from .regex import MULTILINE, regex

INVALID_IMAGE = 200
NO_BINARY_FOR_GPU = 209

FATBIN_MAGIC = 0xBA55ED50
ELF_MAGIC = b"\x7fELF"
ARCHIVE_MAGIC = b"!<arch>\n"
KIND_PTX, KIND_ELF = 1, 2
KIND_LINK_INPUT = 0x4246  # what our libnvJitLink makes instead of a cubin
FLAG_LZ4, FLAG_ZSTD = 0x2000, 0x8000
NEWEST_PTX = 121  # what we know the instructions of, whatever the device says it is
MAX_ENTRIES = 65536
MAX_UNPACKED = 256 << 20  # of one
MAX_TRIED = 1 << 30  # of all that are looked into; what packs a lot of nothing is small
MAX_LOOKED_INTO = 8 << 20  # of machine code, for names in a message

_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_TARGET = regex(rb"^\s*\.target\s+(\w+)", MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One member of a fat binary; ``data`` is the payload as stored."""

    kind: int
    arch: int
    version: Tuple[int, int]
    flags: int
    compressed_size: int
    size: int
    data: bytes

    def unpack(self) -> bytes:
        """Give the payload, decompressed; the padding that PTX has is left on."""
        packed = self.data[: self.compressed_size] if self.compressed_size else self.data
        if self.flags & (FLAG_LZ4 | FLAG_ZSTD) and not 0 < self.size <= MAX_UNPACKED:
            raise PtxError(f"fat binary entry of {self.size} bytes", INVALID_IMAGE)
        if self.flags & FLAG_ZSTD:
            return _unpack_zstd(packed, self.size)
        if self.flags & FLAG_LZ4:
            from .lz4 import DamagedBlock, decompress

            try:
                return decompress(packed, self.size)
            except DamagedBlock as error:
                raise PtxError(f"damaged LZ4 entry: {error}", INVALID_IMAGE) from None
        return self.data


def _unpack_zstd(packed: bytes, size: int) -> bytes:
    from .zstd import DamagedFrame, MissingDecoder, decompress

    try:
        return decompress(packed, size)
    except DamagedFrame as error:
        raise PtxError(f"damaged zstd entry: {error}", INVALID_IMAGE) from None
    except MissingDecoder as error:
        raise PtxError(str(error), NO_BINARY_FOR_GPU) from None


def is_fatbin(data: bytes) -> bool:
    return len(data) >= 4 and int.from_bytes(data[:4], "little") == FATBIN_MAGIC


def entries(data: bytes) -> List[Entry]:
    """List the entries of a fat binary (and of those that follow it directly)."""
    found: List[Entry] = []
    position = 0
    while is_fatbin(data[position : position + 4]):
        if position + _HEADER.size > len(data):
            raise PtxError("the fat binary's header is cut off", INVALID_IMAGE)
        _, _, header_size, size = _HEADER.unpack_from(data, position)
        start = position + header_size
        if header_size < _HEADER.size or size > len(data) - start:
            raise PtxError("the fat binary is cut off", INVALID_IMAGE)
        _read_entries(data, start, start + size, found)
        position = start + size
    return found


def _read_entries(data: bytes, position: int, end: int, found: List[Entry]) -> None:
    while position < end:
        if end - position < _ENTRY.size:
            raise PtxError("a fat binary entry is cut off", INVALID_IMAGE)
        fields = _ENTRY.unpack_from(data, position)
        kind, _, header_size, stored, compressed, _, minor, major, arch = fields[:9]
        flags, size = fields[11], fields[13]
        start = position + header_size
        if header_size < _ENTRY.size or stored > end - start or compressed > stored:
            raise PtxError("a fat binary entry has a wrong size", INVALID_IMAGE)
        if len(found) >= MAX_ENTRIES:
            raise PtxError("the fat binary has too many entries", INVALID_IMAGE)
        payload = data[start : start + stored]
        found.append(Entry(kind, arch, (major, minor), flags, compressed, size, payload))
        position = start + stored


def target_of(text: bytes) -> str:
    """Give the word after ``.target`` (``sm_90a``), or nothing."""
    found = _TARGET.search(text, 0, 1 << 16)
    return found.group(1).decode("ascii") if found else ""


def choose_ptx(members: List[Entry]) -> bytes:
    """Unpack the PTX for the newest architecture that the device has.

    PTX for one architecture alone (``sm_90a``) is taken if there is nothing else: most of it runs,
    and an instruction that does not fails when it is executed.
    """
    candidates = [e for e in members if e.kind == KIND_PTX and e.arch <= NEWEST_PTX]
    candidates.sort(key=lambda e: (e.arch, e.version), reverse=True)
    fallback: Optional[bytes] = None
    tried = 0
    for entry in candidates:
        if tried > MAX_TRIED:
            raise PtxError(f"a fat binary with more than {MAX_TRIED >> 20} MiB", INVALID_IMAGE)
        text = entry.unpack().rstrip(b"\0")
        if target_of(text)[-1:] not in ("a", "f"):
            return text
        tried += max(entry.size, len(entry.data))
        fallback = fallback or text
    if fallback is None:
        raise PtxError(_why_none(members), NO_BINARY_FOR_GPU)
    return fallback


def _why_none(members: List[Entry]) -> str:
    machine = sorted({e.arch for e in members if e.kind == KIND_ELF})
    newer = sorted({e.arch for e in members if e.kind == KIND_PTX})
    parts = []
    if machine:
        parts.append("machine code (SASS) for " + ", ".join(f"sm_{arch}" for arch in machine))
    if newer:
        parts.append("PTX for " + ", ".join(f"compute_{arch}" for arch in newer))
    return (
        f"the image{_kernels_of(members)} has only {' and '.join(parts) or 'unknown entries'}; "
        f"the software GPU needs PTX for compute_{NEWEST_PTX} or older"
    )


def _kernels_of(members: List[Entry]) -> str:
    """Read the names in the smallest cubin: those for other architectures have the same."""
    cubins = [e for e in members if e.kind == KIND_ELF and e.size <= MAX_LOOKED_INTO]
    if not cubins:
        return ""
    try:
        names = cubin.kernels(min(cubins, key=lambda e: len(e.data)).unpack())
    except PtxError:
        return ""
    return f" of {cubin.say(names)}" if names else ""


def cubin_arch(data: bytes) -> int:
    """Guess the architecture in a cubin's ELF flags, 0 if it makes no sense."""
    if len(data) < 52:
        return 0
    flags = int(struct.unpack_from("<I", data, 48)[0])
    for guess in ((flags >> 8) & 0xFF, flags & 0xFF):
        if 20 <= guess <= 200:
            return guess
    return 0


def embedded(data: bytes) -> List[bytes]:
    """Find the fat binaries inside of another file (an archive, an object)."""
    magic = FATBIN_MAGIC.to_bytes(4, "little")
    found: List[bytes] = []
    position = data.find(magic)
    while position >= 0 and len(found) < MAX_ENTRIES:
        size = _HEADER.size
        if position + size <= len(data):
            _, version, header_size, payload = _HEADER.unpack_from(data, position)
            if version == 1 and header_size == size and payload <= len(data) - position - size:
                size += payload
                found.append(data[position : position + size])
        position = data.find(magic, position + size)
    return found
