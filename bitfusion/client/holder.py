# SPDX-License-Identifier: Apache-2.0
"""The process that holds a reservation: it claims in the foreground, so that its user sees the
queue and can leave it, and then goes on alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn, Optional

from bitfusion import linux
from bitfusion.client import reservation
from bitfusion.client.broker import Broker
from bitfusion.client.channels import is_dead
from bitfusion.client.control import Session
from bitfusion.client.folder import RunFolder
from bitfusion.client.hub import Hub
from bitfusion.client.lease import Connect, Event, Keeper, Mark
from bitfusion.client.remote import END_PATIENCE_S
from bitfusion.client.reservation import Reservation
from bitfusion.errors import NoReservation

READY = b"R"
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LOST = Event("end", "lost", "the private server is gone")


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
    has said why. In the holder it does not return; what `claim` raises, it raises. When the parent
    is killed before GPUs are held, nobody would know of them: then it raises KeyboardInterrupt.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        # SIGINT would not do: what a shell starts in the background ignores it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        linux.die_with_parent(signal.SIGTERM, parent)
        _hold(path, claim(), writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        ready = pipe.read(1) == READY
    if ready:
        _read_back(path, pid)
        return 0
    _, status = os.waitpid(pid, 0)
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0) or 1


def _read_back(path: str, holder: int) -> None:
    """What nobody can read nobody could release: then the holder ends."""
    try:
        if reservation.read(path).pid != holder:
            raise NoReservation(why=f"'{path}' was written by somebody else")
    except NoReservation:
        os.kill(holder, signal.SIGTERM)
        os.waitpid(holder, 0)
        raise


def _hold(path: str, held: Held, writer: int) -> NoReturn:
    linux.set_process_name("bitfusion-hold")
    folder = RunFolder()
    ends = linux.open_signals(ENDING, blocking=True)
    holder = Holder(path, held, folder)
    try:
        holder.start()
        _leave_terminal()
        linux.outlive_parent()
        os.write(writer, READY)  # fails where the parent is gone already
        os.close(writer)
        linux.read_signals(ends)
        holder.stop()
    finally:
        folder.remove()
        if not holder.ended:
            reservation.remove(path)
        held.session.channel.close()
        held.close()
    os._exit(0)


class Holder:
    """The session, and what programs use it by."""

    def __init__(self, path: str, held: Held, folder: RunFolder) -> None:
        self.ended = False  # before it was released
        self._path = path
        self._held = held
        self._folder = folder
        self._source: Private | Keeper = Private(held.session)
        if held.connect is not None:
            self._source = Keeper(held.session, held.connect, held.lease_s, self._tell)

    def start(self) -> None:
        session, source, folder = self._held.session, self._source, self._folder
        private = isinstance(source, Private)
        watched = session.channel.fileno() if private else -1
        self._broker = Broker(folder.socket, source, watched, lambda: self._tell(LOST))
        self._hub = Hub(folder.events, source)
        reservation.write(self._path, self._describe())
        self._broker.start()
        self._hub.start()
        if isinstance(source, Keeper):
            source.start()

    def stop(self) -> None:
        """Programs whose session has ended have the time to end that they would have alone."""
        if self.ended:
            self._hub.wait_for_programs(END_PATIENCE_S)
        self._hub.close()
        if isinstance(self._source, Keeper):
            self._source.stop()
        self._broker.stop()

    def _tell(self, event: Event) -> None:
        ends = event.kind == "end"
        if ends:
            self.ended = True
            with contextlib.suppress(OSError):  # then nobody is told who comes later
                reservation.write(self._path, self._describe(f"they ended: {event.text}"))
        self._hub.tell(event)  # whose program then ends may start another
        if ends:
            os.kill(os.getpid(), signal.SIGTERM)

    def _describe(self, ended: str = "") -> Reservation:
        session, pid = self._held.session, os.getpid()
        return Reservation(
            pid,
            reservation.started_at(pid),
            self._folder.socket,
            self._folder.events,
            session.software,
            len(session.gpus),
            session.channel.name,
            session.name,
            ended,
        )


class Private:
    """A session of a private server, which ends with its connection."""

    def __init__(self, session: Session) -> None:
        self.open_data = session.open_data
        self._channel = session.channel

    def mark(self) -> Mark:
        return Mark()

    def verdict(self, since: Mark) -> Optional[Event]:
        return LOST if is_dead(self._channel) else None


def _leave_terminal() -> None:
    os.setsid()
    linux.silence((0, 1, 2))
    os.chdir("/")
