# SPDX-License-Identifier: Apache-2.0
"""Requests about what clients used: an operator sees everybody, a client itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from bitfusion.server.api import CLIENT, Incoming, Route
from bitfusion.server.caller import Refusal
from bitfusion.server.usage import GROUPS, MAX_ROWS, Usage
from bitfusion.wire.control import Json, Reply

LATEST_S = 1e11


class Meter(Protocol):
    """Of meter.py."""

    usage: Usage

    def book(self) -> None: ...


class StatsApi:
    def __init__(self, meter: Meter, server: Json, others: Callable[[], list[str]]) -> None:
        """server: this one's ID and name; others: addresses of the rest of its cluster."""
        self._meter = meter
        self._server = server
        self._others = others

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/stats", CLIENT, self.show)]

    def show(self, asked: Incoming) -> Reply:
        from_s = asked.query_number("from", 0, LATEST_S)
        to_s = asked.query_number("to", math.ceil(time.time()), LATEST_S)
        by = [word for word in asked.query("by").split(",") if word]
        if any(word not in GROUPS for word in by):
            raise Refusal(400, "bad-request", f"'by' knows {' and '.join(GROUPS)}")
        self._meter.book()
        whose = None if asked.caller.admin else asked.caller.client
        rows = self._meter.usage.used(from_s, to_s, by, whose)
        if len(rows) > MAX_ROWS:
            why = f"these are more than {MAX_ROWS} rows: ask for a shorter time"
            raise Refusal(413, "too-large", why)
        body: Json = {
            "server": self._server,
            "others": self._others(),
            "used": [row._asdict() for row in rows],
        }
        return Reply(200, body)
