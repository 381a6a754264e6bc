# SPDX-License-Identifier: Apache-2.0
"""The server's side of the nursery: orders out, ends of workers in; never blocks."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable

from bitfusion import log
from bitfusion.server import nursery
from bitfusion.server.loop import READ, WRITE, Loop
from bitfusion.server.nursery import Job, Worker

Ended = Callable[[int, str], None]  # worker's number, how


class Workers:
    def __init__(self, loop: Loop, worker: Worker, ended: Ended) -> None:
        self._loop = loop
        self._worker = worker
        self._spares: dict[str, object] = {}
        self._ended = ended
        self._orders: deque[tuple[bytes, list[int]]] = deque()
        self._alive: dict[int, int] = {}  # number -> pid, 0 while it starts
        self._stopping = False
        self._start_nursery()

    def _start_nursery(self) -> None:
        self.pid, self._socket = nursery.start(self._worker)
        self._loop.watch(self._socket.fileno(), READ, self._ready)
        if self._spares:
            self._order(self._spares, [])

    def keep_spares(self, count: int, job: Job) -> None:
        """Keep so many workers ready for jobs like this one."""
        self._spares = {"order": "spares", "count": count, "job": job}
        self._order(self._spares, [])

    def start(self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool) -> None:
        """cold: not a spare, because the program sets what a driver reads only at its start."""
        self._alive[number] = 0
        fds = [data.fileno()] + ([ledger] if ledger >= 0 else [])
        self._order({"order": "start", "worker": number, "job": job, "cold": cold}, fds)

    def signal(self, number: int, signal_number: int) -> None:
        self._order({"order": "signal", "worker": number, "signal": signal_number}, [])

    def _order(self, order: dict[str, object], fds: list[int]) -> None:
        """Queue with descriptors of our own: the caller closes its copies."""
        self._orders.append((json.dumps(order).encode(), [os.dup(fd) for fd in fds]))
        self._send()

    def _send(self) -> None:
        while self._orders:
            data, fds = self._orders[0]
            try:
                socket.send_fds(self._socket, [data], fds)
            except BlockingIOError:
                break
            except OSError:
                self._orders.clear()  # the nursery is dead; the read side tells everybody
                break
            self._orders.popleft()
            for fd in fds:
                os.close(fd)
        self._loop.watch(
            self._socket.fileno(), READ | WRITE if self._orders else READ, self._ready
        )

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & READ:
            self._hear()

    def _hear(self) -> None:
        try:
            data = self._socket.recv(nursery.MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        event = json.loads(data)
        number = event["worker"]
        if event["event"] == "started" and number in self._alive:
            self._alive[number] = event["pid"]
        elif event["event"] == "ended" and self._alive.pop(number, None) is not None:
            self._ended(number, event.get("why") or describe_end(event["status"]))

    def _lost(self) -> None:
        """The nursery was killed, and its workers with it."""
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        os.waitpid(self.pid, 0)
        if self._stopping:
            return
        log.error("the nursery of workers was killed; starting another")
        self._orders.clear()
        lost, self._alive = self._alive, {}
        for number in lost:
            self._ended(number, "ended with the nursery")
        self._start_nursery()

    def stop(self) -> None:
        """End all workers, and wait for it: the nursery kills them when our socket closes."""
        self._stopping = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        os.waitpid(self.pid, 0)


def describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.strsignal(number)})"
    return f"ended with status {os.WEXITSTATUS(status)}"
