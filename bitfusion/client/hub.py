# SPDX-License-Identifier: Apache-2.0
"""What becomes of a reservation's session, from the process that holds it to the programs that
use it: a line of JSON for each event. A line from a program whose end was a failure asks whether
the session is why.
"""

from __future__ import annotations

import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Optional, Protocol

from bitfusion import linux
from bitfusion.client.broker import PAUSE_S
from bitfusion.client.lease import SETTLE_S, VERDICT_S, Event, Mark
from bitfusion.errors import NoReservation, reason

ASK = b"why\n"
NOTHING = Event("", "", "")
SEND_TIME = struct.pack("ll", 1, 0)  # in s, us: for one that does not read, as it is stopped
MAX_PENDING = 64
GONE = Event("end", "lost", "they were released, or the process that held them was killed")


class Source(Protocol):
    """Of client/lease.py's Keeper."""

    def mark(self) -> Mark: ...

    def verdict(self, since: Mark) -> Optional[Event]: ...


class Hub:
    """The holder's end."""

    def __init__(self, path: str, source: Source) -> None:
        self._source = source
        self._programs: set[socket.socket] = set()
        self._changed = threading.Condition()  # guards them, and what is sent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(MAX_PENDING)

    def start(self) -> None:
        linux.start_thread(threading.Thread(target=self._accept, name="hub", daemon=True))

    def tell(self, event: Event) -> None:
        with self._changed:
            for program in self._programs:
                send(program, event)

    def wait_for_programs(self, patience_s: float) -> bool:
        """Until the last has ended, or that time has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._programs, patience_s)

    def close(self) -> None:
        for sock in (self._listener, *self._programs):
            sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                program, _address = self._listener.accept()
            except OSError as error:
                if error.errno not in linux.EXHAUSTED:
                    return  # closed
                time.sleep(PAUSE_S)  # of this thread only; it would spin
                continue
            program.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIME)
            thread = threading.Thread(target=self._serve, args=(program,), daemon=True)
            linux.start_thread(thread)

    def _serve(self, program: socket.socket) -> None:
        since = self._source.mark()
        with self._changed:
            self._programs.add(program)
        try:
            while program.recv(len(ASK)):
                event = self._source.verdict(since)
                with self._changed:
                    send(program, event or NOTHING, answer=True)
        except OSError:
            pass  # it ended
        with self._changed:
            self._programs.discard(program)
            self._changed.notify_all()
        program.close()


def send(program: socket.socket, event: Event, answer: bool = False) -> None:
    line = json.dumps({"answer": answer, **event._asdict()}).encode() + b"\n"
    try:
        program.sendall(line)
    except OSError:
        pass  # its thread notices the end


class Watch:
    """A program's end."""

    def __init__(self, path: str, tell: Callable[[Event], None]) -> None:
        """tell: called in a thread of its own. Raises NoReservation where nobody holds any."""
        self._tell = tell
        self._answers: queue.Queue[Optional[Event]] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            raise NoReservation(why=f"nobody holds any at '{path}': {reason(error)}") from None

    def start(self) -> None:
        linux.start_thread(threading.Thread(target=self._read, name="watch", daemon=True))

    def stop(self) -> None:
        """Nothing to do: there may be a question yet, and the holder notices our end."""

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def verdict(self) -> Optional[Event]:
        """After the program has failed: what ended its session, or broke."""
        try:
            self._socket.sendall(ASK)
            return self._answers.get(timeout=2 * (VERDICT_S + SETTLE_S))
        except (OSError, queue.Empty):
            return GONE

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    said = json.loads(line)
                    if said.pop("answer"):
                        self._answers.put(Event(**said) if said["kind"] else None)
                    else:
                        self._tell(Event(**said))
        except OSError:
            pass  # as at its end
        self._answers.put(GONE)
