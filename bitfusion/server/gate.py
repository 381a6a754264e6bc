# SPDX-License-Identifier: Apache-2.0
"""Who may speak to a server of the network: TLS and tokens where it has keys; without keys,
everybody, which loopback or an operator's word must allow.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from typing import Optional

from bitfusion import log
from bitfusion.server.caller import ANONYMOUS, Caller, Refusal
from bitfusion.server.guard import TOO_MANY, Guard, network_of
from bitfusion.server.http import HttpCodec
from bitfusion.server.keys import LOOK_EVERY_S, Keys
from bitfusion.server.loop import Loop
from bitfusion.server.peer import Codec, Peer
from bitfusion.server.tls import TlsCodec
from bitfusion.server.tokens import Tokens
from bitfusion.wire.control import NO_ROOM, Call, failure

UNAUTHORIZED = 401
# An alert of TLS, fatal, which nothing encrypts before a handshake.
INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"
NO_ROOM_BODY = json.dumps(failure(503, "no-room", NO_ROOM).body).encode() + b"\n"
NO_ROOM_IN_CLEAR = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(NO_ROOM_BODY)
) + NO_ROOM_BODY


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    def __init__(
        self,
        loop: Loop,
        keys: Optional[Keys],
        tokens: Optional[Tokens],
        anybody: Caller = ANONYMOUS,
    ) -> None:
        """keys and tokens: None where the server speaks clear text to everybody, who then count
        as `anybody`.
        """
        self._loop = loop
        self._anybody = anybody
        self._keys = keys
        self._tokens = tokens
        self._context: Optional[ssl.SSLContext] = keys.context() if keys else None
        self._guard = Guard(log.warn)
        self._clients: dict[Peer, str] = {}  # who called last on each connection
        if keys:
            loop.after(LOOK_EVERY_S, self._renew)

    def _renew(self) -> None:
        assert self._keys is not None and self._context is not None
        self._keys.renew(self._context)
        self._loop.after(LOOK_EVERY_S, self._renew)

    @property
    def open(self) -> bool:
        return self._context is None

    def punishes(self, address: str) -> bool:
        """Whether those of this address that fail are slowed. Never where nobody can fail."""
        return not self.open and self._guard.punishes(address, time.monotonic())

    def failed(self, address: str, why: str) -> str:
        """What to say to whom it happened."""
        self._guard.failed(address, why, time.monotonic())
        return f"{why} ({TOO_MANY})" if self.punishes(address) else why

    def note(self, address: str, why: str) -> None:
        """Worth a line in the log, but nobody's failure."""
        self._guard.note(address, why, time.monotonic())

    def codec(self) -> Codec:
        if self._context is None:
            return HttpCodec()
        return TlsCodec(self._context, HttpCodec())

    def identify(self, call: Call, peer: Peer, address: str, holds: bool = False) -> Caller:
        """holds: it is about what the caller holds already. Raises Refusal."""
        if self._tokens is None:
            return self._anybody
        try:
            caller = self._tokens.identify(call.authorization, time.time(), holds)
            self._clients[peer] = caller.client
            return caller
        except Refusal as refusal:
            if refusal.status != UNAUTHORIZED:
                raise
            text = self.failed(address, str(refusal))
            raise Refusal(refusal.status, refusal.kind, text) from None

    def is_stranger(self, peer: Peer) -> bool:
        """Whether we do not know who is there. Who asks nobody knows those that call."""
        return not peer.calls if self._tokens is None else peer not in self._clients

    def client_of(self, peer: Peer) -> str:
        return self._clients.get(peer, "")

    def name(self, peer: Peer, address: str) -> str:
        """Who is there, in words: '' for a stranger. Who asks nobody knows addresses only."""
        if self._tokens is None:
            return "" if self.is_stranger(peer) else f"address {network_of(address)}"
        client = self.client_of(peer)
        return f"client '{client}'" if client else ""

    def full(self) -> bytes:
        """For a connection that has no place: in a language that it understands, and without the
        work of a handshake.
        """
        return NO_ROOM_IN_CLEAR if self.open else INTERNAL_ERROR

    def forget(self, peer: Peer) -> None:
        self._clients.pop(peer, None)
