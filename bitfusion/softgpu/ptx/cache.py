# SPDX-License-Identifier: Apache-2.0
"""The on-disk cache of compiled images: this side writes it, the driver reads it (cache.h).

A cache must never be the reason for a failure: whatever goes wrong means that nothing is kept.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import List, Optional, Tuple

from .boot import find_folder
from .key import DIGEST_BYTES, NAME_BYTES, SUFFIX, Key

MAGIC = b"SGCACHE2"
MAX_BYTES = 512 << 20
MAX_IMAGE = 128 << 20
MARKER = ".hit"
STALE_S = {".tmp": 3600.0, MARKER: 30 * 86400.0}
STORES_BETWEEN_EVICTIONS = 256
_HEADER = struct.Struct(f"<8s{Key.SIZE}sQ{DIGEST_BYTES}s")


def digest(data: bytes) -> bytes:
    from _blake2 import blake2b  # as hashlib has it, which also looks for OpenSSL's

    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def key_of(data: bytes, version: int) -> Key:
    """Give the key of code that is compiled alone. The driver sends it along."""
    return Key(version, digest(struct.pack("<Q", version) + data))


class Cache:
    """Writes images into a folder and keeps its size within bounds."""

    def __init__(self, folder: Optional[str], max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.stored = 0  # since the last eviction
        self.written = 0

    def store(self, key: Key, image: bytes) -> bool:
        """Keep an image; False if it cannot be kept."""
        if self.folder is None or len(image) > min(MAX_IMAGE, self.max_bytes):
            return False
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            if not self._is_ours(self.folder):
                return False
            self._write(key, image)
            self.stored += 1
            if self.stored >= STORES_BETWEEN_EVICTIONS:
                self._evict()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Bring the folder back to its size, now that nobody waits."""
        try:
            if self.stored:
                self._evict()
        except OSError:
            pass

    def load(self, key: Key) -> Optional[bytes]:
        """Give a kept image, as the driver would (for tests and tools)."""
        if self.folder is None:
            return None
        try:
            with open(os.path.join(self.folder, key.file_name), "rb") as file:
                data = file.read()
        except OSError:
            return None
        image = data[_HEADER.size :]
        return image if data[: _HEADER.size] == _header(key, image) else None

    def _is_ours(self, folder: str) -> bool:
        """Refuse a folder that somebody else can put images into."""
        status = os.stat(folder)
        others = stat.S_IWGRP | stat.S_IWOTH
        return status.st_uid == os.geteuid() and not status.st_mode & others

    def _write(self, key: Key, image: bytes) -> None:
        assert self.folder is not None
        temporary = os.path.join(self.folder, f".{os.getpid()}-{self.written}.tmp")
        self.written += 1
        header = _header(key, image)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(header)
                file.write(image)
            os.replace(temporary, os.path.join(self.folder, key.file_name))
        except OSError:
            _remove(temporary)
            raise

    def _evict(self) -> None:
        """Remove the files that were not used for the longest time."""
        self.stored = 0
        files, total = self._scan()
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                break
            _remove(path)
            total -= size

    def _scan(self) -> Tuple[List[Tuple[float, int, str]], int]:
        assert self.folder is not None
        files, total, now = [], 0, time.time()
        with os.scandir(self.folder) as found:
            for entry in found:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.name.endswith(SUFFIX):
                    files.append((status.st_mtime, status.st_size, entry.path))
                    total += status.st_size
                elif now - status.st_mtime > STALE_S.get(entry.name[-4:], now):
                    _remove(entry.path)
        return files, total


def _header(key: Key, image: bytes) -> bytes:
    return _HEADER.pack(MAGIC, key.pack(), len(image), digest(image))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


__all__ = [
    "DIGEST_BYTES",
    "NAME_BYTES",
    "SUFFIX",
    "Cache",
    "Key",
    "digest",
    "find_folder",
    "key_of",
]
