# SPDX-License-Identifier: Apache-2.0
"""A store without a file: what several servers in one test share, and faults at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

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
from bitfusion.wire.control import Json, pack_line, unpack_object

LOST_BEFORE, LOST_AFTER = "lost before", "lost after"  # faults: the change was not made, or was


class Entry(NamedTuple):
    value: bytes  # packed, so that nobody changes what is kept
    version: int
    owner: Optional[MemoryStore]  # whose lease


class Memory:
    """What the stores of several servers share."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.entries: dict[str, Entry] = {}
        self.stores: list[MemoryStore] = []
        self.reachable = True
        self.fault: Callable[[Sequence[Change]], str] = lambda _changes: ""  # or CONFLICT
        self._version = 0

    def store(self) -> MemoryStore:
        return MemoryStore(self)

    def commit(
        self, store: Optional[MemoryStore], changes: Sequence[Change], checks: Sequence[Check]
    ) -> str:
        for key, expected in [(c.key, c.expected) for c in changes] + list(checks):
            entry = self.entries.get(key)
            if not matches(expected, entry.version if entry else ABSENT):
                return CONFLICT
        self._version += 1
        for change in changes:
            self._apply(store, change)
        return APPLIED

    def _apply(self, store: Optional[MemoryStore], change: Change) -> None:
        if change.value is None:
            if self.entries.pop(change.key, None) is None:
                return
        else:
            owner = store if change.lease else None
            self.entries[change.key] = Entry(pack_line(change.value), self._version, owner)
        for each in self.stores:
            each.tell(change.key)

    def expire(self, store: MemoryStore) -> None:
        """End a store's lease."""
        keys = [key for key, entry in self.entries.items() if entry.owner is store]
        self.commit(None, [Change(key, None) for key in keys], ())

    def replace(self, entries: dict[str, Entry]) -> None:
        """As when somebody put back an old copy."""
        self._version += 1
        gone = self.entries.keys() - entries.keys()
        self.entries = {k: e._replace(version=self._version) for k, e in entries.items()}
        for store in self.stores:
            for key in (*gone, *entries):
                store.tell(key)

    def set_reachable(self, reachable: bool) -> None:
        self.reachable = reachable
        for store in self.stores:
            store.tell_state()


class MemoryStore:
    where = "memory"
    failures, trouble = 0, ""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known: dict[str, int] = {}
        self._changed: Changed = lambda _key, _value, _version: None
        self._state: Callable[[bool], None] = lambda _synced: None
        self._synced = False

    def open(self, changed: Changed, state: Callable[[bool], None]) -> None:
        self._changed, self._state = changed, state
        self._memory.stores.append(self)
        self._memory.timers.after(0, self._update)

    def tell(self, key: str) -> None:
        """Later, as a real store would; by then with the state that the key has then."""
        self._memory.timers.after(0, lambda: self._tell_now(key))

    def _tell_now(self, key: str) -> None:
        if self not in self._memory.stores or not self._synced or not self._memory.reachable:
            return
        entry = self._memory.entries.get(key)
        version = entry.version if entry else ABSENT
        if self._known.get(key, ABSENT) == version:
            return
        value: Optional[Json] = unpack_object(entry.value) if entry else None
        if value is None:
            del self._known[key]
        else:
            self._known[key] = version
        self._changed(key, value, version)

    def tell_state(self) -> None:
        self._memory.timers.after(0, self._update)

    def _update(self) -> None:
        if self not in self._memory.stores or self._synced == self._memory.reachable:
            return
        self._synced = self._memory.reachable
        if self._synced:
            for key in {**self._known, **self._memory.entries}:
                self._tell_now(key)
        self._state(self._synced)

    def commit(self, changes: Sequence[Change], done: Done, checks: Sequence[Check] = ()) -> None:
        validate(changes, checks)
        memory = self._memory
        fault = memory.fault(changes)
        if fault == CONFLICT:
            outcome = CONFLICT
        elif fault == LOST_BEFORE or not memory.reachable or not self._synced:
            outcome = UNAVAILABLE
        else:
            outcome = memory.commit(self, changes, checks)
            if fault == LOST_AFTER:
                outcome = UNAVAILABLE
        memory.timers.after(0, lambda: done(outcome))

    def close(self) -> None:
        if self in self._memory.stores:
            self._memory.stores.remove(self)
            self._memory.expire(self)
