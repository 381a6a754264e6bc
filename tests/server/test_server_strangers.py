# SPDX-License-Identifier: Apache-2.0
"""Those who may not come, or not any more: refused, logged once, and nobody else notices."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator

import pytest
from hellos import hello
from identities import Lab, foreign_ca
from servers import HERE, Server, claim_over, connect, wait_for

from bitfusion import certificates
from bitfusion.client import control
from bitfusion.client.access import Access
from bitfusion.errors import AccessDenied, BitfusionError, NotTrusted, TooMuch
from bitfusion.server.doorman import Lane
from bitfusion.server.guard import MAX_FAILURES
from bitfusion.server.loop import Loop

CLIENT_TESTS = os.path.join(os.path.dirname(HERE), "client")


def why(lab: Lab, access: Access) -> str:
    with pytest.raises(AccessDenied) as caught:
        control.greet(lab.channel(access))
    return str(caught.value).partition("refused: ")[2]


def test_all_kinds_of_strangers_and_one_who_works(lab: Lab) -> None:
    """Each is refused with its own line, logged once, and a client in between notices nothing."""
    good, bob = lab.client("good"), lab.client("bob")
    dead, barred = lab.client("dead", "--expires", "1s"), lab.client("barred")
    gone = lab.client("gone")
    lab.token("disable", "barred")
    lab.token("revoke", "gone")
    server = lab.start("echo", 2, 1000)
    session = lab.claim(good)
    stream, _pid = connect(session)
    path = f"/v1/sessions/{session.name}/tickets"
    ticket = session.channel.request("POST", path, {"pid": 1}).body["ticket"]
    line = f"BITFUSION/1 TICKET {ticket}\n".encode()
    assert wait_for(lambda: why(lab, dead).endswith("the token of client 'dead' has expired"))
    for _ in range(2):
        assert why(lab, barred) == "client 'barred' is disabled"
        for access in (gone, Access(lab.ca, "good:" + "0" * 64), Access(lab.ca, "nobody:00")):
            assert why(lab, access) == "your token is not known: was it replaced or revoked?"
        with pytest.raises(NotTrusted, match="of another cluster"):
            lab.channel(Access(foreign_ca(lab.folder), good.token))
        for method, tail in (("DELETE", ""), ("POST", "/tickets")):  # another's session
            reply = lab.channel(bob).request(method, f"/v1/sessions/{session.name}{tail}", {})
            assert reply.status == 404
        assert show(server, line)[:3] == (b"OK\n" if _ == 0 else b"ERR")  # only once good
        assert show(server, b"SSH-2.0-scan\r\n").startswith(b"ERR not a ticket")
        assert show(server, b"\x16\x03\x01\x00\x05hello") != b"OK\n"
        send(server.port, b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1")
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    assert control.list_gpus(lab.channel(good))[0]["free"] == 0
    assert session.name not in str(control.list_gpus(lab.channel(bob)))
    kinds = [
        *("'dead' has expired", "'barred' is disabled", "your token is not known", "unknown ca"),
        *("data port: unknown or used ticket", "data port: not a ticket", "data port: TLS failed"),
        *("'bob' asks for a session that it does not have", "clear text, but this server"),
    ]
    for text in kinds:
        assert wait_for(lambda text=text: text in server.log), (text, server.log)
        lines = [line for line in server.log.splitlines() if text in line]
        assert len(lines) == 1 and lines[0].startswith("[WARN]"), lines
        assert "refused 127.0.0.1: " in lines[0]


def show(server: Server, line: bytes) -> bytes:
    """To the data port."""
    with socket.create_connection(("127.0.0.1", server.data_port), 60) as sock:
        sock.sendall(line)
        try:
            return sock.recv(100)
        except ConnectionError:
            return b""


def test_revoked_and_disabled_while_running(lab: Lab) -> None:
    """At once: the sessions end, the data connections with them, and others' go on."""
    accesses = {name: lab.client(name) for name in ("alice", "bob", "carol")}
    server = lab.start("echo", 4, 1000)
    sessions = {name: lab.claim(access) for name, access in accesses.items()}
    streams = {name: connect(session)[0] for name, session in sessions.items()}
    for name, verb in (("alice", "revoke"), ("bob", "disable")):
        started = time.monotonic()
        lab.token(verb, name)
        assert streams[name].recv(1) == b""
        assert time.monotonic() - started < control.DEFAULT_LEASE_S
        with pytest.raises(BitfusionError):
            control.greet(lab.channel(accesses[name]))
    streams["carol"].sendall(b"ping")
    assert streams["carol"].recv(9) == b"ping"
    carol = lab.channel(accesses["carol"])
    assert wait_for(
        lambda: sum(row["free"] == 1000 << 20 for row in control.list_gpus(carol)) == 3
    )
    lab.token("enable", "bob")
    assert lab.claim(accesses["bob"]).name
    assert "Traceback" not in server.log


def test_a_revocation_that_cannot_be_stored_is_not_logged(lab: Lab) -> None:
    boss, alice = lab.client("boss", "--admin"), lab.client("alice")
    server = lab.start()
    assert control.greet(lab.channel(alice))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    assert lab.channel(boss).request("DELETE", "/v1/tokens/alice").status == 503
    assert control.greet(lab.channel(alice))
    assert "revoke" not in server.log, server.log
    whole = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, whole)
    assert lab.channel(boss).request("DELETE", "/v1/tokens/alice").status == 200
    assert "boss revoked the token of client 'alice'" in server.log


def test_a_restart_knows_who_may_stay(lab: Lab) -> None:
    """Sessions live on over a restart, but not those of a client revoked meanwhile."""
    accesses = {name: lab.client(name) for name in ("alice", "bob")}
    server = lab.start("echo", 4, 1000)
    held: dict[str, control.Session] = {}
    streams = {}
    for name, access in accesses.items():
        channel = lab.channel(access._replace(encrypt="always"))
        held[name] = claim_over(channel, "tcp")
        streams[name] = connect(held[name])[0]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(100) == 0
    lab.token("revoke", "bob")
    again = lab.start("echo", 4, 1000)
    assert wait_for(lambda: "took over 2 sessions" in again.log)
    assert streams["bob"].recv(9) == b""
    streams["alice"].sendall(b"ping")
    assert streams["alice"].recv(9) == b"ping"
    assert held["alice"].attach_over(lab.channel(accesses["bob"])).status == 401
    kept = lab.channel(accesses["alice"])  # its end would be that of the session
    assert held["alice"].attach_over(kept).status == 200
    streams["alice"].sendall(b"ping")
    assert streams["alice"].recv(9) == b"ping"


@pytest.mark.parametrize("encrypt", ["auto", "always"])
def test_a_run_whose_client_is_disabled(lab: Lab, encrypt: str) -> None:
    """From the bundle to the end of the program, by commands only."""
    server = lab.start()
    address = f"127.0.0.1:{server.port}"
    lab.token("create", "alice", "--server_list", address, "--expires", "20d")
    assert lab.command("enroll", "--user", "alice.tar").returncode == 0
    run = lab.popen(
        *("run", "-n", "1", "-v", "--transport", "tcp", "--"),
        *(sys.executable, os.path.join(CLIENT_TESTS, "fake_proxy.py"), "wait", "fail"),
        BITFUSION_ENCRYPT=encrypt,
    )
    assert run.stdout is not None and run.stdout.readline().split()[3] == "ping"
    lab.token("disable", "alice")
    _out, said = run.communicate(timeout=100)
    assert run.returncode == 122, said
    assert "the token of client 'alice' expires in 19 days: operators extend it" in said
    assert "its token was disabled" in said
    assert ("TLSv1.3" in said) == (encrypt == "always")
    again = lab.command("run", "-n", "1", "true")
    assert again.returncode == 1 and "client 'alice' is disabled" in again.stderr
    assert "'bitfusion token enable" in again.stderr
    lab.token("enable", "alice")
    assert lab.command("run", "-n", "1", "true").returncode == 0


def test_operators_of_the_network(lab: Lab, tmp_path: pathlib.Path) -> None:
    """From a machine without a server, by a token with the right; others are refused."""
    server = lab.start()
    address = f"127.0.0.1:{server.port}"
    for name, *words in (("boss", "--admin"), ("bob",)):
        lab.token("create", name, "--server_list", address, *words)
        home = tmp_path / name
        home.mkdir()
        assert lab.command("enroll", "--user", f"{name}.tar", home=str(home)).returncode == 0
    lab.state = str(tmp_path / "none")  # where commands look for a server
    made = lab.command("token", "create", "carol", "--gpus", "1", home=str(tmp_path / "boss"))
    assert made.returncode == 0, made.stderr
    listed = lab.command("token", "list", "--json", home=str(tmp_path / "boss"))
    assert [row["name"] for row in json.loads(listed.stdout)] == ["bob", "boss", "carol"]
    for words in (("drain",), ("undrain",), ("stop",), ("stop", "--now")):  # this machine's: none
        done = lab.command("server", *words, home=str(tmp_path / "boss"))
        assert done.returncode == 1 and "cannot find a server to ask" in done.stderr
        assert ("SERVER' asks for one of the network" in done.stderr) == ("drain" in words[0])
    for words, said in (
        (("drain", address), f"drained {address}: it gets no new sessions; 0 sessions may go on"),
        (("undrain", address), f"{address} is in service again"),
    ):
        done = lab.command("server", *words, home=str(tmp_path / "boss"))
        assert done.stdout.strip() == said, done.stderr
    for word in ("a/b", "gpu 1", "\u00e9"):
        done = lab.command("server", "drain", word, home=str(tmp_path / "boss"))
        assert done.returncode == 2 and "is no server's ID, name or address" in done.stderr
    for words in (("token", "list"), ("token", "revoke", "boss")):
        done = lab.command(*words, home=str(tmp_path / "bob"))
        assert done.returncode == 1 and "this is for operators" in done.stderr
    nobody = lab.command("token", "list", home=str(tmp_path))
    assert nobody.returncode == 1 and "cannot find a server to ask" in nobody.stderr
    lab.state = os.path.join(lab.folder, "state")


def test_another_client_cannot_use_a_session_s_secret(lab: Lab) -> None:
    alice, bob = lab.client("alice"), lab.client("bob")
    lab.start()
    session = lab.claim(alice)
    assert session.attach_over(lab.channel(bob)).status == 404
    connect(session)


def test_rotated_and_extended(lab: Lab) -> None:
    old = lab.client("alice", "--expires", "10d")
    lab.start()
    lab.token("rotate", "alice", "--grace", "10m")
    between = lab.bundle("alice")
    assert between.token != old.token
    for access in (old, between):
        assert control.greet(lab.channel(access))["you"]
    lab.token("rotate", "alice", "--grace", "1s")
    new = lab.bundle("alice")
    assert wait_for(lambda: refused(lab, between))
    you = control.greet(lab.channel(new))["you"]
    assert isinstance(you, dict) and 9 * 86400 < you["token_expires_in_s"] <= 10 * 86400
    lab.token("extend", "--all", "--expires", "never")
    assert control.greet(lab.channel(new))["you"] == {"client": "alice"}
    lab.client("bob", "--expires", "9d")
    lab.client("carol", "--expires", "999d")
    said = lab.token("extend", "--all", "--expires", "30d").splitlines()
    assert said[0] == "client 'alice': valid for good already"
    assert sorted(line.endswith("already") for line in said) == [False, True, True]


def test_limits_can_be_changed(lab: Lab) -> None:
    alice = lab.client("alice", "--gpus", "1", "--time", "8h")
    lab.start()
    held = lab.claim(alice, memory=1 << 20)
    with pytest.raises(TooMuch, match="1 GPU"):
        lab.claim(alice, gpus=2, memory=1 << 20)
    lab.token("limit", "alice", "--gpus", "2", "--time", "0")
    assert lab.claim(alice, memory=1 << 20).name != held.name
    said = lab.token("show", "alice").splitlines()[1].split()
    assert said == ["alice", "valid", said[2], "2", "-", "-", "-", "client"]
    done = lab.command("token", "limit", "alice")
    assert done.returncode == 2 and "--gpus, --memory, --time, --idle is missing" in done.stderr


@pytest.mark.parametrize("verb", ["show", "rotate", "extend", "limit", "disable", "revoke"])
def test_a_name_is_not_taken_apart(lab: Lab, verb: str) -> None:
    """What stands behind a '?' would be left out of the request's path."""
    lab.client("carol")
    more = ("--gpus", "1") if verb == "limit" else ()
    done = lab.command("token", verb, "carol?typo", *more)
    assert done.returncode == 2 and "'carol?typo'" in done.stderr
    assert lab.token("show", "carol").splitlines()[1].split()[1:4:2] == ["valid", "-"]


def refused(lab: Lab, access: Access) -> bool:
    try:
        control.greet(lab.channel(access))
    except AccessDenied:
        return True
    return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("extend", "alice", "--expires", "1ms"), "the token of client 'alice' has expired"),
        (("rotate", "alice", "--grace", "1ms"), "your token is not known"),
    ],
)
def test_a_token_that_ends_ends_nothing_that_runs(
    lab: Lab, words: tuple[str, ...], said: str
) -> None:
    """A session keeps what it was granted; its token gets nothing new, no operator's rights."""
    alice = lab.client("alice", "--admin")
    server = lab.start()
    session = lab.claim(alice, memory=100 << 20)
    lab.token(*words)
    assert wait_for(lambda: refused(lab, alice))
    with pytest.raises(AccessDenied, match=said):
        lab.claim(alice)
    _stream, pid = connect(session)  # another process of the run
    assert connect(session)[1] != pid
    again = lab.channel(alice)  # as after a restart of the server
    assert session.attach_over(again).status == 200
    path = f"/v1/sessions/{session.name}"
    events = f"{path}/events?after=0&wait=0"
    assert again.request("GET", events, secret=session.secret).status == 200
    other = lab.claim(lab.client("bob"))
    assert again.request("DELETE", f"/v1/sessions/{other.name}").status == 404
    assert again.request("DELETE", path).status == 200
    assert "Traceback" not in server.log


def test_clients_are_no_operators(lab: Lab) -> None:
    client, boss = lab.client("client"), lab.client("boss", "--admin")
    lab.start()
    for method, path in (("GET", "/v1/tokens"), ("DELETE", "/v1/tokens/boss"),
                         ("POST", "/v1/tokens"), ("PATCH", "/v1/tokens/client")):  # fmt: skip
        assert lab.channel(client).request(method, path, {"name": "x"}).status == 403
        assert lab.channel(Access(lab.ca)).request(method, path, {"name": "x"}).status == 401
    rows = lab.channel(boss).request("GET", "/v1/tokens").body["tokens"]
    assert isinstance(rows, list) and [row["name"] for row in rows] == ["boss", "client"]
    assert "hash" not in str(rows)


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "../x"}, {"name": ""}, {"name": "x" * 65}, {"name": "a/b"}, {"name": ".x"},
     {"name": "x", "gpus": -1}, {"name": "x", "gpus": 1.5}, {"name": "x", "gpus": True},
     {"name": "x", "memory": "1"}, {"name": "x", "time_s": -1}, {"name": "x", "idle_s": "1"},
     {"name": "x", "expires_in_s": 1e300}, {"name": "x", "expires_in_s": None, "memory": 1 << 63}],
)  # fmt: skip
def test_wrong_requests_of_operators(admin: Access, running: Lab, body: dict[str, object]) -> None:
    assert running.channel(admin).request("POST", "/v1/tokens", body).status == 400


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(str(tmp_path_factory.mktemp("lab")))
    lab.boss = lab.client("boss", "--admin")  # type: ignore[attr-defined]
    lab.start()
    yield lab
    assert lab.server is not None and lab.server.stop() == 0
    assert "Traceback" not in lab.server.log


@pytest.fixture()
def admin(running: Lab) -> Access:
    return running.boss  # type: ignore[attr-defined, no-any-return]


def send(port: int, data: bytes, source: str) -> bytes:
    """What the server says to these bytes until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), 60, (source, 0)) as sock:
        try:
            sock.sendall(data)
            answer = b""
            while len(answer) < 1 << 20:
                part = sock.recv(65536)
                if not part:
                    return answer
                answer += part
        except ConnectionError:
            return b""
        return answer


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 4096, b"SSH-2.0-x\r\n", b"\x16" * 100,
    b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"\1" * 70_000,
    b"\x80\x2e\x01\x00\x02" + b"\0" * 40, b"BITFUSION/1 TICKET 00\n", bytes(range(256)) * 64,
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g[:12]))
def test_garbage_of_a_port_scan(running: Lab, admin: Access, garbage: bytes) -> None:
    assert running.server is not None
    send(running.server.port, garbage, "127.0.0.3")
    send(running.server.port, b"", "127.0.0.3") if not garbage else None
    assert running.channel(admin).request("GET", "/v1/server").status == 200


def by_tls(lab: Lab, source: str) -> ssl.SSLSocket:
    assert lab.server is not None
    plain = socket.create_connection(("127.0.0.1", lab.server.port), 60, (source, 0))
    return certificates.client_context(lab.ca).wrap_socket(plain)


def test_oversized_headers_inside_tls(running: Lab, admin: Access) -> None:
    assert running.server is not None
    for data in (b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000, b"A" * 100_000, b"\0\r\n\r\n"):
        with by_tls(running, "127.0.0.1") as tls:
            try:
                tls.sendall(data)
                assert tls.recv(64).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
            except (ConnectionError, ssl.SSLEOFError):
                pass  # it hung up before all was sent
    assert running.channel(admin).request("GET", "/v1/server").status == 200


def test_slow_ones_are_dropped_and_keep_nobody_out(lab: Lab) -> None:
    """More connections that say nothing, or one byte at a time, than the server would hold."""
    good = lab.client("good")
    server = lab.start()
    silent = []
    for number in range(700):
        source = f"127.0.1.{number % 200 + 1}"
        sock = socket.create_connection(("127.0.0.1", server.port), 60, (source, 0))
        sock.send(b"\x16")
        silent.append(sock)
    session = lab.claim(good)
    stream, _pid = connect(session)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    talking = []  # strangers may ask who we are, and are strangers still
    for _ in range(70):
        tls = by_tls(lab, "127.0.2.1")
        tls.sendall(b"GET /v1/server HTTP/1.1\r\nHost: x\r\n\r\n")
        assert tls.recv(12) == b"HTTP/1.1 200"
        talking.append(tls)
    assert wait_for(lambda: ended(talking[0])) and not ended(talking[-1])
    alone = lab.channel(good)  # of many connections of one address, the oldest silent ones go
    more = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(80)]
    assert alone.request("GET", "/v1/server").status == 200
    for sock in silent + more + talking:
        sock.close()


def ended(tls: ssl.SSLSocket) -> bool:
    tls.settimeout(0.05)
    try:
        while tls.recv(4096):
            pass
    except (TimeoutError, socket.timeout, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


def ask(lab: Lab, source: str, asked: bytes) -> bytes:
    """What it says inside TLS until it hangs up, or b"" where it does so at once."""
    said = b""
    try:
        with by_tls(lab, source) as tls:
            tls.sendall(asked)
            while part := tls.recv(1 << 16):
                said += part
    except (ConnectionError, ssl.SSLError):
        pass
    return said


def test_thousands_of_failures(lab: Lab) -> None:
    """They are slowed and told so; lines in the log stay few; whoever has a token comes in, from
    the same address too, and what runs there goes on.
    """
    good = lab.client("good")
    server = lab.start()
    session = lab.claim(good)
    stream, _pid = connect(session)
    asked = b"GET /v1/gpus HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good:00\r\n\r\n"
    said = ask(lab, "127.0.0.1", asked * 1000)
    assert said.count(b"HTTP/1.1 401") == MAX_FAILURES
    assert said.count(b"too many failures from this address") == 1
    for _ in range(2000):
        try:
            with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
                sock.send(b"x")
        except ConnectionError:
            pass
    waiting = []  # for their late answers; and silent ones
    for _ in range(70):
        waiting.append(by_tls(lab, "127.0.0.1"))
        waiting[-1].sendall(asked)
        silent = socket.create_connection(("127.0.0.1", server.port), 60)
        waiting.append(silent)  # type: ignore[arg-type]
    assert ask(lab, "127.0.0.1", asked).count(b"too many failures") == 1
    assert lab.claim(good).name
    again = lab.channel(good)  # kept, as the session lives by it now
    assert session.attach_over(again).status == 200
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    assert len(server.log.splitlines()) < 40, server.log
    assert server.log.count("failures from 127.0.0.1: those that fail are slowed") == 1
    for one in waiting:
        one.close()


def test_strangers_are_not_told_what_there_is(lab: Lab) -> None:
    """Where nothing is, they fail as elsewhere."""
    server = lab.start()
    said = ask(lab, "127.0.0.7", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (2 * MAX_FAILURES))
    assert said.count(b"HTTP/1.1 401") == MAX_FAILURES and b"404" not in said
    assert "failures from 127.0.0.7" in server.log


def test_those_that_are_slowed_share_one_place() -> None:
    loop, done = Loop(), []
    lane = Lane(loop)
    for number in range(3):
        lane.add(lambda number=number: done.append(number))  # type: ignore[misc]
    lane.add(lambda: lane.add(lambda: done.append(9)))
    for count in (1, 2, 3, 3, 4):
        loop.turn(0)
        assert len(done) == count
    assert done == [0, 1, 2, 9]


@pytest.mark.parametrize("encrypt", ["auto", "always"])
def test_nobody_shuts_the_data_port(lab: Lab, encrypt: str) -> None:
    """With many connections that show no ticket: they make room, and who has one comes in. Nor
    with whole hellos of TLS, for each of which a process would be started.
    """
    good = lab.client("good")
    server = lab.start(encrypt=encrypt)
    crowd, whole = [], hello()
    for number in range(300):
        source = f"127.0.3.{number % 3 + 1}" if number < 150 else "127.0.0.1"
        sock = socket.create_connection(("127.0.0.1", server.data_port), 60, (source, 0))
        if encrypt == "always":
            sock.send(whole if number < 150 else whole[:1])
        crowd.append(sock)
    channel = lab.channel(good._replace(encrypt=encrypt))
    stream, _pid = connect(claim_over(channel, "tcp"))
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    if encrypt == "auto":
        text = "refused 127.0.0.1: data port: too many connections without a ticket"
        assert server.log.count(text) == 1, server.log
    for sock in crowd:
        sock.close()
