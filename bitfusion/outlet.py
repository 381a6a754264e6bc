# SPDX-License-Identifier: Apache-2.0
"""Lines to a descriptor that may be a pipe which nobody reads: kept for a while, then lost and
counted, but never waited for.

The open file behind our stderr may be others' too, and they may rely on its waiting; so it is left
as it is. A pipe is opened once more for each line, which makes another open file of it.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections import deque
from typing import Optional

from bitfusion import log

MAX_KEPT = 256 << 10  # bytes


class Outlet:
    def __init__(self, fd: int) -> None:
        self.lost = 0  # lines
        self._fd = fd
        self._pid = os.getpid()
        self._kept: deque[bytes] = deque()
        self._size = 0

    def write(self, line: bytes) -> None:
        self._begin_anew_after_fork()
        if self.lost or self._size + len(line) > MAX_KEPT:
            self.lost += 1
        else:
            self._keep(line)
        self.flush()

    def _begin_anew_after_fork(self) -> None:
        """What is kept, the parent writes."""
        if os.getpid() != self._pid:
            self._pid, self.lost, self._size = os.getpid(), 0, 0
            self._kept.clear()

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """As much as somebody takes now."""
        self._begin_anew_after_fork()
        while self._kept or self.lost:
            if not self._kept:
                text = f"{self.lost} lines of the log were lost: nobody read them"
                self.lost = 0
                self._keep(log.format_line(log.WARN, text, time.time()).encode())
            line = self._kept[0]
            sent = self._try(line[: select.PIPE_BUF])
            if sent is None:
                return
            self._size -= sent
            if sent == len(line):
                self._kept.popleft()
            else:
                self._kept[0] = line[sent:]

    def _try(self, data: bytes) -> Optional[int]:
        """How many bytes were taken; None where that would mean to wait."""
        try:
            mode = os.fstat(self._fd).st_mode
            if stat.S_ISFIFO(mode):
                return self._write_pipe(data)
            if stat.S_ISSOCK(mode):
                with socket.socket(fileno=os.dup(self._fd)) as sock:
                    return sock.send(data, socket.MSG_DONTWAIT)
            return self._write_ready(data)
        except BlockingIOError:
            return None
        except OSError:
            return len(data)  # nobody reads our stderr any more; that must not end a session

    def _write_pipe(self, data: bytes) -> Optional[int]:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            own = os.open(f"/proc/self/fd/{self._fd}", flags)
        except PermissionError:  # another user's
            return self._write_ready(data)
        try:
            return os.write(own, data)
        finally:
            os.close(own)

    def _write_ready(self, data: bytes) -> Optional[int]:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return os.write(self._fd, data) if poll.poll(0) else None
