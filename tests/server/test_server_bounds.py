# SPDX-License-Identifier: Apache-2.0
"""What one client asks for, however long and odd, is bounded, and is its own affair."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import threading
from typing import Any

import pytest
from clusters import Clock
from servers import Server, connect

from bitfusion import linux
from bitfusion.client import channels
from bitfusion.executor import core
from bitfusion.inventory import Gpu, Inventory
from bitfusion.server import adopt, nursery
from bitfusion.server.caller import Refusal
from bitfusion.server.chatter import MAX_LINES_OF
from bitfusion.server.data import RELAY, DataListener
from bitfusion.server.filters import MAX_FILTERS, MAX_SERVERS, MAX_TEXT, parse
from bitfusion.server.leases import Leases
from bitfusion.server.link import Link
from bitfusion.server.loop import Loop
from bitfusion.server.member import Host
from bitfusion.server.nursery import Job
from bitfusion.server.pool import Slice
from bitfusion.server.record import Record
from bitfusion.server.records import Claim, Entry, pack_claim, settle, unpack_claim
from bitfusion.server.sessions import MAX_SESSIONS, MOST_OF_ONE, WRONG_TICKET, Sessions
from bitfusion.server.state import StateFolder
from bitfusion.server.store import MAX_VALUE, Change, validate
from bitfusion.server.views import Ask
from bitfusion.server.workers import Workers, describe_end

LONG = "\U0001f600" * 300  # 4 bytes each as it comes, 12 as JSON in ASCII
EXTREMES = {
    "servers": ["127.0.0.1:1", *[LONG] * 31],
    "filters": [f"server.hostname!={LONG[:270]}"] * 32,
    "program": LONG,
    "host": LONG,
    "user": LONG,
}


def post(channel: channels.HttpChannel, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """As it is: the channel's own request would write ASCII."""
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    channel._connection.request("POST", path, text)
    response = channel._connection.getresponse()
    return response.status, response.read().decode()


def test_a_long_ask_is_refused_and_ends_nobody(server: Server) -> None:
    session = server.claim(memory=100 << 20)
    stream, _pid = connect(session)
    channel = server.channel()
    for name in ("servers", "filters"):
        body = {"gpus": 1, "memory": 1 << 20, name: EXTREMES[name]}
        status, text = post(channel, "/v1/sessions", body)
        assert status == 400 and f"'{name}': as JSON they take" in text, text[:400]
    channel.close()
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    assert "nursery" not in server.log, server.log


def test_the_longest_ask_that_is_taken_ends_nobody(server: Server) -> None:
    """And what is kept of it, for the next server, is what that needs."""
    session = server.claim(memory=100 << 20)
    stream, _pid = connect(session)
    channel = server.channel()
    words = {name: EXTREMES[name] for name in ("program", "host", "user")}
    servers = [f"127.0.0.1:{server.port}", *(f"{n:0>{MAX_TEXT}}" for n in range(MAX_SERVERS))]
    filters = [f"server.hostname!={n:0>{MAX_TEXT - 17}}" for n in range(MAX_FILTERS)]
    body = {"gpus": 1, "memory": 1 << 20, "servers": servers, "filters": filters, **words}
    status, text = post(channel, "/v1/sessions", body)
    assert status == 201, text
    granted = json.loads(text)
    path = f"/v1/sessions/{granted['session']}/attach"
    assert post(channel, path, {"secret": granted["secret"]})[0] == 200
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    assert "nursery" not in server.log, server.log


def claim_of(ask: Ask) -> Claim:
    details = {"about": {"program": "p"}, "limits": [0, 0, 0, 0], "secret": "s"}
    return Claim(Entry(ask, "me", details, 5.0, 7), "me", (Slice(0, 10),), 9.0)


def test_what_is_kept_of_a_claim() -> None:
    ask = Ask("id", "alice", 1, "0.5", 0, 0.5, (parse("device.id=0"),), ("a", "b"))
    kept = unpack_claim(pack_claim(settle(claim_of(ask))))
    assert kept.entry.ask == ask._replace(filters=(), servers=(), at_s=7.0)
    assert kept._replace(entry=claim_of(ask).entry) == claim_of(ask)
    assert kept.entry.details == {}


class Nobody:
    """A keeper that must not be asked."""

    def keep(self, session: str, record: dict[str, object], ledger: int = -1) -> None:
        raise AssertionError(session)

    drop = keep


def test_a_record_that_cannot_be_kept_is_that_sessions_end() -> None:
    clock = Clock()
    inventory = Inventory((Gpu("Test GPU", 100, "gpu-0"),), "none", "test", {}, "", True)
    sessions = Sessions(inventory, None, clock, lambda _sizes: None)  # type: ignore[arg-type]
    leases = Leases(sessions, clock, 5.0, Nobody(), lambda _session: 0)
    claim = claim_of(Ask("id", "alice" * 9999, 1))
    assert "its record takes 1" in Host(leases).open_claim(claim)
    assert not sessions.by_name and sessions.pool.free(0) == 100


def test_a_value_that_a_store_may_not_have() -> None:
    validate([Change("queue/1", {"servers": ["x" * (MAX_VALUE - 20)]})], ())
    with pytest.raises(ValueError, match="'queue/1' is too long"):
        validate([Change("queue/1", {"servers": ["\U0001f600" * (MAX_VALUE // 12)]})], ())


class Confused:
    """A nursery, and what is said to it."""

    def __init__(self) -> None:
        self.pid, self.socket = nursery.start(Quiet())
        self.socket.setblocking(True)

    def order(self, text: bytes, *fds: int) -> None:
        socket.send_fds(self.socket, [text], fds)

    def hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.socket.recv(9999))
        return heard

    def end(self) -> None:
        self.order(b'{"order": "end"}')
        assert self.socket.recv(9) == b""
        os.waitpid(self.pid, 0)


class Quiet:
    def load(self) -> None: ...

    def settle(self, job: Job) -> None: ...

    def warm(self, job: Job) -> None: ...

    def serve(self, job: Job, data: int, ledger: int) -> int:
        return os.read(data, 1)[0]


BAD = {
    "long": json.dumps({"order": "keep", "session": "s", "record": {"x": "y" * 99999}}).encode(),
    "text": b"\xff{",
    "deep": b"[" * 60000,
    "list": b"[1]",
    "nameless": b"{}",
    "job": b'{"order": "start", "worker": 1, "job": [1], "cold": true}',
    "spares": b'{"order": "spares", "count": 1}',
    "signal": b'{"order": "signal", "worker": 1, "signal": "x"}',
}


def test_a_nursery_outlives_orders_that_make_no_sense() -> None:
    confused = Confused()
    ours, theirs = socket.socketpair()
    job = Job("session", 3, "none", [0], {}, "")
    start = {"order": "start", "worker": 1, "job": job, "cold": True}
    confused.order(json.dumps(start).encode(), theirs.fileno())
    assert confused.hear()["event"] == "started"
    open_files = set()
    for name, text in BAD.items():
        confused.order(text, theirs.fileno())
        heard = confused.hear()
        assert heard["event"] == "trouble" and len(heard["why"]) <= nursery.MAX_WHY, (name, heard)
        open_files.add(len(os.listdir(f"/proc/{confused.pid}/fd")))
    assert len(open_files) == 1, open_files
    ours.send(b"\7")
    heard = confused.hear()
    assert heard["event"] == "ended" and os.WEXITSTATUS(heard["status"]) == 7
    confused.end()


def test_an_order_that_is_too_long_is_not_sent() -> None:
    """Those around it are, and whoever gave it hears so; the same where the system refuses it."""
    loop = Loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = Link(loop, ours, lambda _event: None, lambda _link: None)
    failures: list[str] = []
    link.order({"order": "a"})
    for size in (nursery.MAX_MESSAGE, 10000):
        data, other = socket.socketpair()
        with other:
            link.order({"order": "x" * size}, data, -1, failures.append)
            assert other.recv(1) == b""  # closed
    link.order({"order": "b"})
    assert [json.loads(theirs.recv(99))["order"] for _ in "ab"] == ["a", "b"]
    assert failures == ["message too long"] * 2
    link.close()
    theirs.close()


def test_a_worker_that_could_not_be_ordered_has_ended() -> None:
    clock, ended = Loop(), []
    workers = Workers(clock, Quiet(), lambda *how: ended.append(how))
    ours, theirs = socket.socketpair()
    job = Job("session", 0, "none", [0], {"PATH": "x" * nursery.MAX_MESSAGE}, "")
    workers.start(5, job, theirs, -1, True)
    clock.turn(0)
    assert ended == [(5, "was not started: message too long", True)]
    assert ours.recv(1) == b""
    workers.stop()


@pytest.mark.parametrize(
    "status, killed", [(9, True), (core.ENDED_MEMORY << 8, True), (3 << 8, False), (0, False)]
)
def test_who_is_told_of_an_end(status: int, killed: bool) -> None:
    """A worker's client, unless the worker did what it was to do."""
    ended = []
    workers = Workers(Loop(), Quiet(), lambda *how: ended.append(how))
    ours, theirs = socket.socketpair()
    with ours:
        workers.start(5, Job("session", 0, "none", [0], {}, ""), theirs, -1, True)
    workers._hear({"event": "ended", "worker": 5, "status": status})
    assert ended == [(5, describe_end(status), killed)]
    workers.stop()


def test_a_record_that_is_too_long_does_not_end_the_others(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A nursery of another version may have one."""
    folder = StateFolder(str(tmp_path))
    door = adopt.open_door(folder, 5.0)

    def tell() -> None:
        server, _address = door.listener.accept()
        record = Record("s", "alice", "", (Slice(0, 10),), ("gpu-0",), 1.0, 2.0)
        long = record._replace(about={"program": "x" * nursery.MAX_MESSAGE})
        for each in (long, record):
            socket.send_fds(
                server, [json.dumps({"event": "session", "record": each.pack()}).encode()], [0]
            )
        server.send(b'{"event": "complete"}')
        server.close()

    thread = threading.Thread(target=tell)
    thread.start()
    before = len(os.listdir("/proc/self/fd"))
    found = adopt.ask(folder, os.path.basename(door.path))
    thread.join()
    assert found is not None
    [(record, ledger)] = found.records
    assert record.session == "s"
    os.close(ledger)
    found.link.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    door.listener.close()
    assert "a session ends: its record has more than 65536 bytes" in capfd.readouterr().err


class Clerk:
    """Starts no workers."""

    def start(
        self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool
    ) -> None: ...
    def keep_spares(self, count: int, job: Job) -> None: ...
    def signal(self, number: int, signal_number: int) -> None: ...


def sessions_of_a_network() -> Sessions:
    inventory = Inventory((Gpu("Test GPU", 1 << 20, "gpu-0"),), "none", "test", {}, "", True)
    sessions = Sessions(inventory, Clerk(), Loop(), lambda _sizes: None)
    sessions.knows_clients = True
    return sessions


def take(sessions: Sessions, name: str, client: str) -> None:
    sessions.take(Record(name, client, "", (Slice(0, 10),), ("gpu-0",), 1.0, 2.0))


def test_a_client_has_its_part_of_all_sessions() -> None:
    sessions = sessions_of_a_network()
    for number in range(MAX_SESSIONS // MOST_OF_ONE):
        take(sessions, f"s{number}", "mal")
    with pytest.raises(Refusal, match="client 'mal' has 256 sessions here"):
        take(sessions, "more", "mal")
    take(sessions, "other", "carol")
    sessions.knows_clients = False
    take(sessions, "more", "mal")


def test_a_client_has_its_part_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitfusion.server.sessions.MAX_WORKERS_IN_ALL", 4)
    sessions = sessions_of_a_network()
    for name, client in (("a", "mal"), ("b", "mal"), ("c", "carol")):
        take(sessions, name, client)
        sessions.by_name[name].owner = name

    def start(name: str) -> str:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return sessions.redeem(sessions.make_ticket(name, name, 1), ours)

    late = sessions.make_ticket("b", "b", 1)
    assert (start("a"), start("b")) == ("", "")
    for name in ("a", "b"):
        with pytest.raises(Refusal, match="too many processes"):
            start(name)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sessions.redeem(late, ours) == WRONG_TICKET
    assert start("c") == ""


@pytest.mark.parametrize(
    ("name", "ours", "address"),
    [
        (b"203.0.113.7", True, "203.0.113.7"),
        (b"fe80::1%eth0", True, "fe80::1%eth0"),
        (b"203.0.113.7", False, ""),
        (b"203.0.113.7\n[ERROR]", True, ""),
        (b"\xff", True, ""),
    ],
)
def test_the_name_of_a_relay_is_taken_from_relays_only(
    name: bytes, ours: bool, address: str
) -> None:
    loop, refused = Loop(), []
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")  # the kernel gives it an abstract name
    listener = DataListener(loop, sock, lambda _ticket, _data: WRONG_TICKET)
    listener.refused = lambda address, why, _failed: refused.append((address, why))
    listener.is_relay = lambda pid: ours and pid == os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.bind(RELAY + b"%s %d" % (name, os.getpid()))
        peer.connect(sock.getsockname())
        peer.sendall(b"junk\n")
        while not refused:
            loop.turn(5)
    assert refused == [(address, "not a ticket")]
    listener.close()


def test_parents() -> None:
    assert linux.parent_of(os.getpid()) == os.getppid()
    assert linux.parent_of(1 << 30) == 0


def test_a_client_fills_no_log_with_session_after_session(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    jobs: list[Job] = []
    monkeypatch.setattr("bitfusion.log.info", lines.append)
    monkeypatch.setattr(Clerk, "start", lambda _self, _number, job, *_rest: jobs.append(job))
    sessions = sessions_of_a_network()
    for number in range(MAX_LINES_OF):
        take(sessions, f"s{number}", "mal")
        session = sessions.by_name[f"s{number}"]
        session.owner = number
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sessions.redeem(sessions.make_ticket(number, session.name, 1), ours)
        sessions.worker_ended(number + 1, "ended")
        sessions.end(session)
    assert len(lines) == MAX_LINES_OF
    assert not jobs[0].silent and jobs[-1].silent
    take(sessions, "other", "carol")
    assert lines[-1].startswith("session other ")
