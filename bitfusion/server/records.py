# SPDX-License-Identifier: Apache-2.0
"""What stands in the cluster's store: servers, asks in the queue, claims. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional

from bitfusion.server.filters import Filter, parse
from bitfusion.server.pool import Slice
from bitfusion.server.views import Ask, GpuView, ServerView
from bitfusion.wire.control import Json

SERVERS, DRAINED, QUEUE, CLAIMS = "servers/", "drained/", "queue/", "claims/"
LEADER, CLUSTER = "leader", "cluster"

GRANTED, READY, REFUSED = "granted", "ready", "refused"


class Entry(NamedTuple):
    """An ask that waits."""

    ask: Ask
    contact: str  # the server that its client asked
    details: Json  # for the server that will serve it; nobody else reads them
    at: float  # seconds since the epoch, for display
    seq: int

    @property
    def key(self) -> str:
        return f"{QUEUE}{self.seq:016x}-{self.ask.id}"


class Claim(NamedTuple):
    """GPUs that a session has, or is about to have."""

    entry: Entry
    server: str
    slices: tuple[Slice, ...]
    since: float  # seconds since the epoch
    state: str = GRANTED
    why: str = ""  # it was refused
    end: str = ""  # somebody wants it to end, and why

    @property
    def session(self) -> str:
        return self.entry.ask.id

    @property
    def client(self) -> str:
        return self.entry.ask.client

    @property
    def key(self) -> str:
        return f"{CLAIMS}{self.session}"


def text(value: Json, name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise ValueError(f"'{name}' is no text")
    return found


def whole(value: Json, name: str) -> int:
    found = value[name]
    if not isinstance(found, int) or isinstance(found, bool):
        raise ValueError(f"'{name}' is no whole number")
    return found


def real(value: Json, name: str) -> float:
    found = value[name]
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        raise ValueError(f"'{name}' is no number")
    return float(found)


def objects(value: Json, name: str) -> list[Json]:
    found = value[name]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"'{name}' is no list of objects")
    return found


def texts(value: Json, name: str) -> tuple[str, ...]:
    found = value[name]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"'{name}' is no list of texts")
    return tuple(found)


def table(value: Json, name: str) -> Json:
    found = value[name]
    if not isinstance(found, dict):
        raise ValueError(f"'{name}' is no object")
    return found


# ---------------------------------------------- servers


def pack_server(view: ServerView, instance: str, version: str) -> Json:
    return {
        "name": view.name,
        "addresses": list(view.addresses),
        "gpus": [gpu._asdict() for gpu in view.gpus],
        "cuda_version": view.cuda_version,
        "driver_version": view.driver_version,
        "rdma": view.rdma,
        "instance": instance,
        "version": version,
    }


def unpack_server(server: str, value: Json, drained: bool) -> ServerView:
    gpus = tuple(
        GpuView(whole(gpu, "index"), text(gpu, "name"), whole(gpu, "memory"), text(gpu, "uuid"))
        for gpu in objects(value, "gpus")
    )
    return ServerView(
        server,
        text(value, "name"),
        texts(value, "addresses"),
        gpus,
        text(value, "cuda_version"),
        text(value, "driver_version"),
        value["rdma"] is True,
        drained,
    )


# ---------------------------------------------- the queue and claims


def pack_entry(entry: Entry) -> Json:
    ask = entry.ask
    return {
        "id": ask.id,
        "client": ask.client,
        "gpus": ask.gpus,
        "fraction": ask.fraction,
        "memory": ask.memory,
        "share": ask.share,
        "filters": [str(condition) for condition in ask.filters],
        "servers": list(ask.servers),
        "contact": entry.contact,
        "details": entry.details,
        "at": entry.at,
        "seq": entry.seq,
    }


def unpack_entry(value: Json) -> Entry:
    seq = whole(value, "seq")
    filters: tuple[Filter, ...] = tuple(parse(condition) for condition in texts(value, "filters"))
    ask = Ask(
        text(value, "id"),
        text(value, "client"),
        whole(value, "gpus"),
        text(value, "fraction"),
        whole(value, "memory"),
        real(value, "share"),
        filters,
        texts(value, "servers"),
        float(seq),  # the same on every server, and no clock sets it back
    )
    return Entry(ask, text(value, "contact"), table(value, "details"), real(value, "at"), seq)


def pack_claim(claim: Claim) -> Json:
    return {
        **pack_entry(claim.entry),
        "server": claim.server,
        "slices": [list(part) for part in claim.slices],
        "since": claim.since,
        "state": claim.state,
        "why": claim.why,
        "end": claim.end,
    }


def settle(claim: Claim) -> Claim:
    """Without what is of use to nobody once it is a session: where it might have gone, and what
    the session's record has anyway.
    """
    ask = claim.entry.ask._replace(filters=(), servers=())
    return claim._replace(entry=claim.entry._replace(ask=ask, details={}))


def unpack_claim(value: Json) -> Claim:
    found = value["slices"]
    if not isinstance(found, list) or not all(
        isinstance(part, list) and len(part) == 2 and all(isinstance(n, int) for n in part)
        for part in found
    ):
        raise ValueError("'slices' are none")
    slices = tuple(Slice(gpu, memory) for gpu, memory in found)
    state = text(value, "state")
    if state not in (GRANTED, READY, REFUSED):
        raise ValueError(f"'{state}' is no state of a claim")
    return Claim(
        unpack_entry(value),
        text(value, "server"),
        slices,
        real(value, "since"),
        state,
        text(value, "why"),
        text(value, "end"),
    )


class Reign(NamedTuple):
    """Who leads; of a server that was started again, an earlier run of it does not."""

    server: str
    instance: str


def unpack_reign(value: Optional[Json]) -> Optional[Reign]:
    try:
        return Reign(text(value, "server"), text(value, "instance")) if value else None
    except (KeyError, ValueError):
        return None
