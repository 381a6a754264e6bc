# SPDX-License-Identifier: Apache-2.0
"""Accepting connections: one at a time, and not at all for a moment where descriptors ran out.

A listener that cannot accept stays readable, so without the pause the loop would never sleep.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from bitfusion import linux, log
from bitfusion.server.loop import READ, Loop

BACKLOG = 128
PAUSE_S = 0.2


class Acceptor:
    """Gives accepted sockets to `take`, non-blocking; the kernel keeps what waits meanwhile."""

    def __init__(
        self, loop: Loop, sock: socket.socket, take: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._take = take
        self._paused = False
        self._closed = False
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._watch()

    def _watch(self) -> None:
        if not self._closed:
            self._loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, _address = self._socket.accept()
        except OSError as error:
            if error.errno in linux.EXHAUSTED:
                self._pause(error)
            return  # else it went away again
        if self._paused and not self._more_wait():
            self._paused = False
            log.info("accepting connections again")
        sock.setblocking(False)
        self._take(sock)

    def _more_wait(self) -> bool:
        """While some do, descriptors may run out again at the next: that is no news."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _pause(self, error: OSError) -> None:
        if not self._paused:
            self._paused = True
            log.warn(f"accepting no connections until some end: {error.strerror}")
        self._loop.unwatch(self._socket.fileno())
        self._loop.after(PAUSE_S, self._watch)

    def close(self) -> None:
        self._closed = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
