# SPDX-License-Identifier: Apache-2.0
"""etcd that dies, freezes, forgets or comes back with less than it had."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from etcds import EtcdServer
from ports import Port
from stores import Listener, turn_until

from bitfusion import log
from bitfusion.server import etcd_keys
from bitfusion.server.etcd import Answer, Answered, Etcd, encode, resolve, unpack_answer
from bitfusion.server.etcd_keys import EPOCH, Known
from bitfusion.server.loop import Loop
from bitfusion.server.store import APPLIED, CONFLICT, UNAVAILABLE, Change, StoreLost
from bitfusion.server.store_etcd import EtcdStore
from bitfusion.server.turns import TurnMeter
from bitfusion.wire.control import Json


@pytest.fixture()
def loop() -> Loop:
    made = Loop()
    made.meter = TurnMeter()
    return made


@pytest.fixture()
def one(etcd: EtcdServer, loop: Loop) -> Iterator[Listener]:
    listener = Listener(loop, etcd.store(loop)).open()
    yield listener
    listener.store.close()


def call(etcd: EtcdServer, loop: Loop, path: str, body: Json) -> Answer:
    client = Etcd(loop, etcd.endpoints())
    answers: list[Answer] = []
    client.call(path, body, answers.append)
    assert turn_until(loop, lambda: answers)
    client.close()
    return answers[0]


def without_epoch(listener: Listener) -> dict[str, Json]:
    return {key: value for key, value in listener.values.items() if key != EPOCH}


def test_a_restart_loses_nothing(etcd: EtcdServer, one: Listener) -> None:
    one.put("a", n=1)
    one.commit(Change("mine", {}, 0, lease=True))
    etcd.kill()
    assert one.wait(lambda: not one.synced)
    assert one.put("b", n=1) == UNAVAILABLE
    etcd.start()
    assert one.wait(lambda: one.synced)
    assert one.put("b", n=2) == APPLIED
    assert one.values == {"a": {"n": 1}, "mine": {}, "b": {"n": 2}}
    assert one.told == ["a", "mine", "b"]  # nothing twice


def test_etcd_that_is_full_is_no_etcd_that_is_lost(loop: Loop) -> None:
    """Who asked for the change can tell, as soon as it has failed."""
    etcd = EtcdServer("--quota-backend-bytes", "200000")
    one = Listener(loop, etcd.store(loop)).open()
    told: list[str] = []

    def fill(number: int) -> None:
        failures = one.store.failures

        def done(outcome: str) -> None:
            if outcome == UNAVAILABLE:
                told.append(str(StoreLost(one.store, failures)))
            elif number < 50:
                fill(number + 1)

        one.store.commit([Change(f"big/{number}", {"x": "y" * 60_000})], done)

    try:
        fill(0)
        assert one.wait(lambda: told)
        assert f"the cluster's state at {one.store.where} takes no change: " in told[0]
        assert "space" in told[0] and one.synced
        assert str(StoreLost(one.store, 1)).endswith("cannot be reached now")
    finally:
        one.store.close()
        etcd.end()


def test_what_others_did_meanwhile_is_told(
    etcd: EtcdServer, one: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first cannot connect."""
    two = Listener(one.loop, etcd.store(one.loop)).open()
    one.put("a", n=1)
    one.put("b", n=1)
    assert isinstance(one.store, EtcdStore)
    good = one.store._etcd._endpoints
    nobody = Port()
    one.store._etcd._endpoints = resolve([("127.0.0.1", nobody.number)])
    one.store._lost("a test")
    assert two.commit(Change("a", None), Change("b", {"n": 2}), Change("c", {})) == APPLIED
    assert not one.synced and "c" not in one.values
    one.store._etcd._endpoints = good
    assert one.wait(lambda: one.synced)
    assert one.values == two.values == {"b": {"n": 2}, "c": {}}
    two.store.close()
    nobody.give_back()


def test_a_frozen_etcd_is_noticed(
    etcd: EtcdServer, one: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfusion.server.etcd.Etcd.call.__defaults__", (1.0,))
    etcd.freeze()
    outcomes: list[str] = []
    one.store.commit([Change("a", {"n": 1})], outcomes.append)
    assert one.wait(lambda: outcomes == [UNAVAILABLE])
    assert not one.synced
    monkeypatch.undo()
    etcd.thaw()
    assert one.wait(lambda: one.synced)
    assert one.values in ({}, {"a": {"n": 1}})  # nobody can know; but whoever asks is told
    assert one.put("a", n=2) == APPLIED
    assert one.loop.meter and one.loop.meter.longest.own_s < 0.9


def test_the_next_endpoint_is_taken(etcd: EtcdServer, loop: Loop) -> None:
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))
    endpoints = resolve([("127.0.0.1", dead.getsockname()[1])]) + etcd.endpoints()
    one = Listener(loop, EtcdStore(loop, endpoints)).open()
    assert one.put("a") == APPLIED
    one.store.close()
    dead.close()


def test_keys_go_with_the_lease(etcd: EtcdServer, one: Listener) -> None:
    two = Listener(one.loop, etcd.store(one.loop, lease_s=60)).open()
    assert two.commit(Change("two", {}, 0, lease=True), Change("stays", {})) == APPLIED
    assert one.wait(lambda: "two" in one.values)
    two.store.close()  # gives the lease back: no waiting for its end
    assert one.wait(lambda: one.values == {"stays": {}}, 50)


def test_a_lease_is_kept(etcd: EtcdServer, loop: Loop) -> None:
    two = Listener(loop, etcd.store(loop, lease_s=3)).open()
    assert two.commit(Change("two", {}, 0, lease=True)) == APPLIED
    assert not two.wait(lambda: two.values == {}, 4.5)
    two.store.close()


def test_a_lost_lease_is_told_and_replaced(etcd: EtcdServer, one: Listener) -> None:
    assert one.commit(Change("one", {}, 0, lease=True)) == APPLIED
    assert isinstance(one.store, EtcdStore)
    lease = one.store._known.lease
    assert not call(etcd, one.loop, "/v3/lease/revoke", {"ID": str(lease)}).error
    assert one.wait(lambda: "one" not in one.values)
    assert one.commit(Change("one", {}, 0, lease=True)) == UNAVAILABLE  # that lease is no more
    assert one.wait(lambda: one.synced)
    assert one.store._known.lease != lease
    assert one.commit(Change("one", {}, 0, lease=True)) == APPLIED


def test_another_etcd_that_has_seen_more_is_filled_again(etcd: EtcdServer, one: Listener) -> None:
    assert one.put("tokens/alice", n=1) == APPLIED
    assert isinstance(one.store, EtcdStore)
    etcd.kill()
    assert one.wait(lambda: not one.synced)
    etcd.empty()
    etcd.become_another()
    etcd.start()
    for number in range(20):
        body = {"key": encode(f"/others/{number}"), "value": encode("x")}
        assert not call(etcd, Loop(), "/v3/kv/put", body).error
    assert one.wait(lambda: one.synced)
    assert without_epoch(one) == {"tokens/alice": {"n": 1}}


def test_a_lost_lease_is_noticed_without_a_change(etcd: EtcdServer, loop: Loop) -> None:
    one = Listener(loop, etcd.store(loop, lease_s=2)).open()
    assert isinstance(one.store, EtcdStore)
    lease = one.store._known.lease
    assert not call(etcd, loop, "/v3/lease/revoke", {"ID": str(lease)}).error
    assert one.wait(lambda: one.synced and one.store._known.lease != lease)  # type: ignore[attr-defined]
    one.store.close()


def test_a_change_that_is_answered_when_the_feed_was_lost(one: Listener) -> None:
    """It was made, but who asked must not think that it has been told: the feed will tell."""
    assert isinstance(one.store, EtcdStore)
    client, held, outcomes = one.store._etcd, [], []
    call = client.call

    def hold(path: str, body: Json, answered: Answered) -> None:
        call(path, body, lambda answer: held.append((answered, answer)))

    client.call = hold  # type: ignore[method-assign, assignment]
    one.store.commit([Change("a", {"n": 1})], outcomes.append)
    assert one.wait(lambda: held)
    client.call = call  # type: ignore[method-assign]
    one.store._lost("a test says so")
    ((answered, answer),) = held
    answered(answer)
    assert outcomes == [UNAVAILABLE]
    assert one.wait(lambda: one.synced) and one.values["a"] == {"n": 1}


@pytest.mark.parametrize("servers", [1, 3])
def test_an_emptied_etcd_is_filled_again(etcd: EtcdServer, one: Listener, servers: int) -> None:
    others = [Listener(one.loop, etcd.store(one.loop)).open() for _ in range(servers - 1)]
    everyone = [one, *others]
    kept: dict[str, Json] = {f"tokens/{i}": {"n": i} for i in range(45)}
    assert one.commit(*(Change(key, value) for key, value in kept.items())) == APPLIED
    for number, listener in enumerate(everyone):
        listener.commit(Change(f"servers/{number}", {}, 0, lease=True))
    assert one.wait(lambda: all(len(each.values) == 45 + servers for each in everyone))
    etcd.kill()
    assert one.wait(lambda: not any(each.synced for each in everyone))
    etcd.empty()
    etcd.start()
    assert one.wait(lambda: all(each.synced for each in everyone))
    for each in everyone:
        assert one.wait(lambda each=each: without_epoch(each) == kept)  # type: ignore[misc]
        assert not any(f"-{key}" in each.told for key in kept)
        assert each.values[EPOCH] == {"n": 1, "ready": True}
    for each in others:
        each.store.close()
    late = Listener(one.loop, etcd.store(one.loop)).open()
    assert without_epoch(late) == kept
    late.store.close()


def test_an_old_copy_does_not_bring_back_what_was_deleted(etcd: EtcdServer, one: Listener) -> None:
    one.put("revoked", n=1)
    one.put("changed", n=1)
    etcd.kill()
    assert one.wait(lambda: not one.synced)
    etcd.copy()
    etcd.start()
    assert one.wait(lambda: one.synced)
    changes = Change("revoked", None), Change("changed", {"n": 2}), Change("new", {"n": 2})
    assert one.commit(*changes) == APPLIED
    for _ in range(3):  # so that etcd was further on than the copy will be
        assert one.put("changed", n=2) == APPLIED
    etcd.kill()
    assert one.wait(lambda: not one.synced)
    etcd.put_copy_back()
    etcd.start()
    assert one.wait(lambda: one.synced)
    late = Listener(one.loop, etcd.store(one.loop)).open()
    assert without_epoch(late) == {"changed": {"n": 2}, "new": {"n": 2}}
    assert without_epoch(one) == without_epoch(late)
    late.store.close()


def test_compaction_between_reading_and_watching(
    etcd: EtcdServer, one: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = EtcdStore._read
    compacted: list[int] = []

    def compact_first(store: EtcdStore, found: Known) -> None:
        if not compacted:
            for n in range(3):
                assert one.put("a", n=n) == APPLIED
            compacted.append(one.versions["a"])
            answer = call(etcd, one.loop, "/v3/kv/compaction", {"revision": str(compacted[0])})
            assert not answer.error
        read(store, found)

    two = Listener(one.loop, etcd.store(one.loop))
    monkeypatch.setattr(EtcdStore, "_read", compact_first)
    two.open()
    assert compacted and two.values == {"a": {"n": 2}}
    assert one.put("a", n=9) == APPLIED
    assert two.wait(lambda: two.values == {"a": {"n": 9}})
    two.store.close()


def test_more_keys_than_a_page(
    etcd: EtcdServer, one: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_keys, "PAGE", 7)
    changes = [Change(f"k/{i}", {"i": i}) for i in range(50)]
    assert one.commit(*changes) == APPLIED
    two = Listener(one.loop, etcd.store(one.loop)).open()
    assert two.values == one.values
    two.store.close()


def test_keys_of_others_are_not_ours(etcd: EtcdServer, one: Listener) -> None:
    for key, value in (("/bitfusion0", "{}"), ("/bitfusion", "{}"), ("/bitfusion/bad", "no")):
        body: Json = {"key": encode(key), "value": encode(value)}
        assert not call(etcd, one.loop, "/v3/kv/put", body).error
    assert one.put("a") == APPLIED
    assert set(one.values) == {"a"}


def test_losing_it_is_said_once(
    etcd: EtcdServer,
    one: Listener,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "_level", log.INFO)
    etcd.kill()
    assert one.wait(lambda: not one.synced)
    one.wait(lambda: False, 1.0)
    etcd.start()
    assert one.wait(lambda: one.synced)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert "running sessions go on" in lines[0] and "is there again" in lines[1]


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b""]
)
def test_garbage_for_answers(loop: Loop, data: bytes) -> None:
    """A server that is not etcd is no worse than none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Etcd(loop, resolve([server.getsockname()[:2]]))
        answers: list[Answer] = []
        client.call("/v3/kv/range", {}, answers.append)
        assert not turn_until(loop, lambda: answers, 0.05)
        sock, _ = server.accept()
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert turn_until(loop, lambda: answers)
        assert answers[0].error and not answers[0].code
        sock.close()
        client.close()


def test_answers_are_told_from_errors() -> None:
    good = {"result": {"header": {}, "TTL": "3"}}
    assert unpack_answer(200, json.dumps(good).encode()) == Answer({"header": {}, "TTL": "3"})
    bad = {"error": "etcdserver: requested lease not found", "code": 5}
    answer = unpack_answer(404, json.dumps(bad).encode())
    assert (answer.error, answer.code) == (bad["error"], 5)
    stream = {"error": {"grpc_code": 14, "message": "no leader"}}
    answer = unpack_answer(200, json.dumps(stream).encode())
    assert (answer.error, answer.code) == ("no leader", 14)
    assert unpack_answer(200, b"[]").error
    assert CONFLICT != UNAVAILABLE
