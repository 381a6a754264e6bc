# SPDX-License-Identifier: Apache-2.0
"""A server for the network: listens for control connections, and on the first free data port."""

from __future__ import annotations

import os
import socket
import sys
from typing import Optional

from bitfusion import __version__, config, linux, log, paths
from bitfusion.config import Config
from bitfusion.errors import CannotListen
from bitfusion.inventory import Inventory, describe
from bitfusion.quantity import plural
from bitfusion.server.accept import Acceptor
from bitfusion.server.api import Api
from bitfusion.server.caller import ANONYMOUS, OPERATOR
from bitfusion.server.http import HttpCodec
from bitfusion.server.lines import LineCodec
from bitfusion.server.loop import Loop
from bitfusion.server.nursery import Worker
from bitfusion.server.peer import Peer
from bitfusion.server.service import Service
from bitfusion.server.state import ADMIN, StateFolder
from bitfusion.server.worker import ExecutorWorker, pick_python, pick_user

MAX_PEERS = 512
IDLE_S = 30.0  # of a control connection that holds no session


def listen(address: tuple[str, int]) -> socket.socket:
    """Bound, not listening yet."""
    try:
        family, kind, protocol, _name, where = socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
    except OSError as error:
        raise CannotListen(
            address=config.format_address(address), why=(error.strerror or str(error)).lower()
        ) from None
    return sock


def listen_first_free(host: str, ports: tuple[int, int]) -> socket.socket:
    first, last = ports
    for port in range(first, last + 1):
        try:
            return listen((host, port))
        except CannotListen:
            if port == last:
                raise CannotListen(
                    address=f"{host}:{first}-{last}", why="no port of these is free"
                ) from None
    raise AssertionError("an empty range is refused by the configuration")


class Doorman:
    """Accepts control connections; drops those that hold no session and say nothing."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service = service
        self._api = Api(service.routes, lambda _call, _peer: ANONYMOUS)
        self.peers: set[Peer] = set()
        self._acceptor = Acceptor(service.loop, sock, self._take)

    def _take(self, sock: socket.socket) -> None:
        try:
            name = config.format_address(sock.getpeername()[:2])
        except OSError:
            name = ""  # gone again
        if not name or len(self.peers) >= MAX_PEERS:
            sock.close()
            return
        linux.keep_alive(sock)
        peer = Peer(self._service.loop, sock, HttpCodec(), self._api.handle, self._gone, name)
        self.peers.add(peer)
        self._watch_idle(peer, self._service.loop)

    def _watch_idle(self, peer: Peer, loop: Loop) -> None:
        def look() -> None:
            if peer.closed:
                return
            busy = peer.waits or peer.calls != seen
            if not busy and not self._service.sessions.has(peer):
                peer.close()
            else:
                self._watch_idle(peer, loop)

        seen = peer.calls
        loop.after(IDLE_S, look)

    def _gone(self, peer: Peer) -> None:
        self.peers.discard(peer)
        self._service.sessions.close_owner(peer)

    def close(self) -> None:
        self._acceptor.close()


class AdminDoor:
    """Accepts operators' connections, on a socket that only they may open."""

    def __init__(self, service: Service, folder: StateFolder) -> None:
        self._loop = service.loop
        self._api = Api(service.routes, lambda _call, _peer: OPERATOR)
        self._folder = folder
        self._gone = service.sessions.close_owner
        self._acceptor = Acceptor(service.loop, folder.bind(ADMIN, socket.SOCK_STREAM), self._take)

    def _take(self, sock: socket.socket) -> None:
        if linux.peer_credentials(sock)[1] not in (0, os.geteuid()):
            sock.close()
            return
        Peer(self._loop, sock, LineCodec(), self._api.handle, self._gone, "an operator")

    def close(self) -> None:
        self._acceptor.close()
        self._folder.remove(ADMIN)


def worker_environment(user: str, software: bool) -> dict[str, str]:
    """Say what workers need. Those that dropped privileges keep no compiled code on disk.

    They serve several clients as one user: each could leave there what the others would run.
    """
    environment = {"BITFUSION_PYTHON": sys.executable, "BITFUSION_HOME": paths.ROOT}
    if user:
        environment["BITFUSION_CACHE"] = "off"
        if software:
            environment["BITFUSION_PYTHON"] = pick_python(user, paths.ROOT)
    return environment


def serve(
    inventory: Inventory, settings: Config, worker: Optional[Worker] = None, ledgers: bool = True
) -> None:
    """Until SIGTERM."""
    user = (
        pick_user(settings.text("server.worker_user"))
        if paths.is_root() and worker is None
        else ""
    )
    linux.set_process_name("bitfusion-serve")
    folder = StateFolder(settings.text("server.state_dir"))
    folder.lock()
    service = Service(
        inventory,
        worker or ExecutorWorker(),
        user,
        worker_environment(user, inventory.software),
        ledgers,
    )
    address = settings.address("server.listen")
    try:
        control = listen(address)
        data = listen_first_free(address[0], settings.ports("server.data_ports"))
    except CannotListen:
        service.workers.stop()
        raise
    service.listen_tcp(data)
    service.listen_unix()
    doorman, admin = Doorman(service, control), AdminDoor(service, folder)
    where = config.format_address(control.getsockname()[:2])
    log.info(
        f"Bitfusion {__version__} serves {plural(len(inventory.gpus), 'GPU')} "
        f"({describe(inventory.gpus)}) "
        f"on {where}, data on port {data.getsockname()[1]}, in clear text"
    )
    service.run(settings.number("server.spare_workers"))
    doorman.close()
    admin.close()
    log.info(f"server ends; longest turn of its loop {service.loop.longest_turn_s * 1000:.1f} ms")
