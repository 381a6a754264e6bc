# SPDX-License-Identifier: Apache-2.0
"""Servers of a cluster: asks, claims, leaders, and what happens when something goes away."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from clusters import Client, Clock, FakeHost, Server, Start, keys, kill

from bitfusion.server.caller import Limits, Refusal
from bitfusion.server.store import Change, Check, Done, StoreLost
from bitfusion.server.store_memory import LOST_AFTER, LOST_BEFORE, Memory
from bitfusion.server.views import TooMuch


def fill(clock: Clock, one: Server, two: Server) -> tuple[list[Client], Client]:
    """Two servers of one GPU each: who has it, and who waits for it."""
    running = [one.ask(), two.ask()]
    assert clock.until(lambda: all(r.granted for r in running))
    queued = two.ask("bob")
    assert clock.until(lambda: queued.waiting.place)
    return running, queued


def test_an_ask_is_granted_and_its_end_gives_the_gpu_to_the_next(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one = start(gpus=1)
    first, second = one.ask(), one.ask()
    assert clock.until(lambda: first.granted)
    assert clock.until(lambda: second.waiting.place)
    assert second.waiting.place and second.waiting.place[:2] == (1, 1)
    assert one.host.open.keys() == {first.session}
    assert len(keys(memory, "queue/")) == 1
    one.host.finish(first.session)
    assert clock.until(lambda: second.granted)
    assert one.host.open.keys() == {second.session}
    assert keys(memory, "queue/") == [] and len(keys(memory, "claims/")) == 1
    assert one.cluster.settled
    one.host.finish(second.session)
    assert not one.cluster.settled
    assert clock.until(lambda: one.cluster.settled)
    assert not keys(memory, "claims/")


def test_an_ask_to_one_server_gets_a_gpu_of_another(start: Start, clock: Clock) -> None:
    one, two = start("a", gpus=1), start("b", gpus=2)
    big = one.ask(gpus=2)
    assert clock.until(lambda: big.granted)
    assert big.on == two.id and set(two.host.open) == {big.session} and not one.host.open
    assert one.cluster.membership.cluster == two.cluster.membership.cluster != ""
    assert [one.cluster.leads, two.cluster.leads].count(True) == 1


def test_what_can_never_be_is_said_at_once(start: Start) -> None:
    one = start(gpus=2)
    with pytest.raises(TooMuch):
        one.ask(gpus=3)
    with pytest.raises(TooMuch):
        one.ask(gpus=2, limits=Limits(gpus=1))


def test_the_queue_is_left(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=1)
    first, second, third = one.ask(), one.ask(), one.ask()
    assert clock.until(lambda: third.waiting.place)
    assert clock.until(lambda: len(keys(memory, "queue/")) == 2)
    second.waiting.cancel()
    assert len(keys(memory, "queue/")) == 2  # the store has not heard yet
    assert one.cluster.waits_of("alice") == 1
    assert clock.until(lambda: len(keys(memory, "queue/")) == 1)
    assert one.cluster.waits_of("alice") == 1
    one.host.finish(first.session)
    assert clock.until(lambda: third.granted)
    assert not second.granted and second.changes.count("granted") == 0


@pytest.mark.parametrize("steps", range(25))
def test_leaving_at_any_moment_leaks_nothing(
    start: Start, clock: Clock, memory: Memory, steps: int
) -> None:
    one, two = start("a", gpus=1), start("b", gpus=2)
    client = one.ask(gpus=2)
    for _ in range(steps):
        clock.step()
    client.waiting.cancel()
    clock.run(30)
    assert not keys(memory, "queue/") and not keys(memory, "claims/")
    assert not one.host.open and not two.host.open
    again = one.ask(gpus=2)
    assert clock.until(lambda: again.granted)


def test_a_refused_claim_keeps_its_place(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=1)
    one.host.refuse = "no descriptors left"
    first = one.ask("alice")
    clock.run(0.05)
    second = one.ask("alice")
    clock.run(1)
    assert not first.granted and not second.granted
    one.host.refuse = ""
    assert clock.until(lambda: first.granted or second.granted)
    assert first.granted and not second.granted


def test_what_is_always_refused_fails(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=1)
    one.host.refuse = "no descriptors left"
    client, before_s = one.ask(), clock.now_s
    assert clock.until(lambda: client.waiting.state == "failed", 300)
    assert clock.now_s - before_s > 30  # it was tried again, less and less often
    assert client.waiting.why == "no descriptors left"
    clock.run(5)
    assert not keys(memory, "claims/") and not keys(memory, "queue/")


def test_a_contact_that_dies_takes_its_asks_along(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1)
    holders = [one.ask(), one.ask()]
    assert clock.until(lambda: all(h.granted for h in holders))
    lost, kept = two.ask("bob"), one.ask("carol")
    assert clock.until(lambda: len(keys(memory, "queue/")) == 2)
    kill(memory, two)
    assert clock.until(lambda: len(keys(memory, "queue/")) == 1)
    mine = next(h for h in holders if h.on == one.id)
    one.host.finish(mine.session)
    assert clock.until(lambda: kept.granted)
    assert not lost.granted


def test_what_was_granted_to_a_client_that_died_with_its_contact(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """The server that comes back knows that nobody was told of it."""
    one = start("a", gpus=1)
    asked = one.ask()
    assert clock.until(lambda: keys(memory, "claims/"))
    assert not one.host.open
    kill(memory, one)
    again = start("a", gpus=1, host=one.host)
    clock.run(1)
    assert not keys(memory, "claims/") and not keys(memory, "queue/")
    assert not again.host.open and not asked.granted
    other = again.ask()
    assert clock.until(lambda: other.granted, 1)


def test_another_server_leads_when_the_leader_dies(
    start: Start, clock: Clock, memory: Memory
) -> None:
    servers = [start("a"), start("b"), start("c")]
    leader = next(server for server in servers if server.cluster.leads)
    others = [server for server in servers if server is not leader]
    waiting = [others[0].ask(gpus=2) for _ in range(4)]  # one more than there is room for
    clock.run(1)
    assert sum(w.granted for w in waiting) == 3
    kill(memory, leader)
    clock.run(1)
    assert [server.cluster.leads for server in others].count(True) == 1
    free = next(w for w in waiting if w.granted and w.on != leader.id)
    next(s for s in others if s.id == free.on).host.finish(free.session)
    assert clock.until(lambda: all(w.granted for w in waiting))


def test_a_server_that_dies_before_it_made_the_session(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """The ask goes back to its place, and another server serves it."""
    one, two = start("a", gpus=1), start("b", gpus=2)
    client = one.ask(gpus=1)
    assert clock.until(lambda: client.granted)
    big = one.ask(gpus=2)
    two.host.open_claim = lambda claim: kill(memory, two) or "dead"  # type: ignore[method-assign,func-returns-value]
    clock.run(5)
    assert not big.granted
    three = start("c", gpus=2)
    assert clock.until(lambda: big.granted)
    assert big.on == three.id


@pytest.mark.parametrize("what", ["led", "left", "drained", "gone", "granted"])
def test_a_decision_that_comes_too_late_changes_nothing(
    start: Start, clock: Clock, memory: Memory, what: str
) -> None:
    """Something else is written just before it."""
    one = start(gpus=1)
    late: list[str] = []

    def interfere(changes: Sequence[Change]) -> str:
        granted = [c.key for c in changes if c.key.startswith("claims/")]
        if granted and not late:
            late.extend(granted)
            (queued,) = keys(memory, "queue/")
            earlier = {
                "led": Change("leader", {"server": "other", "instance": "other"}),
                "left": Change(queued, None),
                "drained": Change(f"drained/{one.id}", {}),
                "gone": Change(f"servers/{one.id}", None),
                "granted": Change(granted[0], {}),
            }
            assert memory.commit(None, [earlier[what]], ()) == "applied"
            outcomes.append(memory.commit(one.store, changes, checks))  # type: ignore[arg-type]
        return ""

    outcomes: list[str] = []
    checks: list[Check] = []
    commit = one.store.commit

    def note(changes: Sequence[Change], done: Done, given: Sequence[Check] = ()) -> None:
        checks[:] = given
        commit(changes, done, given)

    one.store.commit = note  # type: ignore[method-assign]
    memory.fault = interfere
    one.ask()
    assert clock.until(lambda: outcomes)
    assert outcomes == ["conflict"] and not one.host.open


def test_claims_of_a_lost_server_count_until_they_are_forgotten(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1, forget_s=600)
    limits = Limits(gpus=1)
    client = two.ask("bob", limits=limits)
    assert clock.until(lambda: client.granted)
    if client.on == one.id:
        one, two = two, one
    kill(memory, two)
    clock.run(1)
    second = one.ask("bob", limits=limits)
    clock.run(500)
    assert not second.granted and len(keys(memory, "claims/")) == 1
    clock.run(200)
    assert second.granted and keys(memory, "claims/") == [f"claims/{second.session}"]


def test_a_restarted_server_keeps_its_sessions(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = start("a", gpus=1), start("b", gpus=2)
    client, ended = one.ask(gpus=2), one.ask(gpus=1)
    assert clock.until(lambda: client.granted and ended.granted)
    kill(memory, two)
    host = FakeHost(2, 1000)
    host.open = dict(two.host.open)
    clock.run(20)
    again = start("b", host=host)
    clock.run(20)
    assert set(again.host.open) == {client.session} and again.host.ends == []
    assert f"claims/{client.session}" in memory.entries
    waiting = one.ask(gpus=2)
    clock.run(5)
    assert not waiting.granted
    host.finish(client.session)
    assert clock.until(lambda: waiting.granted)


def test_a_session_that_ended_while_its_server_was_away(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one, two = start("a", gpus=1), start("b", gpus=2)
    client = one.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    kill(memory, two)
    start("b", host=FakeHost(2, 1000))
    assert clock.until(lambda: not keys(memory, "claims/"))


def test_a_restart_before_the_old_lease_ended(start: Start, clock: Clock, memory: Memory) -> None:
    """Killed and started again within the lease: what the old one left is taken over."""
    one = start(gpus=1)
    client, queued = one.ask(), one.ask()
    assert clock.until(lambda: client.granted and queued.waiting.place)
    one.cluster._desk.closed = True
    memory.stores.remove(one.store)  # type: ignore[arg-type]
    host = FakeHost(1, 1000)
    host.open = dict(one.host.open)
    again = start(host=host)
    assert clock.until(lambda: again.cluster.leads)
    assert clock.until(lambda: not keys(memory, "queue/"))  # its client's connection is gone
    memory.expire(one.store)  # type: ignore[arg-type]
    clock.run(5)
    assert again.ready and again.cluster.leads
    host.finish(client.session)
    third = again.ask()
    assert clock.until(lambda: third.granted)


def test_draining(start: Start, clock: Clock) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1)
    outcomes: list[str] = []
    one.cluster.drain(two.id, outcomes.append)
    clock.run(1)
    assert outcomes == ["applied"]
    clients = [one.ask(), one.ask()]
    clock.run(5)
    assert [c.granted for c in clients] == [True, False] and not two.host.open
    assert [m.state for m in one.cluster.servers()] == ["up", "drained"]
    one.cluster.undrain(two.id, outcomes.append)
    assert clock.until(lambda: clients[1].granted)
    assert two.host.open


def test_ending_any_session(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = start("a", gpus=1), start("b", gpus=2)
    client = two.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    two.host.keep_ended = True
    assert one.cluster.end(client.session, "killed")
    clock.run(5)
    assert two.host.ends == [(client.session, "killed")]
    assert keys(memory, "claims/")  # until its memory is free
    two.host.finish(client.session)
    assert clock.until(lambda: not one.cluster.claims())
    assert not one.cluster.end(client.session, "killed")


def test_a_lost_store_ends_nothing(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1)
    running, queued = fill(clock, one, two)
    states: list[bool] = []
    one.cluster.on_state.append(states.append)
    memory.set_reachable(False)
    clock.run(1)
    with pytest.raises(StoreLost):
        one.ask()
    mine = next(r for r in running if r.on == one.id)
    one.host.finish(mine.session)  # ends while nobody can be told
    clock.run(3000)
    assert set(one.host.open) | set(two.host.open) == {r.session for r in running} - {mine.session}
    assert not one.host.ends and not two.host.ends
    memory.set_reachable(True)
    assert clock.until(lambda: queued.granted)
    assert states == [False, True]
    clock.run(5)
    assert len(keys(memory, "claims/")) == 2


def test_an_emptied_store_is_filled_again(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1)
    running, queued = fill(clock, one, two)
    memory.replace({})
    clock.run(10)
    assert not one.host.ends and not two.host.ends
    assert len(keys(memory, "claims/")) == 2 and len(keys(memory, "servers/")) == 2
    assert len(keys(memory, "queue/")) == 1 and not queued.granted
    next(s for s in (one, two) if s.id == running[0].on).host.finish(running[0].session)
    assert clock.until(lambda: queued.granted)


def test_an_old_state_does_not_give_a_gpu_twice(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one = start(gpus=1)
    first = one.ask()
    assert clock.until(lambda: first.granted)
    old = dict(memory.entries)
    one.host.finish(first.session)
    second = one.ask()
    assert clock.until(lambda: second.granted)
    third = one.ask()
    clock.run(1)
    memory.replace({k: e for k, e in old.items() if e.owner is None})
    clock.run(20)
    assert set(one.host.open) == {second.session} and not one.host.ends
    assert keys(memory, "claims/") == [f"claims/{second.session}"]
    one.host.finish(second.session)
    assert clock.until(lambda: third.granted)


def test_a_lost_lease_is_made_good(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = start("a", gpus=1), start("b", gpus=1)
    _running, queued = fill(clock, one, two)
    later = one.ask("carol")
    assert clock.until(lambda: later.waiting.place)
    before = sorted(keys(memory, "queue/"))
    memory.expire(one.store)  # type: ignore[arg-type]
    clock.run(5)
    assert sorted(keys(memory, "queue/")) == before
    assert len(keys(memory, "servers/")) == 2
    assert not one.host.ends and not two.host.ends
    for server in (one, two):
        for session in list(server.host.open):
            server.host.finish(session)
    assert clock.until(lambda: queued.granted and later.granted)


def test_two_servers_with_one_id(start: Start, clock: Clock, memory: Memory) -> None:
    """Somebody copied a state_dir: the older one says so instead of fighting."""
    old, new = start("a", gpus=1), start("a", gpus=1)
    writes = memory._version
    clock.run(60)
    assert memory._version - writes < 10
    with pytest.raises(Refusal, match="another server has this one's ID"):
        old.ask()
    client = new.ask()
    assert clock.until(lambda: client.granted)
    assert set(new.host.open) == {client.session} and not old.host.open


def test_a_server_with_other_keys_gets_nothing(start: Start, clock: Clock) -> None:
    """Clients that trust the cluster's would not trust it."""
    one = start("a", gpus=1, keys="51c8")
    other, two = start("b", gpus=4, keys="none"), start("c", gpus=1, keys="51c8")
    assert clock.until(lambda: two.ready)
    assert [member.view.name for member in one.cluster.servers()] == ["a", "c"]
    assert other.cluster.membership.other_keys == "51c8"
    with pytest.raises(Refusal, match="this server's keys are not those of the cluster at"):
        other.ask()
    with pytest.raises(TooMuch):
        one.ask(gpus=4)


def test_a_store_of_before_learns_the_keys(start: Start, clock: Clock, memory: Memory) -> None:
    one = start("a", gpus=1)
    assert clock.until(lambda: one.ready)
    name = one.cluster.membership.cluster
    two = start("b", gpus=1, keys="51c8")
    assert clock.until(lambda: two.ready)
    assert two.cluster.replica.values["cluster"] == {"id": name, "keys": "51c8"}
    assert start("c", gpus=1, keys="51c9").cluster.membership.other_keys == "51c8"


@pytest.mark.parametrize("fault", ["conflict", LOST_BEFORE, LOST_AFTER])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 7, 11])
def test_every_nth_write_goes_wrong(
    start: Start, clock: Clock, memory: Memory, fault: str, nth: int
) -> None:
    """Once with each of the first writes, then with every n-th."""
    one, two = start("a", gpus=1), start("b", gpus=2)
    count = 0

    def fail(_changes: object) -> str:
        nonlocal count
        count += 1
        return fault if count % nth == 0 and count < 200 else ""

    memory.fault = fail
    clients = [server.ask(gpus=g) for g in (1, 2, 1) for server in (one, two)]
    done: list[Client] = []
    for _ in range(len(clients)):
        assert clock.until(lambda: any(c.granted and c not in done for c in clients), 3000)
        clock.run(5)
        client = next(c for c in clients if c.granted and c not in done)
        done.append(client)
        host = next(s for s in (one, two) if s.id == client.on).host
        assert client.session in host.open
        host.finish(client.session)
    memory.fault = lambda _changes: ""
    clock.run(60)
    assert not keys(memory, "queue/") and not keys(memory, "claims/")
    assert not one.host.ends and not two.host.ends
    assert sorted(one.host.opened + two.host.opened) == sorted(c.session for c in clients)


def test_unreadable_values_are_ignored(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=1)
    bad = [
        Change("servers/x", {"name": 3}),
        Change("claims/x", {"state": "odd"}),
        Change("queue/0001-x", {}),
        Change("leader", {"who": "me"}),
        Change("other/x", {}),
    ]
    assert memory.commit(None, bad, ()) == "applied"
    for change in bad:
        one.store.tell(change.key)  # type: ignore[attr-defined]
    clock.run(1)
    client = one.ask()
    assert clock.until(lambda: client.granted)


@pytest.mark.parametrize("jump_s", [-1e8, 1e8])
def test_a_clock_that_jumps(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """Times of day are for display: nothing ends, is forgotten or loses its place by them."""
    one, two = start("a", gpus=1), start("b", gpus=1)
    running, queued = fill(clock, one, two)
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + jump_s)
    later = one.ask("bob")
    clock.run(60)
    assert not one.host.ends and not two.host.ends and not queued.granted
    assert len(one.cluster.claims()) == 2 and len(list(one.cluster.queue())) == 2
    next(s for s in (one, two) if s.id == running[0].on).host.finish(running[0].session)
    assert clock.until(lambda: queued.granted)
    clock.run(5)
    assert not later.granted
