# SPDX-License-Identifier: Apache-2.0
"""The folder that a server keeps between its runs: one server's at a time, its owner's alone.

Sockets in it are reached through the folder's descriptor: a path in it may be longer than a Unix
socket's address can be.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import socket
import stat
from collections.abc import Iterator

from bitfusion.errors import StateFolderInUse, SystemFailure

ADMIN = "admin"
LOCK = "lock"
SERVER_ID = "server.id"


def user_name(uid: int) -> str:
    import pwd

    try:
        return f"'{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return str(uid)


OTHERS_HINT = "set state_dir in [server] to another one, or do this as its owner or as root"


class StateFolder:
    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            os.makedirs(self.path, 0o700, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from None
        status = os.fstat(self._fd)
        self._owner, self._group = status.st_uid, status.st_gid
        others = self._owner != os.geteuid() and os.geteuid() != 0
        if others or stat.S_IMODE(status.st_mode) & 0o022:
            os.close(self._fd)
            raise SystemFailure(
                what=f"use folder '{self.path}'",
                why="it is another user's" if others else "others may write to it",
                hint=OTHERS_HINT if others else f"chmod go-w {shlex.quote(self.path)}",
            )

    @classmethod
    def existing(cls, path: str) -> StateFolder:
        """Raises FileNotFoundError where there is none, rather than make it."""
        os.stat(path)
        return cls(path)

    @contextlib.contextmanager
    def as_owner(self) -> Iterator[None]:
        """What root makes here belongs to the folder's owner: the service could not use it else.

        Root works as that user meanwhile, which no link that the user left here leads astray.
        """
        if os.geteuid() == self._owner:
            yield
            return
        os.setegid(self._group)
        os.seteuid(self._owner)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    def _unusable(self, error: OSError) -> SystemFailure:
        why = (error.strerror or str(error)).lower()
        hint = "set state_dir in [server] to a folder that the server may write to"
        return SystemFailure(what=f"use folder '{self.path}'", why=why, hint=hint)

    def lock(self) -> None:
        """Be the only server in it, until this process ends."""
        if self._owner != os.geteuid():
            raise SystemFailure(
                what=f"serve from folder '{self.path}'",
                why=f"it belongs to user {user_name(self._owner)}",
                hint="'systemctl start bitfusion-server' serves as that user; or set state_dir",
            )
        try:
            lock = os.open(LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StateFolderInUse(path=self.path) from None
        self._lock = lock

    def server_id(self) -> str:
        """This server's name for good: 16 hexadecimal digits, made once."""
        path = os.path.join(self.path, SERVER_ID)
        try:
            with open(path) as file:
                known = file.read(32).strip()
        except FileNotFoundError:
            known = ""
        if len(known) == 16 and all(c in "0123456789abcdef" for c in known):
            return known
        made = os.urandom(8).hex()
        with open(f"{path}.new", "w") as file:
            file.write(f"{made}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
        return made

    def sockets(self, prefix: str) -> list[str]:
        """Names of sockets in it that begin so."""
        return sorted(name for name in os.listdir(self._fd) if name.startswith(prefix))

    def bind(self, name: str, kind: int) -> socket.socket:
        """A socket of that name for us alone, in place of what is left there; not listening."""
        self.remove(name)
        sock = socket.socket(socket.AF_UNIX, kind)
        mask = os.umask(0o177)
        try:
            sock.bind(self._reach(name))
        except OSError as error:
            sock.close()
            raise self._unusable(error) from None
        finally:
            os.umask(mask)
        return sock

    def connect(self, name: str, kind: int, timeout_s: float) -> socket.socket:
        """Raises OSError where nobody listens."""
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(timeout_s)
        try:
            sock.connect(self._reach(name))
        except OSError:
            sock.close()
            raise
        return sock

    def _reach(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd}/{name}"

    def remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            pass

    def fileno(self) -> int:
        return self._fd
