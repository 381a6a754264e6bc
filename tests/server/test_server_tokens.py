# SPDX-License-Identifier: Apache-2.0
"""Tokens and the guard at the door, without sockets and with clocks of our own."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from bitfusion import certificates
from bitfusion.server import caller, clients, guard, tokens
from bitfusion.server.caller import Limits, Refusal
from bitfusion.server.loop import Loop
from bitfusion.server.store import APPLIED, CONFLICT, UNAVAILABLE, Change, Done, matches
from bitfusion.server.store_memory import Memory
from bitfusion.server.tokens import Record, Tokens, new_secret, unpack

DEFAULTS = Limits(gpus=4, time_s=60)


class FakeStore:
    """Keeps changes until they are let through, as a store far away would."""

    def __init__(self) -> None:
        self.tokens = Tokens(self.commit, DEFAULTS)
        self.tokens.state(True)
        self.values: dict[str, tuple[Any, int]] = {}
        self.version = 0
        self.waiting: list[Callable[[], None]] = []

    def commit(self, changes: Any, done: Done) -> None:
        def apply() -> None:
            (change,) = changes
            assert isinstance(change, Change)
            if not matches(change.expected, self.values.get(change.key, (None, 0))[1]):
                done(CONFLICT)
                return
            self.version += 1
            self.values[change.key] = (change.value, self.version)
            self.tokens.changed(change.key, change.value, self.version)
            done(APPLIED)

        self.waiting.append(apply)

    def settle(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture()
def store() -> FakeStore:
    return FakeStore()


def make(store: FakeStore, name: str, **fields: Any) -> str:
    """A client; its header."""
    secret, hashed = new_secret()
    outcomes: list[str] = []
    store.tokens.create(name, Record(hashed, 0.0, **fields), outcomes.append)
    store.settle()
    assert outcomes == [APPLIED]
    return f"Bearer {name}:{secret}"


def refused(store: FakeStore, header: str, now_s: float = 1.0) -> str:
    with pytest.raises(Refusal) as caught:
        store.tokens.identify(header, now_s)
    assert caught.value.status == 401
    return caught.value.kind


def test_a_token_says_who_and_how_much(store: FakeStore) -> None:
    header = make(store, "alice", limits={"gpus": 2, "memory": 5}, expires_s=100.0, admin=True)
    expected = caller.Caller("alice", Limits(2, 5, 60, 0), True, 100.0)
    assert store.tokens.identify(header, 99.0) == expected
    assert store.tokens.identify(header.replace("Bearer", "bearer"), 99.0).client == "alice"
    assert refused(store, header, 100.0) == "expired"
    assert "secret" not in str(store.values) and header[14:] not in str(store.values)


@pytest.mark.parametrize(
    "header", ["x", "Bearer", "Bearer alice", "Bearer alice:", "Bearer :", "Basic alice:{}",
               "Bearer bob:{}", "Bearer bob:", "Bearer alice:" + "0" * 64,
               "Bearer alice:{}0", "Bearer {}", "Bearer alice:\udcff"],
)  # fmt: skip
def test_wrong_tokens(store: FakeStore, header: str) -> None:
    secret = make(store, "alice").partition(":")[2]
    if "\udcff" not in header:
        assert refused(store, header.format(secret)) == "wrong-token"
    assert refused(store, "") == "no-token"


def test_the_state_of_a_client_is_told_to_it_alone(store: FakeStore) -> None:
    """Not to who has a wrong secret: names would be found that way."""
    make(store, "off", disabled=True)
    make(store, "old", expires_s=1.0)
    assert (
        refused(store, "Bearer off:00", 9) == refused(store, "Bearer old:00", 9) == "wrong-token"
    )


def test_rotation_has_a_time_of_grace(store: FakeStore) -> None:
    old = make(store, "alice")
    secret, hashed = new_secret()
    store.tokens.rotate("alice", hashed, 10.0, 50.0, lambda _o: None)
    store.settle()
    new = f"Bearer alice:{secret}"
    for now_s in (50.0, 59.9, 60.0, 1e9):
        assert store.tokens.identify(new, now_s).client == "alice"
    assert store.tokens.identify(old, 59.9).client == "alice"
    assert refused(store, old, 60.0) == "wrong-token"
    assert store.tokens.identify(old, 60.0, holds=True).client == "alice"
    with pytest.raises(Refusal, match="not known"):
        store.tokens.identify("Bearer alice:no", 60.0, holds=True)


def test_what_is_held_may_be_held_with_an_expired_token(store: FakeStore) -> None:
    header = make(store, "boss", expires_s=100.0, admin=True)
    assert refused(store, header, 100.0) == "expired"
    assert store.tokens.identify(header, 99.0, holds=True).admin
    late = store.tokens.identify(header, 100.0, holds=True)
    assert late.client == "boss" and not late.admin
    store.tokens.change("boss", lambda _o: None, disabled=True)
    store.settle()
    with pytest.raises(Refusal, match="is disabled"):
        store.tokens.identify(header, 100.0, holds=True)


def test_bars_are_told_once_they_count(store: FakeStore) -> None:
    barred: list[tuple[str, str]] = []
    store.tokens.barred = lambda client, why: barred.append((client, why))
    header = make(store, "alice")
    store.tokens.change("alice", lambda _o: None, disabled=True)
    assert barred == [] and store.tokens.bars("alice") == ""
    store.settle()
    assert barred == [("alice", "its token was disabled")] and store.tokens.bars("alice")
    assert refused(store, header) == "disabled"
    store.tokens.change("alice", lambda _o: None, disabled=False)
    store.settle()
    assert store.tokens.identify(header, 1).client == "alice" and not store.tokens.bars("alice")
    store.tokens.revoke("alice", lambda _o: None)
    store.settle()
    assert barred[1:] == [("alice", "its token was revoked")]
    assert refused(store, header) == "wrong-token" and store.tokens.names() == []
    store.tokens.changed("tokens/never", None, 9)
    store.tokens.changed("queue/x", {"not": "a token"}, 10)
    assert len(barred) == 2


def test_nobody_is_refused_for_want_of_knowledge(store: FakeStore) -> None:
    """A server that has just started, and one whose store is away."""
    header, young = make(store, "alice"), Tokens(store.commit, DEFAULTS)
    synced: list[bool] = []
    young.on_synced = lambda: synced.append(True)
    with pytest.raises(Refusal) as caught:
        young.identify(header, 1.0)
    assert caught.value.status == 503
    young.changed("tokens/alice", *store.values["tokens/alice"])
    for state in (True, False, True):
        young.state(state)
        assert young.identify(header, 1.0).client == "alice" and synced == [True]


def test_two_operators_at_once(store: FakeStore) -> None:
    make(store, "alice")
    outcomes: list[str] = []
    store.tokens.change("alice", outcomes.append, disabled=True)
    store.tokens.change("alice", outcomes.append, expires_s=7.0)
    store.tokens.create("bob", Record("00", 0), outcomes.append)
    store.tokens.create("bob", Record("11", 0), outcomes.append)
    store.settle()
    assert outcomes == [APPLIED, CONFLICT, APPLIED, CONFLICT]
    here = Memory(Loop()).store()
    here.trouble = "the disk is full"
    for outcome, failures, status, said in (
        (CONFLICT, 0, 409, "somebody else changed it"),
        (UNAVAILABLE, 0, 503, "the cluster's state at memory cannot be reached now"),
        (UNAVAILABLE, -1, 503, "the disk is full"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            tokens.check(outcome, here, failures)
        assert caught.value.status == status
    with pytest.raises(Refusal, match="no client 'carol'"):
        store.tokens.revoke("carol", outcomes.append)
    with pytest.raises(Refusal, match="client 'bob' exists"):
        store.tokens.create("bob", Record("22", 0), outcomes.append)


def test_records_survive_packing_and_newer_versions() -> None:
    record = Record("ab", 1.0, 2.0, True, True, "cd", 3.0, {"gpus": 1})
    assert unpack(record.pack()) == record
    assert unpack({**record.pack(), "something": "new"}) == record


# ------------------------------------------ the guard


def test_one_line_for_each_address_and_cause() -> None:
    lines: list[str] = []
    door = guard.Guard(lines.append)
    for number in range(1000):
        door.failed("10.0.0.1", "garbage", 100.0 + number / 100)
        door.failed("10.0.0.2", f"garbage {number}", 100.0 + number / 100)
        door.note("10.0.0.3", "what it must not", 100.0)
    assert lines[0] == "refused 10.0.0.1: garbage"
    assert len([line for line in lines if "10.0.0.2: garbage" in line]) == guard.MAX_LINES_OF
    assert len([line for line in lines if "10.0.0.3" in line]) == 1  # others leave it its line
    assert len(lines) == guard.MAX_LINES_OF + 4  # and two that are slowed
    assert door.punishes("10.0.0.1", 110.0) and not door.punishes("10.0.0.3", 110.0)
    before = len(lines)
    assert not door.punishes("10.0.0.1", 161.0)  # a minute later
    told = lines[before:]
    assert "refused 999 more in the minute before: garbage" in told
    assert len(told) <= guard.MAX_LINES + 1


def test_many_addresses_take_bounded_memory() -> None:
    door = guard.Guard(lambda _line: None)
    for number in range(20_000):
        door.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "x", 1.0)
    assert len(door._failures) == guard.MAX_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("2001:db8::1", "2001:db8::ffff:2", True), ("2001:db8::1", "2001:db8:0:1::1", False),
     ("10.0.0.1", "10.0.0.2", False), ("::ffff:10.0.0.1", "10.0.0.1", True),
     ("fe80::1%eth0", "fe80::2", True), ("", "", True)],
)  # fmt: skip
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (guard.network_of(one) == guard.network_of(other)) == same


def test_a_file_with_several_certificates(tmp_path: pathlib.Path) -> None:
    one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert certificates.first_certificate(f"# x\n{one}\n{one}\n") == one


def test_a_client_is_told_every_server() -> None:
    """The one that makes its token first, and each once."""
    others = [["b:1"], ["a:1", "c:1"]]
    assert clients.all_addresses(["a:1"], others) == ["a:1", "b:1", "c:1"]
    many = [[f"host{number}:1"] for number in range(100)]
    assert len(clients.all_addresses(["a:1"], many)) == clients.MAX_ADDRESSES
