# SPDX-License-Identifier: Apache-2.0
"""Sessions that outlive the connection that asked for them: attaching, limits, events, ends."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from servers import Server, connect, wait_for

from bitfusion import linux, log
from bitfusion.client import channels, control
from bitfusion.client.lease import Event, Keeper
from bitfusion.errors import BitfusionError, CannotReach, ServerLost
from bitfusion.inventory import Gpu, Inventory
from bitfusion.server.caller import Refusal
from bitfusion.server.countdown import Countdown, describe
from bitfusion.server.leases import Leases
from bitfusion.server.loop import Loop
from bitfusion.server.peer import Peer
from bitfusion.server.pool import Slice
from bitfusion.server.record import Record, hash_secret
from bitfusion.server.sessions import Sessions
from bitfusion.server.state import StateFolder
from bitfusion.wire.control import Reply, failure

SHORT = {"cluster.lease": "0.5"}
LIMITED = ("echo", 2, 1000, 0)


def grant(server: Server) -> tuple[channels.HttpChannel, str, str]:
    channel = server.channel()
    reply = channel.request("POST", "/v1/sessions", {"gpus": 1, "fraction": "0.5"})
    assert reply.status == 201 and reply.body["state"] == "granted"
    return channel, str(reply.body["session"]), str(reply.body["secret"])


def attach(channel: channels.HttpChannel, name: str, secret: str) -> control.Reply:
    return channel.request("POST", f"/v1/sessions/{name}/attach", {"secret": secret})


def events(server: Server, name: str, secret: str, after: int = 0, wait: float = 30) -> Any:
    path = f"/v1/sessions/{name}/events?after={after}&wait={wait}"
    return server.channel().request("GET", path, secret=secret).body["events"]


def as_operator(server: Server, method: str, path: str) -> control.Reply:
    sock = StateFolder(server.state).connect("admin", socket.SOCK_STREAM, 60)
    channel = channels.LineChannel(sock, 60)
    try:
        return channel.request(method, path)
    finally:
        channel.close()


def test_the_secret_moves_a_session_to_another_connection(server: Server) -> None:
    first, name, secret = grant(server)
    assert attach(first, name, secret).status == 200
    second = server.channel()
    assert attach(second, name, "0" * 64).status == 404
    assert attach(second, name, secret).status == 200
    first.close()
    time.sleep(0.2)
    assert server.free() == [500, 1000]
    tickets = f"/v1/sessions/{name}/tickets"
    assert second.request("POST", tickets, {"pid": 1}).status == 201
    second.close()
    assert wait_for(lambda: server.free() == [1000, 1000])
    again = attach(server.channel(), name, secret)
    assert again.status == 410 and "ended-lost" in str(again.body)
    assert "its connection ended" in str(again.body)


def test_a_granted_session_goes_with_the_connection_that_asked(server: Server) -> None:
    channel, _name, _secret = grant(server)
    channel.close()
    assert wait_for(lambda: server.free() == [1000, 1000])


@pytest.mark.parametrize("server", [(*LIMITED, SHORT)], indirect=True)
def test_a_session_that_nobody_attaches_to_ends(server: Server) -> None:
    _channel, name, secret = grant(server)
    (event,) = events(server, name, secret)
    assert (event["kind"], event["why"]) == ("end", "lost")
    assert wait_for(lambda: server.free() == [1000, 1000])


def test_an_operator_ends_a_session(server: Server) -> None:
    session = server.claim()
    stream, _pid = connect(session)
    rows = as_operator(server, "GET", "/v1/sessions").body["sessions"]
    assert isinstance(rows, list) and rows[0]["session"] == session.name and rows[0]["attached"]
    assert server.channel().request("GET", "/v1/sessions").status == 403
    assert server.channel().request("DELETE", f"/v1/sessions/{session.name}").status == 404
    path = f"/v1/sessions/{session.name}"
    assert as_operator(server, "DELETE", path).status == 200
    (event,) = events(server, session.name, session.secret)
    assert (event["kind"], event["why"]) == ("end", "killed")
    stream.sendall(b"x")
    assert stream.recv(9) == b"x"  # the program gets time to end
    session.channel.close()
    assert stream.recv(9) == b""


@pytest.mark.parametrize("server", [(*LIMITED, {"limits.time": "0.6s"})], indirect=True)
def test_a_time_limit(server: Server) -> None:
    started = time.monotonic()
    session = server.claim()
    (event,) = events(server, session.name, session.secret)
    assert (event["kind"], event["why"]) == ("end", "time") and time.monotonic() - started > 0.4


@pytest.mark.parametrize("server", [(*LIMITED, {"limits.idle": "1.5s"})], indirect=True)
def test_an_idle_limit(server: Server) -> None:
    """Work puts it off: a worker that comes is work, whatever it does."""
    session = server.claim()
    started = worked = time.monotonic()
    while time.monotonic() < started + 2.0:
        before = time.monotonic()
        try:
            connect(session)
        except (BitfusionError, ValueError):
            assert time.monotonic() - worked > 1.4, "it was not idle"
            break
        worked = before
        time.sleep(0.4)
    (event,) = events(server, session.name, session.secret)
    assert (event["kind"], event["why"]) == ("end", "idle")
    assert time.monotonic() - worked > 1.4


def test_events_wait_and_are_told_once(server: Server) -> None:
    session = server.claim()
    assert events(server, session.name, session.secret, wait=0.1) == []
    assert server.channel().request("GET", f"/v1/sessions/{session.name}/events").status == 404
    heard: list[Any] = []
    waiting = threading.Thread(
        target=lambda: heard.append(events(server, session.name, session.secret))
    )
    waiting.start()
    time.sleep(0.1)
    as_operator(server, "DELETE", f"/v1/sessions/{session.name}")
    waiting.join(100)
    assert [event["number"] for event in heard[0]] == [1]
    assert events(server, session.name, session.secret, after=1, wait=0.1) == []


def test_a_keeper_outlives_a_lost_connection(server: Server) -> None:
    """Both connections are cut as a restarted server would: it attaches again, tickets go on."""
    heard: list[Event] = []
    session = server.claim()
    channels = [session.channel]

    def open_channel(_timeout_s: float) -> channels.Channel:
        channels.append(server.channel())
        return channels[-1]

    keeper = Keeper(session, open_channel, 5.0, heard.append)
    keeper.start()
    assert wait_for(lambda: len(channels) == 2)
    other = server.channel()
    attach(other, session.name, session.secret)  # so the session survives the cut
    for channel in channels[:2]:
        cut(channel)
    stream, _transport = keeper.open_data(1)
    assert stream.recv(99).startswith(session.name.encode())
    as_operator(server, "DELETE", f"/v1/sessions/{session.name}")
    assert wait_for(lambda: [event.why for event in heard] == ["killed"])
    with pytest.raises(ServerLost):
        keeper.open_data(1)


@pytest.mark.parametrize("at_both_ends", [True, False])
def test_a_cut_connection_is_no_end(server: Server, at_both_ends: bool) -> None:
    """By a firewall, say: the launcher lives, and attaches again; a packet of its own may be the
    first that it hears of it, or the server's word by its other connection.
    """
    heard: list[Event] = []
    session = server.claim()
    stream, _pid = connect(session)
    keeper = Keeper(session, lambda _timeout_s: server.channel(), 5.0, heard.append)
    keeper.start()
    first = session.channel
    kept = reset(first, at_both_ends)
    assert wait_for(lambda: session.channel is not first and not keeper.lost)
    assert wait_for(lambda: "was cut: " in server.log)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    assert keeper.open_data(1) and heard == []
    keeper.stop()
    session.channel.close()  # as a launcher's death does
    assert wait_for(lambda: server.free() == [1000, 1000], control.DEFAULT_LEASE_S / 2)
    kept.close()


@pytest.mark.parametrize("server", [(*LIMITED, SHORT)], indirect=True)
def test_whose_launcher_does_not_come_back_ends(server: Server) -> None:
    channel, name, secret = grant(server)
    while attach(channel, name, secret).status != 200:
        channel, name, secret = grant(server)  # its time was over before we came
    started = time.monotonic()
    reset(channel, True)
    assert wait_for(lambda: "was cut: " in server.log)
    free = server.free()
    assert free == [500, 1000] or time.monotonic() - started > 0.5
    assert wait_for(lambda: server.free() == [1000, 1000])
    why = "nobody attached to it for 1 second (client anonymous)"
    assert f"session {name} is to end: {why}" in server.log


@pytest.mark.parametrize(
    ("cut", "broke", "why"),
    [
        (errno.ETIMEDOUT, "", "its client's machine did not answer for 30 seconds"),
        (errno.EHOSTUNREACH, "", "its connection failed: No route to host"),
        (0, "it asks on and on", "the server ended its connection: it asks on and on"),
        (0, "", ""),
    ],
)
def test_the_log_says_why_a_session_ends(
    cut: int,
    broke: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of a machine that vanished, too; not of a launcher that is done."""
    monkeypatch.setattr(log, "_level", log.INFO)
    inventory = Inventory((Gpu("Test GPU", 1000, "gpu-0"),), "none", "test GPUs", {}, "", True)
    sessions = Sessions(inventory, Nothing(), loop := Loop(), lambda _limits: None)
    leases = Leases(sessions, loop, 30.0, Nothing(), lambda _session: 0)
    sessions.on_end = leases.closed
    record = Record("0123", "alice", hash_secret("x"), (Slice(0, 10),), ("gpu-0",), 0.0, 0.0)
    lease, peer = leases.begin(record), cast(Peer, SimpleNamespace(cut=cut, broke=broke))
    leases.attach(lease, peer)
    leases.gone(peer)
    sessions.close_owner(peer)
    said = capfd.readouterr().err
    assert (f"session 0123 is to end: {why} (client alice)" in said) == bool(why), said
    assert "session 0123 ended (client alice)" in said
    with pytest.raises(Refusal, match=why or "its connection ended"):
        leases.attach(leases.find("0123", "alice", "x"), peer)


class Nothing:
    """Takes any call, and does nothing."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words, **_named: None


def test_who_comes_back_too_late_hears_why_it_is_over(server: Server) -> None:
    session = server.claim()
    assert as_operator(server, "DELETE", f"/v1/sessions/{session.name}").status == 200
    session.channel.close()
    assert wait_for(lambda: server.free() == [1000, 1000])
    keeper = Keeper(session, lambda _timeout_s: server.channel(), 5.0, lambda _event: None)
    with keeper._renewed:
        said = keeper._attach_again()
    assert said == ("killed", "the session has ended meanwhile: an operator ended it")


def test_a_keeper_goes_on_while_the_server_is_there(server: Server) -> None:
    """One that has just started may not know its clients yet; it keeps its sessions meanwhile."""
    heard: list[Event] = []
    session = server.claim()
    channels, not_yet = [session.channel], [1] * 4

    def open_channel(_timeout_s: float) -> channels.Channel:
        channels.append(server.channel())
        request = channels[-1].request

        def answer(method: str, path: str, *more: Any, **others: Any) -> Reply:
            if path.endswith("/attach") and not_yet:
                not_yet.pop()
                return failure(503, "no-state", "it does not know its clients yet")
            return request(method, path, *more, **others)

        channels[-1].request = answer  # type: ignore[method-assign]
        return channels[-1]

    keeper = Keeper(session, open_channel, 0.2, heard.append)
    keeper.start()
    assert wait_for(lambda: len(channels) == 2)
    other = server.channel()
    attach(other, session.name, session.secret)  # so the session survives the cut
    for channel in channels[:2]:
        cut(channel)
    assert wait_for(lambda: not not_yet and not keeper.lost)
    assert heard == []
    keeper.stop()
    other.close()


@pytest.mark.parametrize("server", [(*LIMITED, {"cluster.lease": "7s"})], indirect=True)
@pytest.mark.parametrize(("ours", "tried"), [(0.0, "7 s"), (60.0, "7 s"), (0.2, "0.2 s")])
def test_a_keeper_tries_as_long_as_the_server_keeps_the_session(
    server: Server,
    ours: float,
    tried: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Longer would be in vain; for less there is a setting of the client's."""
    monkeypatch.setattr(log, "_level", log.WARN)
    heard: list[Event] = []
    session = server.claim()
    keeper = Keeper(session, refuse_to_connect, ours, heard.append)
    keeper.start()
    cut(session.channel)
    assert wait_for(lambda: f"trying again for {tried}" in capfd.readouterr().err)
    if tried == "0.2 s":
        assert wait_for(lambda: [event.why for event in heard] == ["lost"])
    keeper.stop()


def refuse_to_connect(_timeout_s: float) -> channels.Channel:
    raise CannotReach(server="it", why="a test says so")


def reset(channel: channels.Channel, known: bool) -> socket.socket:
    """The server hears of a reset; known: this end hears of an end too, else it is as ever. What
    is returned is to be kept.
    """
    with socket.socket(fileno=os.dup(channel.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    there, here = socket.socketpair()
    os.dup2(here.fileno(), channel.fileno())  # and so closes the connection
    here.close()
    if known:
        there.close()
    return there


def cut(channel: channels.Channel) -> None:
    sock = socket.socket(fileno=channel.fileno())
    sock.shutdown(socket.SHUT_RDWR)
    sock.detach()


def test_a_countdown_warns_once_at_each_mark_and_again_after_work() -> None:
    countdown = Countdown(600)
    assert countdown.look(0) == (False, 600, 300)
    assert countdown.look(300) == (True, 300, 240)
    assert countdown.look(301) == (False, 299, 239)
    assert countdown.look(591).warn and not countdown.look(592).warn
    assert not countdown.look(10).warn and countdown.look(541).warn
    assert countdown.look(600) == (False, 0, 0)
    short = Countdown(5)
    assert not any(short.look(spent).warn for spent in (0, 1, 4.9))
    assert [describe(s) for s in (300, 61, 59.9, 10.2, 0.5)] == [
        "5 minutes", "1 minute", "1 minute", "10 seconds", "1 second",
    ]  # fmt: skip


@pytest.mark.parametrize("lease_s", [1, 2.5, 6, 30, 100])
def test_a_shorter_outage_is_no_end(lease_s: float) -> None:
    """The first probe that is lost may be sent as it begins."""
    with socket.socket() as sock:
        linux.keep_alive(sock, lease_s)
        linux.give_up_sending(sock, lease_s)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle_s, interval_s, probes = (sock.getsockopt(socket.SOL_TCP, each) for each in options)
        assert interval_s * probes >= lease_s
        assert idle_s + interval_s * probes <= lease_s * 1.3 + 3
        silent_ms = sock.getsockopt(socket.SOL_TCP, socket.TCP_USER_TIMEOUT)
        assert silent_ms - 1000 * interval_s >= 950 * lease_s or lease_s < 6
