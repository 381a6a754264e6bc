# SPDX-License-Identifier: Apache-2.0
"""The executor's C core through ctypes: serve a client, warm or probe a driver, keep the ledger.

It knows the shared library and nothing of sessions, sockets' origins or policy. `serve`, `warm`
and `probe` load a driver into the calling process for good: call them in a worker or in a
short-lived child only.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from typing import Any, Optional

from bitfusion import paths

# How `serve` ended.
ENDED_GOODBYE = 0
ENDED_CLIENT_GONE = 1
ENDED_PROTOCOL = 2
ENDED_DRIVER = 3
ENDED_INTERNAL = 4
ENDED_MEMORY = 5

DEFAULT_SLOTS = 256
UNLIMITED = 0

_SERVE_VERBOSE = 1
_SERVE_KEEP_OUTPUT = 2
_SERVE_SOFTWARE = 4


class ExecutorError(Exception):
    """The executor's library or the driver under it cannot be used."""


class _ServeOptions(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char_p),
        ("devices", ctypes.POINTER(ctypes.c_int32)),
        ("device_count", ctypes.c_uint32),
        ("fd", ctypes.c_int32),
        ("ledger_fd", ctypes.c_int32),
        ("slot", ctypes.c_uint32),
        ("log_fd", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("spin_us", ctypes.c_int32),
        ("grace_ms", ctypes.c_uint32),
        ("host_memory", ctypes.c_uint64),
    ]


_library: Optional[ctypes.CDLL] = None


def load(path: Optional[str] = None) -> ctypes.CDLL:
    """Load libbfexecutor.so once per process."""
    global _library
    if _library is not None:
        return _library
    name = path or str(paths.executor_library())
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise ExecutorError(f"cannot load the executor '{name}': {error}") from error
    library.bf_executor_serve.argtypes = [ctypes.POINTER(_ServeOptions)]
    library.bf_executor_serve.restype = ctypes.c_int
    library.bf_executor_warm.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.bf_executor_warm.restype = ctypes.c_int
    library.bf_executor_probe.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.bf_executor_probe.restype = ctypes.c_int
    library.bf_ledger_create.argtypes = [
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_uint32,
        ctypes.c_uint32,
    ]
    library.bf_ledger_create.restype = ctypes.c_int
    library.bf_ledger_open.argtypes = [ctypes.c_int]
    library.bf_ledger_open.restype = ctypes.c_void_p
    library.bf_ledger_close.argtypes = [ctypes.c_void_p]
    library.bf_ledger_close.restype = None
    library.bf_ledger_used.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_uint32,
    ]
    library.bf_ledger_used.restype = ctypes.c_int
    library.bf_ledger_limits.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_uint32,
    ]
    library.bf_ledger_limits.restype = ctypes.c_int
    library.bf_ledger_clear.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.bf_ledger_clear.restype = ctypes.c_int
    library.bf_ledger_reserve.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.c_uint64,
    ]
    library.bf_ledger_reserve.restype = ctypes.c_int
    library.bf_ledger_release.argtypes = library.bf_ledger_reserve.argtypes
    library.bf_ledger_release.restype = None
    _declare_time(library)
    _library = library
    return library


def _declare_time(library: ctypes.CDLL) -> None:
    numbers = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_uint32)
    library.bf_ledger_set_share.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.bf_ledger_set_share.restype = ctypes.c_int
    library.bf_ledger_busy.argtypes = numbers
    library.bf_ledger_busy.restype = ctypes.c_int
    library.bf_ledger_ration.argtypes = numbers
    library.bf_ledger_ration.restype = ctypes.c_int
    library.bf_ledger_last_call.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)]
    library.bf_ledger_last_call.restype = ctypes.c_uint64


class Ledger:
    """Who of a session's workers holds how much device memory; shared through a descriptor.

    The server creates one per session, gives each worker the descriptor and a slot number of its
    own (0 … slots - 1), and clears the slot when that worker is gone. UNLIMITED means no limit.
    """

    def __init__(self, fd: int) -> None:
        """Map the ledger behind `fd` and own the descriptor from now on."""
        self._library = load()
        self._fd = fd
        self._ledger: Optional[int] = self._library.bf_ledger_open(fd)
        if not self._ledger:
            os.close(fd)
            raise ExecutorError("cannot map the memory ledger")
        self._devices = self._library.bf_ledger_limits(self._ledger, None, 0)

    @classmethod
    def create(cls, limits: Sequence[int], slots: int = DEFAULT_SLOTS) -> Ledger:
        """Make a ledger with one limit in bytes per device of the session."""
        array = (ctypes.c_uint64 * len(limits))(*limits)
        fd = load().bf_ledger_create(array, len(limits), slots)
        if fd < 0:
            raise ExecutorError(f"cannot create the memory ledger: {os.strerror(-fd)}")
        return cls(fd)

    def fileno(self) -> int:
        """Return the descriptor to hand to workers."""
        return self._fd

    def limits(self) -> list[int]:
        array = (ctypes.c_uint64 * self._devices)()
        self._library.bf_ledger_limits(self._ledger, array, self._devices)
        return list(array)

    def used(self, slot: Optional[int] = None) -> list[int]:
        """Return bytes held on each device: by all workers, or by the one that has `slot`."""
        array = (ctypes.c_uint64 * self._devices)()
        which = -1 if slot is None else slot
        if self._library.bf_ledger_used(self._ledger, which, array, self._devices) != 0:
            raise ExecutorError(f"no slot {slot} in the memory ledger")
        return list(array)

    def clear(self, slot: int) -> None:
        """Give back everything that the worker of `slot` held; call it after it has died."""
        if self._library.bf_ledger_clear(self._ledger, slot) != 0:
            raise ExecutorError(f"no slot {slot} in the memory ledger")

    def reserve(self, slot: int, device: int, size: int) -> bool:
        """Take `size` bytes for `slot`; False when the limit does not allow it."""
        return bool(self._library.bf_ledger_reserve(self._ledger, slot, device, size) == 0)

    def release(self, slot: int, device: int, size: int) -> None:
        self._library.bf_ledger_release(self._ledger, slot, device, size)

    # ---- device time (ledger_time.c)

    def set_share(self, share: float) -> None:
        """Let the session use so much of each device's time, above 0 and at most 1."""
        if not 0 < share <= 1 or self._library.bf_ledger_set_share(
            self._ledger, max(1, round(share * 1_000_000))
        ):
            raise ExecutorError(f"a share of time is above 0 and at most 1, not {share}")

    def busy(self) -> list[int]:
        """Nanoseconds of device time that the session has used, per device."""
        array = (ctypes.c_uint64 * self._devices)()
        self._library.bf_ledger_busy(self._ledger, array, self._devices)
        return list(array)

    def ration(self, until: Optional[Sequence[int]]) -> None:
        """Let the session use device time up to these sums of `busy`; None: all that it likes.

        To be said again at least every quarter of a second, or it goes on without.
        """
        array = (ctypes.c_uint64 * len(until))(*until) if until is not None else None
        if self._library.bf_ledger_ration(self._ledger, array, len(until or ())) != 0:
            raise ExecutorError(f"the session has {self._devices} devices")

    def last_call(self) -> tuple[float, int]:
        """When its clients called last (time.monotonic, 0 for never); how many calls wait now."""
        waiting = ctypes.c_uint32()
        at_ns = self._library.bf_ledger_last_call(self._ledger, ctypes.byref(waiting))
        return at_ns / 1e9, waiting.value

    def close(self) -> None:
        """Unmap and close; workers that have the descriptor go on."""
        if self._ledger:
            self._library.bf_ledger_close(self._ledger)
            self._ledger = None
            os.close(self._fd)


def probe(driver: str) -> list[dict[str, Any]]:
    """Describe the devices of a driver; loads it, so call this in a short-lived child.

    Each dict has: index, name, uuid (hex), pci_bus_id, total_memory (bytes), compute_capability
    ("12.0"), multiprocessors, driver_version (13000).
    """
    buffer = ctypes.create_string_buffer(256 << 10)
    status = load().bf_executor_probe(os.fsencode(driver), buffer, len(buffer))
    text = buffer.value.decode("utf-8", "replace")
    if status != 0:
        raise ExecutorError(text or f"the driver '{driver}' answered {status}")
    devices: list[dict[str, Any]] = json.loads(text)
    return devices


def warm(driver: str) -> None:
    """Load a driver and initialise it (cuInit), so that `serve` of the same driver starts at once.

    A warm process no longer honours the environment (CUDA_LAUNCH_BLOCKING, CUDA_MODULE_LOADING, …)
    that the client's hello brings: a driver reads it once, at cuInit.
    """
    buffer = ctypes.create_string_buffer(4096)
    status = load().bf_executor_warm(os.fsencode(driver), buffer, len(buffer))
    if status != 0:
        raise ExecutorError(buffer.value.decode("utf-8", "replace"))


def serve(
    fd: int,
    *,
    driver: str,
    devices: Sequence[int],
    ledger_fd: int = -1,
    slot: int = 0,
    log_fd: int = 2,
    verbose: bool = False,
    keep_output: bool = False,
    spin_us: int = -1,
    grace_ms: int = 500,
    host_memory: int = 0,
    software: bool = False,
) -> int:
    """Serve one client on the connected stream socket `fd` until it ends; returns one of ENDED_*.

    devices: driver ordinals, in the order the session sees them. ledger_fd, slot: see Ledger; -1
    for no limits. log_fd: where log lines go. Descriptors 1 and 2 are replaced by pipes whose text
    is sent to the client, unless keep_output. spin_us: how long to poll before sleeping, -1 for
    the default. grace_ms: how long running work may go on once the client is gone; then the
    process exits. host_memory: bytes of this machine's that the session's workers may hold, 0 for
    no limit; software: device memory is this machine's too. Call it on the main thread with
    signals at their defaults, and leave with os._exit(code).
    """
    array = (ctypes.c_int32 * len(devices))(*devices)
    flags = (_SERVE_VERBOSE if verbose else 0) | (_SERVE_KEEP_OUTPUT if keep_output else 0)
    flags |= _SERVE_SOFTWARE if software else 0
    options = _ServeOptions(
        os.fsencode(driver),
        ctypes.cast(array, ctypes.POINTER(ctypes.c_int32)),
        len(devices),
        fd,
        ledger_fd,
        slot,
        log_fd,
        flags,
        spin_us,
        grace_ms,
        host_memory,
    )
    return int(load().bf_executor_serve(ctypes.byref(options)))
