# SPDX-License-Identifier: Apache-2.0
"""The control plane as lines of JSON: for a private server, where HTTP's libraries would cost more
than the run.
"""

from __future__ import annotations

from typing import Optional

from bitfusion.server.peer import BrokenRules
from bitfusion.wire.control import MAX_BODY, Call, Reply, failure, pack_line, unpack_object


class LineCodec:
    def __init__(self) -> None:
        self._input = bytearray()

    def feed(self, data: bytes) -> None:
        self._input += data

    def take(self) -> bytes:
        return b""

    def has_more(self) -> bool:
        return False

    def next_call(self) -> Optional[Call]:
        line, newline, rest = self._input.partition(b"\n")
        if len(line) > MAX_BODY:
            raise BrokenRules("a request is too long")
        if not newline:
            return None
        self._input = rest
        try:
            value = unpack_object(bytes(line))
        except ValueError as error:
            raise BrokenRules(f"not a request: {error}") from None
        method, path, body = value.get("method"), value.get("path"), value.get("body", {})
        secret = value.get("secret", "")
        texts = all(isinstance(text, str) for text in (method, path, secret))
        if not texts or not isinstance(body, dict):
            raise BrokenRules("not a request")
        return Call(str(method), str(path), body, secret=str(secret))

    def reply(self, reply: Reply) -> bytes:
        return pack_line({"status": reply.status, "body": reply.body})

    def finished(self) -> bool:
        return False

    def complain(self, text: str) -> bytes:
        return self.reply(failure(400, "bad-request", text))
