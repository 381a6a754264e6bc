# SPDX-License-Identifier: Apache-2.0
"""The process that the driver starts to compile images: requests on fd 3, replies on fd 4.

The driver starts it with the first context if the program is likely to need it, else with the
first code that the cache does not have. It belongs to that program: it writes nothing to its
standard output and ends when the other end of the pipe is closed.
"""

from __future__ import annotations

import gc
import struct
import sys
from posix import _exit, environ, read, write
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

from . import boot

if TYPE_CHECKING:
    from .cache import Cache
    from .frontend import Item
    from .key import Key

REQUEST_FD, REPLY_FD = 3, 4
MAGIC = 0x50545831
KIND_COMPILE, KIND_LINK = 1, 2
FLAG_KEY = 1
MAX_ITEMS = 4096
MAX_REQUEST = 2 << 30
MAX_NAME = 1 << 16
INVALID_VALUE, OUT_OF_MEMORY, INVALID_PTX, COMPILER_NOT_FOUND, UNKNOWN = 1, 2, 218, 221, 999
_HEAD = struct.Struct("<IIII")
_REPLY = struct.Struct("<IiIIQ")
_CHUNK = 1 << 20

Reader = Callable[[int], bytes]


class EndOfRequests(Exception):
    """The driver closed its end, maybe in the middle of a request."""


class BadRequest(Exception):
    """The bytes are not a request; what follows cannot be understood either."""


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts: List[bytes] = []
    while size:
        part = read(descriptor, min(size, _CHUNK))
        if not part:
            raise EndOfRequests
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[write(descriptor, view[:_CHUNK]) :]


def read_request(read: Reader) -> Tuple[List[Item], int, Optional[Key]]:
    """Read one request: its items, its kind, its key in the cache."""
    magic, kind, count, flags = _HEAD.unpack(read(_HEAD.size))
    if magic != MAGIC or kind not in (KIND_COMPILE, KIND_LINK) or flags & ~FLAG_KEY:
        raise BadRequest("unknown request")
    if count > MAX_ITEMS or (kind == KIND_COMPILE and count != 1):
        raise BadRequest(f"{count} items")
    from .frontend import Item
    from .key import Key

    key = Key.unpack(read(Key.SIZE)) if flags & FLAG_KEY else None
    items, total = [], 0
    for _ in range(count):
        size = int.from_bytes(read(8), "little")
        total += size
        if total > MAX_REQUEST:
            raise BadRequest("request too large")
        data = read(size)
        if kind == KIND_COMPILE:
            items.append(Item(data))
            continue
        input_type, name_size = struct.unpack("<II", read(8))
        if name_size > MAX_NAME:
            raise BadRequest("name too long")
        name = read(name_size).rstrip(b"\0").decode("utf-8", "replace")
        items.append(Item(data, input_type, name))
    return items, kind, key


def answer(items: List[Item], kind: int, request_fd: int) -> Tuple[int, str, bytes]:
    """Compile: CUresult, one line why not, the image."""
    from . import bounds
    from .ir import PtxError

    try:
        with bounds.Bounds(request_fd):
            return 0, "", _compiled(items, kind)
    except PtxError as error:
        return error.status, str(error), b""
    except MemoryError:
        return OUT_OF_MEMORY, f"compiling it takes more than {bounds.memory_mib()} MiB", b""
    except bounds.TimeIsUp:
        return INVALID_PTX, f"compiling it takes more than {bounds.MAX_SECONDS} s", b""
    except Exception as error:  # a defect here must not look like a dead helper
        _debug_traceback()
        return UNKNOWN, f"internal error in the PTX front end: {error!r}", b""


def _compiled(items: List[Item], kind: int) -> bytes:
    from ..engine.encode import encode_module
    from .frontend import read_image, read_images

    module = read_image(items[0].data) if kind == KIND_COMPILE else read_images(items)
    return encode_module(module)


def _check_build(key: Key) -> str:
    """Say what is wrong when the driver is not of this build: its cache is not ours to fill."""
    from ..engine.generated import SG_IMAGE_VERSION

    if key.version == SG_IMAGE_VERSION:
        return ""
    return (
        "the software GPU's library and its Python package are of different builds, run `make`"
        f" (versions {key.version:016x} and {SG_IMAGE_VERSION:016x})"
    )


def _debug_traceback() -> None:
    if environ.get(b"BITFUSION_DEBUG"):
        import traceback

        traceback.print_exc()


def load() -> None:
    """Import what requests need, before there is one: it takes a while."""
    from ..engine import encode
    from . import bounds, frontend, key

    del bounds, encode, frontend, key


def serve(request_fd: int, reply_fd: int) -> None:
    """Answer requests until the driver closes the pipe."""
    load()
    cache: Optional[Cache] = None
    try:
        while True:
            items, kind, key = read_request(lambda size: _read_exactly(request_fd, size))
            status, text, image = _answer(items, kind, key, request_fd)
            why = text.encode("utf-8", "replace")
            _write_all(reply_fd, _REPLY.pack(MAGIC, status, len(why), 0, len(image)) + why)
            _write_all(reply_fd, image)
            if image and key is not None:
                cache = cache or _open_cache()
                cache.store(key, image)
            del items, image
            gc.collect()
    finally:
        if cache is not None:
            cache.close()


def _answer(
    items: List[Item], kind: int, key: Optional[Key], request_fd: int
) -> Tuple[int, str, bytes]:
    mismatch = _check_build(key) if key is not None else ""
    if mismatch:
        return COMPILER_NOT_FOUND, mismatch, b""
    return answer(items, kind, request_fd)


def _open_cache() -> Cache:
    """Not before the first reply: what a cache needs takes a while to import, too."""
    with boot.Typing():
        from .cache import Cache
    return Cache(boot.find_folder(boot.environment()))


def main() -> int:
    gc.disable()  # modules are made of millions of objects and no cycles: a third of the time
    from _signal import SIG_IGN, SIGINT, signal  # type: ignore[import-not-found]

    from .bounds import limit_memory

    signal(SIGINT, SIG_IGN)  # Ctrl-C is the program's; we end with it
    limit_memory()
    try:
        serve(REQUEST_FD, REPLY_FD)
    except (EndOfRequests, BrokenPipeError):
        return 0
    except (BadRequest, MemoryError, OSError) as error:
        if environ.get(b"BITFUSION_DEBUG"):
            print(f"bitfusion: ptx helper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main_status = main()
    _exit(main_status)
