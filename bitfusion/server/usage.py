# SPDX-License-Identifier: Apache-2.0
"""Who used how much of this server and when: hours of clients in a file of the state_dir.

What a session used is booked every minute and when it ends, so that a crash loses a minute. What
was booked of running sessions is kept too: the next server goes on where the last one ended.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Optional

from bitfusion.quantity import MIB
from bitfusion.server.record import Record
from bitfusion.server.tidy import Tidier

FILE = "usage.db"
HOUR_S = 3600
KEEP_S = 400 * 24 * HOUR_S
DAY_S = 24 * HOUR_S
MAX_ROWS = 20_000  # of one answer
GROUPS = {"client": "client", "day": f"hour / {DAY_S} * {DAY_S}"}
VERSION = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER NOT NULL, client TEXT NOT NULL, gpu_s REAL NOT NULL, memory_mib_s REAL NOT NULL,
    busy_s REAL NOT NULL, sessions INTEGER NOT NULL, waits INTEGER NOT NULL,
    waited_s REAL NOT NULL, PRIMARY KEY (hour, client)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS running (
    session TEXT PRIMARY KEY, booked_s REAL NOT NULL, busy_s REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version={VERSION};
"""
ADD = """
INSERT INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hour, client) DO UPDATE SET
    gpu_s = gpu_s + excluded.gpu_s, memory_mib_s = memory_mib_s + excluded.memory_mib_s,
    busy_s = busy_s + excluded.busy_s, sessions = sessions + excluded.sessions,
    waits = waits + excluded.waits, waited_s = waited_s + excluded.waited_s
"""


class Used(NamedTuple):
    """What a client used in some time."""

    begin: int  # of the hour or day, in seconds since the epoch; 0 where days are taken together
    client: str  # "" where clients are
    gpu_s: float = 0.0  # seconds, times GPUs or the parts of them that it held
    memory_mib_s: float = 0.0
    busy_s: float = 0.0  # seconds that GPUs worked for it
    sessions: int = 0  # that began
    waits: int = 0  # of those, that had to wait
    waited_s: float = 0.0


class Note(NamedTuple):
    """What one session used so far."""

    record: Record
    gpus: float  # that it holds
    busy_s: float
    waited_s: float = 0.0  # before it began


class Usage:
    """The file. Written in the loop: a few rows a minute, and no commit waits for the disk, but
    one of hundreds, which begins the log anew.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        """path: ":memory:" keeps it in memory. Raises sqlite3.Error."""
        self._clock = clock
        self._file = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        written = int(self._file.execute("PRAGMA user_version").fetchone()[0])
        if written > VERSION:
            raise sqlite3.DatabaseError(
                f"a newer version of Bitfusion wrote it (format {written}, ours is {VERSION})"
            )
        self._file.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
            f"PRAGMA wal_autocheckpoint=0; {SCHEMA}"
        )
        self._tidier = Tidier(path) if path != ":memory:" else None
        self._booked: dict[str, tuple[float, float]] = {
            session: (booked_s, busy_s)
            for session, booked_s, busy_s in self._file.execute("SELECT * FROM running")
        }

    def booked_busy_s(self, session: str) -> Optional[float]:
        """Of a session that runs; None where nothing was booked."""
        known = self._booked.get(session)
        return known[1] if known else None

    def book(self, notes: Sequence[Note], now_s: float, ended: Iterable[str] = ()) -> None:
        """now_s: on the clock of the records' started_s."""
        hour = int(self._clock()) // HOUR_S * HOUR_S
        booked, ended = (
            {note.record.session: self._booking(note, now_s) for note in notes},
            list(ended),
        )
        with self._transaction():
            for note in notes:
                self._file.execute(ADD, self._since_last(note, hour, now_s))
            self._file.executemany(
                "INSERT OR REPLACE INTO running VALUES (?, ?, ?)",
                ((session, *values) for session, values in booked.items()),
            )
            self._file.executemany(
                "DELETE FROM running WHERE session = ?", ((session,) for session in ended)
            )
        if self._tidier is not None:
            self._tidier.wrote()
            self._tidier.tidy()
        self._booked.update(booked)
        for session in ended:
            self._booked.pop(session, None)

    def _booking(self, note: Note, now_s: float) -> tuple[float, float]:
        """What was booked once stays, though less may be counted later."""
        known = self._booked.get(note.record.session)
        return now_s, max(note.busy_s, known[1]) if known else note.busy_s

    def _since_last(self, note: Note, hour: int, now_s: float) -> Used:
        record = note.record
        known = self._booked.get(record.session)
        last_s, busy_s = known or (record.started_s, 0.0)
        spent_s = max(0.0, now_s - last_s)  # the clock begins anew with the machine
        memory = sum(part.memory for part in record.slices) / MIB
        waited_s = 0.0 if known else note.waited_s
        return Used(
            hour,
            record.client,
            spent_s * note.gpus,
            spent_s * memory,
            max(0.0, note.busy_s - busy_s),
            int(known is None),
            int(waited_s > 0),
            waited_s,
        )

    def keep_only(self, sessions: Iterable[str]) -> None:
        """Forget running sessions but these, and hours of long ago."""
        gone = set(self._booked).difference(sessions)
        self.book((), 0.0, gone)
        self._file.execute("DELETE FROM hours WHERE hour < ?", (self._clock() - KEEP_S,))

    def used(
        self, from_s: float, to_s: float, by: Iterable[str], client: Optional[str] = None
    ) -> list[Used]:
        """Of the hours that begin in this time, by client and day or either; of everybody, or of
        one client. At most MAX_ROWS + 1.
        """
        groups = set(by)
        day = GROUPS["day"] if "day" in groups else "0"
        name = GROUPS["client"] if "client" in groups else "''"
        sums = ", ".join(f"SUM({column})" for column in Used._fields[2:])
        rows = self._file.execute(
            f"SELECT {day}, {name}, {sums} FROM hours WHERE hour >= ? AND hour < ? "
            "AND (? IS NULL OR client = ?) GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?",
            (from_s, to_s, client, client, MAX_ROWS + 1),
        )
        return [Used(*row) for row in rows if row[5] is not None]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def close(self) -> None:
        if self._tidier is not None:
            self._tidier.close()
        self._file.close()
