# SPDX-License-Identifier: Apache-2.0
"""Data connections: one line with a ticket, in time and of bounded length; then the socket is a
worker's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Optional

from bitfusion import linux, log
from bitfusion.server.accept import Acceptor
from bitfusion.server.loop import READ, Loop
from bitfusion.wire.control import MAX_TICKET_LINE, unpack_ticket

TICKET_PATIENCE_S = 5.0
MAX_PENDING = 256  # connections that have not shown a ticket yet

HANDSHAKE = b"\x16"  # the first byte that a client of TLS sends

Redeem = Callable[[str, socket.socket], str]  # takes the socket over, or says why not


class Pending:
    """A connection whose ticket has not come yet."""

    def __init__(self, listener: DataListener, sock: socket.socket) -> None:
        self._listener = listener
        self._socket = sock
        self._line = b""
        listener.loop.watch(sock.fileno(), READ, self._read)
        self._timer = listener.loop.after(
            TICKET_PATIENCE_S, lambda: self._end("no ticket in time")
        )

    def _read(self, _events: int) -> None:
        if not self._line and self._listener.relay is not None and self._pass_on():
            return
        try:
            data = self._socket.recv(MAX_TICKET_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._line += data
        if not data:
            self._end("it went away")
        elif b"\n" in self._line or len(self._line) >= MAX_TICKET_LINE:
            self._redeem()

    def _pass_on(self) -> bool:
        """To the relay, when it begins as TLS does; else it may not go on where all is TLS."""
        try:
            first = self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        assert self._listener.relay is not None
        if first == HANDSHAKE:
            self._forget()
            self._listener.relay(self._socket)
            return True
        if first and self._listener.only_relay:
            self._end("data is encrypted here: 'encrypt' must not be 'never'")
            return True
        return False

    def _redeem(self) -> None:
        line, _, rest = self._line.partition(b"\n")
        ticket = None if rest or len(self._line) > MAX_TICKET_LINE else unpack_ticket(line)
        if ticket is None:
            self._end("not a ticket")
            return
        self._forget()
        why = self._listener.redeem(ticket, self._socket)
        if why:
            self._refuse(why)

    def _end(self, why: str) -> None:
        self._forget()
        self._refuse(why)

    def _refuse(self, why: str) -> None:
        log.debug(f"refused a data connection: {why}")
        try:
            self._socket.send(f"ERR {why}\n".encode())
        except OSError:
            pass  # it does not matter to a peer that is gone
        self._socket.close()

    def _forget(self) -> None:
        self._timer.cancel()
        self._listener.loop.unwatch(self._socket.fileno())
        self._listener.pending.discard(self)


class DataListener:
    # Takes over connections that begin with TLS; and whether all others are refused.
    relay: Optional[Callable[[socket.socket], None]] = None
    only_relay = False

    def __init__(self, loop: Loop, sock: socket.socket, redeem: Redeem) -> None:
        self.loop = loop
        self.pending: set[Pending] = set()
        self.redeem = redeem
        self._acceptor = Acceptor(loop, sock, self._take)

    def _take(self, sock: socket.socket) -> None:
        if len(self.pending) >= MAX_PENDING:
            sock.close()
            return
        linux.keep_alive(sock)
        self.pending.add(Pending(self, sock))

    def close(self) -> None:
        self._acceptor.close()
