# SPDX-License-Identifier: Apache-2.0
"""A server whose every text has terminal escapes and lines of its own, and whose numbers make no
sense: what it says comes as lines of ours, in printable characters.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from bitfusion import __version__, cli, config, values
from bitfusion.client import claim, control, progress
from bitfusion.client.access import CLEAR
from bitfusion.client.channels import HttpChannel
from bitfusion.client.control import Session
from bitfusion.client.pool import Listed, Overview, describe
from bitfusion.commands import health, list_gpus, smi, stats, token
from bitfusion.errors import BitfusionError, NotAServer, ServerRefused, UsageError
from bitfusion.health import Check
from bitfusion.options import Parsed
from bitfusion.quantity import FARTHEST_S
from bitfusion.wire.calls import CALLS
from bitfusion.wire.control import PROTOCOL, Json, Reply, unpack_object

EVIL = "x\x1b]0;owned\x07\x1b[31m\r\nFAKE\u202e\u2028"
GREETING: Json = {"version": __version__, "protocol": PROTOCOL, "calls": CALLS, "id": "a"}


class Handler(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, object]]] = {}  # by path

    def answer(self) -> None:
        status, body = self.answers[self.path.partition("?")[0]]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "answers", {"/v1/server": (200, dict(GREETING))})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


def says(path: str, status: int, body: object) -> None:
    Handler.answers[path] = status, body


def channel_to(server: str) -> HttpChannel:
    return HttpChannel(values.parse_server(server), server, 5.0, CLEAR)


def assert_plain(text: str, lines: int) -> None:
    assert text.endswith("\n") and text.count("\n") == lines
    assert all(line.isprintable() for line in text.split("\n")), repr(text)


def test_errors_are_two_lines(capfd: pytest.CaptureFixture[str]) -> None:
    cli.report(ServerRefused(server="s", why=EVIL, hint=EVIL))
    said = capfd.readouterr().err
    assert_plain(said, 2)
    assert r"refused: x\x1b]0;owned\x07\x1b[31m\r\nFAKE\u202e\u2028" in said
    cli.report(ServerRefused(server="s", why="x" * 100_000))
    assert len(capfd.readouterr().err) < 4096


def test_a_version_and_a_refusal(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    for path, status, body in (
        ("/v1/server", 200, {**GREETING, "version": EVIL}),
        ("/v1/server", 401, {"error": {"kind": EVIL, "text": EVIL}}),
    ):
        says(path, status, body)
        with pytest.raises(BitfusionError) as raised:
            control.greet(channel_to(server))
        cli.report(raised.value)
        assert_plain(capfd.readouterr().err, 2)


def test_a_warning_of_the_token(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    says("/v1/server", 200, {**GREETING, "you": {"client": EVIL, "token_expires_in_s": 5}})
    control.greet(channel_to(server))
    said = capfd.readouterr().err
    assert_plain(said, 1)
    assert said.startswith("[WARN]") and "owned" in said


def row() -> Json:
    held = {"session": EVIL, "memory": 1, "client": EVIL, "program": EVIL, "since_s": 1e18}
    gpu = {"index": 0, "name": EVIL, "uuid": EVIL, "memory": 1, "free": 1, "sessions": [held]}
    texts = dict.fromkeys(("name", "state", "version", "driver_version", "cuda_version"), EVIL)
    return {"id": "a", "live": False, "addresses": [EVIL], "gpus": [gpu], "tasks": 1, **texts}


def test_listings() -> None:
    overview = Overview([describe(row(), "s"), Listed("s", "", [], EVIL)], [{}], LIMITED)
    assert_plain(list_gpus.show(overview), 5)
    table = smi.show(overview)
    assert_plain(table, 11 + 5)
    assert len(set(map(len, table.splitlines()))) == 1, "the table is bent"


LIMITED: Json = {"client": EVIL, "held": {"gpus": EVIL}, "limits": {"gpus": 1}}


def test_other_tables(capfd: pytest.CaptureFixture[str]) -> None:
    assert_plain(health.show(health.Machine(EVIL, [Check(EVIL, "FAIL", EVIL, EVIL)]), False), 3)
    sums = dict.fromkeys(stats.SUMS, 1)
    rows = stats.merge([{"used": [{"client": EVIL, "begin": 1e18, **sums}]}], ["client"])
    assert_plain(stats.as_table(rows, ["client"]), 2)
    assert_plain(stats.as_csv(rows, ["client"]), 2)
    limits = dict.fromkeys(("gpus", "memory", "time_s", "idle_s"), 0)
    told = {"name": EVIL, "state": EVIL, "old_until_s": 0, "expires_s": 0, "admin": False}
    token.show_rows(Parsed("token list"), [{**told, "limits": limits}])
    assert_plain(capfd.readouterr().out, 2)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e308", "9" * 400])
def test_numbers_that_are_none(number: str) -> None:
    with pytest.raises(ValueError, match="a number of"):
        unpack_object(b'{"a":[{"b":%s}]}' % number.encode())


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "18446744073709551615", "1e10"])
def test_numbers_that_are_some(number: str) -> None:
    assert unpack_object(b'{"a":%s}' % number.encode()) == {"a": json.loads(number)}


def test_times_that_make_no_sense() -> None:
    most = {"estimate_s": 1e18, "position": 1, "of": 2}
    assert progress.describe("1 GPU", most) == "waiting for 1 GPU: place 1 of 2 in the queue"
    assert progress.describe("1 GPU", {"estimate_s": 90}) == "waiting for 1 GPU, about 1m30s"
    assert health.token({"you": {"token_expires_in_s": 1e18}}) == []
    for left_s in (-FARTHEST_S, 5, FARTHEST_S):
        assert len(health.token({"you": {"token_expires_in_s": left_s}})) == 1


def test_health_of_a_server_with_a_number_that_is_none(server: str) -> None:
    says("/v1/server", 200, {**GREETING, "you": {"token_expires_in_s": float("nan")}})
    settings = config.Config()
    machine = health.examine(values.parse_server(server), settings)
    assert [check.level for check in machine.checks] == ["FAIL"]
    assert "makes sense" in machine.checks[0].found


@pytest.mark.parametrize("name", ["", "../../x", "a b", "a\r\nHost: b", "a?b", "x" * 65, 1.5])
def test_names_that_go_into_paths(name: object) -> None:
    with pytest.raises(NotAServer, match="session makes no sense"):
        Session(no_channel(), {"session": name}, "tcp", 1.0)


def no_channel() -> Any:
    class Channel:
        name = "s"

        def fileno(self) -> int:
            return -1

    return Channel()


def test_a_place_in_the_queue_that_goes_into_paths() -> None:
    asker: Any = object.__new__(claim.Asker)
    with pytest.raises(NotAServer, match="queue makes no sense"):
        claim.Asker._wait(asker, no_channel(), Reply(202, {"entry": "../" + EVIL}))


def test_a_session_to_kill_is_a_name() -> None:
    from bitfusion.commands import kill

    parsed = Parsed("kill")
    parsed.words.append("a/b c")
    with pytest.raises(UsageError, match="no session's name"):
        kill.run(parsed)
