# SPDX-License-Identifier: Apache-2.0
"""Ports of loopback that stay a test's own."""

from __future__ import annotations

import socket


class Port:
    """Kept for whoever asks for it by its number, as servers do: by SO_REUSEADDR they may have it
    beside this socket, which does not listen. The system gives it to nobody who takes any port, so
    what is started again finds it free, however long it was away.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def __str__(self) -> str:
        return f"127.0.0.1:{self.number}"

    def give_back(self) -> None:
        self._socket.close()
