# SPDX-License-Identifier: Apache-2.0
"""Accepts control connections, and drops those that hold no session and say nothing.

Where an address fails again and again, its connections that fail are slowed: they are answered
late, and all that have not said who they are share one place in the turns of the loop. Whoever has
a valid token gets in all the same, if a little later.
"""

from __future__ import annotations

import socket
import weakref
from collections import deque
from collections.abc import Callable

from bitfusion import linux, log
from bitfusion.server.accept import Acceptor
from bitfusion.server.api import Api
from bitfusion.server.caller import Refusal
from bitfusion.server.gate import UNAUTHORIZED, Gate
from bitfusion.server.guard import network_of
from bitfusion.server.loop import Loop, Timer
from bitfusion.server.peer import Answer, Later, Peer
from bitfusion.server.service import Service
from bitfusion.values import format_address
from bitfusion.wire.control import Call, Reply

MAX_PEERS = 4096  # a run has two, and who waits in the queue one
OTHERS = 512  # descriptors for other things than these, and one more for each of these
MAX_SPARE = 16  # connections of a client, beside those that hold a session, that nobody takes away
MAX_STRANGERS = 64  # connections of one address whose client is not known yet
FIRST_CALL_S = 10.0  # from connecting to the first call that tells it, handshake included
FIRST_BYTES = 16 << 10  # a hello of TLS, or a request
IDLE_S = 30.0  # of a control connection that holds no session
DELAY_S = 1.0  # of the answer to one that fails, at an address that failed too often
NOT_THEIRS = ("no-session", "no-entry")  # kinds of refusals


class Lane:
    """Connections that share one place in the turns of the loop, one after the other."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._actions: deque[Callable[[], None]] = deque()

    def add(self, action: Callable[[], None]) -> None:
        self._actions.append(action)
        if len(self._actions) == 1:
            self._loop.soon(self._next)

    def _next(self) -> None:
        action = self._actions.popleft()
        if self._actions:
            self._loop.soon(self._next)
        action()


class Doorman:
    def __init__(self, service: Service, sock: socket.socket, gate: Gate, lease_s: float) -> None:
        self._service = service
        self._loop = service.loop
        self._gate = gate
        self._lease_s = lease_s
        files = linux.raise_open_files(2 * MAX_PEERS + OTHERS)
        self._most = max(MAX_STRANGERS, min(MAX_PEERS, (files - OTHERS) // 2))
        if self._most < MAX_PEERS:
            log.info(f"at most {self._most} connections of clients, as 'nofile' is {files}")
        self._api = Api(
            service.routes,
            lambda call, peer, holds: gate.identify(call, peer, self.peers.get(peer, ""), holds),
            self._refused,
        )
        self.peers: dict[Peer, str] = {}  # with the address that each calls from
        self._timers: dict[Peer, dict[str, Timer]] = {}  # each holds its peer, and all that has
        self._lanes: weakref.WeakValueDictionary[str, Lane] = weakref.WeakValueDictionary()
        self._acceptor = Acceptor(service.loop, sock, self._take)

    def _take(self, sock: socket.socket) -> None:
        try:
            host, port = sock.getpeername()[:2]
        except OSError:
            host, port = "", 0  # gone again
        if not host:
            sock.close()
            return
        if not self._has_room(host):
            self._gate.note(host, f"{self._most} connections of clients are the most")
            self._turn_away(sock)
            return
        linux.keep_alive(sock, self._lease_s)
        linux.give_up_sending(sock, self._lease_s)
        name = format_address((host, port))
        peer = Peer(self._loop, sock, self._gate.codec(), self._handle, self._gone, name)
        peer.on_broken = lambda why: self._gate.failed(host, why)
        peer.soon = self._turns(peer, host)
        self.peers[peer] = host
        # Behind what came in time: it may not have had its turn yet, where many ask at once.
        first = self._loop.after(
            FIRST_CALL_S, lambda: peer.soon(lambda: self._drop_stranger(peer))
        )
        self._timers[peer] = {"first": first}
        self._watch_idle(peer)

    def _drop_stranger(self, peer: Peer) -> None:
        if self._gate.is_stranger(peer):
            peer.close()

    def _turn_away(self, sock: socket.socket) -> None:
        """With an answer, where it costs nothing: nobody waits for it to be read."""
        try:
            sock.recv(FIRST_BYTES)  # what is unread at the close would throw the answer away
        except OSError:
            pass
        try:
            sock.send(self._gate.full())
        except OSError:
            pass
        sock.close()

    def _has_room(self, host: str) -> bool:
        """Connections of strangers make room for new ones: those that failed first, then those
        that said nothing, and the oldest of them. Where a client has more connections without a
        session than there are strangers, one of those does.
        """
        if len(self.peers) < MAX_STRANGERS:
            return True  # whoever they are
        network = network_of(host)
        strangers = [peer for peer in self.peers if self._gate.is_stranger(peer)]
        strangers.sort(key=lambda peer: (not peer.waits, peer.heard))  # else as they came
        here = [peer for peer in strangers if network_of(self.peers[peer]) == network]
        if len(here) >= MAX_STRANGERS:
            here[0].close()
        elif len(self.peers) >= self._most:
            self._make_room(strangers)
        return len(self.peers) < self._most

    def _make_room(self, strangers: list[Peer]) -> None:
        holders = self._service.sessions.owners()
        spare: dict[str, list[Peer]] = {}
        for peer, host in self.peers.items():
            name = self._gate.name(peer, host)
            if name and peer not in holders:
                spare.setdefault(name, []).append(peer)
        most = max(spare, key=lambda name: len(spare[name]), default="")
        if most and len(spare[most]) > max(MAX_SPARE, len(strangers)):
            chosen = next((peer for peer in spare[most] if not peer.waits), spare[most][0])
            why = f"{most} has more connections than anybody, and {self._most} of all are the most"
            self._gate.note(self.peers[chosen], why)
            chosen.close()
        elif strangers:
            strangers[0].close()

    def _turns(self, peer: Peer, host: str) -> Callable[[Callable[[], None]], None]:
        network = network_of(host)
        lane = self._lanes.get(network)
        if lane is None:
            lane = self._lanes[network] = Lane(self._loop)
        kept = lane

        def soon(action: Callable[[], None]) -> None:
            slowed = self._gate.is_stranger(peer) and self._gate.punishes(host)
            (kept.add if slowed else self._loop.soon)(action)

        return soon

    def _handle(self, call: Call, peer: Peer) -> Answer:
        answer = self._api.handle(call, peer)
        if not isinstance(answer, Reply) or answer.status != UNAUTHORIZED:
            return answer
        if not self._gate.punishes(self.peers.get(peer, "")):
            return answer
        reply, later = answer, Later()

        def answer_late() -> None:
            if self._gate.is_stranger(peer):  # else a session may live by it
                peer.end()
            later.complete(reply)

        self._loop.after(DELAY_S, answer_late)
        return later

    def _refused(self, refusal: Refusal, peer: Peer) -> None:
        """Of those whose client is known, what only an attack or a bug asks for."""
        client, host = self._gate.client_of(peer), self.peers.get(peer, "")
        if client and refusal.kind in NOT_THEIRS:
            self._gate.note(host, f"client '{client}' asks for a session that it does not have")
        elif client and refusal.kind == "forbidden":
            self._gate.note(host, f"client '{client}' asks for what is for operators")

    def _watch_idle(self, peer: Peer) -> None:
        def look() -> None:
            if peer.closed:
                return
            busy = peer.waits or peer.calls != seen
            if not busy and not self._service.sessions.has(peer):
                peer.close()
            else:
                self._watch_idle(peer)

        seen = peer.calls
        self._timers[peer]["idle"] = self._loop.after(IDLE_S, look)

    def bar(self, client: str, why: str) -> None:
        """Hang up on a client that may not come any more, which ends its sessions."""
        for peer in [peer for peer in self.peers if self._gate.client_of(peer) == client]:
            log.info(f"ending the connection {peer.name} of client '{client}': {why}")
            peer.hang_up()

    def _gone(self, peer: Peer) -> None:
        self._gate.forget(peer)
        self.peers.pop(peer, None)
        for timer in self._timers.pop(peer, {}).values():
            timer.cancel()
        peer.soon = self._loop.soon  # else it would be a part of itself, for the collector
        self._service.gone(peer)

    def close(self) -> None:
        self._acceptor.close()
