# SPDX-License-Identifier: Apache-2.0
"""What is listed of servers that do not answer."""

from __future__ import annotations

import pathlib
import threading
from types import SimpleNamespace

import pytest

from bitfusion import paths
from bitfusion.client import admin, pool
from bitfusion.client.pool import Asker, Listed, Told
from bitfusion.config import Config
from bitfusion.errors import CannotReach, NoServer, NotRunning
from bitfusion.values import Address

LOST = Listed("b:2", "", [], "the cluster has lost it", "down")


@pytest.mark.parametrize(("order", "asked"), [("a:1,b:2", [1]), ("b:2,a:1", [2, 1])])
def test_a_dead_server_is_named_once(
    monkeypatch: pytest.MonkeyPatch, order: str, asked: list[int]
) -> None:
    """And not waited for where its cluster told of it before."""
    calls: list[int] = []

    def ask(_self: Asker, address: Address) -> Told:
        calls.append(address[1])
        if address[1] == 2:
            raise CannotReach(server="b:2", why="timed out")
        servers = [("a", True, Listed("a:1", "1", [])), ("b", False, LOST)]
        return Told("a", servers, [], {}, "")

    monkeypatch.setattr(Asker, "_ask", ask)
    assert pool.query(settings_with(order)).servers == [Listed("a:1", "1", []), LOST]
    assert calls == asked


def test_dead_servers_are_waited_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them answers before all are asked, but for the first, which may know of them."""
    together = threading.Barrier(4)

    def ask(_self: Asker, address: Address) -> Told:
        if address[1] > 1:
            together.wait(100)
        raise CannotReach(server=f"a:{address[1]}", why="timed out")

    monkeypatch.setattr(Asker, "_ask", ask)
    listed = pool.query(settings_with("a:1,a:2,a:3,a:4,a:5")).servers
    assert [server.name for server in listed] == ["a:1", "a:2", "a:3", "a:4", "a:5"]
    assert all("timed out" in server.error for server in listed)


@pytest.mark.parametrize("silent", [True, False])
def test_not_every_server_that_another_names_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """Those that refuse at once cost no time."""
    now_s = 0.0
    named = [(str(n), False, Listed(f"a:{n}", "1", [])) for n in range(2, 100)]
    calls: list[Address] = []

    def remote(address: Address, *_words: object) -> Listed:
        nonlocal now_s
        calls.append(address)
        now_s += 100 * silent
        raise CannotReach(server="a", why="as it says")

    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(Asker, "_ask", lambda _self, _address: Told("1", named, [], {}, ""))
    monkeypatch.setattr(pool, "remote", remote)
    assert len(pool.query(settings_with("a:1"), live=True).servers) == len(named)
    assert len(calls) == (pool.MAX_SILENT if silent else len(named))


def settings_with(servers: str) -> Config:
    settings = Config()
    settings.set("client.server_list", servers, "test")
    return settings


def test_who_may_not_ask_the_machines_server_is_told_who_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(paths, "MACHINE_STATE", str(tmp_path))
    server = Config()
    server.set("server.state_dir", str(tmp_path / "mine"), "test")
    with pytest.raises(NoServer) as caught:
        admin.open_admin(server, settings_with(""))
    assert "with sudo" in caught.value.hint


def test_what_takes_a_running_server_says_that_none_runs(tmp_path: pathlib.Path) -> None:
    server = Config()
    server.set("server.state_dir", str(tmp_path), "test")
    with pytest.raises(NotRunning, match="does not run$"):
        admin.open_admin(server, settings_with(""), offline=False)
