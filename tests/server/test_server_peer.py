# SPDX-License-Identifier: Apache-2.0
"""Answers that come later, routes, and the operators' socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator

import pytest
from servers import Server

from bitfusion.errors import StateFolderInUse
from bitfusion.server.api import ADMIN, ANYBODY, CLIENT, Api, Incoming, Route
from bitfusion.server.caller import ANONYMOUS, OPERATOR, Caller, Refusal
from bitfusion.server.lines import LineCodec
from bitfusion.server.loop import Loop
from bitfusion.server.peer import MAX_AHEAD, Answer, Later, Peer
from bitfusion.server.state import StateFolder
from bitfusion.wire.control import Call, Reply, pack_line


class Conversation:
    """A peer of a loop that the test turns by hand; 'later' is answered when the test says so."""

    def __init__(self) -> None:
        self.loop, self.later = Loop(), Later()
        self.client, ours = socket.socketpair()
        self.client.settimeout(5)
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
    with StateFolder(server.state).connect("admin", socket.SOCK_STREAM, 5) as sock:
        sock.sendall(pack_line({"method": "GET", "path": "/v1/gpus"}))
        assert b'"status":200' in sock.recv(65536)
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_a_state_folder_is_one_servers(server: Server) -> None:
    folder = StateFolder(server.state)
    with pytest.raises(StateFolderInUse, match="another server"):
        folder.lock()
    assert folder.server_id() == folder.server_id() and len(folder.server_id()) == 16
