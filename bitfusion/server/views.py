# SPDX-License-Identifier: Apache-2.0
"""What the scheduler is told and what it answers. Values only."""

from __future__ import annotations

from typing import NamedTuple, Optional

from bitfusion.server.filters import Filter
from bitfusion.server.pool import Slice


class GpuView(NamedTuple):
    index: int  # type: ignore[assignment]  # tuple.index is not missed
    name: str
    memory: int  # bytes
    uuid: str = ""


class ServerView(NamedTuple):
    id: str
    name: str
    addresses: tuple[str, ...]
    gpus: tuple[GpuView, ...]
    cuda_version: str = ""
    driver_version: str = ""
    rdma: bool = False
    drained: bool = False


def names_of(view: ServerView) -> frozenset[str]:
    """All that whoever means this server may call it, in small letters."""
    names = {view.name, view.name.partition(".")[0]}
    hosts = {(address.rpartition(":")[0] or address) for address in view.addresses}
    ports = {address.rpartition(":")[2] for address in view.addresses}
    known = {view.id, *names, *view.addresses, *hosts, *(host.strip("[]") for host in hosts)}
    known |= {f"{name}:{port}" for name in names for port in ports}
    return frozenset(name.lower() for name in known if name)


class Ask(NamedTuple):
    id: str  # becomes the session's name
    client: str
    gpus: int
    fraction: str = "1"  # of each GPU's memory; ignored when memory is given
    memory: int = 0  # bytes on each GPU
    share: float = 0.0  # of each GPU's time, at most; no matter for where it goes
    filters: tuple[Filter, ...] = ()
    servers: tuple[str, ...] = ()  # as names_of has them; () for any
    at_s: float = 0.0  # when it was made: a client's asks are served in this order


class Grant(NamedTuple):
    ask: Ask
    server: str
    slices: tuple[Slice, ...]


class Place(NamedTuple):
    position: int  # from 1
    of: int
    estimate_s: Optional[float]  # None where nothing is known
    away: str = ""  # why it waits for no GPU that others have; reasons.py has the words


class TooMuch(Exception):
    """More than the pool or the client's limits can ever give."""
