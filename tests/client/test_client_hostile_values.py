# SPDX-License-Identifier: Apache-2.0
"""A server whose answers lack what they ought to hold, or hold something else: one line that says
so, and nothing of it is passed on.
"""

from __future__ import annotations

import copy
import json
import socket
import threading
import time
from typing import Any, Optional

import pytest

from bitfusion import cli, log
from bitfusion.client import claim, control, health, launcher, tokens
from bitfusion.client.control import Session
from bitfusion.client.pool import Overview
from bitfusion.commands import list_gpus, listing, stats, token
from bitfusion.errors import NotAServer
from bitfusion.wire.control import MAX_DEPTH, OK, Json, Reply, unpack_object


class Channel:
    """Answers what it is told to."""

    name, host, address, certificate = "s", "127.0.0.1", ("127.0.0.1", 0), None

    def __init__(self, *answers: Json, status: int = 200) -> None:
        self._answers, self._status = list(answers), status
        self.closed = False

    def fileno(self) -> int:
        return -1

    def request(self, *_words: object, **_more: object) -> Reply:
        return Reply(self._status, self._answers.pop(0))

    def close(self) -> None:
        self.closed = True


def channel(*answers: Json, status: int = 200) -> Any:
    return Channel(*answers, status=status)


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_values_in_values() -> None:
    assert unpack_object(nested(MAX_DEPTH))["a"]
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(ValueError, match="too deeply"):
            unpack_object(nested(depth))
    flat = {"a": ["[" * 1000] * 3, "b": [[{}] for _ in range(1000)]}
    assert unpack_object(json.dumps(flat).encode()) == flat


@pytest.mark.parametrize("secret", ["a\nb", "a\r\nHost: b", "\u20ac", " ", "x" * 65])
def test_a_secret_that_goes_into_a_header(secret: str) -> None:
    with pytest.raises(NotAServer, match="secret of its session makes no sense"):
        Session(channel(), {"session": "s"}, "tcp", 1.0, secret)


@pytest.mark.parametrize("answer", [{}, {"ticket": "a\nSHUTDOWN"}, {"ticket": ["a"]}])
def test_a_ticket_is_all_that_its_listener_gets(answer: Json) -> None:
    """A server says where tickets go, which may be to somebody who trusts this machine."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        data: Json = {"tcp": other.getsockname()[1]}
        made = Session(channel(answer, status=201), {"session": "s", "data": data}, "tcp", 1.0)
        with pytest.raises(NotAServer, match="its ticket makes no sense"):
            made.open_data(1)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_an_answer_to_a_ticket_that_comes_byte_by_byte() -> None:
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def dribble() -> None:
        while not over.wait(0.05):
            theirs.sendall(b" ")

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            control.read_answer(ours, 0.4)
    finally:
        over.set()
        thread.join()
    theirs.sendall(b"\n" + OK)
    while control.read_answer(ours, 60.0) != OK:
        pass
    ours.close()
    theirs.close()


@pytest.mark.parametrize("port", [None, "1", 0, -1, 65536, 2**64 - 1])
def test_a_data_port_that_is_none(port: object) -> None:
    assert health.data_port(channel(), port, 1.0).found == "the server has none"
    assert Session(channel(), {"session": "s", "data": {"tcp": port}}, "tcp", 1.0).data_port() == 0


@pytest.mark.parametrize("gpus", [None, [], [{"index": 0}, {"index": 1}]])
def test_other_gpus_than_were_asked_for(gpus: object) -> None:
    contact = channel({"gpus": gpus})
    grant = claim.Grant(contact, "a", {"session": "s", "secret": "x", "server": {"id": "a"}})
    wanted: Any = type("Wanted", (), {"request": {"gpus": 1}, "asked": "1 GPU"})
    wanted.transport, wanted.timeout_s = "tcp", 1.0
    with pytest.raises(NotAServer, match=r"it gave \d GPUs, not 1 GPU"):
        claim.use(grant, wanted)
    assert contact.closed


@pytest.mark.parametrize("gpus", [[], [{}], [{"index": "x", "memory": "y", "total": []}]])
def test_gpus_that_lack_something(gpus: list[Json], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "info", said.append)
    launcher.describe(Session(channel(), {"session": "s", "gpus": gpus}, "tcp", 1.0), ["program"])
    assert len(said) == 4


def test_events_without_end() -> None:
    """Of a server that has some at once, each time: it is not asked again without a pause."""
    asked: list[float] = []

    class Events(Channel):
        def request(self, *_words: object, **_more: object) -> Reply:
            asked.append(time.monotonic())
            last = len(asked) == 4
            return Reply(200, {"events": [{"kind": "end", "why": "time"}] if last else []})

    from bitfusion.client import lease

    ends = threading.Event()
    connection: Any = Events()
    reader, writer = socket.socketpair()
    connection.fileno = reader.fileno
    session = Session(connection, {"session": "s"}, "tcp", 1.0)
    keeper = lease.Keeper(session, lambda _timeout_s: connection, 0, lambda _event: ends.set())
    keeper.start()
    assert ends.wait(60)
    assert asked[-1] - asked[0] >= 3 * lease.FIRST_NAP_S
    reader.close()
    writer.close()


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_limits_that_are_no_numbers(number: str) -> None:
    for key in ("gpus", "memory", "time_s", "idle_s"):
        overview = Overview([], [], {"limits": {key: number}, "held": {}})
        with pytest.raises(NotAServer, match="makes no sense"):
            listing.shown(overview, list_gpus.show)


def test_other_servers_that_are_none() -> None:
    others: list[object] = ["", "x\x1b[31m y", "a:b", {}, "gpu02:56001"]
    assert stats.add({}, {"server": {"id": "a"}, "others": others}) == ["gpu02:56001"]


TOKEN: Json = {
    "name": "al",
    "state": "valid",
    "expires_s": 2e9,
    "old_until_s": 0,
    "admin": False,
    "limits": {"gpus": 1, "memory": 1 << 62, "time_s": 5.0, "idle_s": 0},
    "token": "al:abc",
    "ca": "x",
    "addresses": ["gpu01:56001"],
}
LIMITS = ("gpus", "memory", "time_s", "idle_s")
SHOWN = ("name", "state", "expires_s", "old_until_s", "admin", "limits")
WRONG: list[object] = [None, "x\n", -1, 2**64 - 1, [], [{}], {"a": 1}]


def changed(where: str, value: Optional[object]) -> Json:
    row: Any = copy.deepcopy(TOKEN)
    inner = row["limits"] if where in LIMITS else row
    inner[where] = value
    if value is None:
        del inner[where]
    return row  # type: ignore[no-any-return]


@pytest.mark.parametrize("where", [*SHOWN, *LIMITS])
def test_a_token_that_makes_no_sense(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server says of one, commands show it or say that it is none."""
    for value in WRONG:
        row = changed(where, value)
        for words, answer in (
            (["show", "al"], row),
            (["list"], {"tokens": [row]}),
            (["extend", "--all"], {"tokens": [row]}),
            (["extend", "al"], row),
            (["disable", "al"], row),
        ):
            monkeypatch.setattr(token, "connect", lambda _parsed, a=answer: channel(a, a, a))
            try:
                cli.dispatch(["token", *words])
            except NotAServer as error:
                assert str(error).endswith("what it says of tokens makes no sense")
            else:
                assert value in ("x\n", 2**64 - 1) and where in ("state", "gpus", "memory")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((where, None) for where in ("token", "ca", "addresses", "name")),
        ("token", 'al:x"\nserver_list = ["other"]'),
        ("token", "bob:abc"),
        ("ca", "\ud800"),
        ("addresses", "gpu01"),
        ("addresses", ["a b"]),
    ],
)
def test_a_bundle_that_would_be_none(where: str, value: object) -> None:
    assert tokens.made(channel(), TOKEN) == TOKEN
    with pytest.raises(NotAServer, match="tokens makes no sense"):
        tokens.made(channel(), changed(where, value))
