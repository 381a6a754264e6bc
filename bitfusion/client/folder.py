# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: private, removed at its end, and by the next run where a launcher was
killed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Optional

from bitfusion import paths
from bitfusion.errors import SystemFailure

LOCK = "lock"
SOCKET = "broker"
EVENTS = "events"
LIBRARIES = "libraries-"  # and a digest: links to folders whose names the loader would split
ATTEMPTS = 20


class RunFolder:
    """Holds a lock as long as its owner lives, so that others can tell a folder in use from a
    leftover.
    """

    def __init__(self) -> None:
        base = private_base()
        remove_leftovers(base)
        for _ in range(ATTEMPTS):
            self.path = os.path.join(base, f"run-{os.urandom(6).hex()}")
            try:
                os.mkdir(self.path, 0o700)
                lock = take_lock(os.path.join(self.path, LOCK))
            except OSError as error:
                why = str(error.strerror)
                raise SystemFailure(what=f"make folder '{self.path}'", why=why) from None
            if lock is not None:
                self._lock = lock
                return
        raise SystemFailure(what=f"make a folder in '{base}'", why="others keep removing it")

    @property
    def socket(self) -> str:
        return os.path.join(self.path, SOCKET)

    @property
    def events(self) -> str:
        """Of a reservation's folder."""
        return os.path.join(self.path, EVENTS)

    def remove(self) -> None:
        remove(self.path)
        os.close(self._lock)


def take_lock(path: str) -> Optional[int]:
    """Make the lock of a new folder and take it; None where another run took the folder for a
    leftover meanwhile: it removes folders that nobody has locked, and ours was one until now.
    """
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def private_base() -> str:
    """A folder of ours that nobody else can write to; a squatted name is refused."""
    base = paths.runtime_folder()
    try:
        os.makedirs(base, 0o700, exist_ok=True)
        status = os.lstat(base)
    except OSError as error:
        raise SystemFailure(what=f"make folder '{base}'", why=str(error.strerror)) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SystemFailure(
            what=f"use folder '{base}'",
            why="it is not ours alone",
            hint="remove it, or set TMPDIR to another folder",
        )
    return base


def remove(path: str) -> None:
    for name in (SOCKET, EVENTS, LOCK):
        unlink(os.path.join(path, name))
    try:
        os.rmdir(path)
    except OSError:
        pass


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody was faster


def remove_leftovers(base: str) -> None:
    for name in os.listdir(base):
        path = os.path.join(base, name)
        if name.startswith(LIBRARIES) and not os.path.exists(path):
            unlink(path)  # to an installation that is gone
        elif name.startswith("run-"):
            try:
                lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                remove(path)  # its owner was killed early, or will make another
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            except OSError:
                pass  # in use
            finally:
                os.close(lock)
