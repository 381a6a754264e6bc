# SPDX-License-Identifier: Apache-2.0
"""A server for the network: listens for control connections, and on the first free data port."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Optional

from bitfusion import __version__, config, linux, log, paths
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, CannotListen, NotOurAddress, NotSafe, reason
from bitfusion.inventory import Inventory, describe, name_software
from bitfusion.quantity import plural
from bitfusion.server import activity, adopt, member
from bitfusion.server.accept import Acceptor
from bitfusion.server.api import Api
from bitfusion.server.api_leases import LeaseApi
from bitfusion.server.api_operator import OperatorApi
from bitfusion.server.api_queue import QueueApi
from bitfusion.server.api_tokens import Place, TokenApi
from bitfusion.server.caller import ANONYMOUS, OPERATOR
from bitfusion.server.clients import addresses_of, all_addresses, default_limits
from bitfusion.server.cluster import Cluster
from bitfusion.server.data import DataListener
from bitfusion.server.doorman import Doorman
from bitfusion.server.gate import Gate, is_loopback
from bitfusion.server.health import HealthApi
from bitfusion.server.keys import Keys
from bitfusion.server.leases import Leases
from bitfusion.server.lines import LineCodec
from bitfusion.server.manager import Manager
from bitfusion.server.meter import add_meter
from bitfusion.server.nursery import Worker
from bitfusion.server.overview import Overview
from bitfusion.server.peer import Peer
from bitfusion.server.relay import RelayProcess
from bitfusion.server.service import Service
from bitfusion.server.sessions import Session
from bitfusion.server.state import ADMIN, StateFolder
from bitfusion.server.storage import make_store
from bitfusion.server.tokens import PREFIX as TOKENS
from bitfusion.server.tokens import Tokens
from bitfusion.server.turns import TurnMeter
from bitfusion.server.utilisation import Utilisation
from bitfusion.server.views import ServerView
from bitfusion.server.worker import ExecutorWorker, pick_python, pick_user
from bitfusion.values import ALWAYS, NEVER


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
        foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        failure = NotOurAddress if foreign else CannotListen
        raise failure(address=config.format_address(address), why=reason(error)) from None
    return sock


def listen_first_free(host: str, ports: tuple[int, int]) -> socket.socket:
    first, last = ports
    for port in range(first, last + 1):
        try:
            return listen((host, port))
        except NotOurAddress:
            raise
        except CannotListen:
            if port == last:
                raise CannotListen(
                    address=f"{host}:{first}-{last}", why="no port of these is free"
                ) from None
    raise AssertionError("an empty range is refused by the configuration")


class AdminDoor:
    """Accepts operators' connections, on a socket that only they may open."""

    def __init__(self, service: Service, folder: StateFolder) -> None:
        self._loop = service.loop
        self._api = Api(service.routes, lambda _call, _peer, _holds: OPERATOR)
        self._folder = folder
        self._gone = service.gone
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


def open_clients(
    service: Service, keys: Keys, settings: Config, cluster: Cluster, listening: list[str]
) -> Tokens:
    """The clients of a server with keys, from its cluster's store."""
    replica = cluster.replica
    tokens = Tokens(replica.commit, default_limits(settings))
    replica.subscribe(TOKENS, lambda key, value: tokens.changed(key, value, replica.version(key)))
    cluster.on_state.append(tokens.state)

    def place() -> Place:
        others = (member.view.addresses for member in cluster.servers())
        return Place(keys.authority(), all_addresses(listening, others))

    service.routes.extend(TokenApi(tokens, replica.store, place).routes())
    return tokens


def health_of(
    service: Service,
    inventory: Inventory,
    folder: StateFolder,
    keys: Keys,
    settings: Config,
    cluster: Cluster,
) -> HealthApi:
    def expires_s() -> Optional[float]:
        certificate = keys.certificate() if keys.exist() else None
        return certificate.expires_s if certificate else 0.0 if keys.exist() else None

    return HealthApi(
        inventory,
        folder.path,
        lambda: service.loop.longest_turn_s,
        expires_s,
        lambda: cluster.trouble,
        settings.text("server.encrypt"),
        service.data,
    )


def add_overview(
    service: Service, leases: Leases, me: ServerView, cluster: Cluster
) -> Utilisation:
    utilisation = Utilisation(service.sessions, service.loop)
    made = service.sessions.on_ledger

    def on_ledger(session: Session) -> None:
        made(session)
        utilisation.start()

    service.sessions.on_ledger = on_ledger
    if service.sessions.by_name:  # of an earlier server
        utilisation.start()
    service.server_api.server = me.id
    service.server_api.cluster = lambda: cluster.membership.cluster
    overview = Overview(service.sessions, leases, utilisation, me, service.loop, cluster)
    service.routes += overview.routes()
    return utilisation


def make_leases(service: Service, settings: Config) -> Leases:
    """Sessions that outlive the connection that asked for them."""
    sessions, workers = service.sessions, service.workers
    leases = Leases(
        sessions,
        service.loop,
        settings.seconds("cluster.lease"),
        workers,
        lambda session: activity.measure(session, workers.pid_of),
    )
    sessions.on_ledger = leases.ledger_made
    sessions.on_worker_end = leases.worker_ended
    service.on_gone.insert(0, leases.gone)  # before the sessions end that were its
    return leases


def add_routes(
    service: Service, leases: Leases, cluster: Cluster, server_id: str, most: int
) -> None:
    """most: asks of one client that may wait."""

    def end_elsewhere(session: str, why: str) -> bool:
        if not cluster.synced:
            raise cluster.lost()
        return cluster.end(session, why)

    queue = QueueApi(service.loop, leases, cluster, most)
    service.routes += queue.routes()
    lease_api = LeaseApi(service.sessions, leases, service.session_api, end_elsewhere)
    service.routes += lease_api.routes()
    service.routes += OperatorApi(service.loop, leases, cluster, server_id).routes()
    service.on_gone.append(queue.gone)


def add_relay(
    service: Service,
    listener: DataListener,
    local: DataListener,
    keys: Keys,
    user: str,
    encrypt: str,
) -> Optional[RelayProcess]:
    """For clients that encrypt their data, where there are keys for it. It brings them to the
    local socket.
    """
    if not keys.exist():
        return None
    service.data["encrypt"] = service.server_api.encrypt = encrypt
    if encrypt == NEVER:
        return None
    relay = RelayProcess(keys, str(service.data["unix"]), user)
    listener.relay, listener.only_relay = relay.take, encrypt == ALWAYS

    def served(pid: int, address: str) -> None:
        relay.served(pid)
        listener.relayed(address)

    local.served, local.is_relay = served, relay.has
    return relay


def refuse_data(gate: Gate) -> Callable[[str, str, bool], None]:
    """Data connections are watched as control connections are."""

    def refused(address: str, why: str, failed: bool) -> None:
        (gate.failed if failed else gate.note)(address, f"data port: {why}")

    return refused


def open_ports(settings: Config, keys: Keys) -> tuple[socket.socket, socket.socket]:
    """For control and for data."""
    address = settings.address("server.listen")
    control = listen(address)
    where = control.getsockname()[:2]
    if not keys.exist() and not is_loopback(where[0]) and not settings.truth("server.insecure"):
        raise NotSafe(address=config.format_address(where))
    return control, listen_first_free(address[0], settings.ports("server.data_ports"))


def serve(
    inventory: Inventory, settings: Config, worker: Optional[Worker] = None, ledgers: bool = True
) -> None:
    """Until SIGTERM."""
    manager = Manager()
    drops = worker is None and (paths.is_root() or linux.may_change_user())
    user = pick_user(settings.text("server.worker_user")) if drops else ""
    linux.set_process_name("bitfusion-serve")
    log.never_wait()
    folder = StateFolder(settings.text("server.state_dir"))
    folder.lock()
    keys = Keys(folder)
    inventory = name_software(inventory, folder.server_id())
    left = folder.sockets(adopt.PREFIX)
    service = Service(
        inventory,
        worker or ExecutorWorker(),
        user,
        worker_environment(user, inventory.software),
        ledgers,
        lambda: adopt.open_door(folder, settings.seconds("cluster.lease")),
    )
    service.sessions.host_memory = settings.number("server.host_memory")
    try:
        control, data = open_ports(settings, keys)
        store = make_store(settings, folder.path, service.loop)
    except BitfusionError:
        service.workers.stop()
        raise
    where = control.getsockname()[:2]
    addresses, server_id = addresses_of(where), folder.server_id()
    leases = make_leases(service, settings)
    adopted = adopt.adopt(folder, left, service.workers, leases)
    if adopted:
        log.info(f"took over {plural(len(adopted), 'session')} of an earlier server")
    view = member.view_of(server_id, addresses, inventory)
    cluster = member.join(service.loop, store, settings, view, leases, adopted, keys)
    tokens = open_clients(service, keys, settings, cluster, addresses) if keys.exist() else None
    anybody = ANONYMOUS._replace(limits=default_limits(settings))
    gate = Gate(service.loop, keys if tokens else None, tokens, anybody)
    most = settings.number("limits.queue") if tokens else 0  # else all are one client
    add_routes(service, leases, cluster, server_id, most)
    utilisation = add_overview(service, leases, view, cluster)
    others = partial(member.others, cluster, server_id)
    meter = add_meter(service, leases, utilisation, folder, addresses[0], others)
    listener = service.listen_tcp(data)
    local = service.listen_unix()
    listener.refused = local.refused = refuse_data(gate)
    relay = add_relay(service, listener, local, keys, user, settings.text("server.encrypt"))
    service.routes.extend(health_of(service, inventory, folder, keys, settings, cluster).routes())
    doorman = Doorman(service, control, gate, settings.seconds("cluster.lease"))
    admin = AdminDoor(service, folder)
    if tokens:
        service.sessions.knows_clients = True
        leases.reachable = lambda: cluster.synced  # until then it knows no client

        def bar(client: str, why: str) -> None:
            leases.end_client(client, "revoked", why)
            doorman.bar(client, why)

        def look() -> None:
            for lease in adopted:
                why = tokens.bars(lease.record.client)
                if why:
                    leases.end(lease, "revoked", why, 0)

        tokens.barred, tokens.on_synced = bar, look
    try:
        member.start(service.loop, cluster, server_id)
    except BitfusionError:
        service.workers.leave()
        raise

    def end(number: int) -> None:
        """SIGINT ends the sessions as well; else they wait for the next server."""
        manager.stopping()
        service.leaves_workers = number != signal.SIGINT
        if number == signal.SIGINT:
            leases.end_all("drained", "the server was stopped")
            member.leave(service.loop, cluster, leases)
        else:
            service.loop.stop()

    service.heed_signals(end)  # before anybody hears that we serve, and ends us
    manager.ready(service.loop)
    how = "in clear text, to everybody" if gate.open else f"with TLS, cluster {keys.cluster()}"
    log.info(
        f"Bitfusion {__version__} serves {plural(len(inventory.gpus), 'GPU')} "
        f"({describe(inventory.gpus)}) "
        f"on {config.format_address(where)}, data on port {data.getsockname()[1]}, {how}"
    )

    turns = service.loop.meter = TurnMeter()
    service.run(settings.number("server.spare_workers"))
    doorman.close()
    admin.close()
    if meter:
        meter.close()
    cluster.close()
    if relay:
        relay.close()
    log.info(f"server ends; longest turn of its loop {turns.longest.describe()}")
