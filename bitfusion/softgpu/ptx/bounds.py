# SPDX-License-Identifier: Apache-2.0
"""What compiling may cost: code comes from programs, and on a server from other people's.

Each step takes time and memory in proportion to the text. These bounds are for what is large all
the same, and for the step that is not as it should be.
"""

from __future__ import annotations

from _signal import SIG_IGN, SIGIO, SIGXCPU, signal  # type: ignore[import-not-found]
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from posix import _exit, getpid, sysconf
from resource import RLIM_INFINITY, RLIMIT_CPU, RLIMIT_DATA, getrlimit, setrlimit
from select import POLLHUP, poll
from time import process_time
from typing import TYPE_CHECKING, Optional, Tuple

if TYPE_CHECKING:
    from types import FrameType

MAX_SECONDS = 300  # of a processor, for one request: some 100 MiB of PTX
_O_ASYNC = 0o20000  # as on x86-64 and aarch64
LEAST_MEMORY, MOST_MEMORY = 1 << 30, 6 << 30


class TimeIsUp(BaseException):
    """The request took too long. No ``except Exception`` on the way may keep it."""


def limit_memory() -> None:
    """Let more than half of this machine's memory be a MemoryError."""
    half = sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE") // 2
    _lower(RLIMIT_DATA, max(LEAST_MEMORY, min(half, MOST_MEMORY)))


def memory_mib() -> int:
    return getrlimit(RLIMIT_DATA)[0] >> 20


def _lower(which: int, limit: int) -> None:
    """Set a limit, unless there is a lower one."""
    soft, hard = getrlimit(which)
    limit = min([limit, *(one for one in (soft, hard) if one != RLIM_INFINITY)])
    setrlimit(which, (limit, hard))


def _give_up(_signal: int, _frame: Optional[FrameType]) -> None:
    signal(SIGXCPU, SIG_IGN)  # it comes again with each second
    raise TimeIsUp


class Bounds:
    """Around the work for one request, whose sender says nothing more before it has the answer.

    The process ends with its sender, which may be killed because of just this work.
    """

    def __init__(self, request_fd: int) -> None:
        self._fd = request_fd
        self._flags = 0
        self._before: Tuple[int, int] = (0, 0)

    def __enter__(self) -> None:
        signal(SIGIO, self._look)
        fcntl(self._fd, F_SETOWN, getpid())
        self._flags = fcntl(self._fd, F_GETFL)
        fcntl(self._fd, F_SETFL, self._flags | _O_ASYNC)
        if _hung_up(self._fd):  # before there was a signal for it
            _exit(0)
        signal(SIGXCPU, _give_up)
        self._before = getrlimit(RLIMIT_CPU)
        _lower(RLIMIT_CPU, int(process_time()) + 1 + MAX_SECONDS)

    def _look(self, _signal: int, _frame: Optional[FrameType]) -> None:
        """The signal may be late, and be that of the request itself."""
        if _hung_up(self._fd):
            _exit(0)

    def __exit__(self, *_error: object) -> None:
        try:
            signal(SIGXCPU, SIG_IGN)
        finally:  # the time may be up even here
            setrlimit(RLIMIT_CPU, self._before)
            fcntl(self._fd, F_SETFL, self._flags)


def _hung_up(descriptor: int) -> bool:
    asked = poll()
    asked.register(descriptor, 0)
    return any(events & POLLHUP for _, events in asked.poll(0))
