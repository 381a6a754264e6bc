# SPDX-License-Identifier: Apache-2.0
"""The state of a server that is a cluster of its own: a SQLite file in its state_dir.

Everything is read at the start and written through. Commands of the same machine may write too
(`bitfusion token`): SQLite says cheaply whether somebody else did, and is asked often. That there
is one server only is for the folder's lock to see to. Keys under
a lease never reach the file, because they end with the process anyway.

Statements run in the loop. They are few and touch a few pages of a file that the system keeps in
memory, and no commit but one of hundreds waits for the disk (write-ahead log, synchronous=NORMAL):
after a power failure the last changes may be missing, but the file is whole. A thread puts the log
back into the file (tidy.py), which waits for the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Optional

from bitfusion import log
from bitfusion.errors import StoreUnusable
from bitfusion.server.loop import Timers
from bitfusion.server.store import (
    ABSENT,
    APPLIED,
    CONFLICT,
    UNAVAILABLE,
    Change,
    Changed,
    Check,
    Done,
    matches,
    validate,
)
from bitfusion.server.tidy import Tidier
from bitfusion.wire.control import Json, unpack_object

FILE = "state.db"
SCHEMA = 1
POLL_S = 0.25
BUSY_RETRY_S = 0.02
BUSY_TRIES = 100  # 2 s: whoever else writes does so in milliseconds
TIDY_S = 5.0
COMPLAIN_S = 60.0
LEASED_VERSIONS = 1 << 62  # versions of keys that are not in the file begin here

# A row that is replaced gets a new version, and AUTOINCREMENT never gives one twice.
TABLE = """create table if not exists entries (
    version integer primary key autoincrement, key text not null unique, value text not null)"""


class Pending(NamedTuple):
    changes: Sequence[Change]
    checks: Sequence[Check]
    done: Done


class SqliteStore:
    def __init__(self, state_dir: str, timers: Timers) -> None:
        self.where = os.path.join(state_dir, FILE)
        self._folder = state_dir
        self._timers = timers
        self._database: Optional[sqlite3.Connection] = None
        self._known: dict[str, int] = {}  # versions of the keys in the file
        self._leased: dict[str, tuple[Json, int]] = {}
        self._last_leased = LEASED_VERSIONS
        self._data_version = 0
        self._pending: deque[Pending] = deque()
        self._tries = 0
        self._tidier: Optional[Tidier] = None
        self._complaint, self._complained_s = "", float("-inf")
        self.failures, self.trouble = 0, ""
        self._changed: Changed = lambda _key, _value, _version: None
        self._state: Callable[[bool], None] = lambda _synced: None

    # ------------------------------------------ opening

    def open(self, changed: Changed, state: Callable[[bool], None]) -> None:
        self._changed, self._state = changed, state
        try:
            self._database = connect(self.where)
            self._tidier = Tidier(self.where)
            rows = self._database.execute("select key, version, value from entries").fetchall()
            first = [(key, version, unpack(value)) for key, version, value in rows]
            self._data_version = self._read_data_version()
        except (OSError, sqlite3.Error, ValueError) as error:
            self.close()
            raise unusable(self._folder, error) from None
        except StoreUnusable:
            self.close()
            raise
        self._timers.after(0, lambda: self._start(first))

    def _start(self, rows: Iterable[tuple[str, int, Json]]) -> None:
        if self._database is None:
            return
        for key, version, value in rows:
            self._known[key] = version
            self._changed(key, value, version)
        self._state(True)
        self._poll()
        self._timers.after(TIDY_S, self._tidy)

    # ------------------------------------------ others' changes

    def _read_data_version(self) -> int:
        assert self._database is not None
        return int(self._database.execute("pragma data_version").fetchone()[0])

    def _poll(self) -> None:
        if self._database is None:
            return
        try:
            self._look()
        except (sqlite3.Error, ValueError) as error:
            self._complain(error)
        self._timers.after(POLL_S, self._poll)

    def _look(self) -> None:
        assert self._database is not None
        version = self._read_data_version()
        if version == self._data_version:
            return
        rows = self._database.execute("select key, version from entries").fetchall()
        now: dict[str, int] = dict(rows)
        for key in [key for key in self._known if key not in now]:
            del self._known[key]
            self._changed(key, None, ABSENT)
        for key, number in now.items():
            if self._known.get(key) != number:
                self._tell_row(key)
        self._data_version = version

    def _tell_row(self, key: str) -> None:
        assert self._database is not None
        row = self._database.execute(
            "select version, value from entries where key = ?", (key,)
        ).fetchone()
        if row is not None:  # else the next look tells it
            self._known[key] = row[0]
            self._changed(key, unpack(row[1]), row[0])

    # ------------------------------------------ our changes

    def commit(self, changes: Sequence[Change], done: Done, checks: Sequence[Check] = ()) -> None:
        validate(changes, checks)
        self._pending.append(Pending(changes, checks, done))
        if len(self._pending) == 1:
            self._timers.after(0, self._work)

    def _work(self) -> None:
        """One transaction, then back to the loop."""
        if not self._pending:
            return
        pending = self._pending[0]
        try:
            outcome = self._carry_out(pending)
            if outcome == CONFLICT:
                self._look()  # who was quicker may be another process
        except sqlite3.Error as error:
            self._tries += 1
            if is_busy(error) and self._tries < BUSY_TRIES:
                self._timers.after(BUSY_RETRY_S, self._work)
                return
            self._complain(error)
            self.failures += 1
            self.trouble = str(unusable(self._folder, error))
            outcome = UNAVAILABLE
        self._tries = 0
        self._pending.popleft()
        if self._pending:
            self._timers.after(0, self._work)
        pending.done(outcome)

    def _carry_out(self, pending: Pending) -> str:
        if self._database is None:
            return UNAVAILABLE
        expected = [(c.key, c.expected) for c in pending.changes] + list(pending.checks)
        versions = {}
        told: list[tuple[str, Optional[Json], int]] = []
        with transaction(self._database):
            for key, wanted in expected:
                versions[key] = self._version(key)
                if not matches(wanted, versions[key]):
                    return CONFLICT
            for change in pending.changes:
                told += self._write(change, versions[change.key])
        for key, value, version in told:
            self._remember(key, value, version)
            self._changed(key, value, version)
        return APPLIED

    def _version(self, key: str) -> int:
        assert self._database is not None
        if key in self._leased:
            return self._leased[key][1]
        row = self._database.execute(
            "select version from entries where key = ?", (key,)
        ).fetchone()
        return row[0] if row else ABSENT

    def _write(self, change: Change, was: int) -> list[tuple[str, Optional[Json], int]]:
        """To the file; what memory is told waits until the transaction has held."""
        assert self._database is not None
        in_file = ABSENT < was < LEASED_VERSIONS
        if in_file and (change.value is None or change.lease):
            self._database.execute("delete from entries where key = ?", (change.key,))
            self._wrote()
        if change.value is None:
            return [(change.key, None, ABSENT)] if was else []
        if change.lease:
            self._last_leased += 1
            return [(change.key, change.value, self._last_leased)]
        cursor = self._database.execute(
            "replace into entries (key, value) values (?, ?)",
            (change.key, json.dumps(change.value, separators=(",", ":"))),
        )
        self._wrote()
        assert cursor.lastrowid is not None
        return [(change.key, change.value, cursor.lastrowid)]

    def _wrote(self) -> None:
        if self._tidier is not None:
            self._tidier.wrote()

    def _remember(self, key: str, value: Optional[Json], version: int) -> None:
        self._known.pop(key, None)
        self._leased.pop(key, None)
        if value is not None and version > LEASED_VERSIONS:
            self._leased[key] = (value, version)
        elif value is not None:
            self._known[key] = version

    # ------------------------------------------ upkeep

    def _tidy(self) -> None:
        if self._tidier is None:
            return
        if self._tidier.error is not None:
            self._complain(self._tidier.error)
        self._tidier.tidy()
        self._timers.after(TIDY_S, self._tidy)

    def _complain(self, error: Exception) -> None:
        """Once a minute: the log may fill the disk, and what needs no room works meanwhile."""
        text, now_s = str(unusable(self._folder, error)), time.monotonic()
        if text != self._complaint or now_s - self._complained_s >= COMPLAIN_S:
            self._complaint, self._complained_s = text, now_s
            log.error(text)

    def close(self) -> None:
        if self._tidier is not None:
            self._tidier.close()
            self._tidier = None
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


# ---------------------------------------------- the file


def connect(path: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # not for others' eyes
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        schema = int(database.execute("pragma user_version").fetchone()[0])
        if schema > SCHEMA:
            raise StoreUnusable(
                where=path,
                why=f"a newer version of Bitfusion wrote it (format {schema}, ours is {SCHEMA})",
                hint="install that version again, or give [server] another state_dir",
            )
        database.execute("pragma journal_mode=wal").fetchone()
        database.execute("pragma synchronous=normal")
        database.execute("pragma wal_autocheckpoint=0")
        if schema == 0:
            with transaction(database):
                database.execute(TABLE)
                database.execute(f"pragma user_version={SCHEMA}")
    except BaseException:
        database.close()
        raise
    return database


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("begin immediate")
    try:
        yield
        database.execute("commit")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("rollback")
        raise


def unpack(value: str) -> Json:
    return unpack_object(value.encode())


def is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def unusable(folder: str, error: Exception) -> StoreUnusable:
    """What SQLite or the system said, and what to do about it."""
    path = os.path.join(folder, FILE)
    if isinstance(error, OSError):
        why = (error.strerror or str(error)).lower()
    else:
        why = str(error)
    hint = ""
    if isinstance(error, PermissionError) or "readonly" in why or "read-only" in why:
        hint = "give [server] a state_dir that this user may write to"
    elif isinstance(error, FileNotFoundError):
        hint = f"make the folder '{folder}', or give [server] another state_dir"
    elif "full" in why or "no space" in why:
        hint = f"make room on the disk of '{folder}'"
    elif isinstance(error, ValueError) or "not a database" in why or "malformed" in why:
        why = "the file is damaged" if isinstance(error, ValueError) else why
        hint = f"move '{path}' away (tokens have to be made again), or put a good copy there"
    elif isinstance(error, sqlite3.Error) and is_busy(error):
        why = "another program keeps it locked"
    return StoreUnusable(where=path, why=why, hint=hint)
