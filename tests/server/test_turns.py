# SPDX-License-Identifier: Apache-2.0
"""A client whose contact ended goes on waiting at another server, or at the next one, where it
was in the queue.
"""

from __future__ import annotations

import random
import time

import pytest
from clusters import Client, Clock, Server, Start, keys, kill
from servers import Server as Process
from servers import connect
from waiting import wait_for

from bitfusion.client import control
from bitfusion.client.channels import HttpChannel
from bitfusion.server import spent
from bitfusion.server.seal import MOST_AGE_S
from bitfusion.server.store_memory import Memory
from bitfusion.wire.control import Json, Reply


def order(server: Server) -> list[str]:
    """Clients, as they wait."""
    queued = [each for each in server.cluster.queue() if each.place]
    return [e.entry.ask.client for e in sorted(queued, key=lambda e: e.place.position)]  # type: ignore[union-attr]


def wait_in_line(clock: Clock, server: Server, clients: str) -> dict[str, Client]:
    asked = {}
    for client in clients:
        asked[client] = server.ask(client)
        assert clock.until(lambda client=client: asked[client].waiting.place)  # type: ignore[misc]
    return asked


@pytest.mark.parametrize("expired", [True, False])
def test_a_place_is_kept_over_the_end_of_the_contact(
    start: Start, clock: Clock, memory: Memory, expired: bool
) -> None:
    """Whether or not the cluster knows of its end already; whoever asks in between is behind."""
    one, two = start("a", gpus=1), start("b", gpus=1)
    holder = two.ask(), two.ask()
    assert clock.until(lambda: all(each.granted for each in holder))
    asked = wait_in_line(clock, one, "xyz")
    turns = {client: one.turn(asked[client]) for client in asked}
    kill(memory, one, expired)
    clock.run(1.0)
    later = two.ask("later")
    for client in "zxy":
        asked[client] = two.ask(client, turn=turns[client])
    assert clock.until(lambda: order(two) == ["x", "y", "z", "later"])
    if not expired:
        memory.expire(one.store)  # type: ignore[arg-type]
        clock.run(1.0)
    assert order(two) == ["x", "y", "z", "later"] and len(keys(memory, "queue/")) == 4
    two.host.finish(next(iter(two.host.open)))
    assert clock.until(lambda: asked["x"].granted)
    assert not later.granted and [asked[c].granted for c in "yz"] == [False, False]


def test_a_place_is_kept_over_a_restart(start: Start, clock: Clock, memory: Memory) -> None:
    """Of the only server, which forgets its queue; newcomers are behind, whenever they come."""
    one = start(gpus=1)
    held = one.ask()
    assert clock.until(lambda: held.granted)
    asked = wait_in_line(clock, one, "xy")
    turns = {client: one.turn(asked[client]) for client in asked}
    kill(memory, one)
    one = start(gpus=1, host=one.host)
    one.ask("newcomer")
    clock.run(1.0)
    for client in "yx":
        one.ask(client, turn=turns[client])
        clock.run(0.1)
    assert order(one) == ["x", "y", "newcomer"]


def test_the_queue_is_as_fair_after_it_has_come_back(start: Start, clock: Clock) -> None:
    """In whatever order a client's requests return: one with many gets no more by that."""
    one = start(gpus=1)
    one.ask()
    asked = [(client, one.ask(client)) for client in ["many"] * 8 + ["few"] * 2]
    clock.run(1.0)
    before = order(one)
    assert before[:4].count("few") == 2
    turns = [(client, one.turn(each)) for client, each in asked]
    for _, each in asked:
        each.waiting.cancel()
    clock.run(1.0)
    assert not order(one)
    random.Random(1).shuffle(turns)
    for client, turn in turns:
        one.ask(client, turn=turn)
        clock.run(0.1)
    assert order(one) == before


def test_turns_that_are_none(
    start: Start, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forged, somebody else's, or too old ones: who shows one comes last."""
    one = start(gpus=1)
    one.ask()
    asked = wait_in_line(clock, one, "xy")
    turn = one.turn(asked["x"])
    words = turn.split(" ")
    assert one.cluster.turn_of("x", turn) and not one.cluster.turn_of("y", turn)
    earlier = " ".join([words[0], f"{int(words[1], 16) - 1:x}", *words[2:]])
    other = Server("b", clock, Memory(clock).store(), clock=clock.read).start()
    clock.run(1.0)
    elsewhere = other.ask("x")
    for bad in (
        earlier,
        turn[:-1],
        turn.upper(),
        "",
        " ",
        "\u0663",
        "\ud800",
        None,
        7,
        "x" * 10_000,
    ):
        assert one.cluster.turn_of("x", bad) is None, bad
    assert one.cluster.turn_of("x", other.turn(elsewhere)) is None  # of another cluster
    one.ask("y", turn=turn)
    clock.run(1.0)
    assert order(one) == ["x", "y", "y"] and asked["x"].waiting.state == "queued"
    now_s, old_s = time.time(), MOST_AGE_S + 9
    for late_s, known in ((MOST_AGE_S - 9, True), (old_s, False), (-old_s, False)):
        monkeypatch.setattr("time.time", lambda late_s=late_s: now_s + late_s)
        assert bool(one.cluster.turn_of("x", turn)) == known


@pytest.mark.parametrize("steps", range(14))
def test_what_was_granted_meanwhile_is_not_lost(
    start: Start, clock: Clock, memory: Memory, steps: int
) -> None:
    """The ask's contact ends while it is granted: its client has one session in the end."""
    one, two = start("a", gpus=1), start("b", gpus=1)
    holders = [two.ask("h"), two.ask("h")]
    assert clock.until(lambda: all(each.granted for each in holders))
    first = one.ask("x")
    assert clock.until(lambda: first.waiting.place)
    turn = one.turn(first)
    two.host.finish(next(iter(two.host.open)))
    for _ in range(steps):
        clock.step()
    if first.granted:
        return
    kill(memory, one, expire=False)
    again = two.ask("x", turn=turn)
    clock.run(5.0)
    memory.expire(one.store)  # type: ignore[arg-type]
    if again.waiting.state == "moved":
        again = two.ask("x", turn=turn)
    clock.run(5.0)
    for session in [s for s in two.host.open if s not in {again.session, holders[0].session}]:
        assert two.host.open[session].client in ("h", "x")
        two.host.finish(session)  # nobody attached to it
    assert clock.until(lambda: again.granted, 700.0)
    assert two.host.open[again.session].entry.contact == two.id  # with the secret that it knows
    assert not keys(memory, "queue/")


def test_who_wants_something_else_now(start: Start, clock: Clock) -> None:
    """With the turn of another request, it is the new one that waits, and at its place."""
    one = start(gpus=2)
    held = [one.ask("h"), one.ask("h")]
    assert clock.until(lambda: all(each.granted for each in held))
    asked = wait_in_line(clock, one, "xy")
    again = one.ask("x", gpus=2, turn=one.turn(asked["x"]))
    clock.run(1.0)
    assert asked["x"].waiting.state == "queued" and order(one) == ["x", "y"]
    one.host.finish(held[0].session)
    clock.run(1.0)
    one.host.finish(held[1].session)
    assert clock.until(lambda: again.granted)
    assert len(one.slices(again.session)) == 2 and not asked["y"].granted


def test_one_who_waits_twice_has_one_place(start: Start, clock: Clock, memory: Memory) -> None:
    """The server that was asked first is told that another one goes on with it."""
    one, two = start("a", gpus=1), start("b", gpus=1)
    holders = [one.ask("h"), one.ask("h")]
    assert clock.until(lambda: all(each.granted for each in holders))
    first = one.ask("x")
    assert clock.until(lambda: first.waiting.place)
    second = two.ask("x", turn=one.turn(first))
    assert clock.until(lambda: first.changes[-1:] == ["moved"])
    clock.run(10.0)
    assert len(keys(memory, "queue/")) == 1 and second.waiting.state == "queued"
    next(s for s in (one, two) if s.id == holders[0].on).host.finish(holders[0].session)
    assert clock.until(lambda: second.granted)


def test_a_turn_ends_with_its_ask(start: Start, clock: Clock, memory: Memory) -> None:
    """At every server, for as long as it could be shown; nothing of it is left then."""
    one, two = start("a", gpus=1), start("b", gpus=1)
    holders = [one.ask("h"), two.ask("h")]
    assert clock.until(lambda: all(each.granted for each in holders))
    asked = wait_in_line(clock, one, "xyz")
    turn, other = one.turn(asked["x"]), one.turn(asked["z"])
    asked["x"].waiting.cancel()
    one.cluster.spend(asked["x"].session)
    assert one.cluster.turn_of("x", turn) is None
    assert clock.until(lambda: two.cluster.turn_of("x", turn) is None)
    memory.expire(one.store)  # type: ignore[arg-type]
    clock.run(5.0)  # the lease was lost for a moment
    assert two.cluster.turn_of("x", turn) is None and two.cluster.turn_of("z", other)
    two.ask("x", turn=turn)
    assert clock.until(lambda: order(two) == ["y", "z", "x"])
    clock.run(2 * MOST_AGE_S + 10)
    assert not keys(memory, "spent/")


def test_ends_of_asks_that_are_kept_are_bounded(
    start: Start, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spent, "MOST", 5)
    one = start("a", gpus=1)
    for number in range(12):
        one.cluster.spend(f"{number:016x}")
        clock.run(1.0)
    clock.run(5.0)
    assert keys(memory, "spent/") == [f"spent/{number:016x}" for number in range(7, 12)]


@pytest.mark.parametrize("server", [("echo", 1, 1000)], indirect=True)
@pytest.mark.parametrize("used", [True, False])
def test_a_turn_of_an_ask_that_is_over_is_no_turn(server: Process, used: bool) -> None:
    """Its client left the queue, or used the GPU."""
    held = server.claim()
    first, other, again = (server.channel() for _ in range(3))
    body: Json = {"gpus": 1, "wait": 0}
    asked = first.request("POST", "/v1/sessions", body).body
    path = f"/v1/queue/{asked['entry']}"
    if used:
        held.channel.close()
        answer = granted(first, path)
        held = control.Session(first, answer, "auto", 60, str(answer["secret"]))
        held.renew(first, held.attach_over(first).body)
        connect(held)[0].close()
    else:
        assert first.request("DELETE", path).status == 200
    newcomer = other.request("POST", "/v1/sessions", body).body
    back = again.request("POST", "/v1/sessions", {**body, "turn": asked["turn"]}).body
    assert wait_for(lambda: position(again, back) == 2 and position(other, newcomer) == 1)
    held.channel.close()


@pytest.mark.parametrize("server", [("echo", 1, 1000)], indirect=True)
def test_a_turn_is_good_until_the_gpus_are_used(server: Process) -> None:
    """Its client was given them, and lost its contact before it had them."""
    held = server.claim()
    first, second, third, again = (server.channel() for _ in range(4))
    body: Json = {"gpus": 1, "wait": 0}
    asked = [c.request("POST", "/v1/sessions", body).body for c in (first, second, third)]
    held.channel.close()
    granted(first, f"/v1/queue/{asked[0]['entry']}")
    first.close()
    granted(second, f"/v1/queue/{asked[1]['entry']}")
    back = again.request("POST", "/v1/sessions", {**body, "turn": asked[0]["turn"]}).body
    assert wait_for(lambda: position(again, back) == 1 and position(third, asked[2]) == 2)


def granted(channel: HttpChannel, path: str) -> Json:
    replies: list[Reply] = []

    def is_granted() -> bool:
        replies.append(channel.request("GET", f"{path}?wait=1&position=0"))
        return replies[-1].status == 201

    assert wait_for(is_granted)
    return replies[-1].body


def position(channel: HttpChannel, asked: Json) -> int:
    reply = channel.request("GET", f"/v1/queue/{asked['entry']}?wait=0&position=0")
    return int(str(reply.body.get("position", 0)))


@pytest.mark.parametrize("server", [("echo", 1, 1000)], indirect=True)
def test_over_connections(server: Process) -> None:
    """One that is lost, and comes back while the server knows nothing of that, or does."""
    held = server.claim()
    channels = [server.channel() for _ in range(3)]
    replies = [c.request("POST", "/v1/sessions", {"gpus": 1, "wait": 0}) for c in channels[:2]]
    turn = str(replies[0].body["turn"])

    def at(number: int, entry: object) -> int:
        path = f"/v1/queue/{entry}?wait=1&position=0"
        return int(str(channels[number].request("GET", path).body.get("position", 0)))

    assert wait_for(lambda: at(1, replies[1].body["entry"]) == 2)
    back = channels[2].request("POST", "/v1/sessions", {"gpus": 1, "turn": turn})
    assert back.status == 202
    assert wait_for(lambda: at(2, back.body["entry"]) == 1)
    path = f"/v1/queue/{replies[0].body['entry']}"
    assert channels[0].request("GET", path).status == 404
    channels[0].close()
    channels[2].close()
    channels[2] = server.channel()
    turn = str(back.body["turn"])
    back = channels[2].request("POST", "/v1/sessions", {"gpus": 1, "turn": turn})
    assert wait_for(lambda: at(2, back.body["entry"]) == 1)
    held.channel.close()
    assert wait_for(
        lambda: channels[2].request("GET", f"/v1/queue/{back.body['entry']}").status == 201
    )
