# SPDX-License-Identifier: Apache-2.0
"""What the servers have: asked over their control planes. Where none is configured, what the
server of this machine has, for those who may ask it; else what is found on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Optional

from bitfusion import config, inventory
from bitfusion.client import admin, channels, control
from bitfusion.client.access import CLEAR, Access, access
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, NotAServer
from bitfusion.values import Address, parse_server
from bitfusion.wire.control import Json

MAX_ASKED = 16  # servers at once
MAX_SILENT = 8  # that another named, and each of which is waited for


class Row(NamedTuple):
    """One GPU."""

    number: int
    name: str
    uuid: str
    memory: int  # bytes
    free: int
    sessions: list[dict[str, Any]]  # memory, and of one's own more
    busy: Optional[float] = None  # part of the last second; None where nothing runs, or unknown


class Listed(NamedTuple):
    """One server; error says why its GPUs are unknown."""

    name: str
    version: str
    gpus: list[Row]
    error: str = ""
    state: str = "up"  # drained: gives nothing new; down: the cluster has lost it
    driver_version: str = ""
    cuda_version: str = ""
    tasks: int = 0  # sessions, also those of which it shows nothing


class Overview(NamedTuple):
    """All servers, who waits, and who asks."""

    servers: list[Listed]
    queue: list[Json]
    you: Json  # of the first cluster; {} without one
    trouble: str = ""  # why this may be over


def query(settings: Config, live: bool = False) -> Overview:
    """live: also what only each server itself knows, such as memory used."""
    servers = settings.addresses("client.server_list")
    if not servers or settings.text("client.driver"):
        return here(settings, live)
    asker = Asker(settings, live)
    for some in (servers[:1], servers[1:]):  # the first knows of the others, if it is there
        asker.ask_all([address for address in some if not asker.knows_lost(address)])
    if len(servers) == 1 and asker.failed:
        raise asker.failed[0][1]
    return asker.overview()


def here(settings: Config, live: bool) -> Overview:
    forced = settings.text("client.driver")
    service = None if forced else admin.open_service(settings.seconds("client.timeout"))
    if service is None:
        return Overview([local(settings)], [], {})
    asker = Asker(settings, live)
    asker.take(ask(service))
    return asker.overview()


def local(settings: Config) -> Listed:
    found = inventory.find(
        settings.text("client.driver"),
        settings.number("softgpu.gpus") or 1,
        settings.number("softgpu.memory"),
    )
    rows = [
        Row(index, gpu.name, gpu.uuid, gpu.memory, gpu.memory, [])
        for index, gpu in enumerate(found.gpus)
    ]
    return Listed("this machine", "", rows, driver_version=found.driver_version)


class Told(NamedTuple):
    """What one server said of its cluster."""

    server: str  # its ID
    servers: list[tuple[str, bool, Listed]]  # ID, whether it is the one that answers, and what
    queue: list[Json]
    you: Json
    trouble: str


class Asker:
    """Asks servers about all of their clusters, and puts together what they say."""

    def __init__(self, settings: Config, live: bool) -> None:
        self._timeout_s = settings.seconds("client.timeout")
        self._access = access(settings)
        self._live = live
        self._known: set[str] = set()  # IDs of servers
        self._listed: list[Listed] = []
        self._queue: list[Json] = []
        self._you: Json = {}
        self._trouble = ""
        self._silent = 0
        self.failed: list[tuple[str, BitfusionError]] = []

    def overview(self) -> Overview:
        names = {known.name for known in self._listed if known.error}
        lost = [
            Listed(name, "", [], str(error)) for name, error in self.failed if name not in names
        ]
        return Overview(self._listed + lost, self._queue, self._you, self._trouble)

    def knows_lost(self, address: Address) -> bool:
        """Its cluster says so: nobody need wait for it."""
        name = config.format_address(address)
        return any(known.name == name and known.state == "down" for known in self._listed)

    def ask_all(self, servers: Sequence[Address]) -> None:
        """At once: each that does not answer costs the whole time of an answer."""
        with ThreadPoolExecutor(MAX_ASKED) as threads:
            asked = [threads.submit(self._ask, address) for address in servers]
            for address, answer in zip(servers, asked):
                try:
                    self.take(answer.result())
                except BitfusionError as error:
                    self.failed.append((config.format_address(address), error))

    def _ask(self, address: Address) -> Told:
        name = config.format_address(address)
        return ask(channels.HttpChannel(address, name, self._timeout_s, self._access))

    def take(self, told: Told) -> None:
        """Once of each server, and nothing twice of a cluster that more than one told of."""
        if told.server in self._known:
            return
        for server, live, listed in told.servers:
            if server not in self._known:
                self._known.add(server)
                self._listed.append(listed if live else self._look_there(listed))
        self._queue += told.queue
        self._you = self._you or told.you
        self._trouble = self._trouble or told.trouble

    def _look_there(self, listed: Listed) -> Listed:
        """Live figures of a server that another has told of; without, where it does not answer."""
        if not self._live or listed.state == "down" or self._silent == MAX_SILENT:
            return listed
        began_s = time.monotonic()
        try:
            there = remote(parse_server(listed.name), self._timeout_s, self._access)
        except (BitfusionError, ValueError):
            self._silent += time.monotonic() - began_s > self._timeout_s / 2
            return listed
        return listed._replace(gpus=there.gpus)


def ask(channel: channels.Channel) -> Told:
    """And closes the channel."""
    name = channel.name
    try:
        greeting = control.greet(channel)
        pool = fetch(channel, "/v1/pool")
        rows = control.list_of_objects(pool.get("servers"))
        servers = [(str(row["id"]), bool(row["live"]), describe(row, name)) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise nonsense(name) from None
    finally:
        channel.close()
    you = pool.get("you")
    queue = control.list_of_objects(pool.get("queue"))
    you = you if isinstance(you, dict) else {}
    return Told(str(greeting.get("id")), servers, queue, you, str(pool.get("trouble", "")))


def fetch(channel: channels.Channel, path: str) -> Json:
    reply = channel.request("GET", path)
    if reply.status != 200:
        raise control.explain(channel, reply, "the list of GPUs")
    return reply.body


def nonsense(name: str) -> NotAServer:
    return NotAServer(server=name, why="its list of GPUs makes no sense")


def describe(item: dict[str, Any], asked: str) -> Listed:
    """A server of GET /v1/pool; the one that answers is called as it was asked."""
    addresses = [str(address) for address in item["addresses"]]
    name = asked if item["live"] else addresses[0] if addresses else str(item["name"])
    gpus = [unpack(row) for row in control.list_of_objects(item["gpus"])]
    state = str(item["state"])
    error = "the cluster has lost it" if state == "down" else ""
    versions = (str(item["driver_version"]), str(item["cuda_version"]))
    tasks = int(item["tasks"])
    return Listed(name, str(item["version"]), gpus, error, state, *versions, tasks)


def remote(address: Address, timeout_s: float, access: Access = CLEAR) -> Listed:
    """One server's own GPUs."""
    name = config.format_address(address)
    channel = channels.HttpChannel(address, name, timeout_s, access)
    try:
        version = str(control.greet(channel)["version"])
        rows = [unpack(item) for item in control.list_gpus(channel)]
    except (KeyError, TypeError, ValueError):
        raise nonsense(name) from None
    finally:
        channel.close()
    return Listed(name, version, rows)


def unpack(item: dict[str, Any]) -> Row:
    busy = item.get("busy")
    return Row(
        int(item["index"]),
        str(item["name"]),
        str(item["uuid"]),
        int(item["memory"]),
        int(item["free"]),
        control.list_of_objects(item["sessions"]),
        float(busy) if isinstance(busy, (int, float)) else None,
    )


def as_json(overview: Overview) -> dict[str, object]:
    return {
        "servers": [
            {**server._asdict(), "gpus": [gpu._asdict() for gpu in server.gpus]}
            for server in overview.servers
        ],
        "queue": overview.queue,
        "you": overview.you,
        "trouble": overview.trouble,
    }


def failed(servers: Sequence[Listed]) -> bool:
    return any(server.error for server in servers)
