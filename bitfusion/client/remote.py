# SPDX-License-Identifier: Apache-2.0
"""Runs a program whose session may end before it: one on a server of the network, or one that
another process holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Optional, Protocol

from bitfusion import log
from bitfusion.client.broker import Broker
from bitfusion.client.control import Session
from bitfusion.client.lease import Connect, Event, Keeper
from bitfusion.client.program import Program, has_failed
from bitfusion.wire.control import ENDS

END_PATIENCE_S = 10.0  # between asking the program to end and making it
Tell = Callable[[Event], None]


class Watch(Protocol):
    """Where it is heard what becomes of a session."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def verdict(self) -> Optional[Event]:
        """After the program has failed: whether that was because of its session."""


class Verdict:
    """Why a program's session is over; told once, by whoever knows first."""

    def __init__(self) -> None:
        self.why = ""
        self._lock = threading.Lock()

    def reach(self, why: str, text: str) -> None:
        with self._lock:
            if not self.why:
                log.error(text)
                self.why = why


def oversee(start: Callable[[], Program], watch: Callable[[Tell], Watch]) -> int:
    """The wait status of a program, which is ended when its session is; then one that says so."""
    verdict = Verdict()

    def tell(event: Event) -> None:
        if event.kind == "warn":
            log.warn(event.text)
            return
        verdict.reach(event.why, f"the run ends: {event.text}")
        program.end(END_PATIENCE_S)

    watching = watch(tell)
    program = start()  # forks, so before there are threads
    watching.start()
    status = program.wait()
    watching.stop()
    if not verdict.why and has_failed(status):
        event = watching.verdict()
        if event is not None:
            text = f"the program failed, as its GPUs were lost: {event.text}"
            verdict.reach(event.why, text)
    return ENDS[verdict.why] << 8 if verdict.why else status


class Remote:
    """For run_program's `keep`."""

    def __init__(self, connect: Connect, lease_s: float) -> None:
        self._connect = connect
        self._lease_s = lease_s

    def __call__(self, session: Session, path: str, start: Callable[[], Program]) -> int:
        return oversee(start, lambda tell: Kept(session, path, self._connect, self._lease_s, tell))


class Kept:
    """A session that this run keeps, with the broker for its program."""

    def __init__(
        self, session: Session, path: str, connect: Connect, lease_s: float, tell: Tell
    ) -> None:
        self._keeper = Keeper(session, connect, lease_s, tell)
        self._broker = Broker(path, self._keeper)
        self.verdict = self._keeper.verdict

    def start(self) -> None:
        self._broker.start()
        self._keeper.start()

    def stop(self) -> None:
        self._keeper.stop()
        self._broker.stop()
