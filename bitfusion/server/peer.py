# SPDX-License-Identifier: Apache-2.0
"""A client's control connection: bytes in, calls answered, bytes out; bounded both ways.

Which language the bytes speak is the codec's business: lines.py for a private server, http.py for
a real one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Optional, Protocol

from bitfusion import log
from bitfusion.server.loop import READ, WRITE, Loop
from bitfusion.wire.control import Call, Reply

RECEIVE = 64 << 10
MAX_OUTPUT = 4 << 20  # of a client that does not read its answers


class BrokenRules(Exception):
    """The other end does not speak our language; its connection is dropped."""


class Codec(Protocol):
    def feed(self, data: bytes) -> None: ...
    def next_call(self) -> Optional[Call]: ...
    def reply(self, reply: Reply) -> bytes: ...
    def complain(self, text: str) -> bytes: ...
    def finished(self) -> bool: ...


class Peer:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        codec: Codec,
        handle: Callable[[Call, object], Reply],
        on_close: Callable[[Peer], None],
        name: str,
    ) -> None:
        self.name = name
        self._loop = loop
        self._socket = sock
        self._codec = codec
        self._handle = handle
        self._on_close = on_close
        self._output = bytearray()
        self._ending = False
        self.closed = False
        self.calls = 0
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and not self.closed and not self._ending:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            self._codec.feed(data)
            self._answer_all()
        except BrokenRules as error:
            log.warn(f"dropping {self.name}: {error}")
            self._output += self._codec.complain(str(error))
            self._ending = True
        except Exception:
            self.close()
            raise
        self._ending = self._ending or self._codec.finished()
        self._flush()

    def _answer_all(self) -> None:
        while True:
            call = self._codec.next_call()
            if call is None:
                return
            self.calls += 1
            self._output += self._codec.reply(self._handle(call, self))

    def _flush(self) -> None:
        try:
            while self._output:
                sent = self._socket.send(self._output)
                del self._output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if len(self._output) > MAX_OUTPUT or (self._ending and not self._output):
            self.close()
        else:
            self._loop.watch(
                self._socket.fileno(), READ | WRITE if self._output else READ, self._ready
            )

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._on_close(self)
