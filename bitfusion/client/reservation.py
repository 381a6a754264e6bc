# SPDX-License-Identifier: Apache-2.0
"""Reservations: GPUs that are held while no program runs. A process holds the session and serves
the broker; a file says where, for `client` and `release_gpus`.

The file is /tmp/bitfusion and nine digits, readable by its owner alone. It tells the holder by
its pid and the moment it started, so that a file left behind is never taken for another process.
One whose GPUs were not released stays and says what became of them, until they are.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
import signal
import stat
import tempfile
import time
from typing import NamedTuple, Optional

from bitfusion import linux
from bitfusion.errors import NoReservation, NotReleased, SeveralReservations, SystemFailure, reason

STEM = "bitfusion"
DIGITS = 9
MAX_FILE = 64 << 10
RELEASE_PATIENCE_S = 10.0
LEFT_S = 86400.0  # for which a file is kept that its user does not release
STATE, START_TIME = 0, 19  # of a process's fields


class Reservation(NamedTuple):
    pid: int  # of the holder
    started: int  # in clock ticks since the machine's start
    socket: str  # of the broker
    events: str  # the socket that tells what becomes of it
    software: bool
    gpus: int
    server: str
    session: str
    ended: str = ""  # why, where it was not released

    def alive(self) -> bool:
        return not self.ended and started_at(self.pid) == self.started


def started_at(pid: int) -> int:
    """When a process started, in clock ticks; -1 of one that has ended, reaped or not: who is the
    first process of a container may reap nobody.
    """
    fields = linux.process_fields(pid)
    return int(fields[START_TIME]) if fields and fields[STATE] not in "ZX" else -1


def reserve_path() -> str:
    """A new file's, which is made and empty."""
    folder = tempfile.gettempdir()
    while True:
        path = os.path.join(folder, f"{STEM}{random.randrange(10**DIGITS):0{DIGITS}}")
        try:
            create(path)
        except FileExistsError:
            continue
        return path


def create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def create_named(path: str) -> None:
    """Like `create`, in the place of one whose holder is gone."""
    try:
        create(path)
    except FileExistsError:
        forget(path)
        create(path)


def write(path: str, reservation: Reservation) -> None:
    """Into a file that is there; whole, so that nobody reads half of it. Others may write to its
    folder, so what it is written to before has a name that nobody knows, and is made here.
    """
    fd, new = tempfile.mkstemp(prefix=".bitfusion", dir=os.path.dirname(path))
    try:
        with open(fd, "w") as file:
            json.dump(reservation._asdict(), file)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def remove(path: str) -> None:
    with contextlib.suppress(OSError):  # released by somebody else, or never written
        os.unlink(path)


def read(path: str) -> Reservation:
    """Raises NoReservation where it is none of this user's."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise NoReservation(why=f"'{path}' is another user's")
            value = json.loads(file.read(MAX_FILE))
        found = Reservation(*(value[field] for field in Reservation._fields))
    except OSError as error:
        raise NoReservation(why=f"'{path}': {reason(error)}") from None
    except (KeyError, TypeError, ValueError):
        raise NoReservation(why=f"'{path}' is not a reservation") from None
    numbers, texts = (found.pid, found.started, found.gpus), (found.socket, found.events)
    if not (
        all(isinstance(text, str) for text in (*texts, found.ended))
        and all(isinstance(number, int) and 0 < number < 1 << 62 for number in numbers)
        and 1 < found.pid < 1 << 31
    ):
        raise NoReservation(why=f"'{path}' is not a reservation")
    return found


def ours() -> tuple[list[str], list[str]]:
    """Files of this user's reservations: of those that are held, and of those whose holder is
    gone.
    """
    held: list[str] = []
    left: list[str] = []
    digits = "[0-9]" * DIGITS
    for path in sorted(glob.glob(os.path.join(tempfile.gettempdir(), STEM + digits))):
        try:
            if os.lstat(path).st_uid != os.geteuid():
                continue
            reservation = read(path)
        except (NoReservation, OSError):
            continue  # being made, or not ours at all
        (held if reservation.alive() else left).append(path)
    return held, left


def forget(path: str) -> None:
    """Remove what is left of a reservation; nothing where it is held, or is none."""
    with contextlib.suppress(NoReservation):
        if not read(path).alive():
            remove(path)


def sweep() -> None:
    """Remove what was left long ago."""
    for path in ours()[1]:
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime >= LEFT_S:
                remove(path)


def tell_fate(path: str, reservation: Reservation) -> str:
    """Of one whose holder is gone. A holder whose GPUs are released removes its file."""
    why = reservation.ended or (
        f"the process {reservation.pid} that held its GPUs was killed, or the machine restarted; "
        f"{reservation.server} has taken them back"
    )
    return f"'{path}': {why}"


def choose(given: Optional[str]) -> tuple[str, Reservation]:
    """The one that is named, or the only one there is."""
    if given is None:
        files, left = ours()
        if not files:
            why = "; ".join(tell_fate(path, read(path)) for path in left)
            raise NoReservation(why=why or "there is no reservation")
        if len(files) > 1:
            raise SeveralReservations(files=", ".join(f"'{file}'" for file in files))
        given = files[0]
    reservation = read(given)
    if not reservation.alive():
        raise NoReservation(why=tell_fate(given, reservation))
    return given, reservation


def release(path: str, reservation: Reservation) -> None:
    """End the holder, and wait until the GPUs are back."""
    try:
        os.kill(reservation.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise SystemFailure(what=f"release '{path}'", why=reason(error)) from None
    deadline = time.monotonic() + RELEASE_PATIENCE_S
    while reservation.alive():
        if time.monotonic() > deadline:
            raise NotReleased(file=path, pid=reservation.pid)
        time.sleep(0.02)
    remove(path)
