# SPDX-License-Identifier: Apache-2.0
"""Stores to test: one of each kind, and someone who listens to one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from bitfusion.server.loop import Loop
from bitfusion.server.store import Change, Check, Store
from bitfusion.wire.control import Json

PATIENCE_S = 60.0


def turn_until(
    loop: Loop, condition: Callable[[], object], patience_s: float = PATIENCE_S
) -> bool:
    """Let the loop work until it is so; False when it never was."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        due_s = loop._patience()
        loop.turn(0.02 if due_s is None else min(0.02, due_s))
    return True


class Listener:
    """Keeps what a store tells, and checks that it tells it sensibly."""

    def __init__(self, loop: Loop, store: Store) -> None:
        self.loop = loop
        self.store = store
        self.values: dict[str, Json] = {}
        self.versions: dict[str, int] = {}
        self.states: list[bool] = []
        self.told: list[str] = []  # keys, in order; -key where it was deleted

    def open(self) -> Listener:
        self.store.open(self._changed, self.states.append)
        assert self.wait(lambda: self.synced)
        return self

    @property
    def synced(self) -> bool:
        return bool(self.states) and self.states[-1]

    def _changed(self, key: str, value: Optional[Json], version: int) -> None:
        assert version != self.versions.get(key, 0), f"{key} was told twice"
        self.told.append(key if value is not None else f"-{key}")
        if value is None:
            assert version == 0
            del self.values[key], self.versions[key]
        else:
            assert version > 0
            self.values[key], self.versions[key] = value, version

    def wait(self, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
        return turn_until(self.loop, condition, patience_s)

    def commit(self, *changes: Change, checks: Sequence[Check] = ()) -> str:
        outcomes: list[str] = []
        self.store.commit(changes, outcomes.append, checks)
        assert not outcomes, "done was called from commit"
        assert self.wait(lambda: outcomes)
        return outcomes[0]

    def put(self, key: str, **value: Any) -> str:
        return self.commit(Change(key, value))
