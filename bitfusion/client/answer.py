# SPDX-License-Identifier: Apache-2.0
"""An answer by HTTP that ends: http.client itself waits so long for each piece of one, and has no
limit for some of what is around a body.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from bitfusion.client.channels import MAX_REPLY

LEAST_RATE = 512 << 10  # bytes a second, of an answer that takes longer than its time
MAX_AROUND = 1 << 20  # bytes of the head, and of what divides a body into chunks


class Bounded(io.RawIOBase):
    """Reads a socket until too much time is over, or too much has come."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        """sock: it has the time of the whole answer as its timeout."""
        timeout_s = sock.gettimeout()
        assert timeout_s is not None
        self._raw, self._socket = raw, sock
        self._until_s = time.monotonic() + timeout_s
        self._left = MAX_REPLY + MAX_AROUND

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
        size: int = self._raw.readinto(buffer)
        self._until_s += size / LEAST_RATE
        self._left -= size
        if self._left < 0:
            raise ConnectionError("its answer is too long")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """Within the time that the socket has for one."""

    def __init__(self, sock: socket.socket, *words: Any, **more: Any) -> None:
        super().__init__(sock, *words, **more)
        whole: Any = self.fp
        self.fp = io.BufferedReader(Bounded(whole.detach(), sock))
