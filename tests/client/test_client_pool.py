# SPDX-License-Identifier: Apache-2.0
"""What is listed of servers that do not answer."""

from __future__ import annotations

import pytest

from bitfusion.client import pool
from bitfusion.client.pool import Asker, Listed
from bitfusion.config import Config
from bitfusion.errors import CannotReach
from bitfusion.values import Address

LOST = Listed("b:2", "", [], "the cluster has lost it", "down")


@pytest.mark.parametrize(("order", "asked"), [("a:1,b:2", [1]), ("b:2,a:1", [2, 1])])
def test_a_dead_server_is_named_once(
    monkeypatch: pytest.MonkeyPatch, order: str, asked: list[int]
) -> None:
    """And not waited for where its cluster told of it before."""
    calls: list[int] = []

    def ask(self: Asker, address: Address) -> None:
        calls.append(address[1])
        if address[1] == 2:
            raise CannotReach(server="b:2", why="timed out")
        self.listed += [Listed("a:1", "1", []), LOST]

    monkeypatch.setattr(Asker, "ask", ask)
    settings = Config()
    settings.set("client.server_list", order, "test")
    assert pool.query(settings).servers == [Listed("a:1", "1", []), LOST]
    assert calls == asked
