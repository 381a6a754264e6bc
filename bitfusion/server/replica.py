# SPDX-License-Identifier: Apache-2.0
"""All that is in the store, as this server knows it, and who wants to hear of which change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

from bitfusion.server.store import ABSENT, Change, Check, Done, Store
from bitfusion.wire.control import Json

Heard = Callable[[str, Optional[Json]], None]  # key, value; None: it is gone


class Replica:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.values: dict[str, Json] = {}
        self.synced = False
        self._versions: dict[str, int] = {}
        self._listeners: list[tuple[str, Heard]] = []
        self._state: Callable[[bool], None] = lambda _synced: None

    def open(self, state: Callable[[bool], None]) -> None:
        """state(True) when everything is known, after everybody heard of it."""
        self._state = state
        self.store.open(self._changed, self._set_synced)

    def subscribe(self, prefix: str, heard: Heard) -> None:
        """In the order of subscription; what is there already is told at once."""
        self._listeners.append((prefix, heard))
        for key in self.under(prefix):
            heard(key, self.values[key])

    def under(self, prefix: str) -> list[str]:
        return [key for key in self.values if key.startswith(prefix)]

    def version(self, key: str) -> int:
        return self._versions.get(key, ABSENT)

    def commit(self, changes: Sequence[Change], done: Done, checks: Sequence[Check] = ()) -> None:
        self.store.commit(changes, done, checks)

    def _changed(self, key: str, value: Optional[Json], version: int) -> None:
        if value is None:
            self.values.pop(key, None)
            self._versions.pop(key, None)
        else:
            self.values[key], self._versions[key] = value, version
        for prefix, heard in self._listeners:
            if key.startswith(prefix):
                heard(key, value)

    def _set_synced(self, synced: bool) -> None:
        self.synced = synced
        self._state(synced)
