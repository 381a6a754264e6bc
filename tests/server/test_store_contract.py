# SPDX-License-Identifier: Apache-2.0
"""What every store does, whatever is behind it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from etcds import EtcdServer
from stores import Listener

from bitfusion.server.loop import Loop
from bitfusion.server.store import (
    APPLIED,
    CONFLICT,
    MAX_CHANGES,
    PRESENT,
    Change,
    Check,
    Store,
)
from bitfusion.server.store_memory import Memory
from bitfusion.server.store_sqlite import SqliteStore

Open = Callable[[], Listener]
KINDS = ("memory", "sqlite", "etcd")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    server = EtcdServer()
    yield server
    server.end()


@pytest.fixture()
def loop() -> Loop:
    return Loop()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, loop: Loop, tmp_path: Path) -> Iterator[Open]:
    """Opens another store over the same keys."""
    listeners: list[Listener] = []
    memory = Memory(loop)
    prefix = f"/test/{next(NUMBERS)}/"

    def make() -> Store:
        if request.param == "memory":
            return memory.store()
        if request.param == "etcd":
            etcd: EtcdServer = request.getfixturevalue("etcd")
            return etcd.store(loop, prefix)
        return SqliteStore(str(tmp_path), loop)

    def open_one() -> Listener:
        listeners.append(Listener(loop, make()))
        return listeners[-1].open()

    yield open_one
    for listener in listeners:
        listener.store.close()


def test_a_key_is_put_changed_and_deleted(opened: Open) -> None:
    one = opened()
    assert one.commit(Change("tokens/a", {"n": 1, "text": "ü\n"}, 0)) == APPLIED
    assert one.values == {"tokens/a": {"n": 1, "text": "ü\n"}}
    first = one.versions["tokens/a"]
    assert one.commit(Change("tokens/a", {"n": 2}, first)) == APPLIED
    assert one.values == {"tokens/a": {"n": 2}} and one.versions["tokens/a"] != first
    assert one.commit(Change("tokens/a", None, one.versions["tokens/a"])) == APPLIED
    assert one.values == {}
    assert one.commit(Change("tokens/a", None)) == APPLIED  # nothing to delete
    assert one.told == ["tokens/a", "tokens/a", "-tokens/a"]


def test_what_is_not_as_expected_changes_nothing(opened: Open) -> None:
    one = opened()
    one.put("a", n=1)
    old = one.versions["a"]
    one.put("a", n=2)
    now = one.versions["a"]
    for change in (Change("a", {}, 0), Change("a", {}, old), Change("a", None, old)):
        assert one.commit(Change("b", {}), change) == CONFLICT
    assert one.commit(Change("b", {}), checks=[Check("a", old)]) == CONFLICT
    assert one.commit(Change("b", {}), checks=[Check("c", PRESENT)]) == CONFLICT
    assert one.commit(Change("b", {}, PRESENT)) == CONFLICT
    assert one.values == {"a": {"n": 2}}
    assert one.commit(Change("b", {}), checks=[Check("a", now), Check("c", 0)]) == APPLIED
    assert one.commit(Change("b", {"n": 3}, PRESENT), checks=[Check("a", PRESENT)]) == APPLIED
    assert one.values == {"a": {"n": 2}, "b": {"n": 3}}


def test_a_key_that_comes_again_has_another_version(opened: Open) -> None:
    one = opened()
    seen = set()
    for lease in (False, True, False, True):
        assert one.commit(Change("a", {}, 0, lease)) == APPLIED
        assert one.versions["a"] not in seen
        seen.add(one.versions["a"])
        assert one.commit(Change("a", None, one.versions["a"])) == APPLIED


def test_a_lease_can_be_taken_over_and_given_up(opened: Open) -> None:
    one = opened()
    assert one.commit(Change("a", {"n": 1}, 0, lease=True)) == APPLIED
    assert one.commit(Change("a", {"n": 2}, one.versions["a"])) == APPLIED
    assert one.commit(Change("b", {}, 0)) == APPLIED
    assert one.commit(Change("b", {"n": 1}, one.versions["b"], lease=True)) == APPLIED
    assert one.values == {"a": {"n": 2}, "b": {"n": 1}}
    one.store.close()
    two = opened()
    assert two.wait(lambda: two.values == {"a": {"n": 2}})  # b went with the first


def test_many_changes_at_once_are_one(opened: Open) -> None:
    one = opened()
    changes = [Change(f"k/{i}", {"i": i}) for i in range(MAX_CHANGES)]
    assert one.commit(*changes) == APPLIED
    assert len(one.values) == MAX_CHANGES
    with pytest.raises(ValueError):
        one.commit(*changes, Change("more", {}))
    with pytest.raises(ValueError):
        one.commit(Change("a", {}), Change("a", None))


def test_all_see_the_same(opened: Open) -> None:
    one, two = opened(), opened()
    one.put("a", n=1)
    assert two.wait(lambda: two.values == {"a": {"n": 1}})
    assert two.commit(Change("a", {"n": 2}, two.versions["a"])) == APPLIED
    assert two.commit(Change("b", {"n": 2}, 0)) == APPLIED
    assert one.wait(lambda: one.values == {"a": {"n": 2}, "b": {"n": 2}})
    assert one.commit(Change("a", None), Change("b", None)) == APPLIED
    assert two.wait(lambda: not two.values)
    three = opened()
    assert three.values == {}


def test_a_storm_of_conflicts_loses_no_change(opened: Open) -> None:
    """Each adds to one counter by compare and swap, with what it knows, until it has done so often
    enough.
    """
    users = [opened() for _ in range(3)]
    users[0].put("n", n=0)
    assert users[0].wait(lambda: all(user.values for user in users))  # so the first ones conflict
    chance = random.Random(4)
    left = {id(user): 15 for user in users}
    busy: set[int] = set()
    conflicts = 0

    def add(user: Listener) -> None:
        nonlocal conflicts
        busy.add(id(user))

        def done(outcome: str) -> None:
            nonlocal conflicts
            busy.discard(id(user))
            assert outcome in (APPLIED, CONFLICT)
            left[id(user)] -= outcome == APPLIED
            conflicts += outcome == CONFLICT

        n = user.values["n"]["n"]
        assert isinstance(n, int)
        user.store.commit([Change("n", {"n": n + 1}, user.versions["n"])], done)

    def step() -> bool:
        for user in chance.sample(users, len(users)):
            if id(user) not in busy and left[id(user)]:
                add(user)
        return not any(left.values())

    assert users[0].wait(step)
    assert users[0].wait(lambda: all(user.values == {"n": {"n": 45}} for user in users))
    assert conflicts
