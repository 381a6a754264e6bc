# SPDX-License-Identifier: Apache-2.0
"""The process that holds a reservation: it claims in the foreground, so that its user sees the
queue and can leave it, and then goes on alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn, Optional

from bitfusion import linux, log
from bitfusion.client import reservation
from bitfusion.client.broker import Broker, DataSource
from bitfusion.client.control import Session
from bitfusion.client.folder import RunFolder
from bitfusion.client.lease import Connect, Event, Keeper
from bitfusion.client.reservation import Reservation

READY = b"R"
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Held:
    """A session, and how to look after it."""

    def __init__(
        self,
        session: Session,
        connect: Optional[Connect] = None,
        lease_s: float = 0,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """connect: None for a private server, which ends with its connection."""
        self.session = session
        self.connect = connect
        self.lease_s = lease_s
        self.close = close


def start(path: str, claim: Callable[[], Held]) -> int:
    """Fork the holder. In the parent: 0 when the GPUs are held, else the holder's exit status; it
    has said why. In the holder it does not return; what `claim` raises, it raises.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _hold(path, claim(), writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        ready = pipe.read(1) == READY
    if ready:
        return 0
    _, status = os.waitpid(pid, 0)
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0) or 1


def _hold(path: str, held: Held, writer: int) -> NoReturn:
    linux.set_process_name("bitfusion-hold")
    folder = RunFolder()
    ends = linux.open_signals(ENDING, blocking=True)
    try:
        keeper = _keep(held)
        source: DataSource = keeper or held.session
        watched = -1 if keeper else held.session.channel.fileno()
        broker = Broker(folder.socket, source, watched, _end_ourselves)
        broker.start()
        if keeper:
            keeper.start()
        reservation.write(path, _describe(held.session, folder.socket))
        _leave_terminal()
        os.write(writer, READY)
        os.close(writer)
        linux.read_signals(ends)
        if keeper:
            keeper.stop()
        broker.stop()
    finally:
        folder.remove()
        reservation.remove(path)
        held.session.channel.close()
        held.close()
        os._exit(0)


def _keep(held: Held) -> Optional[Keeper]:
    if held.connect is None:
        return None

    def tell(event: Event) -> None:
        log.warn(event.text)
        if event.kind == "end":
            _end_ourselves()

    return Keeper(held.session, held.connect, held.lease_s, tell)


def _end_ourselves() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _describe(session: Session, path: str) -> Reservation:
    pid = os.getpid()
    return Reservation(
        pid,
        reservation.started_at(pid),
        path,
        session.software,
        len(session.gpus),
        session.channel.name,
        session.name,
    )


def _leave_terminal() -> None:
    os.setsid()
    linux.silence((0, 1, 2))
    os.chdir("/")
