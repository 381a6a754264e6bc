# SPDX-License-Identifier: Apache-2.0
"""What the servers have: asked over their control planes, or found on this machine where there is
none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bitfusion import config, inventory
from bitfusion.client import control
from bitfusion.client.access import CLEAR, Access, access
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, NotAServer


class Row(NamedTuple):
    """One GPU."""

    number: int
    name: str
    uuid: str
    memory: int  # bytes
    free: int
    sessions: list[dict[str, Any]]  # session, memory, used, processes


class Listed(NamedTuple):
    """One server; error says why its GPUs are unknown."""

    name: str
    version: str
    gpus: list[Row]
    error: str = ""


def query(settings: Config) -> list[Listed]:
    servers = settings.addresses("client.server_list")
    if not servers or settings.text("client.driver"):
        return [local(settings)]
    listed = []
    for address in servers:
        try:
            listed.append(remote(address, settings.seconds("client.timeout"), access(settings)))
        except BitfusionError as error:
            if len(servers) == 1:
                raise
            listed.append(Listed(config.format_address(address), "", [], str(error)))
    return listed


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


def remote(address: tuple[str, int], timeout_s: float, access: Access = CLEAR) -> Listed:
    name = config.format_address(address)
    channel = control.HttpChannel(address, name, timeout_s, access)
    try:
        version = str(control.greet(channel)["version"])
        rows = [unpack(item) for item in control.list_gpus(channel)]
    except (KeyError, TypeError, ValueError):
        raise NotAServer(server=name, why="its list of GPUs makes no sense") from None
    finally:
        channel.close()
    return Listed(name, version, rows)


def unpack(item: dict[str, Any]) -> Row:
    sessions = control.list_of_objects(item["sessions"])
    return Row(
        int(item["index"]),
        str(item["name"]),
        str(item["uuid"]),
        int(item["memory"]),
        int(item["free"]),
        sessions,
    )


def as_json(server: Listed) -> dict[str, object]:
    return {**server._asdict(), "gpus": [gpu._asdict() for gpu in server.gpus]}
