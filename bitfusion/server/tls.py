# SPDX-License-Identifier: Apache-2.0
"""TLS on a control connection, as a codec around another: encrypted bytes in, calls out. No
sockets here: the handshake's bytes go where the answers go, through the peer, which bounds them.
"""

from __future__ import annotations

import ssl
from typing import Optional

from bitfusion.server.data import HANDSHAKE
from bitfusion.server.peer import BrokenRules, Codec
from bitfusion.wire.control import CLEAR_TEXT, Call, Reply, failure

READ_SIZE = 64 << 10


class TlsCodec:
    def __init__(self, context: ssl.SSLContext, inner: Codec) -> None:
        self._inner = inner
        self._context = context
        self._input, self._output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: Optional[ssl.SSLObject] = None  # costs much more than a connection that is mute
        self._established = False
        self._in_clear = False
        self._ended = False

    def feed(self, data: bytes) -> None:
        if self._tls is None and data:
            if data[:1] != HANDSHAKE:
                self._in_clear = True
                raise BrokenRules("clear text, but this server speaks TLS only")
            self._tls = self._context.wrap_bio(self._input, self._output, server_side=True)
        if self._tls is None:
            return
        self._input.write(data)
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
            while not self._ended:
                plain = self._tls.read(READ_SIZE)
                self._ended = not plain
                self._inner.feed(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            why = (error.reason or "it ended early").replace("_", " ").lower()
            raise BrokenRules(f"TLS: {why}") from None

    def take(self) -> bytes:
        inner = self._inner.take() if self._established and not self._ended else b""
        return self._encrypt(inner) if inner else self._output.read()

    def has_more(self) -> bool:
        return self._inner.has_more()

    def next_call(self) -> Optional[Call]:
        return self._inner.next_call()

    def reply(self, reply: Reply) -> bytes:
        return self._encrypt(self._inner.reply(reply))

    def _encrypt(self, data: bytes) -> bytes:
        assert self._tls is not None
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self._output.read()

    def complain(self, text: str) -> bytes:
        if self._in_clear:  # nothing of it is secret, and so the client can say what is wrong
            return self._inner.reply(failure(400, CLEAR_TEXT, text))
        if not self._established or self._ended:
            return b""
        return self._encrypt(self._inner.complain(text))

    def finished(self) -> bool:
        return self._ended or self._inner.finished()
