# SPDX-License-Identifier: Apache-2.0
"""The process that forks workers: made early, so that no worker inherits a secret.

Server and nursery exchange datagrams (JSON, with descriptors beside them) over a Unix socket.
When the server goes, however it goes, the nursery sees the end of that socket. That of a private
server kills the workers and ends. One with a door keeps them, with all that there is to know of
their sessions, for the next server that comes through it, and ends when none comes in time. Spare
workers wait here with the driver already initialised.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, Optional, Protocol

from bitfusion import linux
from bitfusion.server import environment

MAX_MESSAGE = 64 << 10
MAX_WHY = 300
VERSION = 1  # of what a nursery says to a server that takes it over, maybe a newer one
WORKER_OOM_SCORE = 500  # what one client makes its worker hold must not end all others' sessions
MAX_SPARE_FAILURES = 3  # in a row; then the driver is to blame, and clients get to hear why


class Job(NamedTuple):
    """All that a worker is told."""

    session: str  # "" for a spare, which learns it later
    slot: int  # of the ledger
    driver: str
    devices: list[int]  # indexes in the driver
    environment: dict[str, str]
    user: str  # "" to stay who we are
    host_memory: int = 0  # bytes of this machine's that the session may hold; 0 for no limit
    software: bool = False  # device memory is this machine's
    silent: bool = False  # its client has filled enough of the log


class Worker(Protocol):
    """What runs in a worker process; methods are called in this order."""

    def load(self) -> None:
        """In the nursery, once: what all workers share."""

    def settle(self, job: Job) -> None:
        """Environment, limits, user."""

    def warm(self, job: Job) -> None:
        """Of a spare only: initialise the driver."""

    def serve(self, job: Job, data: int, ledger: int) -> int:
        """A client until it goes; ledger -1 for none. Returns the exit status."""


class Spare(NamedTuple):
    pid: int
    socket: socket.socket


class Door(NamedTuple):
    """Where another server may come in."""

    listener: socket.socket
    path: str
    lease_s: float  # how long to wait for one


class Kept(NamedTuple):
    """A session, for the next server."""

    record: dict[str, object]
    ledger: list[int]  # its descriptor, where it has one


class Nursery:
    """Runs in the nursery process."""

    def __init__(self, server: socket.socket, worker: Worker, door: Optional[Door] = None) -> None:
        self.server: Optional[socket.socket] = server
        self.worker = worker
        self.door = door
        self.kept: dict[str, Kept] = {}
        self.deadline_s = 0.0  # to be found by a server
        self.leaving = False  # no new workers: another nursery has that to do
        self.over = False
        self.workers: dict[int, int] = {}  # pid -> number that the server gave it
        self.jobs: dict[int, Job] = {}  # by that number
        self.spares: list[Spare] = []
        self.wanted = 0
        self.failures = 0
        self.pattern: Optional[Job] = None

    def run(self) -> None:
        signals = linux.open_signals(
            {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        )
        self.worker.load()
        self.selector = selectors.DefaultSelector()
        self.selector.register(signals, selectors.EVENT_READ, lambda: self.reap(signals))
        if self.server is not None:
            self.selector.register(self.server, selectors.EVENT_READ, self.obey)
        while not self.is_over():
            for key, _events in self.selector.select(self.patience()):
                key.data()
            if self.lacks_spares():
                self.add_spare()

    def is_over(self) -> bool:
        if self.server is None and time.monotonic() >= self.deadline_s:
            return True
        return self.over or (self.leaving and not self.workers and not self.kept)

    def patience(self) -> Optional[float]:
        if self.lacks_spares():
            return 0
        return None if self.server else max(0.0, self.deadline_s - time.monotonic())

    def obey(self) -> None:
        assert self.server is not None
        try:
            data, fds, flags, _from = socket.recv_fds(
                self.server, MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return  # it went without hearing us out; its last orders are still to be read
        if not data:
            self.miss_server()
            return
        trouble = ""
        try:
            if flags & socket.MSG_TRUNC:
                raise ValueError(f"it has more than {MAX_MESSAGE} bytes")
            self.carry_out(json.loads(data), fds)
        except Exception as error:  # one bad order must not end everybody's workers
            trouble = f"an order makes no sense: {error!r}"[:MAX_WHY]
        for fd in fds:
            os.close(fd)
        if trouble:
            self.tell({"event": "trouble", "why": trouble})

    def carry_out(self, order: dict[str, Any], fds: list[int]) -> None:
        """Takes out of fds what it keeps."""
        if order["order"] == "start":
            self.start(order["worker"], Job(*order["job"]), fds, order["cold"])
        elif order["order"] == "signal":
            self.signal(order["worker"], order["signal"])
        elif order["order"] == "spares":
            self.wanted, self.pattern = order["count"], Job(*order["job"])
        elif order["order"] == "keep":
            self.drop(order["session"])
            self.kept[order["session"]] = Kept(order["record"], list(fds))
            fds.clear()
        elif order["order"] == "drop":
            self.drop(order["session"])
        elif order["order"] == "leave":
            self.leave()
        elif order["order"] == "end":
            self.over = True

    # ------------------------------------------ from one server to the next

    def drop(self, session: str) -> None:
        kept = self.kept.pop(session, None)
        for fd in kept.ledger if kept else ():
            os.close(fd)

    def leave(self) -> None:
        """Another nursery serves new clients; end with the last worker of this one."""
        self.leaving, self.wanted = True, 0
        for spare in self.spares:
            spare.socket.close()  # which it waits at

    def miss_server(self) -> None:
        assert self.server is not None
        self.selector.unregister(self.server)
        self.server.close()
        self.server = None
        if self.door is not None and (self.kept or self.workers):
            self.deadline_s = time.monotonic() + self.door.lease_s
            self.selector.register(self.door.listener, selectors.EVENT_READ, self.meet_server)

    def meet_server(self) -> None:
        """Tell it all, the last first being that it knows the end of the list."""
        assert self.door is not None
        try:
            self.server, _address = self.door.listener.accept()
        except OSError:
            return
        self.selector.unregister(self.door.listener)
        self.selector.register(self.server, selectors.EVENT_READ, self.obey)
        self.tell({"event": "nursery", "version": VERSION, "pid": os.getpid()})
        for kept in self.kept.values():
            self.tell({"event": "session", "record": kept.record}, kept.ledger)
        for pid, number in self.workers.items():
            job = self.jobs[number]
            self.tell(
                {
                    "event": "worker",
                    "worker": number,
                    "pid": pid,
                    "session": job.session,
                    "slot": job.slot,
                }
            )
        self.tell({"event": "complete"})

    # ------------------------------------------ workers

    def start(self, number: int, job: Job, fds: list[int], cold: bool) -> None:
        pid = 0 if cold else self.wake_spare(job, fds)
        if not pid:
            try:
                pid = self.fork(job, fds)
            except OSError as error:
                self.tell({"event": "ended", "worker": number, "status": -1, "why": str(error)})
                return
        self.workers[pid] = number
        self.jobs[number] = job
        self.tell({"event": "started", "worker": number, "pid": pid})

    def fork(self, job: Job, fds: list[int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            become_worker(self.worker, job, fds, parent)
        return pid

    def lacks_spares(self) -> bool:
        return len(self.spares) < self.wanted and self.failures < MAX_SPARE_FAILURES

    def add_spare(self) -> None:
        assert self.pattern is not None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.spares.append(Spare(self.fork(self.pattern, [theirs.fileno()]), ours))
        except OSError:
            self.failures += 1

    def wake_spare(self, job: Job, fds: list[int]) -> int:
        """0 when there is none."""
        while self.spares:
            spare = self.spares.pop(0)
            with spare.socket:
                try:
                    socket.send_fds(spare.socket, [json.dumps(job).encode()], fds)
                except OSError:
                    continue  # it is dead; reaped soon
            self.failures = 0
            return spare.pid
        return 0

    def signal(self, number: int, signal_number: int) -> None:
        for pid, known in self.workers.items():
            if known == number:  # ours and not yet waited for: the pid cannot be another's
                os.kill(pid, signal_number)

    def reap(self, signals: int) -> None:
        linux.read_signals(signals)  # only wakes us: the end comes from the server
        while self.workers or self.spares:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self.workers.pop(pid, None)
            if number is not None:
                self.jobs.pop(number, None)
                self.tell({"event": "ended", "worker": number, "pid": pid, "status": status})
            for spare in [s for s in self.spares if s.pid == pid]:
                spare.socket.close()
                self.spares.remove(spare)
                self.failures += 1

    def tell(self, event: dict[str, object], fds: Sequence[int] = ()) -> None:
        try:
            if self.server is not None:
                socket.send_fds(self.server, [json.dumps(event).encode()], list(fds))
        except OSError:
            pass  # the server is gone; the next read says so

    def end(self) -> NoReturn:
        pids = [*self.workers, *(spare.pid for spare in self.spares)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        if self.door is not None:
            try:
                os.unlink(self.door.path)
            except OSError:
                pass  # the folder was removed
        os._exit(0)


def become_worker(worker: Worker, job: Job, fds: list[int], parent: int) -> NoReturn:
    status = 1
    try:
        linux.set_dumpable(True)  # else what is its own in /proc is root's
        linux.set_process_name("bitfusion-work" if job.session else "bitfusion-spare")
        linux.offer_to_oom_killer(WORKER_OOM_SCORE)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        linux.die_with_parent(signal.SIGKILL, parent)
        linux.close_all_but(fds)
        worker.settle(job)
        linux.die_with_parent(signal.SIGKILL, parent)
        if not job.session:
            job, fds = wait_for_job(worker, job, socket.socket(fileno=fds[0]))
            linux.set_process_name("bitfusion-work")
        status = worker.serve(job, fds[0], fds[1] if len(fds) > 1 else -1)
    except BaseException as error:
        sys.stderr.write(f"bitfusion worker of session {job.session or '-'}: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait_for_job(worker: Worker, job: Job, nursery: socket.socket) -> tuple[Job, list[int]]:
    worker.warm(job)
    with nursery:
        data, fds, _flags, _from = socket.recv_fds(
            nursery, MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC
        )
    if not data:
        os._exit(0)  # the nursery is gone
    return Job(*json.loads(data)), fds


def start(worker: Worker, door: Optional[Door] = None) -> tuple[int, socket.socket]:
    """Fork the nursery; (its pid, our end of its socket)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        ours.setblocking(False)
        return pid, ours
    try:
        linux.set_process_name("bitfusion-nurse")
        kept = {theirs.fileno()} | ({door.listener.fileno()} if door else set())
        linux.close_all_but(kept)
        environment.clean()
        linux.set_dumpable(False)
        os.setsid()  # a signal to the server's group is not meant for the workers
        nursery = Nursery(theirs, worker, door)
        if os.getppid() == parent:
            nursery.run()
        nursery.end()
    finally:
        os._exit(1)
