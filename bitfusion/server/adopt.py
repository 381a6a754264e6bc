# SPDX-License-Identifier: Apache-2.0
"""At a server's start: what earlier servers in its folder left running, and taking it over."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from bitfusion import log
from bitfusion.server import nursery
from bitfusion.server.leases import Lease, Leases
from bitfusion.server.nursery import Door
from bitfusion.server.pool import InUse
from bitfusion.server.record import Record, unpack
from bitfusion.server.sessions import Sessions
from bitfusion.server.state import StateFolder
from bitfusion.server.workers import Workers

PREFIX = "nursery-"
PATIENCE_S = 5.0  # for a nursery to say what it has


def open_door(folder: StateFolder, lease_s: float) -> Door:
    """A socket for the next server to come in by."""
    name = f"{PREFIX}{os.urandom(4).hex()}"
    listener = folder.bind(name, socket.SOCK_SEQPACKET)
    listener.listen(4)
    return Door(listener, os.path.join(folder.path, name), lease_s)


class Found(NamedTuple):
    """What one nursery has."""

    link: socket.socket
    records: list[tuple[Record, int]]  # with the ledger's descriptor, or -1
    workers: list[dict[str, Any]]


def ask(folder: StateFolder, name: str) -> Optional[Found]:
    """None where nobody is there any more."""
    try:
        link = folder.connect(name, socket.SOCK_SEQPACKET, PATIENCE_S)
    except (FileNotFoundError, ConnectionRefusedError):
        folder.remove(name)
        return None
    except OSError as error:
        log.error(f"cannot take over {name}: {error}")
        return None
    found = Found(link, [], [])
    try:
        hear(found)
    except (ValueError, KeyError) as error:
        log.error(f"cannot take over {name}, whose sessions end now: {error}")
        end(link)
        return None
    except OSError as error:
        log.error(f"cannot take over {name}, whose sessions end soon: {error}")
        link.close()
        return None
    return found


def end(link: socket.socket) -> None:
    """Wait until its workers hold no memory any more of GPUs that we shall give to others."""
    with link:
        try:
            link.send(json.dumps({"order": "end"}).encode())
            while link.recv(nursery.MAX_MESSAGE):
                pass
        except OSError:
            pass


def hear(found: Found) -> None:
    while True:
        data, fds, flags, _from = socket.recv_fds(
            found.link, nursery.MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC
        )
        if flags & socket.MSG_TRUNC:  # of what it says, only a record can be so long
            log.error(f"a session ends: its record has more than {nursery.MAX_MESSAGE} bytes")
            for fd in fds:
                os.close(fd)
            continue
        event: dict[str, Any] = json.loads(data) if data else {"event": "end"}
        kind = event["event"]
        if kind == "nursery" and event["version"] != nursery.VERSION:
            raise ValueError(
                f"it speaks version {event['version']} of what nurseries say, "
                f"this server {nursery.VERSION}"
            )
        if kind == "session":
            found.records.append((unpack(event["record"]), fds.pop() if fds else -1))
        elif kind == "worker":
            found.workers.append(event)
        elif kind == "complete":
            return
        elif kind == "end":
            raise ConnectionError("it ended")


def adopt(
    folder: StateFolder, names: Sequence[str], workers: Workers, leases: Leases
) -> list[Lease]:
    """Take over what the nurseries of these names have; returns the sessions that go on."""
    all_found = [found for found in (ask(folder, name) for name in names) if found]
    for found in all_found:
        pids = {int(w["worker"]): int(w["pid"]) for w in found.workers}
        workers.take_over(found.link, pids)
    adopted = [lease for pair in merge(all_found) if (lease := take(leases, *pair))]
    for event in (event for found in all_found for event in found.workers):
        number, slot = int(event["worker"]), int(event["slot"])
        leases.sessions.adopt_worker(str(event["session"]), number, slot)
    leases.sessions.clear_unused_slots()
    workers.relieve()
    return adopted


def take(leases: Leases, record: Record, ledger: int) -> Optional[Lease]:
    """The ledger's descriptor is the session's then."""
    try:
        check(record, leases.sessions)
        return leases.begin(record, ledger)
    except (InUse, ValueError, OSError, RuntimeError) as error:
        log.error(f"session {record.session} ends: {error}")
        return None


def merge(all_found: list[Found]) -> list[tuple[Record, int]]:
    """Each session once: a server that was killed while it took one over left it in two."""
    known: dict[str, tuple[Record, int]] = {}
    for record, fd in (pair for found in all_found for pair in found.records):
        earlier = known.get(record.session)
        if earlier is None or earlier[1] < 0:
            known[record.session] = (record, fd)
        elif fd >= 0:
            os.close(fd)
    return list(known.values())


def check(record: Record, sessions: Sessions) -> None:
    """The machine's GPUs may have changed meanwhile."""
    gpus = sessions.pool.gpus
    for part, uuid in zip(record.slices, record.uuids):
        if not 0 <= part.gpu < len(gpus) or gpus[part.gpu].uuid != uuid:
            raise ValueError(f"GPU {uuid} is not there any more")
