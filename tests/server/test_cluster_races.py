# SPDX-License-Identifier: Apache-2.0
"""Servers of a cluster where something happens at the wrong moment, or nobody is there to act."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Optional

import pytest
from clusters import MIB, Client, Clock, Server, Start, keys, kill

from bitfusion.server import leader
from bitfusion.server.caller import Limits
from bitfusion.server.leader import MAX_WRITES
from bitfusion.server.pool import Slice
from bitfusion.server.records import (
    GRANTED,
    READY,
    Claim,
    pack_claim,
    pack_entry,
    unpack_claim,
)
from bitfusion.server.store import Change
from bitfusion.server.store_memory import LOST_BEFORE, Memory
from bitfusion.wire.control import unpack_object

Match = Callable[[Sequence[Change]], bool]


def meddle(memory: Memory, match: Match, act: Callable[[], Sequence[Change]]) -> list[str]:
    """Somebody else's changes, just before the first write that matches. Returns its keys."""
    met: list[str] = []

    def look(changes: Sequence[Change]) -> str:
        if not met and match(changes):
            met.extend(change.key for change in changes)
            assert memory.commit(None, list(act()), ()) == "applied"
        return ""

    memory.fault = look
    return met


def claim_of(memory: Memory, client: Client) -> Claim:
    return unpack_claim(unpack_object(memory.entries[f"claims/{client.session}"].value))


def puts(prefix: str, state: str = "") -> Match:
    def match(changes: Sequence[Change]) -> bool:
        return any(
            change.key.startswith(prefix)
            and change.value is not None
            and (not state or change.value.get("state") == state)
            for change in changes
        )

    return match


def deletes(prefix: str) -> Match:
    return lambda changes: any(c.key.startswith(prefix) and c.value is None for c in changes)


def stuck(clock: Clock, one: Server, two: Server) -> Client:
    """An ask to one, granted where it hangs: on two, of two GPUs, which does nothing any more."""
    client = one.ask(gpus=2)
    two.cluster._desk.closed = True
    assert clock.until(lambda: client.session in one.cluster.facts.claims)
    return client


def lead(clock: Clock, start: Start) -> tuple[Server, Server]:
    """The first leads."""
    one = start("a", gpus=1)
    assert clock.until(lambda: one.cluster.leads)
    return one, start("b", gpus=2)


def test_an_ask_does_not_wait_where_it_was_granted(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """It is put back, because the store lost it; just then it turns out to be granted."""
    one, two = lead(clock, start)
    held = [two.ask("h", gpus=2), one.ask("h")]
    assert clock.until(lambda: all(each.granted for each in held))
    client = one.ask()
    assert clock.until(lambda: client.waiting.place)
    entry = client.waiting.entry
    claim = Claim(entry, two.id, (Slice(0, 1000 * MIB),), time.time(), GRANTED)
    two.host.finish(held[0].session)
    two.cluster._desk.closed = True
    change = [Change(claim.key, pack_claim(claim))]
    met = meddle(memory, puts(entry.key), lambda: change)
    memory.commit(None, [Change(entry.key, None)], ())
    assert clock.until(lambda: met)
    assert claim.key in memory.entries and entry.key not in memory.entries


def test_who_was_granted_what_hangs_and_leaves(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = lead(clock, start)
    client = stuck(clock, one, two)
    kill(memory, two)
    memory.fault = lambda changes: LOST_BEFORE if puts("queue/")(changes) else ""
    client.waiting.cancel()
    clock.run(10)
    assert not keys(memory, "claims/")


def test_a_server_that_returns_keeps_the_claim_it_had(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """Just when its contact took it for gone, and wanted to put the ask back."""
    one, two = lead(clock, start)
    client = stuck(clock, one, two)
    there = unpack_object(memory.entries[f"servers/{two.id}"].value)
    met = meddle(memory, deletes("claims/"), lambda: [Change(f"servers/{two.id}", there)])
    kill(memory, two)
    assert clock.until(lambda: met)
    assert f"claims/{client.session}" in memory.entries and not keys(memory, "queue/")


def test_who_leaves_after_a_refusal(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=1)
    one.host.refuse = "no descriptors left"
    client = one.ask()
    assert clock.until(lambda: client.waiting.refusals)
    client.waiting.cancel()
    clock.run(10)
    assert not keys(memory, "claims/") and not keys(memory, "queue/")


def test_a_refusal_whose_contact_died(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = lead(clock, start)
    one.host.refuse = two.host.refuse = "no descriptors left"
    client = two.ask()
    assert clock.until(lambda: client.waiting.refusals)
    assert keys(memory, "claims/")
    kill(memory, two)
    clock.run(10)
    assert not keys(memory, "claims/")


def test_an_operator_ends_what_hangs(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = lead(clock, start)
    client = stuck(clock, one, two)
    assert one.cluster.end(client.session, "killed")
    assert clock.until(lambda: client.waiting.state == "failed")
    assert client.waiting.why == "killed" and keys(memory, "claims/")
    kill(memory, two, expire=False)
    two = start("b", host=two.host)
    assert clock.until(lambda: not keys(memory, "claims/")) and not two.host.opened


def test_a_lost_decision_is_made_again(start: Start, clock: Clock, memory: Memory) -> None:
    """Though nothing else happens."""
    one = start(gpus=1)
    clock.run(1)
    lost: list[object] = []

    def lose(changes: Sequence[Change]) -> str:
        if puts("claims/")(changes) and not lost:
            lost.append(changes)
            return LOST_BEFORE
        return ""

    memory.fault = lose
    client = one.ask()
    assert clock.until(lambda: client.granted, 5) and lost


def test_more_grants_than_are_written_at_once(start: Start, clock: Clock) -> None:
    one = start(gpus=MAX_WRITES + 6)
    clients = [one.ask(f"c{number}") for number in range(MAX_WRITES + 6)]
    assert clock.until(lambda: all(client.granted for client in clients), 5)


@pytest.mark.parametrize("what", ["returned", "led"])
def test_what_is_not_to_be_forgotten(
    start: Start, clock: Clock, memory: Memory, what: str
) -> None:
    """The leader wants to forget a session: just then its server returns, or another leads."""
    one, two = lead(clock, start)
    client = one.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    there = unpack_object(memory.entries[f"servers/{two.id}"].value)
    changes = {
        "returned": Change(f"servers/{two.id}", there),
        "led": Change("leader", {"server": "other", "instance": "other"}),
    }
    met = meddle(memory, deletes("claims/"), lambda: [changes[what]])
    kill(memory, two)
    assert clock.until(lambda: met, 700)
    assert f"claims/{client.session}" in memory.entries


def test_a_session_that_is_not_forgotten_at_the_first_try(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """Nor is its server, until it is: else all of that time would pass once more."""
    one, two = lead(clock, start)
    client = one.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    kill(memory, two)
    tries: list[bool] = []

    def fail_once(changes: Sequence[Change]) -> str:
        tries.extend([True] * deletes("claims/")(changes))
        return LOST_BEFORE if tries == [True] else ""

    memory.fault = fail_once
    assert clock.until(lambda: tries, 700) and keys(memory, "claims/")
    clock.run(10)
    assert not keys(memory, "claims/") and len(tries) == 2


def test_sessions_of_servers_that_nobody_saw_are_forgotten(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """All servers were away; one returns, and one does not."""
    one, two = lead(clock, start)
    client = one.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    for server in (one, two):
        kill(memory, server)
    one = start("a", gpus=1)
    clock.run(590)
    assert keys(memory, "claims/")
    clock.run(20)
    assert not keys(memory, "claims/")


def test_time_without_the_store_forgets_nobody(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = lead(clock, start)
    client = one.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    kill(memory, two)
    clock.run(500)
    memory.set_reachable(False)
    clock.run(1000)
    memory.set_reachable(True)
    clock.run(500)
    assert keys(memory, "claims/")
    clock.run(150)
    assert not keys(memory, "claims/")
    clock.run(10)
    assert [member.view.id for member in one.cluster.servers()] == [one.id]


def test_a_claim_that_was_given_back_and_given_again(
    start: Start, clock: Clock, memory: Memory
) -> None:
    """With other GPUs, while the session for the first was made: it has what its claim says."""
    one = start(gpus=2)
    client = one.ask()
    claims: list[Claim] = []

    def again() -> list[Change]:
        claim = claim_of(memory, client)
        claims.append(claim._replace(slices=(Slice(1 - claim.slices[0].gpu, 1000 * MIB),)))
        return [Change(claim.key, pack_claim(claims[0]._replace(since=claim.since + 1)))]

    meddle(memory, puts("claims/", READY), again)
    assert clock.until(lambda: claims)
    clock.run(10)
    if client.granted:
        assert one.host.open[client.session].slices == claim_of(memory, client).slices
    assert len(one.host.open) == len(keys(memory, "claims/"))


def test_what_runs_is_what_counts(start: Start, clock: Clock, memory: Memory) -> None:
    """Somebody changed the claim of a session that its client has."""
    one = start(gpus=2)
    client = one.ask()
    assert clock.until(lambda: client.granted)
    clock.run(5)
    claim = claim_of(memory, client)
    other = claim._replace(slices=(Slice(1, 5 * MIB), Slice(0, 5 * MIB)), since=1.0)
    assert memory.commit(None, [Change(claim.key, pack_claim(other))], ()) == "applied"
    clock.run(5)
    assert claim_of(memory, client).slices == one.host.open[client.session].slices
    assert not one.host.ends


def test_a_session_that_was_given_to_another_server(
    start: Start, clock: Clock, memory: Memory
) -> None:
    one, two = lead(clock, start)
    client = two.ask(gpus=2)
    assert clock.until(lambda: client.granted)
    claim = claim_of(memory, client)._replace(server=one.id, slices=(Slice(0, MIB),))
    assert memory.commit(None, [Change(claim.key, pack_claim(claim))], ()) == "applied"
    clock.run(10)
    assert not two.host.open and not one.host.open and not keys(memory, "claims/")


def test_a_server_that_ends_takes_no_more(start: Start, clock: Clock, memory: Memory) -> None:
    one, two = lead(clock, start)
    two.cluster.leave()
    client = one.ask(gpus=2)
    clock.run(3)
    assert not client.granted and not two.host.opened
    kill(memory, two)
    three = start("c", gpus=2)
    assert clock.until(lambda: client.granted)
    assert client.on == three.id


def test_limits_count_wherever_a_client_asks(start: Start, clock: Clock) -> None:
    """The leader hears of them with the ask."""
    one, two = lead(clock, start)
    clients = [two.ask("bob", limits=Limits(gpus=1)) for _ in range(2)]
    clock.run(5)
    assert [client.granted for client in clients].count(True) == 1


def test_limits_that_are_raised_count_at_once(start: Start, clock: Clock) -> None:
    one = start(gpus=2)
    clients = [one.ask("bob", limits=Limits(gpus=1)) for _ in range(2)]
    clock.run(5)
    assert [client.granted for client in clients].count(True) == 1
    one.cluster.set_limits("bob", Limits(gpus=2))
    assert clock.until(lambda: all(client.granted for client in clients), 1)


def test_asks_come_after_all_that_were_seen(
    start: Start, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a server whose clock is behind, and after those that were granted."""
    now = time.time
    one = start("a", gpus=1)
    served = one.ask()
    assert clock.until(lambda: served.granted)
    monkeypatch.setattr("time.time", lambda: now() - 1e6)
    two = start("b", gpus=1)
    asked: list[Optional[Client]] = [served]
    for server in (two, one, two):
        asked.append(server.ask())
        clock.run(1)
    order = [client.waiting.entry.seq for client in asked if client]
    assert order == sorted(set(order))


def test_values_under_other_names_are_ignored(start: Start, clock: Clock, memory: Memory) -> None:
    one = start(gpus=2)
    held, waits = one.ask(gpus=2), one.ask(gpus=2)
    assert clock.until(lambda: held.granted and waits.waiting.place)
    entry = waits.waiting.entry
    other = entry.ask._replace(id="other")
    bad = [
        Change("queue/0000000000000001-x", pack_entry(entry._replace(ask=other))),
        Change("claims/x", pack_claim(claim_of(memory, held))),
    ]
    assert memory.commit(None, bad, ()) == "applied"
    clock.run(1)
    assert len(list(one.cluster.queue())) == 1 and len(one.cluster.claims()) == 1
    one.host.finish(held.session)
    assert clock.until(lambda: waits.granted)


def test_a_turn_that_was_used_ends_nothing(start: Start, clock: Clock) -> None:
    """A client that has its session asks for another, and shows the place that it had."""
    one = start(gpus=2)
    held = [one.ask("h"), one.ask("h")]
    assert clock.until(lambda: all(each.granted for each in held))
    first = one.ask("x")
    assert clock.until(lambda: first.waiting.place)
    turn = one.turn(first)
    one.host.finish(held[0].session)
    assert clock.until(lambda: first.granted)
    second = one.ask("x", turn=turn)
    clock.run(10)
    assert second.session != first.session and not one.host.ends
    one.host.finish(held[1].session)
    assert clock.until(lambda: second.granted)


def test_who_comes_back_to_the_server_it_left(start: Start, clock: Clock) -> None:
    """It noticed that the client had gone; the client has its session undisturbed."""
    one = start(gpus=1)
    held = one.ask("h")
    assert clock.until(lambda: held.granted)
    first = one.ask("x")
    assert clock.until(lambda: first.waiting.place)
    turn = one.turn(first)
    first.waiting.cancel()
    again = one.ask("x", turn=turn)
    clock.run(3)
    one.host.finish(held.session)
    assert clock.until(lambda: again.granted)
    clock.run(30)
    assert again.session in one.host.open and not one.host.ends


def test_what_was_decided_and_not_written_is_nobodys(
    start: Start, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another leads meanwhile, for a moment: who leads again has to decide again."""
    monkeypatch.setattr(leader, "MAX_WRITES", 1)
    one = start(gpus=2)
    other = Change("leader", {"server": "other", "instance": "other"})
    assert meddle(memory, puts("claims/"), lambda: [other]) == []
    asked = [one.ask("x"), one.ask("y")]
    clock.run(1)
    assert not one.cluster.leads and not any(client.granted for client in asked)
    assert not one.cluster.facts.pending
    assert memory.commit(None, [Change("leader", None)], ()) == "applied"
    assert clock.until(lambda: all(client.granted for client in asked), 10)


def test_a_store_that_takes_no_change(start: Start, clock: Clock, memory: Memory) -> None:
    """It is said to whom it happens, and to nobody else."""
    one = start(gpus=1)
    held = one.ask("h")
    assert clock.until(lambda: held.granted)
    first, second = one.ask("x"), one.ask("y")
    assert clock.until(lambda: second.waiting.place)

    def full(changes: Sequence[Change]) -> str:
        if not puts("claims/")(changes):
            return ""
        one.store.failures, one.store.trouble = one.store.failures + 1, "the disk is full"
        return LOST_BEFORE

    memory.fault = full
    one.host.finish(held.session)
    assert clock.until(lambda: first.waiting.trouble)
    assert first.waiting.trouble == "the disk is full" and not second.waiting.trouble
