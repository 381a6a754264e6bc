# SPDX-License-Identifier: Apache-2.0
"""The process that forks workers: made early, so that no worker inherits a secret.

Server and nursery exchange datagrams (JSON, with descriptors beside them) over a Unix socket pair.
When the server goes, however it goes, the nursery sees the end of that socket, kills the workers
and ends. Spare workers wait here with the driver already initialised.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from typing import NamedTuple, NoReturn, Optional, Protocol

from bitfusion import linux

MAX_MESSAGE = 64 << 10
MAX_SPARE_FAILURES = 3  # in a row; then the driver is to blame, and clients get to hear why


class Job(NamedTuple):
    """All that a worker is told."""

    session: str  # "" for a spare, which learns it later
    slot: int  # of the ledger
    driver: str
    devices: list[int]  # indexes in the driver
    environment: dict[str, str]
    user: str  # "" to stay who we are


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


class Nursery:
    """Runs in the nursery process."""

    def __init__(self, server: socket.socket, worker: Worker) -> None:
        self.server = server
        self.worker = worker
        self.workers: dict[int, int] = {}  # pid -> number that the server gave it
        self.spares: list[Spare] = []
        self.wanted = 0
        self.failures = 0
        self.pattern: Optional[Job] = None

    def run(self) -> None:
        signals = linux.open_signals(
            {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        )
        self.worker.load()
        selector = selectors.DefaultSelector()
        selector.register(self.server, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select(0 if self.lacks_spares() else None):
                if key.fd == signals:
                    linux.read_signals(signals)  # only wakes us: the end comes from the server
                    self.reap()
                elif not self.obey():
                    return
            if self.lacks_spares():
                self.add_spare()

    def obey(self) -> bool:
        try:
            data, fds, _flags, _from = socket.recv_fds(
                self.server, MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        if not data:
            return False
        order = json.loads(data)
        if order["order"] == "start":
            self.start(order["worker"], Job(*order["job"]), fds, order["cold"])
        elif order["order"] == "signal":
            self.signal(order["worker"], order["signal"])
        elif order["order"] == "spares":
            self.wanted, self.pattern = order["count"], Job(*order["job"])
        for fd in fds:
            os.close(fd)
        return True

    def start(self, number: int, job: Job, fds: list[int], cold: bool) -> None:
        pid = 0 if cold else self.wake_spare(job, fds)
        if not pid:
            try:
                pid = self.fork(job, fds)
            except OSError as error:
                self.tell({"event": "ended", "worker": number, "status": -1, "why": str(error)})
                return
        self.workers[pid] = number
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

    def reap(self) -> None:
        while self.workers or self.spares:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self.workers.pop(pid, None)
            if number is not None:
                self.tell({"event": "ended", "worker": number, "pid": pid, "status": status})
            for spare in [s for s in self.spares if s.pid == pid]:
                spare.socket.close()
                self.spares.remove(spare)
                self.failures += 1

    def tell(self, event: dict[str, object]) -> None:
        try:
            self.server.send(json.dumps(event).encode())
        except OSError:
            pass  # the server is gone; the next read says so

    def end(self) -> NoReturn:
        pids = [*self.workers, *(spare.pid for spare in self.spares)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        os._exit(0)


def become_worker(worker: Worker, job: Job, fds: list[int], parent: int) -> NoReturn:
    status = 1
    try:
        linux.set_process_name("bitfusion-work" if job.session else "bitfusion-spare")
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


def start(worker: Worker) -> tuple[int, socket.socket]:
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
        linux.close_all_but({theirs.fileno()})
        os.setsid()  # a signal to the server's group is not meant for the workers
        nursery = Nursery(theirs, worker)
        if os.getppid() == parent:
            nursery.run()
        nursery.end()
    finally:
        os._exit(1)
