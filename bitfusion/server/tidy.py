# SPDX-License-Identifier: Apache-2.0
"""Putting a database's log back into its file: that waits for the disk, so a thread of its own
does it, over a connection of its own, now and then. It touches nothing else of the server.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Optional

ENOUGH = 250  # transactions since the last time


class Tidier:
    def __init__(self, path: str) -> None:
        """path: of a database with such a log. Raises sqlite3.Error."""
        self._written = ENOUGH  # an earlier process may have left some
        self._thread: Optional[threading.Thread] = None
        self.error: Optional[sqlite3.Error] = None  # of the last time
        self._database = sqlite3.connect(path, timeout=0, check_same_thread=False)
        self._database.execute("pragma schema_version").fetchone()  # opens all that it will need

    def wrote(self) -> None:
        self._written += 1

    def tidy(self) -> None:
        """To be called often; it begins when there is enough to do, and never waits."""
        if self._written < ENOUGH or (self._thread and self._thread.is_alive()):
            return
        self._written = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            # Writers and readers go on meanwhile; what they hold is for the next time.
            self._database.execute("pragma wal_checkpoint(passive)").fetchall()
            self.error = None
        except sqlite3.Error as error:
            self.error = error

    def close(self) -> None:
        """Wait for the disk, after all."""
        if self._thread is not None:
            self._thread.join()
        self._database.close()
