# SPDX-License-Identifier: Apache-2.0
"""What the servers have: asked over their control planes, or found on this machine where there is
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from bitfusion import config, inventory
from bitfusion.client import control
from bitfusion.client.access import CLEAR, Access, access
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, NotAServer
from bitfusion.values import Address, parse_server
from bitfusion.wire.control import Json


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


class Overview(NamedTuple):
    """All servers, who waits, and who asks."""

    servers: list[Listed]
    queue: list[Json]
    you: Json  # of the first cluster; {} without one


def query(settings: Config, live: bool = False) -> Overview:
    """live: also what only each server itself knows, such as memory used."""
    servers = settings.addresses("client.server_list")
    if not servers or settings.text("client.driver"):
        return Overview([local(settings)], [], {})
    asker = Asker(settings, live)
    failed: list[Listed] = []
    for address in servers:
        name = config.format_address(address)
        if any(known.name == name and known.state == "down" for known in asker.listed):
            continue  # its cluster has lost it, and says so
        try:
            asker.ask(address)
        except BitfusionError as error:
            if len(servers) == 1:
                raise
            failed.append(Listed(name, "", [], str(error)))
    names = {known.name for known in asker.listed if known.error}
    asker.listed += [server for server in failed if server.name not in names]
    return Overview(asker.listed, asker.queue, asker.you)


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
    return Listed("this machine", found.driver_version, rows)


class Asker:
    """Asks one server of each cluster about all of it, and each server once at most."""

    def __init__(self, settings: Config, live: bool) -> None:
        self._timeout_s = settings.seconds("client.timeout")
        self._access = access(settings)
        self._live = live
        self._known: set[str] = set()  # IDs of servers
        self.listed: list[Listed] = []
        self.queue: list[Json] = []
        self.you: Json = {}

    def ask(self, address: Address) -> None:
        name = config.format_address(address)
        channel = control.HttpChannel(address, name, self._timeout_s, self._access)
        try:
            greeting = control.greet(channel)
            if str(greeting.get("id")) in self._known:
                return
            pool = fetch(channel, "/v1/pool")
            servers = control.list_of_objects(pool.get("servers"))
            rows = [
                (str(item["id"]), bool(item["live"]), describe(item, name)) for item in servers
            ]
        except (KeyError, TypeError, ValueError):
            raise nonsense(name) from None
        finally:
            channel.close()
        for server, live, listed in rows:
            if server not in self._known:
                self._known.add(server)
                self.listed.append(listed if live else self._look_there(listed))
        self.queue += control.list_of_objects(pool.get("queue"))
        you = pool.get("you")
        self.you = self.you or (you if isinstance(you, dict) else {})

    def _look_there(self, listed: Listed) -> Listed:
        """Live figures of a server that another has told of; without, where it does not answer."""
        if not self._live or listed.state == "down":
            return listed
        try:
            there = remote(parse_server(listed.name), self._timeout_s, self._access)
        except (BitfusionError, ValueError):
            return listed
        return listed._replace(gpus=there.gpus)


def fetch(channel: control.Channel, path: str) -> Json:
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
    return Listed(name, str(item["version"]), gpus, error, state, *versions)


def remote(address: Address, timeout_s: float, access: Access = CLEAR) -> Listed:
    """One server's own GPUs."""
    name = config.format_address(address)
    channel = control.HttpChannel(address, name, timeout_s, access)
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
    }


def failed(servers: Sequence[Listed]) -> bool:
    return any(server.error for server in servers)
