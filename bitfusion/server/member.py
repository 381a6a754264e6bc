# SPDX-License-Identifier: Apache-2.0
"""This server's part in its cluster: claims to its GPUs become sessions, and ends of sessions end
claims.
"""

from __future__ import annotations

import glob
import os
import socket
import time
from collections.abc import Sequence
from typing import Optional

from bitfusion import log
from bitfusion.config import Config
from bitfusion.errors import OtherKeys
from bitfusion.inventory import Inventory
from bitfusion.server.asks import CANCELLED
from bitfusion.server.caller import Refusal
from bitfusion.server.cluster import DOWN, Cluster
from bitfusion.server.keys import Keys
from bitfusion.server.leases import Lease, Leases
from bitfusion.server.loop import Loop
from bitfusion.server.pool import InUse
from bitfusion.server.record import Record
from bitfusion.server.records import Claim, pack_claim, settle, unpack_claim
from bitfusion.server.schedule import Scheduler
from bitfusion.server.sessions import Session
from bitfusion.server.store import Store
from bitfusion.server.views import GpuView, ServerView
from bitfusion.wire.control import ENDS, Json

LEAVE_PATIENCE_S, LEAVE_LOOK_S = 3.0, 0.02
SYNC_PATIENCE_S = 1.0  # at the start, for a store that is near
TEXTS = {
    "killed": "an operator ended it",
    "revoked": "its client may not come any more",
    "drained": "the server is taken out of service",
}


class Host:
    """Makes sessions of claims; for cluster.py."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.cluster: Optional[Cluster] = None

    def open_claim(self, claim: Claim) -> str:
        """Why it cannot be; '' where it is."""
        try:
            self._leases.begin(record_of(claim, self._leases.sessions.inventory))
        except (InUse, Refusal, ValueError) as error:
            return str(error) or "refused"
        return ""

    def end_claim(self, session: str, why: str) -> None:
        lease = self._leases.by_name.get(session)
        if lease is None:
            if self.cluster is not None:
                self.cluster.ended(session)
        elif why == CANCELLED:
            self._leases.end(lease, "lost", "its client went away", 0)
        else:
            why = why if why in ENDS else "killed"
            self._leases.end(lease, why, TEXTS.get(why, "it was ended"))

    def closed(self, session: Session) -> None:
        """Its GPUs are back."""
        self._leases.closed(session)
        if self.cluster is not None:
            self.cluster.ended(session.name)

    def used(self, session: Session) -> None:
        """Whoever uses a session asks anew when it wants another; who was only granted one may
        have lost its contact before it knew.
        """
        if self.cluster is not None:
            self.cluster.spend(session.name)


def record_of(claim: Claim, inventory: Inventory) -> Record:
    details, gpus = claim.entry.details, inventory.gpus
    about = details.get("about")
    if any(not 0 <= part.gpu < len(gpus) for part in claim.slices):
        raise ValueError("there is no such GPU")
    return Record(
        claim.session,
        claim.client,
        str(details.get("secret", "")),
        claim.slices,
        tuple(gpus[part.gpu].uuid for part in claim.slices),
        time.monotonic(),
        claim.since,
        number(details, "time_s"),
        number(details, "idle_s"),
        claim.entry.ask.share,
        about if isinstance(about, dict) else {},
        pack_claim(settle(claim)),
    )


def number(details: Json, key: str) -> float:
    found = details.get(key, 0)
    return float(found) if isinstance(found, (int, float)) else 0.0


def claims_of(adopted: Sequence[Lease]) -> list[Claim]:
    claims = []
    for lease in adopted:
        try:
            claims.append(unpack_claim(lease.record.claim))
        except (KeyError, ValueError) as error:
            log.error(f"session {lease.record.session} has no claim that makes sense: {error}")
    return claims


def view_of(server_id: str, addresses: Sequence[str], inventory: Inventory) -> ServerView:
    gpus = tuple(
        GpuView(index, gpu.name, gpu.memory, gpu.uuid) for index, gpu in enumerate(inventory.gpus)
    )
    return ServerView(
        server_id,
        socket.gethostname(),
        tuple(addresses),
        gpus,
        inventory.cuda_version,
        inventory.driver_version,
        has_rdma(),
    )


def has_rdma(folder: str = "/sys/class/infiniband") -> bool:
    """Whether a port of an RDMA device of this machine (InfiniBand, RoCE, iWARP) is active. What
    the kernel says: no library of such devices is needed.
    """
    for path in glob.glob(os.path.join(glob.escape(folder), "*", "ports", "*", "state")):
        try:
            with open(path) as file:
                if "ACTIVE" in file.read():
                    return True
        except OSError:
            pass  # the device went away
    return False


def join(
    loop: Loop,
    store: Store,
    settings: Config,
    view: ServerView,
    leases: Leases,
    adopted: Sequence[Lease],
    keys: Keys,
) -> Cluster:
    """Not started yet, so that others may subscribe to what is in its store."""
    host = Host(leases)
    shared = settings.text("cluster.store") != "sqlite"
    cluster = Cluster(
        loop,
        store,
        view,
        Scheduler(settings.truth("cluster.spread")),
        host,
        settings.seconds("cluster.forget"),
        keys=(keys.cluster() if keys.exist() else "none") if shared else None,
    )
    host.cluster = cluster
    leases.sessions.on_end = host.closed
    leases.sessions.on_use = host.used
    cluster.adopt(claims_of(adopted))
    for lease in adopted:
        if lease.session.started:
            cluster.spend(lease.session.name)
        if lease.record.ending:
            leases.end(lease, lease.record.ending, "it was ending when its server ended", 0)
    return cluster


def others(cluster: Cluster, server_id: str) -> list[str]:
    """An address of each other server that is there."""
    there = [m for m in cluster.servers() if m.state != DOWN and m.view.id != server_id]
    return [member.view.addresses[0] for member in there if member.view.addresses]


def is_up(cluster: Cluster, server_id: str) -> bool:
    return cluster.synced and any(
        member.view.id == server_id and member.state != DOWN for member in cluster.servers()
    )


def start(loop: Loop, cluster: Cluster, server_id: str) -> None:
    """Wait a moment until clients can be served; a store that is far may take longer. Raises
    OtherKeys.
    """
    cluster.start()
    until_s = time.monotonic() + SYNC_PATIENCE_S
    while not is_up(cluster, server_id) and time.monotonic() < until_s:
        loop.turn(0.02)
        if cluster.membership.other_keys:
            where, theirs = cluster.replica.store.where, cluster.membership.other_keys
            raise OtherKeys(where=where, theirs=theirs)


def leave(loop: Loop, cluster: Cluster, leases: Leases) -> None:
    """Stop the loop when the cluster knows that all sessions have ended: else they would count
    against their clients' limits until this server is forgotten.
    """
    until_s = time.monotonic() + LEAVE_PATIENCE_S

    def look() -> None:
        done = not leases.by_name and cluster.settled
        if done or time.monotonic() > until_s:
            loop.stop()
        else:
            loop.after(LEAVE_LOOK_S, look)

    cluster.leave()
    look()
