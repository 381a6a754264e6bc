# SPDX-License-Identifier: Apache-2.0
"""The workers, in one nursery of this server's and in those of earlier ones that it took over."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from bitfusion import log
from bitfusion.executor.core import ENDED_MEMORY
from bitfusion.server import nursery
from bitfusion.server.link import Link
from bitfusion.server.loop import Loop
from bitfusion.server.nursery import Door, Job, Worker

Ended = Callable[[int, str, bool], None]  # worker's number, how, whether by others
RETRY_S = 0.5
RELIEVE_S = 0.1
END_PATIENCE_S = 5.0


class Kept(NamedTuple):
    """A session, as nurseries keep it."""

    record: dict[str, object]
    ledger: int  # its descriptor, the session's own; -1 for none


class Alive:
    """A worker that runs."""

    def __init__(self, link: Optional[Link], pid: int = 0) -> None:
        self.link = link
        self.pid = pid  # 0 while it starts


class Workers:
    def __init__(
        self,
        loop: Loop,
        worker: Worker,
        ended: Ended,
        open_door: Callable[[], Optional[Door]] = lambda: None,
    ) -> None:
        """open_door: where the next server may come in; None where the workers end with this
        one.
        """
        self._loop = loop
        self._worker = worker
        self._open_door = open_door
        self._spares: dict[str, object] = {}
        self._ended = ended
        self._alive: dict[int, Alive] = {}  # by number
        self._kept: dict[str, Kept] = {}
        self._stopping = False
        self._own: Optional[Link] = None  # None while there is no nursery
        self._earlier: list[Link] = []
        self._start_nursery()

    def _start_nursery(self) -> None:
        door = self._open_door()
        try:
            self.pid, sock = nursery.start(self._worker, door)
        finally:
            if door is not None:
                door.listener.close()
        self._own = Link(self._loop, sock, self._hear, self._lost)
        if self._spares:
            self._own.order(self._spares)
        for session in self._kept:
            self._send_kept(session)

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
        if self._own is not None:
            self._own.order(self._spares)

    def start(self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool) -> None:
        """Takes the data connection over, and the ledger not. cold: not a spare, because the
        program sets what a driver reads only at its start.
        """

        def failed(why: str) -> None:
            self._loop.after(0, lambda: self._end(number, why, True))

        self._alive[number] = Alive(self._own)
        if self._own is None:
            data.close()
            failed("found no nursery")
            return
        order = {"order": "start", "worker": number, "job": job, "cold": cold}
        self._own.order(order, data, ledger, lambda why: failed(f"was not started: {why}"))

    def pid_of(self, number: int) -> int:
        """0 while it starts, and when it is gone."""
        alive = self._alive.get(number)
        return alive.pid if alive else 0

    def signal(self, number: int, signal_number: int) -> None:
        alive = self._alive.get(number)
        if alive is not None and alive.link is not None:
            alive.link.order({"order": "signal", "worker": number, "signal": signal_number})

    # ------------------------------------------ for the next server

    def keep(self, session: str, record: dict[str, object], ledger: int = -1) -> None:
        """Have the nursery keep it; again when there is more to know."""
        self._kept[session] = Kept(record, ledger)
        self._send_kept(session)

    def _send_kept(self, session: str) -> None:
        kept = self._kept[session]
        if self._own is not None:
            order: dict[str, object] = {"order": "keep", "session": session, "record": kept.record}
            self._own.order(order, None, kept.ledger)

    def drop(self, session: str) -> None:
        if self._kept.pop(session, None) is not None:
            for link in self._links():
                link.order({"order": "drop", "session": session})

    def _links(self) -> list[Link]:
        return [*self._earlier, *([self._own] if self._own else [])]

    def take_over(self, sock: socket.socket, workers: dict[int, int]) -> None:
        """The nursery of an earlier server, with its workers' pids by number."""
        link = Link(self._loop, sock, self._hear, self._lost)
        self._earlier.append(link)
        for number, pid in workers.items():
            self._alive[number] = Alive(link, pid)

    def relieve(self) -> None:
        """Earlier nurseries have nothing to do but end with their workers; once all that they
        keep is on its way to ours, which no end of this process can stop then.
        """
        if self._own is None or self._own.pending:
            self._loop.after(RELIEVE_S, self.relieve)
            return
        for link in self._earlier:
            for session in self._kept:
                link.order({"order": "drop", "session": session})
            link.order({"order": "leave"})

    # ------------------------------------------ events

    def _hear(self, event: dict[str, Any]) -> None:
        number = event.get("worker", 0)
        if event["event"] == "started" and number in self._alive:
            self._alive[number].pid = event["pid"]
        elif event["event"] == "ended":
            why, status = event.get("why"), event["status"]
            killed = not why and (os.WIFSIGNALED(status) or held_too_much(status))
            self._end(number, why or describe_end(status), killed)
        elif event["event"] == "trouble":
            log.error(f"the nursery of workers: {event['why']}")

    def _end(self, number: int, how: str, killed: bool) -> None:
        if self._alive.pop(number, None) is not None:
            self._ended(number, how, killed)

    def _lost(self, link: Link) -> None:
        """A nursery was killed, and its workers with it; or an earlier one is done."""
        mine = link is self._own
        if mine:
            self._own = None
            os.waitpid(self.pid, 0)
            log.error("the nursery of workers was killed; starting another")
        else:
            self._earlier.remove(link)
        for number in [n for n, alive in self._alive.items() if alive.link is link]:
            self._end(number, "ended with the nursery", True)
        if mine:
            self._restart_nursery()

    # ------------------------------------------ the server's end

    def leave(self) -> None:
        """Let them live, for the next server; where there is nothing to keep, end."""
        if not self._kept:
            self.stop()
            return
        self._stopping = True
        for link in self._links():
            link.flush()
            link.close()

    def stop(self) -> None:
        """End all workers, and wait for it."""
        self._stopping = True
        for link in self._links():
            link.order({"order": "end"})
            link.flush()
        for link in self._links():
            link.wait_for_end(END_PATIENCE_S)
        if self._own is not None:
            self._own = None
            os.waitpid(self.pid, 0)


def held_too_much(status: int) -> bool:
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == ENDED_MEMORY


def describe_end(status: int) -> str:
    if held_too_much(status):
        return (
            "was ended: its session held more of that machine's memory than 'host_memory' allows"
        )
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.strsignal(number)})"
    return f"ended with status {os.WEXITSTATUS(status)}"
