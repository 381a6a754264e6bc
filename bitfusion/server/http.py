# SPDX-License-Identifier: Apache-2.0
"""The control plane as HTTP/1.1: h11 does the protocol, this file only joins it to calls and
replies.
"""

from __future__ import annotations

import json
from typing import Optional

from bitfusion.errors import MissingServerPackage
from bitfusion.server.peer import BrokenRules
from bitfusion.wire.control import (
    MAX_BODY,
    SECRET_HEADER,
    Call,
    Reply,
    failure,
    unpack_object,
)

try:
    import h11
except ImportError:
    raise MissingServerPackage(what="serve", package="h11") from None

MAX_HEADERS = 16 << 10
MAX_EVENTS = 64  # looked at in one go: a body may come in pieces of a byte
SECRET = SECRET_HEADER.lower().encode()


class HttpCodec:
    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)
        self._request: Optional[h11.Request] = None
        self._body = bytearray()
        self._more = False
        self._complaint = (400, "bad-request")

    def feed(self, data: bytes) -> None:
        try:
            self._connection.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise BrokenRules(str(error)) from None

    def take(self) -> bytes:
        if self._connection.they_are_waiting_for_100_continue:
            return self._send(h11.InformationalResponse(status_code=100, headers=[]))
        return b""

    def has_more(self) -> bool:
        return self._more

    def next_call(self) -> Optional[Call]:
        self._more = False
        for _ in range(MAX_EVENTS):
            try:
                event = self._connection.next_event()
            except h11.RemoteProtocolError as error:
                raise BrokenRules(str(error)) from None
            if (
                event is h11.NEED_DATA
                or event is h11.PAUSED
                or isinstance(event, h11.ConnectionClosed)
            ):
                return None
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
                self._refuse_beyond(int(self._header(b"content-length") or 0))
            elif isinstance(event, h11.Data):
                self._body += event.data
                self._refuse_beyond(len(self._body))
            elif isinstance(event, h11.EndOfMessage):
                return self._call()
        self._more = True
        return None

    def _refuse_beyond(self, size: int) -> None:
        if size > MAX_BODY:
            self._complaint = (413, "too-large")
            raise BrokenRules("a request's body is too long")

    def _call(self) -> Call:
        assert self._request is not None
        try:
            body = unpack_object(bytes(self._body)) if self._body else {}
        except ValueError as error:
            raise BrokenRules(f"a request's body is not JSON: {error}") from None
        method = self._request.method.decode("ascii")
        target = self._request.target.decode("ascii", "replace")
        return Call(method, target, body, self._header(b"authorization"), self._header(SECRET))

    def _header(self, wanted: bytes) -> str:
        assert self._request is not None
        for name, value in self._request.headers:
            if name == wanted:
                return bytes(value).decode("ascii", "replace")
        return ""

    def reply(self, reply: Reply) -> bytes:
        body = json.dumps(reply.body).encode() + b"\n"
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        head = self._request is not None and self._request.method == b"HEAD"
        data = self._send(h11.Response(status_code=reply.status, headers=headers))
        data += self._send(h11.Data(data=b"" if head else body))
        data += self._send(h11.EndOfMessage())
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        return data

    def _send(self, event: h11.Event) -> bytes:
        return self._connection.send(event) or b""

    def finished(self) -> bool:
        """The client asked for the connection to end after this answer."""
        return self._connection.our_state is h11.MUST_CLOSE

    def complain(self, text: str) -> bytes:
        if self._connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        try:
            return self.reply(failure(*self._complaint, text))
        except h11.LocalProtocolError:
            return b""
