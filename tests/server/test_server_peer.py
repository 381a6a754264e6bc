# SPDX-License-Identifier: Apache-2.0
"""Answers that come later, routes, and the operators' socket."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import stat
from collections.abc import Iterator

import pytest
from servers import Server

from bitfusion.errors import StateFolderInUse, SystemFailure
from bitfusion.server.api import ADMIN, ANYBODY, CLIENT, Api, Incoming, Route
from bitfusion.server.caller import ANONYMOUS, OPERATOR, Caller, Refusal
from bitfusion.server.http import MAX_EVENTS, HttpCodec
from bitfusion.server.lines import LineCodec
from bitfusion.server.loop import WORK_S, Loop
from bitfusion.server.peer import (
    MAX_AHEAD,
    MAX_CALLS,
    RECEIVE,
    STEP_S,
    Answer,
    BrokenRules,
    Later,
    Peer,
)
from bitfusion.server.state import StateFolder
from bitfusion.wire.control import MAX_BODY, Call, Reply, pack_line


class Conversation:
    """A peer of a loop that the test turns by hand; 'later' is answered when the test says so."""

    def __init__(self) -> None:
        self.loop, self.later = Loop(), Later()
        self.loop.clock = lambda: 0.0  # no turn is over for its time, however busy the machine is
        self.client, ours = socket.socketpair()
        self.client.settimeout(60)
        self.gone: list[str] = []
        self.later.on_gone = lambda: self.gone.append("later")
        self.peer = Peer(
            self.loop, ours, LineCodec(), self.handle, lambda _: self.gone.append("peer"), "test"
        )

    def handle(self, call: Call, _peer: Peer) -> Answer:
        return self.later if call.path == "later" else Reply(200, {"path": call.path})

    def ask(self, *paths: str) -> None:
        for path in paths:
            self.client.sendall(pack_line({"method": "GET", "path": path}))
        self.loop.turn(1)

    def hear(self) -> list[object]:
        lines = self.client.recv(65536).splitlines()
        return [json.loads(line)["body"].get("path") for line in lines]


@pytest.fixture()
def talk() -> Iterator[Conversation]:
    conversation = Conversation()
    yield conversation
    conversation.client.close()
    conversation.peer.close()


def test_calls_behind_a_later_answer_wait_for_it(talk: Conversation) -> None:
    talk.ask("one", "later", "two")
    assert talk.hear() == ["one"] and talk.peer.waits
    talk.ask("three")
    talk.later.complete(Reply(200, {"path": "late"}))
    talk.loop.turn(0)
    talk.loop.turn(0)
    assert talk.hear() == ["late", "two", "three"] and not talk.peer.waits


def test_a_later_answer_that_is_there_at_once(talk: Conversation) -> None:
    talk.later.complete(Reply(200, {"path": "soon"}))
    talk.ask("later", "two")
    assert talk.hear() == ["soon", "two"]


def test_who_goes_away_waits_no_longer(talk: Conversation) -> None:
    talk.ask("later")
    talk.client.close()
    talk.loop.turn(1)
    assert talk.gone == ["later", "peer"]
    talk.later.complete(Reply(200, {}))


def test_who_is_hung_up_on_hears_what_it_is_owed_and_no_more(talk: Conversation) -> None:
    talk.later.owed = True
    talk.ask("later", "two")
    talk.peer.hang_up()
    talk.ask("three")
    assert talk.gone == []
    talk.later.complete(Reply(200, {"path": "late"}))
    talk.loop.turn(0)
    assert talk.hear() == ["late"] and talk.gone == ["peer"]


def test_who_is_owed_nothing_is_hung_up_on_at_once(talk: Conversation) -> None:
    talk.ask("later")
    talk.peer.hang_up()
    assert talk.gone == ["later", "peer"]


def test_many_calls_at_once_are_answered_in_parts(talk: Conversation) -> None:
    """As many in each turn of the loop as others can wait for; all of them, and in order."""
    asked = [str(number) for number in range(5 * MAX_CALLS)]
    talk.client.sendall(b"".join(pack_line({"method": "GET", "path": path}) for path in asked))
    counts, heard = [], []
    while talk.peer.calls < len(asked):
        before = talk.peer.calls
        talk.loop.turn(0)
        counts.append(talk.peer.calls - before)
        heard += talk.hear()
    assert max(counts) == MAX_CALLS and heard == asked


def test_costly_calls_leave_the_turn_to_others() -> None:
    """A loop whose clock the handler moves: however costly, and however many ask."""
    loop, now_s, calls = Loop(), [0.0], [0] * 12
    loop.clock = lambda: now_s[0]
    clients, peers = [], []

    def join(number: int) -> None:
        def handle(_call: Call, _peer: Peer) -> Answer:
            now_s[0] += STEP_S
            calls[number] += 1
            return Reply(200, {})

        client, ours = socket.socketpair()
        clients.append(client)
        peers.append(Peer(loop, ours, LineCodec(), handle, lambda _: None, "test"))
        client.sendall(pack_line({"method": "GET", "path": "x"}) * 100)

    for number in range(len(calls)):
        join(number)
    turns = 0
    while min(calls) < 10:
        before = sum(calls)
        loop.turn(0)
        turns += 1
        assert sum(calls) - before <= WORK_S / STEP_S + 1
        assert max(calls) - min(calls) <= 1, "somebody was passed over"
    assert turns >= 120 * STEP_S / WORK_S / 2
    for client, peer in zip(clients, peers):
        client.close()
        peer.close()


def test_a_body_in_pieces_of_a_byte_is_looked_at_in_parts() -> None:
    codec, looks = HttpCodec(), 0
    count = 10 * MAX_EVENTS
    codec.feed(
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'2\r\n{"\r\n' + b"1\r\nA\r\n" * count + b'4\r\n":0}\r\n0\r\n\r\n'
    )
    call = codec.next_call()
    while call is None and codec.has_more():
        looks += 1
        call = codec.next_call()
    assert call is not None and call.body == {"A" * count: 0} and looks >= 10


def test_who_waits_for_a_word_before_the_body_gets_it(talk: Conversation) -> None:
    client, ours = socket.socketpair()
    client.settimeout(60)
    peer = Peer(talk.loop, ours, HttpCodec(), talk.handle, lambda _: None, "test")
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client.sendall(head)
    talk.loop.turn(1)
    assert client.recv(RECEIVE).startswith(b"HTTP/1.1 100")
    client.sendall(b"{}")
    talk.loop.turn(1)
    assert client.recv(RECEIVE).startswith(b"HTTP/1.1 200")
    client.close()
    peer.close()


def test_who_asks_on_and_on_is_dropped(talk: Conversation) -> None:
    talk.ask("later")
    talk.client.setblocking(False)
    sent = 0
    while not talk.gone:
        try:
            sent += talk.client.send(b"x" * 4096)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            break
        talk.loop.turn(0)
    assert MAX_AHEAD < sent < 8 * MAX_AHEAD


def echo(asked: Incoming) -> Reply:
    return Reply(200, {"client": asked.caller.client, "names": asked.names})


def identify(call: Call, _peer: Peer, _holds: bool) -> Caller:
    known = {"": ANONYMOUS, "boss": OPERATOR}
    if call.authorization not in known:
        raise Refusal(401, "unknown", "who is that?")
    return known[call.authorization]


@pytest.mark.parametrize(
    ("path", "who", "status", "said"),
    [("/open", "", 200, ""), ("/open", "thief", 401, ""), ("/mine/7", "thief", 401, ""),
     ("/mine/7", "", 200, "anonymous"),
     ("/all", "", 403, ""), ("/all", "boss", 200, "operator"), ("/all/7", "boss", 404, "")],
)  # fmt: skip
def test_who_may(talk: Conversation, path: str, who: str, status: int, said: str) -> None:
    routes = [Route("GET", "/open", ANYBODY, echo), Route("GET", "/mine/{}", CLIENT, echo),
              Route("GET", "/all", ADMIN, echo)]  # fmt: skip
    answer = Api(routes, identify).handle(Call("GET", f"{path}?x=1", {}, who), talk.peer)
    assert isinstance(answer, Reply) and answer.status == status
    if status == 200:
        assert answer.body["client"] == said
        assert answer.body["names"] == (("7",) if path.startswith("/mine") else ())


def test_the_operators_socket_is_its_owners_alone(server: Server) -> None:
    path = os.path.join(server.state, "admin")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with StateFolder(server.state).connect("admin", socket.SOCK_STREAM, 60) as sock:
        sock.sendall(pack_line({"method": "GET", "path": "/v1/gpus"}))
        assert b'"status":200' in sock.recv(65536)
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_a_state_folder_that_is_not_ours_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds may be dear, so nobody is told to remove it."""
    tmp_path.chmod(0o775)
    with pytest.raises(SystemFailure, match="others may write to it") as caught:
        StateFolder(str(tmp_path))
    assert caught.value.hint == f"chmod go-w {tmp_path}"
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SystemFailure, match="it is another user's") as caught:
        StateFolder(str(tmp_path))
    assert "state_dir" in caught.value.hint


def test_a_state_folder_is_one_servers(server: Server) -> None:
    folder = StateFolder(server.state)
    with pytest.raises(StateFolderInUse, match="another server"):
        folder.lock()
    assert folder.server_id() == folder.server_id() and len(folder.server_id()) == 16


def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    codec = HttpCodec()
    size = MAX_BODY + 1
    codec.feed(f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    with pytest.raises(BrokenRules) as broken:
        codec.next_call()
    said = codec.complain(str(broken.value))
    assert said.startswith(b"HTTP/1.1 413 ") and b"too-large" in said
