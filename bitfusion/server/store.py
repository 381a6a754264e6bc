# SPDX-License-Identifier: Apache-2.0
"""What the servers of a cluster share: versioned keys, transactions over them, and a feed of every
change. Values are JSON objects. Pure: the kinds of store are in store_sqlite.py, store_etcd.py and
store_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional, Protocol

from bitfusion.server.caller import Refusal
from bitfusion.wire.control import Json, pack_line

ABSENT = 0  # versions of keys that exist are above 0, and no version is used twice
ANY = -1
PRESENT = -2

MAX_CHANGES = 100  # of one transaction, checks included; etcd takes 128
MAX_KEY = 256
MAX_VALUE = 64 << 10  # as JSON in ASCII

APPLIED = "applied"
CONFLICT = "conflict"  # a key was not as expected; nothing was changed
UNAVAILABLE = "unavailable"  # the change may have been made or not: the feed will tell

Done = Callable[[str], None]
Changed = Callable[[str, Optional[Json], int], None]  # key, value (None: it is gone), version


class Change(NamedTuple):
    key: str
    value: Optional[Json]  # None deletes
    expected: int = ANY
    lease: bool = False  # the key goes when we do


class Check(NamedTuple):
    """A key that is not changed, but must be as expected for the others to be."""

    key: str
    expected: int


class Store(Protocol):
    where: str  # for people
    failures: int  # changes that it could not make, though it is there; a full disk is one reason
    trouble: str  # the last of these, for people

    def open(self, changed: Changed, state: Callable[[bool], None]) -> None:
        """Tell every key, then state(True), then every change, ours too, in one order.

        state(False) when the feed has stopped, and state(True) when it is whole again: what
        happened in between was told before that. Raises StoreUnusable.
        """

    def commit(self, changes: Sequence[Change], done: Done, checks: Sequence[Check] = ()) -> None:
        """All of them or none. done is called later, never from here; after APPLIED the changes
        have been told. Keys under a lease may go at any time, and whoever wants them puts them
        again.
        """

    def close(self) -> None:
        """Give up the keys under our lease."""


class StoreLost(Refusal):
    """Nothing new can be had, nor changed, while the store is out of reach or takes no change."""

    def __init__(self, store: Store, failures: int) -> None:
        """failures: of the store, before it was asked for the change that it did not make."""
        super().__init__(503, "no-state", why_not(store, failures))


def why_not(store: Store, failures: int) -> str:
    if store.failures > failures:
        return store.trouble
    return f"the cluster's state at {store.where} cannot be reached now"


def matches(expected: int, version: int) -> bool:
    if expected == ANY:
        return True
    return version != ABSENT if expected == PRESENT else version == expected


def validate(changes: Sequence[Change], checks: Sequence[Check]) -> None:
    """A bug of ours, not somebody's input: whoever puts things into a store bounds them."""
    if len(changes) + len(checks) > MAX_CHANGES:
        raise ValueError(f"{len(changes) + len(checks)} changes at once")
    keys = [change.key for change in changes]
    if len(set(keys)) != len(keys):
        raise ValueError("a key is changed twice at once")
    if any(not 0 < len(key.encode()) <= MAX_KEY for key in keys):
        raise ValueError("a key is empty or too long")
    for change in changes:
        if change.value is not None and len(pack_line(change.value)) > MAX_VALUE:
            raise ValueError(f"the value of '{change.key}' is too long")
