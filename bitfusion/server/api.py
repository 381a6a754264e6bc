# SPDX-License-Identifier: Apache-2.0
"""The control plane's requests and answers, whatever carried them: one table of routes.

A handler gets what was asked and by whom, and returns its answer, or a Later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from bitfusion.server.caller import Caller, Refusal
from bitfusion.server.peer import Answer, Peer
from bitfusion.server.pool import InUse, NotEnough
from bitfusion.wire.control import Call, Json, failure

ANYBODY, CLIENT, ADMIN = "anybody", "client", "admin"  # who may
HOLDER = "holder"  # a client about what it holds, also when its token is not good for more by now


class Incoming(NamedTuple):
    """A call, and who makes it."""

    call: Call
    names: tuple[str, ...]  # what stands for each {} of the route
    caller: Caller
    peer: Peer

    @property
    def body(self) -> Json:
        return self.call.body

    def query(self, key: str) -> str:
        """A parameter after the path's question mark; '' where it is missing."""
        for pair in self.call.path.partition("?")[2].split("&"):
            name, _, value = pair.partition("=")
            if name == key:
                return value
        return ""

    def query_number(self, key: str, default: float, most: float) -> float:
        text = self.query(key)
        try:
            number = float(text) if text else default
        except ValueError:
            number = -1
        if not 0 <= number <= most:
            raise Refusal(400, "bad-request", f"'{key}' must be a number from 0 to {most:g}")
        return number


Handler = Callable[[Incoming], Answer]
Identify = Callable[[Call, Peer, bool], Caller]  # as a holder? Raises Refusal
Refused = Callable[[Refusal, Peer], None]


class Route(NamedTuple):
    method: str
    path: str  # "/v1/sessions/{}/tickets"
    may: str  # ANYBODY: identified only when it says who it is
    handler: Handler


class Api:
    def __init__(
        self,
        routes: Iterable[Route],
        identify: Identify,
        refused: Refused = lambda _refusal, _peer: None,
    ) -> None:
        """refused: told of every call that is."""
        self._routes = [(route, split(route.path)) for route in routes]
        self._identify = identify
        self._refused = refused

    def handle(self, call: Call, peer: Peer) -> Answer:
        try:
            return self._route(call, peer)
        except Refusal as refusal:
            self._refused(refusal, peer)
            return failure(refusal.status, refusal.kind, str(refusal))
        except NotEnough as error:
            return failure(409, "too-much", str(error))
        except InUse as error:
            return failure(409, "in-use", str(error))

    def _route(self, call: Call, peer: Peer) -> Answer:
        parts = split(call.path)
        for route, pattern in self._routes:
            if call.method == route.method and matches(pattern, parts):
                names = tuple(part for part, own in zip(parts, pattern) if own == "{}")
                caller = self._admit(route, call, peer)
                return route.handler(Incoming(call, names, caller, peer))
        self._identify(call, peer, False)  # strangers are not told what there is
        return failure(404, "not-found", f"no {call.method} of {call.path[:100]}")

    def _admit(self, route: Route, call: Call, peer: Peer) -> Caller:
        if route.may == ANYBODY and not call.authorization:
            return Caller("")
        caller = self._identify(call, peer, route.may == HOLDER)
        if route.may == ADMIN and not caller.admin:
            raise Refusal(403, "forbidden", "this is for operators")
        return caller


def word(body: Json, key: str) -> str:
    """'' where it is missing, or no text: str() of what is nested deeply would fail."""
    found = body.get(key, "")
    return found if isinstance(found, str) else ""


def split(path: str) -> list[str]:
    return path.partition("?")[0].strip("/").split("/")


def matches(pattern: list[str], parts: list[str]) -> bool:
    return len(pattern) == len(parts) and all(
        own == part or own == "{}" for own, part in zip(pattern, parts)
    )
