# SPDX-License-Identifier: Apache-2.0
"""Floods of connections that begin with TLS, each of which costs a process."""

from __future__ import annotations

import socket
from typing import Callable, List

import pytest
from hellos import hello

from bitfusion.server import data
from bitfusion.server.data import DataListener
from bitfusion.server.loop import Loop
from bitfusion.server.throttle import Throttle


def test_a_few_at_once_and_so_many_a_second() -> None:
    throttle = Throttle(4, 2, 6, 3)
    assert [throttle.take("a", 100) for _ in range(5)] == [True] * 4 + [False]
    assert [throttle.take("b", 100) for _ in range(3)] == [True] * 2 + [False]  # of all
    assert [throttle.take("a", 100.6) for _ in range(2)] == [True, False]
    throttle.give_back("a")
    assert [throttle.take("a", 100.6) for _ in range(2)] == [True, False]
    assert [throttle.take("b", 1000) for _ in range(5)] == [True] * 4 + [False]


def test_those_given_back_are_no_loan() -> None:
    throttle = Throttle(2, 1, 3, 1)
    for _ in range(9):
        throttle.give_back("a")
    assert [throttle.take("a", 50) for _ in range(3)] == [True] * 2 + [False]


def flood(port: int, source: str, count: int) -> List[socket.socket]:
    crowd, whole = [], hello()
    for _ in range(count):
        crowd.append(socket.create_connection(("127.0.0.1", port), 60, (source, 0)))
        crowd[-1].sendall(whole)
    return crowd


def test_who_brings_no_ticket_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And others do not; who brings one makes room for the next."""
    monkeypatch.setattr(data, "TICKET_PATIENCE_S", 0.6)
    monkeypatch.setattr(data, "HELLOS_OF", 5)
    monkeypatch.setattr(data, "HELLOS_A_SECOND_OF", 0.1)
    loop, now_s = Loop(), [100.0]
    loop.clock = lambda: now_s[0]
    listener = DataListener(loop, socket.create_server(("127.0.0.1", 0)), lambda *_: "no")
    relayed: List[str] = []
    refused: List[str] = []

    def relay(sock: socket.socket, address: str) -> None:
        relayed.append(address)
        sock.close()

    listener.relay = relay
    listener.refused = lambda address, why, failed: refused.append(f"{address} {why} {failed}")

    def until(condition: Callable[[], object]) -> None:
        for _ in range(1000):
            loop.turn(0)
            if condition():
                return
            now_s[0] += 0.01
        raise AssertionError((relayed, refused))

    port = listener._acceptor._socket.getsockname()[1]
    crowd = flood(port, "127.0.3.1", 12)
    until(lambda: len(relayed) >= 5)
    crowd += flood(port, "127.0.3.2", 2)
    until(lambda: relayed.count("127.0.3.2") == 2)
    assert relayed.count("127.0.3.1") == 5
    listener.relayed("127.0.3.1")
    until(lambda: relayed.count("127.0.3.1") == 6)
    until(lambda: not listener.pending)
    assert refused == [f"127.0.3.1 {data.TOO_MANY_HELLOS} False"] * 6
    assert len(relayed) == 8
    listener.close()
    for sock in crowd:
        sock.close()
