# SPDX-License-Identifier: Apache-2.0
"""Waiting for GPUs that others have: the queue as clients see it."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import threading
import time
from typing import Any

import pytest
from identities import BITFUSION, Lab
from servers import Server, claim_over, wait_for

from bitfusion.client import claim, progress
from bitfusion.client.channels import HttpChannel, LineChannel
from bitfusion.client.control import Session
from bitfusion.config import format_address
from bitfusion.errors import Busy, CannotReach, TooMuch
from bitfusion.server.sessions import MAX_OWNED
from bitfusion.server.state import ADMIN, StateFolder

ONE = ("echo", 1, 1000)


def wanted(*channels: Any, patience_s: float = 90.0, **request: Any) -> claim.Wanted:
    left = list(channels)
    return claim.Wanted(
        {"gpus": 1, **request}, "1 GPU", "program", "list",
        lambda *_where: left.pop(0), "auto", 60.0, patience_s, 2.0,
    )  # fmt: skip


def test_a_long_command_is_cut_to_what_a_request_may_have() -> None:
    body = wanted()._replace(program="python3 train.py " + "x" * 100_000).body("me")
    assert str(body["program"]).startswith("python3 train.py x") and len(json.dumps(body)) < 999


def queue_length(server: Server) -> int:
    queue = server.channel().request("GET", "/v1/pool").body["queue"]
    assert isinstance(queue, list)
    return len(queue)


def waiting(server: Server, got: list[Any]) -> threading.Thread:
    def run() -> None:
        try:
            got.append(claim.claim((("127.0.0.1", server.port),), wanted(server.channel())))
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_who_waits_gets_what_is_given_back_in_order(server: Server) -> None:
    first = server.claim()
    got: list[Any] = []
    threads = []
    for number in range(2):
        threads.append(waiting(server, got))
        assert wait_for(lambda wanted=number + 1: queue_length(server) == wanted)
    assert got == []
    first.channel.close()
    assert wait_for(lambda: len(got) == 1)
    assert isinstance(got[0], Session)
    got[0].channel.close()
    assert wait_for(lambda: len(got) == 2) and isinstance(got[1], Session)
    for thread in threads:
        thread.join()
    assert queue_length(server) == 0


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_the_time_for_waiting_ends(server: Server) -> None:
    first = server.claim()
    with pytest.raises(Busy, match="others still have them after 0.5 s"):
        claim.claim((("127.0.0.1", server.port),), wanted(server.channel(), patience_s=0.5))
    assert wait_for(lambda: queue_length(server) == 0)
    first.channel.close()
    assert wait_for(lambda: server.free() == [1000])


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_a_grant_right_behind_the_place_is_taken(server: Server) -> None:
    """Also by who would not wait: of what is free, the place may be told first."""
    first, channel = server.claim(), server.channel()
    request = channel.request

    def grant_later(method: str, path: str, *more: Any, **others: Any) -> Any:
        reply = request(method, path, *more, **others)
        if (method, path) == ("POST", "/v1/sessions"):
            assert reply.status == 202
            first.channel.close()
            assert wait_for(lambda: queue_length(server) == 0)
        return reply

    channel.request = grant_later  # type: ignore[method-assign]
    session = claim.claim((("127.0.0.1", server.port),), wanted(channel, patience_s=0.0))
    assert server.free() == [0]
    session.channel.close()


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_who_waits_for_a_drained_server_hears_so_at_the_end(server: Server) -> None:
    folder = StateFolder.existing(server.state)
    channel = LineChannel(folder.connect(ADMIN, socket.SOCK_STREAM, 60.0), 60.0)
    assert channel.request("POST", "/v1/servers/this/drain").status == 200
    channel.close()
    with pytest.raises(Busy, match="it waits for a server that is drained: its operator"):
        claim.claim((("127.0.0.1", server.port),), wanted(server.channel(), patience_s=0.1))


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_who_hangs_up_leaves_the_queue(server: Server) -> None:
    first, channel = server.claim(), server.channel()
    reply = channel.request("POST", "/v1/sessions", {"gpus": 1, "wait": 0})
    assert reply.status == 202 and wait_for(lambda: queue_length(server) == 1)
    other = server.channel()
    assert other.request("GET", f"/v1/queue/{reply.body['entry']}").status == 404
    channel.close()
    assert wait_for(lambda: queue_length(server) == 0)
    first.channel.close()


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_filters_and_shares(server: Server) -> None:
    with pytest.raises(TooMuch, match="device.name=Tesla"):
        claim_over(server.channel(), filters=["device.name=Tesla"])
    session = claim_over(server.channel(), filters=["device.name=Test"], share=0.5)
    rows = server.channel().request("GET", "/v1/gpus").body["gpus"]
    assert isinstance(rows, list) and rows[0]["sessions"][0]["share"] == 0.5
    assert rows[0]["sessions"][0]["program"] == "program"
    session.channel.close()
    for bad in ({"filters": "x"}, {"filters": ["x"]}, {"share": 2}, {"share": "1"}):
        reply = server.channel().request("POST", "/v1/sessions", {"gpus": 1, **bad})
        assert reply.status == 400, bad


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_of_several_pools_the_first_that_can(server: Server) -> None:
    second = Server(*ONE)
    try:
        taken = server.claim()
        addresses = [("127.0.0.1", port) for port in (server.port, second.port, 1)]

        def connect(address: Any, _timeout_s: float, _seen: Any) -> Any:
            for one in (server, second):
                if one.port == address[1]:
                    return one.channel()
            raise CannotReach(server="nobody", why="refused")

        session = claim.claim(addresses, wanted()._replace(connect=connect))
        assert session.channel.address[1] == second.port
        assert wait_for(lambda: queue_length(server) == 0)
        session.channel.close()
        taken.channel.close()
    finally:
        second.stop()


def really(address: Any, timeout_s: float, seen: Any) -> HttpChannel:
    return HttpChannel(address, format_address(address), timeout_s, seen=seen)


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_a_server_that_never_answers_keeps_nobody(server: Server) -> None:
    """Nor does it leave a thread that waits for it: the program is to be forked."""
    before = set(threading.enumerate())  # others' tests have left some
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = [silent.getsockname(), ("127.0.0.1", server.port)]
        session = claim.claim(addresses, wanted()._replace(connect=really, timeout_s=60.0))
        assert session.channel.address[1] == server.port
        assert set(threading.enumerate()) <= before
        session.channel.close()


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_runs_end_beside_a_server_that_never_answers(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}"
        for _ in range(3):
            words = [*BITFUSION, "run", "-n", "1", "--server_list", where, "sh", "-c", "exit 3"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=100)
            assert done.returncode == 3, done.stderr


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_ctrl_c_leaves_the_queue(server: Server) -> None:
    taken = server.claim()
    run = subprocess.Popen(
        [*BITFUSION, "run", "-n", "1", "--server_list", f"127.0.0.1:{server.port}", "true"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stderr is not None
    assert "waiting for 1 GPU: place 1 of 1" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    assert run.wait(100) == 130
    run.stderr.close()
    assert wait_for(lambda: queue_length(server) == 0)
    taken.channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_a_killed_request_leaves_the_queue(
    server: Server, number: int, tmp_path: pathlib.Path
) -> None:
    """The process that would have held the GPUs does not wait on for nobody, nor does its file."""
    taken = server.claim()
    where, file = f"127.0.0.1:{server.port}", tmp_path / "mine"
    words = [*BITFUSION, "request_gpus", "-n", "1", "-f", str(file), "--server_list", where]
    request = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert request.stderr is not None
    with request.stderr as lines:
        assert "waiting for 1 GPU: place 1 of 1" in lines.readline()
        request.send_signal(number)
        request.wait(100)
        assert wait_for(lambda: queue_length(server) == 0)
        assert lines.read() == ""  # once all that hold the other end have gone
    assert not file.exists()
    taken.channel.close()


def test_requests_of_one_client_that_wait_are_bounded(lab: Lab) -> None:
    alice, bob = lab.client("alice"), lab.client("bob")
    lab.server = Server("echo", 1, 1000, 0, {"limits.queue": "10"}, lab.state)
    taken = lab.claim(bob)
    channels = [lab.channel(alice) for _ in range(3)]
    asked = [
        channel.request("POST", "/v1/sessions", {"gpus": 1, "wait": 0})
        for channel in channels
        for _ in range(5)
    ]
    assert [reply.status for reply in asked] == [202] * 10 + [429] * 5
    error = asked[-1].body["error"]
    assert isinstance(error, dict) and "too many requests of client 'alice'" in error["text"]
    assert "10 of them wait already" in error["text"]
    assert lab.channel(bob).request("POST", "/v1/sessions", {"gpus": 1, "wait": 0}).status == 202
    left = f"/v1/queue/{asked[0].body['entry']}"
    assert channels[0].request("DELETE", left).status == 200
    assert channels[2].request("POST", "/v1/sessions", {"gpus": 1, "wait": 0}).status == 202
    taken.channel.close()


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_sessions_one_after_the_other_over_one_connection(server: Server) -> None:
    channel = server.channel()
    for number in range(3 * MAX_OWNED):
        reply = channel.request("POST", "/v1/sessions", {"gpus": 1})
        while reply.status == 202:  # the GPU is on its way back
            reply = channel.request("GET", f"/v1/queue/{reply.body['entry']}?wait=5&position=1")
        assert reply.status == 201, (number, reply)
        where = f"/v1/sessions/{reply.body['session']}"
        secret = reply.body["secret"]
        assert channel.request("POST", f"{where}/attach", {"secret": secret}).status == 200
        assert channel.request("DELETE", where).status == 200


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_what_is_too_long_is_refused_with_a_reason(server: Server) -> None:
    host = ".".join(["h" * 62] * 4)  # 251 characters
    for body, status, said in (
        ({"filters": [f"server.hostname={host}"]}, 409, host),
        ({"filters": ["device.name=" + "x" * 400]}, 400, "has more than 300 characters"),
        ({"servers": [1]}, 400, "'servers' must be a list of texts"),
        ({"fraction": "0." + "0" * 60_000}, 400, "'fraction' must be a text such as '0.5'"),
    ):
        reply = server.channel().request("POST", "/v1/sessions", {"gpus": 1, **body})
        error = reply.body["error"]
        assert reply.status == status and isinstance(error, dict)
        assert said in error["text"] and len(error["text"]) < 500


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_what_a_program_says_of_itself_moves_no_cursor(server: Server) -> None:
    channel = server.channel()
    about = {"program": "\x1b[31mEVIL\x1b[2J\n|x", "host": "h" * 253, "user": "\x1b]0;pwn\x07"}
    reply = channel.request("POST", "/v1/sessions", {"gpus": 1, **about})
    assert reply.status == 201

    def held() -> list[dict[str, Any]]:
        rows = channel.request("GET", "/v1/gpus").body["gpus"]
        assert isinstance(rows, list)
        sessions: list[dict[str, Any]] = rows[0]["sessions"]
        return sessions

    assert wait_for(lambda: bool(held()))
    assert held()[0]["program"] == "[31mEVIL[2J|x"
    assert held()[0]["host"] == "h" * 253 and held()[0]["user"] == "]0;pwn"


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_a_disk_that_is_full_is_told(server: Server) -> None:
    """Not a place in a queue that does not move."""
    pid = server.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    reply = server.channel().request("POST", "/v1/sessions", {"gpus": 1})
    assert reply.status == 503, (reply, server.log)
    error = reply.body["error"]
    assert isinstance(error, dict) and error["kind"] == "no-state"
    assert error["text"].startswith("the server cannot store it: ")
    assert wait_for(lambda: queue_length(server) == 0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert server.channel().request("POST", "/v1/sessions", {"gpus": 1}).status == 201


def test_places_in_words() -> None:
    place = {"position": 3, "of": 7, "estimate_s": 240.2}
    said = "waiting for 2 GPUs: place 3 of 7 in the queue, about 4m"
    assert progress.describe("2 GPUs", place) == said
    assert progress.describe("1 GPU", {"state": "queued"}) == "waiting for 1 GPU"
    drained = progress.describe("8 GPUs", {"position": 1, "of": 1, "away": "drained"})
    assert "place 1 of 1 in the queue, for a server that is drained" in drained


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_who_waits_asks_a_server_that_is_started_again(
    tmp_path: pathlib.Path, signal_number: int
) -> None:
    """More than once, and says so once each time."""
    server = Server(*ONE, state=str(tmp_path))
    holder = server.claim()
    where = f"127.0.0.1:{server.port}"
    runs, logs = [], []
    # One in the main thread, one in threads: both servers of its list are this one.
    for servers in (where, f"{where},localhost:{server.port}"):
        logs.append(tmp_path / f"run{len(logs)}.log")
        with logs[-1].open("w") as log:
            words = [*BITFUSION, "run", "-n", "1", "true"]
            environment = {**os.environ, "BITFUSION_SERVER_LIST": servers}
            runs.append(subprocess.Popen(words, env=environment, stderr=log))

    def said(text: str, times: int) -> bool:
        return all(log.read_text().count(text) == times for log in logs)

    assert wait_for(lambda: said("waiting for 1 GPU", 1))
    for times in (1, 2):
        server.process.send_signal(signal_number)
        server.process.wait(100)
        time.sleep(2.0)  # longer than one more try
        server = Server(*ONE, state=str(tmp_path), where=server.where)
        again = server.channel()
        assert holder.attach_over(again).status == 200
        holder.renew(again, {})
        assert wait_for(lambda times=times: said("connected to", times))  # type: ignore[misc]
        assert said("asking again for 30 s", times)
    queue: Any = server.channel().request("GET", "/v1/pool").body["queue"]
    assert len(queue) == 2 and all(4 < row["since_s"] < 1000 for row in queue)  # each as it was
    holder.channel.close()
    assert [run.wait(100) for run in runs] == [0, 0]
    server.stop()
    assert wait_for(lambda: not server.processes())
