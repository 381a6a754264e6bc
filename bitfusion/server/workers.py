# SPDX-License-Identifier: Apache-2.0
"""The server's side of the nursery: orders out, ends of workers in; never blocks."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Optional

from bitfusion import log
from bitfusion.server import nursery
from bitfusion.server.loop import READ, WRITE, Loop
from bitfusion.server.nursery import Job, Worker

Ended = Callable[[int, str], None]  # worker's number, how
RETRY_S = 0.5


class Order(NamedTuple):
    text: bytes
    data: Optional[socket.socket] = None  # ours until it is sent
    ledger: int = -1  # its session's, which outlives the order

    def descriptors(self) -> list[int]:
        fds = [self.data.fileno()] if self.data else []
        return fds + ([self.ledger] if self.ledger >= 0 else [])

    def close(self) -> None:
        if self.data:
            self.data.close()


class Workers:
    def __init__(self, loop: Loop, worker: Worker, ended: Ended) -> None:
        self._loop = loop
        self._worker = worker
        self._spares: dict[str, object] = {}
        self._ended = ended
        self._orders: deque[Order] = deque()
        self._alive: dict[int, int] = {}  # number -> pid, 0 while it starts
        self._stopping = False
        self._socket: Optional[socket.socket] = None  # None while there is no nursery
        self._start_nursery()

    def _start_nursery(self) -> None:
        self.pid, self._socket = nursery.start(self._worker)
        self._loop.watch(self._socket.fileno(), READ, self._ready)
        if self._spares:
            self._order(self._spares)

    def _restart_nursery(self) -> None:
        try:
            if not self._stopping:
                self._start_nursery()
        except OSError as error:
            log.once(f"cannot start the nursery of workers, trying again: {error.strerror}")
            self._loop.after(RETRY_S, self._restart_nursery)

    def keep_spares(self, count: int, job: Job) -> None:
        """Keep so many workers ready for jobs like this one."""
        self._spares = {"order": "spares", "count": count, "job": job}
        self._order(self._spares)

    def start(self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool) -> None:
        """Takes the data connection over, and the ledger not. cold: not a spare, because the
        program sets what a driver reads only at its start.
        """
        self._alive[number] = 0
        order = {"order": "start", "worker": number, "job": job, "cold": cold}
        self._order(order, data, ledger)
        if self._socket is None:
            self._loop.after(0, lambda: self._end(number, "found no nursery"))

    def pid_of(self, number: int) -> int:
        """0 while it starts, and when it is gone."""
        return self._alive.get(number, 0)

    def signal(self, number: int, signal_number: int) -> None:
        self._order({"order": "signal", "worker": number, "signal": signal_number})

    def _order(
        self, order: dict[str, object], data: Optional[socket.socket] = None, ledger: int = -1
    ) -> None:
        self._orders.append(Order(json.dumps(order).encode(), data, ledger))
        self._send()

    def _drop_orders(self) -> None:
        while self._orders:
            self._orders.popleft().close()

    def _send(self) -> None:
        if self._socket is None:
            self._drop_orders()
            return
        while self._orders:
            order = self._orders[0]
            try:
                socket.send_fds(self._socket, [order.text], order.descriptors())
            except BlockingIOError:
                break
            except OSError:
                self._drop_orders()  # the nursery is dead; the read side tells everybody
                break
            self._orders.popleft().close()
        self._loop.watch(
            self._socket.fileno(), READ | WRITE if self._orders else READ, self._ready
        )

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & READ:
            self._hear()

    def _hear(self) -> None:
        assert self._socket is not None
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
        elif event["event"] == "ended":
            self._end(number, event.get("why") or describe_end(event["status"]))

    def _end(self, number: int, how: str) -> None:
        if self._alive.pop(number, None) is not None:
            self._ended(number, how)

    def _lost(self) -> None:
        """The nursery was killed, and its workers with it."""
        self._close()
        log.error("the nursery of workers was killed; starting another")
        self._drop_orders()
        for number in list(self._alive):
            self._end(number, "ended with the nursery")
        self._restart_nursery()

    def stop(self) -> None:
        """End all workers, and wait for it: the nursery kills them when our socket closes."""
        self._stopping = True
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
            os.waitpid(self.pid, 0)


def describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.strsignal(number)})"
    return f"ended with status {os.WEXITSTATUS(status)}"
