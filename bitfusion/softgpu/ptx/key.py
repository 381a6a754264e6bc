# SPDX-License-Identifier: Apache-2.0
"""The key of an image in the cache on disk, as the driver sends it (cache.h)."""

from __future__ import annotations

import struct

from .record import dataclass

SUFFIX = ".sgi"
DIGEST_BYTES, NAME_BYTES = 32, 16
_KEY = struct.Struct(f"<Q{DIGEST_BYTES}s")


@dataclass(frozen=True)
class Key:
    """What the driver found no file for."""

    version: int
    digest: bytes

    SIZE = _KEY.size

    @classmethod
    def unpack(cls, data: bytes) -> Key:
        return cls(*_KEY.unpack(data))

    def pack(self) -> bytes:
        return _KEY.pack(self.version, self.digest)

    @property
    def file_name(self) -> str:
        return self.digest[:NAME_BYTES].hex() + SUFFIX
