# SPDX-License-Identifier: Apache-2.0
"""Runs a program whose session is on a server of the network; ends it when the session ends."""

from __future__ import annotations

from collections.abc import Callable

from bitfusion import log
from bitfusion.client.broker import Broker
from bitfusion.client.control import Session
from bitfusion.client.lease import Connect, Event, Keeper
from bitfusion.client.program import Program, has_failed
from bitfusion.wire.control import ENDS

END_PATIENCE_S = 10.0  # between asking the program to end and making it


class Remote:
    """For run_program's `keep`."""

    def __init__(self, connect: Connect, lease_s: float) -> None:
        self._connect = connect
        self._lease_s = lease_s
        self._ended = ""  # why

    def __call__(self, session: Session, path: str, start: Callable[[], Program]) -> int:
        def tell(event: Event) -> None:
            if event.kind == "warn":
                log.warn(event.text)
                return
            self._ended = event.why
            log.error(f"the run ends: {event.text}")
            program.end(END_PATIENCE_S)

        keeper = Keeper(session, self._connect, self._lease_s, tell)
        broker = Broker(path, keeper)
        program = start()  # forks, so before there are threads
        broker.start()
        keeper.start()
        status = program.wait()
        keeper.stop()
        broker.stop()
        if not self._ended and has_failed(status):
            event = keeper.verdict()
            if event is not None:
                self._ended = event.why
                log.error(f"the program failed, as its GPUs were lost: {event.text}")
        return ENDS[self._ended] << 8 if self._ended else status
