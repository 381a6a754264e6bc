# SPDX-License-Identifier: Apache-2.0
"""zstd decompression by whatever this machine has: Python 3.14's, ``zstandard``, or libzstd."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

_HELP = (
    "this image is packed with zstd and this Python cannot unpack it; "
    "install one of: python3-zstandard (apt), 'pip install zstandard', libzstd.so.1"
)


class DamagedFrame(Exception):
    """The bytes are not a zstd frame of the promised size."""


class MissingDecoder(Exception):
    """There is no zstd decoder here; the message says what to install."""


Decoder = Callable[[bytes, int], bytes]


def _from_standard_library() -> Decoder:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]

    def decode(data: bytes, size: int) -> bytes:
        try:
            return bytes(zstd.ZstdDecompressor().decompress(data, max_length=size + 1))
        except zstd.ZstdError as error:
            raise DamagedFrame(str(error)) from None

    return decode


def _from_package() -> Decoder:
    import zstandard  # type: ignore[import-not-found, unused-ignore]

    def decode(data: bytes, size: int) -> bytes:
        try:
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                return bytes(reader.read(size + 1))
        except zstandard.ZstdError as error:
            raise DamagedFrame(str(error)) from None

    return decode


def _from_library() -> Decoder:
    import ctypes

    library = ctypes.CDLL("libzstd.so.1")
    unpack: Any = library.ZSTD_decompress
    unpack.restype = ctypes.c_size_t
    unpack.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    failed: Any = library.ZSTD_isError
    failed.restype = ctypes.c_uint
    failed.argtypes = [ctypes.c_size_t]

    def decode(data: bytes, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(max(size, 1))
        written = unpack(buffer, size, data, len(data))
        if failed(written):
            raise DamagedFrame("libzstd refuses it")
        return buffer.raw[:written]

    return decode


DECODERS: List[Callable[[], Decoder]] = [_from_standard_library, _from_package, _from_library]
_decoder: Optional[Decoder] = None


def decompress(data: bytes, size: int) -> bytes:
    """Decode one frame that must give exactly ``size`` bytes."""
    global _decoder
    if _decoder is None:
        _decoder = _find()
    plain = _decoder(data, size)
    if len(plain) != size:
        raise DamagedFrame(f"{len(plain)} bytes instead of {size}")
    return plain


def _find() -> Decoder:
    for make in DECODERS:
        try:
            return make()
        except (ImportError, OSError):
            continue
    raise MissingDecoder(_HELP)
