# SPDX-License-Identifier: Apache-2.0
"""What list_gpus and smi show: this server's GPUs with live figures, and the whole cluster as its
store knows it. A client sees what its own sessions are; of others', only the memory they hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from bitfusion import __version__
from bitfusion.server.api import CLIENT, Incoming, Route
from bitfusion.server.caller import Caller
from bitfusion.server.leases import Leases
from bitfusion.server.loop import Timers, in_turns
from bitfusion.server.peer import Answer, Later
from bitfusion.server.sessions import Session, Sessions
from bitfusion.server.utilisation import Utilisation
from bitfusion.wire.control import Json, Reply

if TYPE_CHECKING:
    from bitfusion.inventory import Gpu
    from bitfusion.server.cluster import Cluster, Queued
    from bitfusion.server.records import Claim
    from bitfusion.server.views import GpuView, ServerView

PIECES_A_TURN = 64


class Overview:
    """Answers GET /v1/gpus (this server's) and GET /v1/pool (the cluster's)."""

    def __init__(
        self,
        sessions: Sessions,
        leases: Leases,
        utilisation: Utilisation,
        me: ServerView,
        timers: Timers,
        cluster: Optional[Cluster] = None,
    ) -> None:
        self._sessions = sessions
        self._leases = leases
        self._utilisation = utilisation
        self._me = me
        self._timers = timers
        self._cluster = cluster

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/gpus", CLIENT, self.list_gpus),
            Route("GET", "/v1/pool", CLIENT, self.describe_pool),
        ]

    # ------------------------------------------ this server

    def list_gpus(self, asked: Incoming) -> Reply:
        return Reply(200, {"gpus": self._rows(asked.caller)})

    def _rows(self, caller: Caller) -> list[Json]:
        pool, rows = self._sessions.pool, []
        held: dict[int, list[Json]] = {}
        busy: dict[int, list[float]] = {}
        for session in self._sessions.by_name.values():
            parts = zip(session.slices, session.used(), self._utilisation.of(session))
            for part, used, share in parts:
                row = self._held(session, caller, part.memory, used, share)
                held.setdefault(part.gpu, []).append(row)
                if share is not None:
                    busy.setdefault(part.gpu, []).append(share)
        for index, gpu in enumerate(pool.gpus):
            shares = busy.get(index)
            whole = min(1.0, sum(shares)) if shares else None
            rows.append(gpu_row(index, gpu, pool.free(index), whole, held.get(index, [])))
        return rows

    def _held(
        self, session: Session, caller: Caller, memory: int, used: int, busy: Optional[float]
    ) -> Json:
        lease = self._leases.by_name.get(session.name)
        if lease is None or not may_see(caller, lease.record.client):
            return {"session": "", "memory": memory}
        record = lease.record
        return {
            "session": session.name,
            "client": record.client,
            "memory": memory,
            "used": used,
            "processes": len(session.workers),
            "share": record.share,
            "busy": busy,
            "since_s": lasted_s(record.since_s),
            **record.about,
        }

    # ------------------------------------------ the cluster

    def describe_pool(self, asked: Incoming) -> Answer:
        """In pieces: there may be thousands of GPUs and of those who wait."""
        caller = asked.caller
        servers: list[Json] = []
        queue: list[dict[str, Any]] = []
        later = Later()

        def done() -> None:
            queue.sort(key=lambda row: (row["position"] or 0, -row["since_s"]))
            you = {
                "client": caller.client,
                "admin": caller.admin,
                "limits": caller.limits._asdict(),
                "held": self._held_by(caller.client),
            }
            trouble = self._cluster.trouble if self._cluster else ""
            body: Json = {"servers": servers, "queue": queue, "you": you, "trouble": trouble}
            later.complete(Reply(200, body))

        pieces = self._describe(caller, servers, queue)
        in_turns(self._timers, pieces, PIECES_A_TURN, done)
        return later

    def _describe(
        self, caller: Caller, servers: list[Json], queue: list[dict[str, Any]]
    ) -> Iterator[object]:
        """A piece is somebody who waits, or a GPU."""
        for queued in self._cluster.queue() if self._cluster else ():
            queue.append(waiting(queued, caller))
            yield None
        for server in self._servers(caller):
            servers.append(server)
            yield from server["gpus"]

    def _held_by(self, client: str) -> Json:
        if self._cluster is not None:
            slices = [claim.slices for claim in self._cluster.claims() if claim.client == client]
        else:
            leases = self._leases.by_name.values()
            slices = [lease.record.slices for lease in leases if lease.record.client == client]
        return {
            "gpus": sum(len(parts) for parts in slices),
            "memory": sum(part.memory for parts in slices for part in parts),
        }

    def _servers(self, caller: Caller) -> Iterator[Any]:
        if self._cluster is None:
            tasks = len(self._sessions.by_name)
            yield self._server(self._me, "up", __version__, self._rows(caller), tasks)
            return
        claims: dict[str, list[Claim]] = {}
        for claim in self._cluster.claims():
            claims.setdefault(claim.server, []).append(claim)
        for member in self._cluster.servers():
            view = member.view
            mine = view.id == self._me.id
            theirs = claims.get(view.id, [])
            rows = self._rows(caller) if mine else claimed(view, theirs, caller)
            tasks = len(self._sessions.by_name) if mine else len(theirs)
            yield self._server(view, member.state, member.version, rows, tasks)

    def _server(
        self, view: ServerView, state: str, version: str, rows: list[Json], tasks: int
    ) -> Json:
        return {
            "id": view.id,
            "name": view.name,
            "addresses": list(view.addresses),
            "state": state,
            "version": version,
            "driver_version": view.driver_version,
            "cuda_version": view.cuda_version,
            "live": view.id == self._me.id,  # else memory used and the like are its to tell
            "tasks": tasks,  # sessions, whoever may see which
            "gpus": rows,
        }


def gpu_row(
    index: int, gpu: Union[Gpu, GpuView], free: int, busy: Optional[float], held: list[Json]
) -> Json:
    return {
        "index": index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "memory": gpu.memory,
        "free": free,
        "busy": busy,
        "sessions": held,
    }


def lasted_s(since_s: float) -> float:
    """Of a moment since the epoch: on one clock, as the client's may be wrong."""
    return round(max(0.0, time.time() - since_s), 3)


def may_see(caller: Caller, client: str) -> bool:
    return caller.admin or caller.client == client


def claimed(view: ServerView, claims: list[Claim], caller: Caller) -> list[Json]:
    """Another server's GPUs, by what the cluster has given away of them."""
    rows: list[Json] = []
    for gpu in view.gpus:
        held: list[Json] = []
        free = gpu.memory
        for claim in claims:
            for part in claim.slices:
                if part.gpu == gpu.index:
                    free -= part.memory
                    held.append(claimed_part(claim, part.memory, caller))
        rows.append(gpu_row(gpu.index, gpu, free, None, held))
    return rows


def claimed_part(claim: Claim, memory: int, caller: Caller) -> Json:
    if not may_see(caller, claim.client):
        return {"session": "", "memory": memory}
    return {
        "session": claim.session,
        "client": claim.client,
        "memory": memory,
        "share": claim.entry.ask.share,
        "since_s": lasted_s(claim.since),
    }


def waiting(queued: Queued, caller: Caller) -> dict[str, Any]:
    """Who waits is its own and operators' business; how many and for what is everybody's."""
    ask, place = queued.entry.ask, queued.place
    own = may_see(caller, ask.client)
    return {
        "entry": ask.id if own else "",
        "client": ask.client if own else "",
        "position": place.position if place else None,
        "estimate_s": place.estimate_s if place else None,
        "gpus": ask.gpus,
        "memory": ask.memory,
        "fraction": "" if ask.memory else ask.fraction,
        "since_s": lasted_s(queued.entry.at),
    }
