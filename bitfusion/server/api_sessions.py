# SPDX-License-Identifier: Apache-2.0
"""Requests about sessions."""

from __future__ import annotations

from bitfusion.quantity import parse_fraction
from bitfusion.server.api import CLIENT, HOLDER, Incoming, Route
from bitfusion.server.caller import Refusal
from bitfusion.server.pool import Request
from bitfusion.server.sessions import Session, Sessions
from bitfusion.wire.control import Json, Reply

MAX_FRACTION = 40  # characters
MAX_PID = (1 << 32) - 1  # as the broker is told it


class SessionApi:
    def __init__(self, sessions: Sessions, data: Json) -> None:
        """data: where data connections go, as clients are told."""
        self._sessions = sessions
        self._data = data

    def routes(self) -> list[Route]:
        """Of every server."""
        return [Route("POST", "/v1/sessions/{}/tickets", HOLDER, self.make_ticket)]

    def private_routes(self) -> list[Route]:
        """Where whoever asks for a session has it."""
        return [
            Route("POST", "/v1/sessions", CLIENT, self.open),
            Route("DELETE", "/v1/sessions/{}", CLIENT, self.close),
        ]

    def open(self, asked: Incoming) -> Reply:
        session = self._sessions.open(asked.peer, parse_request(asked.body))
        return Reply(201, self.describe(session))

    def close(self, asked: Incoming) -> Reply:
        self._sessions.close(asked.peer, asked.names[0])
        return Reply(200, {})

    def make_ticket(self, asked: Incoming) -> Reply:
        pid, cold = asked.body.get("pid", 0), asked.body.get("cold") is True
        if not isinstance(pid, int) or not 0 <= pid <= MAX_PID:
            raise Refusal(400, "bad-request", "'pid' must be the number of a process")
        ticket = self._sessions.make_ticket(asked.peer, asked.names[0], pid, cold)
        return Reply(201, {"ticket": ticket})

    def describe(self, session: Session) -> Json:
        gpus = self._sessions.pool.gpus
        return {
            "session": session.name,
            "software": self._sessions.inventory.software,
            "gpus": [
                {
                    "index": s.gpu,
                    "name": gpus[s.gpu].name,
                    "memory": s.memory,
                    "total": gpus[s.gpu].memory,
                }
                for s in session.slices
            ],
            "data": self._data,
        }


def parse_request(body: Json) -> Request:
    gpus, fraction, memory = body.get("gpus"), body.get("fraction", "1"), body.get("memory", 0)
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 1 <= gpus <= 1 << 20:
        raise Refusal(400, "bad-request", "'gpus' must be a whole number above 0")
    if not isinstance(memory, int) or isinstance(memory, bool) or not 0 <= memory < 1 << 62:
        raise Refusal(400, "bad-request", "'memory' must be a number of bytes")
    if not isinstance(fraction, str) or len(fraction) > MAX_FRACTION:
        raise Refusal(400, "bad-request", "'fraction' must be a text such as '0.5'")
    try:
        parse_fraction(fraction)
    except ValueError as error:
        raise Refusal(400, "bad-request", f"'fraction': {error}") from None
    return Request(gpus, fraction, memory)
