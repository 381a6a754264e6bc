# SPDX-License-Identifier: Apache-2.0
"""Waiting for GPUs that others have: the queue as clients see it."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from typing import Any

import pytest
from identities import BITFUSION
from servers import Server, claim_over, wait_for

from bitfusion.client import claim, progress
from bitfusion.client.control import HttpChannel, Session
from bitfusion.config import format_address
from bitfusion.errors import Busy, CannotReach, TooMuch

ONE = ("echo", 1, 1000)


def wanted(*channels: Any, patience_s: float = 20.0, **request: Any) -> claim.Wanted:
    left = list(channels)
    return claim.Wanted(
        {"gpus": 1, **request}, "1 GPU", "program", "list",
        lambda *_where: left.pop(0), "auto", 5.0, patience_s, 2.0,
    )  # fmt: skip


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
    with pytest.raises(Busy, match="others have them after 0.5 s"):
        claim.claim((("127.0.0.1", server.port),), wanted(server.channel(), patience_s=0.5))
    assert wait_for(lambda: queue_length(server) == 0)
    first.channel.close()
    assert wait_for(lambda: server.free() == [1000])


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
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = [silent.getsockname(), ("127.0.0.1", server.port)]
        session = claim.claim(addresses, wanted()._replace(connect=really, timeout_s=60.0))
        assert session.channel.address[1] == server.port
        assert threading.enumerate() == [threading.current_thread()]
        session.channel.close()


@pytest.mark.parametrize("server", [ONE], indirect=True)
def test_runs_end_beside_a_server_that_never_answers(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}"
        for _ in range(3):
            words = [*BITFUSION, "run", "-n", "1", "--server_list", where, "sh", "-c", "exit 3"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
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
    assert run.wait(10) == 130
    run.stderr.close()
    assert wait_for(lambda: queue_length(server) == 0)
    taken.channel.close()


def test_places_in_words() -> None:
    place = {"position": 3, "of": 7, "estimate_s": 240.2}
    said = "waiting for 2 GPUs: place 3 of 7 in the queue, about 4m"
    assert progress.describe("2 GPUs", place) == said
    assert progress.describe("1 GPU", {"state": "queued"}) == "waiting for 1 GPU"
