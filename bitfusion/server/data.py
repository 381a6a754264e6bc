# SPDX-License-Identifier: Apache-2.0
"""Data connections: one line with a ticket, in time and of bounded length; then the socket is a
worker's.

Connections without a ticket make room for new ones, the oldest first: of the same address where
that has many, else of the address that has most. Those that begin with TLS cost a process each, so
they wait where an address, or all of them, have had many that brought no ticket.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Optional

from bitfusion import linux, log
from bitfusion.server.accept import Acceptor
from bitfusion.server.guard import network_of
from bitfusion.server.loop import READ, Loop, Timer
from bitfusion.server.sessions import WRONG_TICKET
from bitfusion.server.throttle import Throttle
from bitfusion.wire.control import MAX_TICKET_LINE, unpack_ticket

TICKET_PATIENCE_S = 5.0
MAX_PENDING = 256  # connections that have not shown a ticket yet
MAX_PENDING_OF = 64  # of them of one address

HANDSHAKE = b"\x16"  # the first byte that a client of TLS sends, in a record
HEADER = 5  # bytes of a record: kind, version, size; a hello's next is HELLO
HELLO = 1
MAX_HELLO = 16 << 10
LOOK_AGAIN_S = 0.05  # for the rest of it, and whether it may go on
HELLOS_OF, HELLOS_A_SECOND_OF = 48, 32  # of one address, that bring no ticket
HELLOS, HELLOS_A_SECOND = 384, 128
TOO_MANY_HELLOS = "too many connections begin with TLS and bring no ticket"
NO_TLS = b"no TLS\n"  # what it says of a connection that only began like it
RELAY = b"\0bitfusion-relay "  # what the address of a relay's socket begins with

Redeem = Callable[[str, socket.socket], str]  # takes the socket over, or says why not
Refused = Callable[[str, str, bool], None]  # address, why, and whether that is its own fault


class Pending:
    """A connection whose ticket has not come yet."""

    def __init__(self, listener: DataListener, sock: socket.socket, address: str) -> None:
        self.address = address
        self._from_relay = sock.family == socket.AF_UNIX and bool(address)
        self._listener = listener
        self._socket = sock
        self._pid = linux.peer_credentials(sock)[0] if sock.family == socket.AF_UNIX else 0
        self._line = b""
        self._again: Optional[Timer] = None
        self._throttled = False
        self._watch()
        self._timer = listener.loop.after(TICKET_PATIENCE_S, self._late)

    def _watch(self) -> None:
        self._listener.loop.watch(self._socket.fileno(), READ, self._read)

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
            self.end("it went away without a ticket", bool(self._line))
        elif b"\n" in self._line or len(self._line) >= MAX_TICKET_LINE:
            self._redeem()

    def _pass_on(self) -> bool:
        """To the relay, when it begins as TLS does; else it may not go on where all is TLS."""
        try:
            first = self._socket.recv(MAX_HELLO, socket.MSG_PEEK)
        except OSError:
            return False
        assert self._listener.relay is not None
        if first[:1] == HANDSHAKE:
            hello = is_hello(first)
            self._throttled = hello is True and not self._listener.may_relay(self.address)
            if hello is None or self._throttled:  # it stays readable, so only time helps
                self._listener.loop.unwatch(self._socket.fileno())
                self._again = self._listener.loop.after(LOOK_AGAIN_S, self._watch)
            elif hello:
                self._forget()
                self._listener.relay(self._socket, self.address)
            else:
                self.end("TLS failed", True)
            return True
        if first and self._listener.only_relay:
            self.end("data is encrypted here: 'encrypt' must not be 'never'", True)
            return True
        return False

    def _redeem(self) -> None:
        line, _, rest = self._line.partition(b"\n")
        if self._line == NO_TLS and self._from_relay:
            self.end("TLS failed", True)
            return
        ticket = None if rest or len(self._line) > MAX_TICKET_LINE else unpack_ticket(line)
        if ticket is None:
            self.end("not a ticket", True)
            return
        self._forget()
        why = self._listener.redeem(ticket, self._socket)
        if why:
            self._refuse(why, why == WRONG_TICKET)
        elif self._from_relay:
            self._listener.served(self._pid, self.address)

    def _late(self) -> None:
        if self._throttled:
            self._listener.refused(self.address, TOO_MANY_HELLOS, False)
            self.end(TOO_MANY_HELLOS, False)
        else:
            self.end("no ticket in time", True)

    def end(self, why: str, failed: bool) -> None:
        self._forget()
        self._refuse(why, failed)

    def _refuse(self, why: str, failed: bool) -> None:
        log.debug(f"refused a data connection: {why}")
        if failed:
            self._listener.refused(self.address, why, True)
        try:
            self._socket.send(f"ERR {why}\n".encode())
        except OSError:
            pass  # it does not matter to a peer that is gone
        self._socket.close()

    def _forget(self) -> None:
        self._timer.cancel()
        if self._again is not None:
            self._again.cancel()
        self._listener.loop.unwatch(self._socket.fileno())
        self._listener.pending.pop(self, None)


class DataListener:
    # Takes over connections that begin with TLS; and whether all others are refused.
    relay: Optional[Callable[[socket.socket, str], None]] = None
    only_relay = False

    def __init__(self, loop: Loop, sock: socket.socket, redeem: Redeem) -> None:
        self.loop = loop
        self.pending: dict[Pending, str] = {}  # the oldest first, with their addresses' networks
        self.redeem = redeem
        self.refused: Refused = lambda _address, _why, _failed: None
        # Which relay has shown a good ticket, and whence its connection came.
        self.served: Callable[[int, str], None] = lambda _pid, _address: None
        self.is_relay: Callable[[int], bool] = lambda _pid: False  # of ours: anybody takes a name
        self._hellos = Throttle(HELLOS_OF, HELLOS_A_SECOND_OF, HELLOS, HELLOS_A_SECOND)
        self._acceptor = Acceptor(loop, sock, self._take)

    def _take(self, sock: socket.socket) -> None:
        try:
            address = self._address_of(sock)
        except OSError:
            sock.close()  # gone again
            return
        network = network_of(address)
        self._make_room(network)
        if sock.family != socket.AF_UNIX:
            linux.keep_alive(sock)
        self.pending[Pending(self, sock, address)] = network

    def _address_of(self, sock: socket.socket) -> str:
        """Whence it comes; of a relay's, whence that has it; '' for others of this machine."""
        name = sock.getpeername()
        if isinstance(name, tuple):
            return str(name[0])
        named = isinstance(name, bytes) and name.startswith(RELAY)
        if not named or not self.is_relay(linux.peer_credentials(sock)[0]):
            return ""
        try:
            return str(ipaddress.ip_address(name[len(RELAY) :].partition(b" ")[0].decode("ascii")))
        except ValueError:
            return ""

    def _make_room(self, network: str) -> None:
        counts = Counter(self.pending.values())
        if counts[network] < MAX_PENDING_OF:
            if len(self.pending) < MAX_PENDING:
                return
            network = counts.most_common(1)[0][0]
        oldest = next(one for one, its in self.pending.items() if its == network)
        why = "too many connections without a ticket"
        self.refused(oldest.address, why, False)
        oldest.end(why, False)

    def may_relay(self, address: str) -> bool:
        return self._hellos.take(network_of(address), self.loop.clock())

    def relayed(self, address: str) -> None:
        """One that began with TLS has shown a good ticket."""
        self._hellos.give_back(network_of(address))

    def close(self) -> None:
        self._acceptor.close()


def is_hello(data: bytes) -> Optional[bool]:
    """Whether a whole hello of TLS is there; None: more has to come to know. A process is started
    for who gets that far.
    """
    if len(data) > HEADER and (data[1] != 3 or data[HEADER] != HELLO):
        return False
    size = HEADER + int.from_bytes(data[3:HEADER], "big")
    if len(data) <= HEADER or len(data) < min(size, MAX_HELLO):
        return None
    return True
