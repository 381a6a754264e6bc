# SPDX-License-Identifier: Apache-2.0
"""Puts a server together: loop, nursery, sessions, listeners; private for one run, or for the
network.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Optional

from bitfusion import linux, log
from bitfusion.inventory import Inventory
from bitfusion.server.api import Api
from bitfusion.server.api_server import ServerApi
from bitfusion.server.api_sessions import SessionApi
from bitfusion.server.caller import ANONYMOUS
from bitfusion.server.data import DataListener
from bitfusion.server.lines import LineCodec
from bitfusion.server.loop import Loop
from bitfusion.server.nursery import Door, Worker
from bitfusion.server.peer import Peer
from bitfusion.server.sessions import Ledger, Sessions
from bitfusion.server.workers import Workers
from bitfusion.wire.control import Json

PRIVATE_SPARES = 1


def make_ledger(limits: Sequence[int]) -> Optional[Ledger]:
    from bitfusion.executor import core

    return core.Ledger.create(limits)


def open_ledger(fd: int) -> Optional[Ledger]:
    from bitfusion.executor import core

    return core.Ledger(fd)


class Service:
    def __init__(
        self,
        inventory: Inventory,
        worker: Worker,
        worker_user: str = "",
        environment: Optional[dict[str, str]] = None,
        ledgers: bool = True,
        open_door: Callable[[], Optional[Door]] = lambda: None,
    ) -> None:
        """open_door: how the next server may take the workers over; None: they end with us."""
        self.loop = Loop()
        self.leaves_workers = False
        self.workers = Workers(self.loop, worker, self._worker_ended, open_door)
        self.sessions = Sessions(
            inventory,
            self.workers,
            self.loop,
            make_ledger if ledgers else lambda _limits: None,
            worker_user,
            environment,
            open_ledger,
        )
        self.data: Json = {}
        self.session_api = SessionApi(self.sessions, self.data)
        self.server_api = ServerApi()
        self.routes = [*self.server_api.routes(), *self.session_api.routes()]
        self.on_gone: list[Callable[[Peer], None]] = [self.sessions.close_owner]
        self._listeners: list[DataListener] = []

    def gone(self, peer: Peer) -> None:
        """A control connection ended."""
        for action in self.on_gone:
            action(peer)

    def _worker_ended(self, number: int, how: str, killed: bool) -> None:
        self.sessions.worker_ended(number, how, killed)

    def listen_unix(self) -> DataListener:
        """On an abstract name, which leaves no file behind. Clients are told where it is ours: on
        another host, or in another network namespace, it is free for anybody to take.
        """
        name = f"@bitfusion-{os.getpid()}-{os.urandom(8).hex()}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind("\0" + name[1:])
        self.data.update(unix=name, place=linux.network_place(), uid=os.geteuid())
        return self._add(sock)

    def listen_tcp(self, sock: socket.socket) -> DataListener:
        self.data["tcp"] = sock.getsockname()[1]
        return self._add(sock)

    def _add(self, sock: socket.socket) -> DataListener:
        self._listeners.append(DataListener(self.loop, sock, self.sessions.redeem))
        return self._listeners[-1]

    def heed_signals(self, on_signal: Optional[Callable[[int], None]] = None) -> None:
        """From now on; what comes before run() is heeded there."""
        ends = (signal.SIGTERM, signal.SIGHUP) + ((signal.SIGINT,) if on_signal else ())
        self.loop.on_signals(ends, on_signal or (lambda _number: self.loop.stop()))

    def run(self, spares: int) -> None:
        if spares:
            self.sessions.keep_spares(spares)
        self.loop.run()
        for listener in self._listeners:
            listener.close()
        if self.leaves_workers:
            self.workers.leave()
        else:
            self.workers.stop()


def serve_private(service: Service, control: socket.socket, transport: str) -> None:
    """Serve one launcher until it closes its end, which its death does too."""
    if transport == "tcp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
        service.listen_tcp(sock)
    else:
        service.listen_unix()
    routes = [*service.routes, *service.session_api.private_routes()]
    Peer(
        service.loop,
        control,
        LineCodec(),
        Api(routes, lambda _call, _peer, _holds: ANONYMOUS).handle,
        lambda _peer: service.loop.stop(),
        "the launcher",
    )
    service.heed_signals()
    service.run(PRIVATE_SPARES)
    log.info(
        f"private server ends; longest turn of its loop "
        f"{service.loop.longest_turn_s * 1000:.1f} ms"
    )
