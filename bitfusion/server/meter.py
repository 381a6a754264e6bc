# SPDX-License-Identifier: Apache-2.0
"""Measures what sessions use, and has it written down every minute and at their ends."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Optional

from bitfusion import log
from bitfusion.server.api_stats import StatsApi
from bitfusion.server.leases import Leases
from bitfusion.server.loop import Timers
from bitfusion.server.record import Record
from bitfusion.server.records import unpack_claim
from bitfusion.server.service import Service
from bitfusion.server.sessions import Session
from bitfusion.server.state import StateFolder
from bitfusion.server.usage import FILE, Note, Usage
from bitfusion.server.utilisation import Utilisation
from bitfusion.wire.control import Json

BOOK_S = 60.0
AT_ONCE_S = 1.0  # to grant what is free, with a store that is slow


class Meter:
    """Books what the sessions of a server use, every minute and at their ends."""

    def __init__(
        self,
        usage: Usage,
        leases: Leases,
        utilisation: Utilisation,
        memory: Callable[[int], int],
        timers: Timers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """memory: of a whole GPU."""
        self.usage = usage
        self._leases = leases
        self._utilisation = utilisation
        for lease in leases.by_name.values():
            booked_s = usage.booked_busy_s(lease.session.name)
            if booked_s is not None:
                utilisation.go_on(lease.session, booked_s)
        self._memory = memory
        self._timers = timers
        self._clock = clock
        self._timer = timers.after(BOOK_S, self._tick)

    def _note(self, session: Session, record: Record) -> Note:
        gpus = sum(part.memory / max(1, self._memory(part.gpu)) for part in record.slices)
        return Note(record, gpus, self._utilisation.counted(session), waited_s(record))

    def _tick(self) -> None:
        self.book()
        self.usage.keep_only(self._leases.by_name)
        self._timer = self._timers.after(BOOK_S, self._tick)

    def book(self) -> None:
        """What running sessions used until now; before somebody reads it, too."""
        self._utilisation.look()
        notes = [
            self._note(lease.session, lease.record) for lease in self._leases.by_name.values()
        ]
        self._write(notes, ())

    def ended(self, session: Session) -> None:
        """To be called while its ledger is open and it is known to the leases."""
        lease = self._leases.by_name.get(session.name)
        if lease is not None:
            self._utilisation.look(session)
            self._write([self._note(session, lease.record)], [session.name])

    def _write(self, notes: list[Note], ended: Iterable[str]) -> None:
        try:
            self.usage.book(notes, self._clock(), ended)
        except sqlite3.Error as error:  # a full disk must not end anybody's session
            log.once(f"cannot write down what clients use: {error}, ignoring")

    def close(self) -> None:
        self._timer.cancel()
        self.book()
        self.usage.close()


def waited_s(record: Record) -> float:
    """From the ask to the grant; 0 for one that was granted at once."""
    try:
        claim = unpack_claim(record.claim)
    except (KeyError, ValueError):
        return 0.0  # made without a queue
    waited = claim.since - claim.entry.at
    return waited if waited >= AT_ONCE_S else 0.0


def add_meter(
    service: Service,
    leases: Leases,
    utilisation: Utilisation,
    folder: StateFolder,
    address: str,
    others: Callable[[], list[str]],
) -> Optional[Meter]:
    """address: this server's; others: of the rest of the cluster."""
    try:
        usage = Usage(os.path.join(folder.path, FILE))
    except sqlite3.Error as error:
        log.error(f"cannot write down what clients use: {error}, ignoring")
        return None
    gpus, sessions = service.sessions.inventory.gpus, service.sessions
    meter = Meter(usage, leases, utilisation, lambda gpu: gpus[gpu].memory, service.loop)
    before = sessions.on_end

    def ended(session: Session) -> None:
        meter.ended(session)
        before(session)

    sessions.on_end = ended
    server: Json = {"id": folder.server_id(), "name": socket.gethostname(), "address": address}
    service.routes += StatsApi(meter, server, others).routes()
    return meter
