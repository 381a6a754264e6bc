# SPDX-License-Identifier: Apache-2.0
"""The process that forks workers: made early, so that no worker inherits a secret.

Server and nursery exchange datagrams (JSON, with descriptors beside them) over a Unix socket pair.
When the server goes, however it goes, the nursery sees the end of that socket, kills the workers
and ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Optional

from bitfusion import linux

MAX_MESSAGE = 64 << 10


class Job(NamedTuple):
    """All that a worker is told."""

    session: str
    slot: int  # of the ledger
    driver: str
    devices: list[int]  # indexes in the driver
    environment: dict[str, str]
    user: str  # "" to stay who we are


WorkerMain = Callable[[Job, int, int], int]  # job, data socket, ledger (-1: none) -> exit status


class Nursery:
    """Runs in the nursery process."""

    def __init__(self, server: socket.socket, main: WorkerMain) -> None:
        self.server = server
        self.main = main
        self.workers: dict[int, int] = {}  # pid -> number that the server gave it

    def run(self) -> None:
        signals = linux.open_signals(
            {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        )
        selector = selectors.DefaultSelector()
        selector.register(self.server, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fd == signals:
                    linux.read_signals(
                        signals
                    )  # only ever wakes us: the end comes from the server
                    self.reap()
                elif not self.obey():
                    return

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
            self.start(order["worker"], Job(*order["job"]), fds)
        elif order["order"] == "signal":
            self.signal(order["worker"], order["signal"])
        for fd in fds:
            os.close(fd)
        return True

    def start(self, number: int, job: Job, fds: list[int]) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.tell({"event": "ended", "worker": number, "status": -1, "why": str(error)})
            return
        if pid == 0:
            become_worker(self.main, job, fds[0], fds[1] if len(fds) > 1 else -1, parent)
        self.workers[pid] = number
        self.tell({"event": "started", "worker": number, "pid": pid})

    def signal(self, number: int, signal_number: int) -> None:
        for pid, known in self.workers.items():
            if known == number:  # ours and not yet waited for: the pid cannot be another's
                os.kill(pid, signal_number)

    def reap(self) -> None:
        while self.workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self.workers.pop(pid, None)
            if number is not None:
                self.tell({"event": "ended", "worker": number, "pid": pid, "status": status})

    def tell(self, event: dict[str, object]) -> None:
        try:
            self.server.send(json.dumps(event).encode())
        except OSError:
            pass  # the server is gone; the next read says so

    def end(self) -> NoReturn:
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self.workers):
            os.waitpid(pid, 0)
        os._exit(0)


def become_worker(main: WorkerMain, job: Job, data: int, ledger: int, parent: int) -> NoReturn:
    status = 1
    try:
        linux.set_process_name("bitfusion-work")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        linux.die_with_parent(signal.SIGKILL, parent)
        linux.close_all_but({data, ledger})
        status = main(job, data, ledger)
    except BaseException as error:
        sys.stderr.write(f"bitfusion worker of session {job.session}: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def start(main: WorkerMain, close: Optional[list[int]] = None) -> tuple[int, socket.socket]:
    """Fork the nursery; (its pid, our end of its socket)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        ours.setblocking(False)
        return pid, ours
    try:
        ours.close()
        for fd in close or ():
            os.close(fd)
        linux.set_process_name("bitfusion-nurse")
        os.setsid()  # a signal to the server's group is not meant for the workers
        nursery = Nursery(theirs, main)
        if os.getppid() == parent:
            nursery.run()
        nursery.end()
    finally:
        os._exit(1)
