# SPDX-License-Identifier: Apache-2.0
"""Sessions: who holds which GPUs, their tickets and their workers.

A session belongs to the control connection that made it, or is attached to it. Its memory returns
to the pool when it has been closed and the last of its workers is gone, not before: until then
the driver may still hold that memory.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from bitfusion import log
from bitfusion.inventory import Inventory
from bitfusion.server.caller import Refusal
from bitfusion.server.chatter import Chatter
from bitfusion.server.loop import Timers
from bitfusion.server.nursery import Job
from bitfusion.server.pool import Pool, Request, Slice
from bitfusion.wire.control import OK

if TYPE_CHECKING:
    from bitfusion.server.record import Record  # of servers that outlive a run

MAX_SESSIONS = 512  # in all; each costs the server a descriptor or two
MAX_OWNED = 8  # of one control connection; a run needs one
MAX_TICKETS = 64  # of one session that nobody has used yet
MAX_WORKERS = 256  # of one session
MAX_WORKERS_IN_ALL = 2048
MOST_OF_ONE = (
    2  # no client has more than this part of all sessions and workers, where we know them
)
TICKET_LIFE_S = 30.0
TERM_PATIENCE_S = 2.0
WRONG_TICKET = "unknown or used ticket"


class Ledger(Protocol):
    """Of executor/core.py: the memory that the workers of one session hold."""

    def fileno(self) -> int: ...
    def used(self, slot: Optional[int] = None) -> list[int]: ...
    def busy(self) -> list[int]: ...
    def ration(self, until: Optional[Sequence[int]]) -> None: ...
    def set_share(self, share: float) -> None: ...
    def last_call(self) -> tuple[float, int]: ...
    def clear(self, slot: int) -> None: ...
    def close(self) -> None: ...


class Workers(Protocol):
    """Who starts and ends worker processes."""

    def start(
        self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool
    ) -> None: ...
    def keep_spares(self, count: int, job: Job) -> None: ...
    def signal(self, number: int, signal_number: int) -> None: ...


class Ticket(NamedTuple):
    session: str
    pid: int  # of the client process that it is for
    cold: bool  # no spare worker will do
    timer: Any


class Session:
    def __init__(
        self,
        name: str,
        owner: object,
        slices: Sequence[Slice],
        whose: str = "",
        client: str = "",
    ) -> None:
        self.name = name
        self.whose = whose  # in words
        self.client = client
        self.owner = owner
        self.slices = tuple(slices)
        self.ledger: Optional[Ledger] = None
        self.workers: dict[int, int] = {}  # number -> slot in the ledger
        self.started = 0  # workers, ever
        self.tickets = 0
        self.closing = False

    def source(self) -> str:
        """Whom the log's lines about it are counted for."""
        return f"client '{self.client}'" if self.client else "clients without a name"

    def free_slot(self) -> int:
        taken = set(self.workers.values())
        return next(slot for slot in range(MAX_WORKERS) if slot not in taken)

    def used(self) -> list[int]:
        """Bytes that its workers hold now, per GPU of the session."""
        return self.ledger.used() if self.ledger else [0] * len(self.slices)


class Sessions:
    def __init__(
        self,
        inventory: Inventory,
        workers: Workers,
        timers: Timers,
        make_ledger: Callable[[Sequence[int]], Optional[Ledger]],
        worker_user: str = "",
        environment: Optional[dict[str, str]] = None,
        open_ledger: Callable[[int], Optional[Ledger]] = lambda _fd: None,
    ) -> None:
        """open_ledger: one made earlier, from its descriptor, which is the ledger's then."""
        self.open_ledger = open_ledger
        self.inventory = inventory
        self.pool = Pool(inventory.gpus)
        self.by_name: dict[str, Session] = {}
        self._workers = workers
        self._timers = timers
        self._make_ledger = make_ledger
        self._worker_user = worker_user
        self._environment = {**inventory.environment, **(environment or {})}
        self.on_ledger: Callable[[Session], None] = lambda _session: None  # it has one now
        self.on_use: Callable[[Session], None] = lambda _session: None  # its first worker starts
        self.on_closing: Callable[[Session], None] = lambda _session: None  # its workers end
        self.on_worker_end: Callable[[Session, str], None] = lambda _session, _why: None
        self.on_end: Callable[[Session], None] = lambda _session: None  # its GPUs are back
        self._tickets: dict[str, Ticket] = {}
        self._by_worker: dict[int, Session] = {}
        self._last_worker = 0
        self._chatter = Chatter(log.info, time.monotonic)
        self.host_memory = 0  # bytes of this machine's that one may hold; 0: any number
        self.knows_clients = False  # else all are one

    def open(self, owner: object, request: Request) -> Session:
        """Raises the pool's NotEnough or InUse."""
        self._bound_all()
        self._bound_owned(owner)
        name = os.urandom(8).hex()
        return self._begin(name, owner, self.pool.allocate(name, request))

    def take(self, record: Record) -> Session:
        """One that was granted, or that an earlier server had; raises the pool's InUse."""
        self._bound_all()
        self._bound_client(record.client)
        self.pool.hold(record.session, record.slices)
        return self._begin(record.session, None, record.slices, record.whose(), record.client)

    def _say(self, session: Session, text: str) -> None:
        """A client decides how often there is something to say."""
        self._chatter.say(session.source(), text)

    def hand_over(self, session: Session, owner: object) -> None:
        """It belongs to this control connection from now on."""
        if session.owner is not owner:
            self._bound_owned(owner)
            session.owner = owner

    def _bound_all(self) -> None:
        if len(self.by_name) >= MAX_SESSIONS:
            raise Refusal(429, "too-many", "too many sessions")

    def _bound_client(self, client: str) -> None:
        held = sum(session.client == client for session in self.by_name.values())
        if self.knows_clients and held >= MAX_SESSIONS // MOST_OF_ONE:
            text = f"client '{client}' has {held} sessions here, and more are not allowed"
            raise Refusal(429, "too-many", text)

    def _may_start(self, session: Session) -> bool:
        """Another worker."""
        whose = [s for s in self.by_name.values() if s.client == session.client]
        theirs = sum(len(s.workers) for s in whose) if self.knows_clients else 0
        return (
            len(session.workers) < MAX_WORKERS
            and theirs < MAX_WORKERS_IN_ALL // MOST_OF_ONE
            and len(self._by_worker) < MAX_WORKERS_IN_ALL
        )

    def _bound_owned(self, owner: object) -> None:
        if sum(session.owner is owner for session in self.by_name.values()) >= MAX_OWNED:
            raise Refusal(429, "too-many", "too many sessions of one connection")

    def _begin(
        self,
        name: str,
        owner: object,
        slices: Sequence[Slice],
        whose: str = "",
        client: str = "",
    ) -> Session:
        session = self.by_name[name] = Session(name, owner, slices, whose, client)
        self._timers.after(0, lambda: self._prepare(session))  # not while the client waits
        gpus = ", ".join(f"{s.gpu} ({s.memory >> 20} MiB)" for s in slices)
        self._say(session, f"session {name} has GPU {gpus}" + f", for {whose}" * bool(whose))
        return session

    def adopt_worker(self, name: str, number: int, slot: int) -> None:
        """A worker that an earlier server started."""
        self._last_worker = max(self._last_worker, number)
        session = self.by_name.get(name)
        if session is None:
            self._workers.signal(number, 9)
            return
        session.workers[number] = slot
        session.started += 1
        self._by_worker[number] = session

    def clear_unused_slots(self) -> None:
        """Of workers that ended while no server looked."""
        for session in self.by_name.values():
            for slot in set(range(MAX_WORKERS)) - set(session.workers.values()):
                if session.ledger:
                    session.ledger.clear(slot)

    def make_ticket(self, owner: object, name: str, pid: int, cold: bool = False) -> str:
        session = self._owned(owner, name)
        if session.tickets >= MAX_TICKETS or not self._may_start(session):
            raise Refusal(429, "too-many", "too many processes of this session connect at once")
        ticket = os.urandom(16).hex()
        timer = self._timers.after(TICKET_LIFE_S, lambda: self._forget(ticket))
        self._tickets[ticket] = Ticket(name, pid, cold, timer)
        session.tickets += 1
        return ticket

    def _owned(self, owner: object, name: str) -> Session:
        session = self.by_name.get(name)
        if session is None or session.owner is not owner or session.closing:
            raise Refusal(404, "no-session", f"there is no session '{name}'")
        return session

    def _forget(self, ticket: str) -> Optional[Ticket]:
        known = self._tickets.pop(ticket, None)
        if known is not None:
            known.timer.cancel()
            self.by_name[known.session].tickets -= 1
        return known

    def redeem(self, ticket: str, data: socket.socket) -> str:
        """Give a data connection to a new worker; else say why not."""
        known = self._forget(ticket)
        session = self.by_name.get(known.session) if known else None
        if known is None or session is None or session.closing or not self._may_start(session):
            return WRONG_TICKET
        if not self._prepare(session):
            return "the server has no resources left for it"
        ledger = session.ledger.fileno() if session.ledger else -1
        try:
            data.send(OK)
            data.setblocking(True)  # of the file behind it, so for the worker too
        except OSError:
            return "it went away"
        self._last_worker += 1
        number, slot = self._last_worker, session.free_slot()
        session.workers[number] = slot
        session.started += 1
        if session.started == 1:
            self.on_use(session)
        self._by_worker[number] = session
        job = self._job(session.name, slot, [s.gpu for s in session.slices])
        job = job._replace(silent=not self._chatter.may(session.source()))
        self._workers.start(number, job, data, ledger, known.cold)
        self._say(session, f"worker {number} of session {session.name} serves process {known.pid}")
        return ""

    def _job(self, session: str, slot: int, devices: list[int]) -> Job:
        return Job(
            session,
            slot,
            self.inventory.driver,
            devices,
            self._environment,
            self._worker_user,
            self.host_memory,
            self.inventory.software,
        )

    def keep_spares(self, count: int) -> None:
        self._workers.keep_spares(count, self._job("", 0, []))

    def _prepare(self, session: Session) -> bool:
        """Make the session's ledger; a worker without one would not know its limits."""
        if session.ledger is None and not session.closing:
            try:
                session.ledger = self._make_ledger([s.memory for s in session.slices])
                self.on_ledger(session)
            except Exception as error:
                log.error(f"cannot serve session {session.name}: {error}")
                return False
        return True

    def worker_ended(self, number: int, how: str, killed: bool = False) -> None:
        """killed: not by its own doing."""
        session = self._by_worker.pop(number, None)
        if session is None:
            return
        slot = session.workers.pop(number)
        if session.ledger:
            session.ledger.clear(slot)
        self._say(session, f"worker {number} of session {session.name} {how}")
        broke = killed and not session.closing
        self.on_worker_end(session, f"worker {number} of the server {how}" if broke else "")
        if session.closing and not session.workers:
            self._finish(session)

    def close(self, owner: object, name: str) -> None:
        self._close(self._owned(owner, name))

    def end(self, session: Session) -> None:
        """Whoever it belongs to."""
        if self.by_name.get(session.name) is session:
            self._close(session)

    def close_owner(self, owner: object) -> None:
        for session in [s for s in self.by_name.values() if s.owner is owner]:
            self._close(session)

    def owners(self) -> set[object]:
        """The connections that hold one."""
        return {session.owner for session in self.by_name.values()}

    def has(self, owner: object) -> bool:
        return any(session.owner is owner for session in self.by_name.values())

    def _close(self, session: Session) -> None:
        if session.closing:
            return
        session.closing = True
        for ticket in [t for t, known in self._tickets.items() if known.session == session.name]:
            self._forget(ticket)
        if not session.workers:
            self._finish(session)
            return
        self.on_closing(session)
        self._signal(session, 15)
        self._timers.after(TERM_PATIENCE_S, lambda: self._signal(session, 9))

    def _signal(self, session: Session, number: int) -> None:
        for worker in session.workers:
            self._workers.signal(worker, number)

    def _finish(self, session: Session) -> None:
        self.pool.release(session.name)
        del self.by_name[session.name]
        whose = f" ({session.whose})" * bool(session.whose)
        self._say(session, f"session {session.name} ended{whose}")
        self.on_end(session)  # which may read the ledger once more
        if session.ledger:
            session.ledger.close()
