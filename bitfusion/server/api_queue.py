# SPDX-License-Identifier: Apache-2.0
"""Requests of clients that want GPUs: asking, waiting in the queue, leaving it."""

from __future__ import annotations

import os
from typing import Any, Optional

from bitfusion.printable import without_controls
from bitfusion.server.api import CLIENT, Incoming, Route, word
from bitfusion.server.api_sessions import parse_request
from bitfusion.server.asks import FAILED, MOVED, QUEUED, Waiting
from bitfusion.server.caller import Caller, Refusal
from bitfusion.server.cluster import Cluster
from bitfusion.server.filters import MAX_FILTERS, MAX_SERVERS, Filter, bound, parse
from bitfusion.server.leases import Leases
from bitfusion.server.loop import Timers
from bitfusion.server.peer import Answer, Later, Peer
from bitfusion.server.record import hash_secret
from bitfusion.server.sessions import MAX_OWNED
from bitfusion.server.views import Ask, TooMuch
from bitfusion.wire.control import MAX_ABOUT, MAX_WAIT_S, Json, Reply, failure

MAX_QUEUED = 256  # asks of one client that wait, unless the settings say otherwise
GRANTED = "granted"
FIRST_WAIT_S = 2.0  # for a place in the queue, or a grant where there is no need for one
FORGOTTEN_S = 30.0  # an entry that nobody asks about leaves the queue


class Entry:
    """A client's ask, and who waits for news of it."""

    def __init__(self, client: str, secret: str, peer: Peer) -> None:
        self.client = client
        self.secret = secret
        self.peer = peer
        self.waiting: Optional[Waiting] = None
        self.later: Optional[Later] = None
        self.told = False  # where its session is
        self.position = 0  # that `later` knows of
        self.timer: Any = None  # that answers it anyway
        self.forget: Any = None

    @property
    def queued(self) -> bool:
        return self.waiting is None or self.waiting.state == QUEUED


class QueueApi:
    def __init__(
        self, timers: Timers, leases: Leases, cluster: Cluster, most: int = MAX_QUEUED
    ) -> None:
        """most: asks of one client that may wait; 0 for any number."""
        self._most = most
        self._timers = timers
        self._leases = leases
        self._cluster = cluster
        self._entries: dict[str, Entry] = {}

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/sessions", CLIENT, self.ask),
            Route("GET", "/v1/queue/{}", CLIENT, self.wait),
            Route("DELETE", "/v1/queue/{}", CLIENT, self.leave),
        ]

    # ------------------------------------------ requests

    def ask(self, asked: Incoming) -> Answer:
        """Answers when it is granted, or else what its place is."""
        self._bound(asked)
        turn = self._cluster.turn_of(asked.caller.client, asked.body.get("turn"))
        name = self._go_on(turn.ask) if turn else ""
        name, secret = name or os.urandom(8).hex(), os.urandom(32).hex()
        ask, details = parse_ask(name, asked.caller, asked.body)
        details["secret"] = hash_secret(secret)
        entry = self._entries[name] = Entry(asked.caller.client, secret, asked.peer)
        try:
            entry.waiting = self._cluster.ask(
                ask, asked.caller.limits, details, lambda _waiting: self._changed(name), turn
            )
        except TooMuch as error:
            del self._entries[name]
            raise Refusal(409, "too-much", str(error)) from None
        except BaseException:
            del self._entries[name]
            raise
        wait_s = asked.body.get("wait", FIRST_WAIT_S)
        if not isinstance(wait_s, (int, float)) or not 0 <= wait_s <= MAX_WAIT_S:
            wait_s = FIRST_WAIT_S
        return self._answer_later(name, entry, -1, wait_s)

    def _go_on(self, name: str) -> str:
        """With an ask whose client comes back, under the same name where that is free. What it
        was granted and does not use is over.
        """
        entry, lease = self._entries.get(name), self._leases.by_name.get(name)
        if entry is not None:
            self._drop(name, entry)
        elif lease is not None and lease.session.owner is None and not lease.session.closing:
            self._leases.end(lease, "lost", "its client asked again", 0)
        return "" if name in self._cluster.facts.claims else name

    def _bound(self, asked: Incoming) -> None:
        """Raises Refusal."""
        of_peer = [name for name, entry in self._entries.items() if entry.peer is asked.peer]
        for name in of_peer:
            self._drop_ended(name, self._entries[name])
        if sum(name in self._entries for name in of_peer) >= MAX_OWNED:
            raise Refusal(429, "too-many", f"{MAX_OWNED} requests of one connection are the most")
        client = asked.caller.client
        fresh = sum(
            entry.client == client and entry.queued and name not in self._cluster.facts.queue
            for name, entry in self._entries.items()
        )
        waiting = self._cluster.waits_of(client) + fresh
        if self._most and waiting >= self._most:
            why = f"{waiting} of them wait already, and more are not allowed (queue in [limits])"
            raise Refusal(429, "too-many", f"too many requests of client '{client}': {why}")

    def _drop_ended(self, name: str, entry: Entry) -> None:
        """What was granted and told is over when there is no claim any more."""
        if entry.told and name not in self._cluster.facts.claims:
            self._drop(name, entry)

    def wait(self, asked: Incoming) -> Answer:
        name, entry = self._find(asked)
        wait_s = asked.query_number("wait", 0, MAX_WAIT_S)
        position = int(asked.query_number("position", 0, 1 << 31))
        return self._answer_later(name, entry, position, wait_s)

    def leave(self, asked: Incoming) -> Reply:
        name, entry = self._find(asked)
        self._drop(name, entry)
        self._cluster.spend(name)
        return Reply(200, {})

    def _find(self, asked: Incoming) -> tuple[str, Entry]:
        name = asked.names[0]
        entry = self._entries.get(name)
        if entry is None or entry.client != asked.caller.client or entry.peer is not asked.peer:
            raise Refusal(404, "no-entry", "no such entry of the queue")
        return name, entry

    def gone(self, peer: Peer) -> None:
        """Its entries leave the queue; a session that it has not attached to yet ends."""
        for name, entry in list(self._entries.items()):
            if entry.peer is peer:
                self._drop(name, entry)

    # ------------------------------------------ waiting

    def _answer_later(self, name: str, entry: Entry, position: int, wait_s: float) -> Answer:
        self._renew(name, entry)
        self._answer(name, entry)  # an earlier request about it
        if self._is_news(entry, position) or not wait_s:
            return self._reply(name, entry)
        later = entry.later = Later()
        entry.position = position
        entry.timer = self._timers.after(wait_s, lambda: self._answer(name, entry))
        return later

    def _is_news(self, entry: Entry, position: int) -> bool:
        waiting = entry.waiting
        if waiting is None:
            return False
        place = waiting.place.position if waiting.place else -1
        return waiting.state != QUEUED or place != position or bool(waiting.trouble)

    def _changed(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and entry.later is not None and self._is_news(entry, entry.position):
            self._answer(name, entry)

    def _answer(self, name: str, entry: Entry) -> None:
        later, entry.later = entry.later, None
        if later is not None:
            entry.timer.cancel()
            later.complete(self._reply(name, entry))

    def _renew(self, name: str, entry: Entry) -> None:
        if entry.forget is not None:
            entry.forget.cancel()
        entry.forget = self._timers.after(
            FORGOTTEN_S + MAX_WAIT_S, lambda: self._drop(name, entry)
        )

    def _drop(self, name: str, entry: Entry) -> None:
        if self._entries.pop(name, None) is None:
            return
        entry.forget.cancel()
        if entry.timer is not None:
            entry.timer.cancel()
        lease = self._leases.by_name.get(name)
        attached = lease is not None and lease.session.owner is not None
        granted = entry.waiting is not None and entry.waiting.state == GRANTED
        unknown = granted and lease is None and not entry.told  # on another server, to nobody
        if entry.waiting is not None and (not granted or unknown):
            entry.waiting.cancel()
        elif lease is not None and not attached and not lease.session.closing:
            self._leases.end(lease, "lost", "its client went away", 0)

    def _reply(self, name: str, entry: Entry) -> Reply:
        waiting = entry.waiting
        assert waiting is not None
        if waiting.state == GRANTED and waiting.claim is not None:
            entry.told = True
            return Reply(201, self._granted(name, entry, waiting.claim.server))
        if waiting.state == FAILED:
            self._drop(name, entry)
            return Reply(409, {"error": {"kind": "too-much", "text": waiting.why}})
        if waiting.state == MOVED:
            self._drop(name, entry)
            return failure(503, "no-state", "another request took this one's place; ask again")
        if waiting.trouble:
            self._drop(name, entry)
            return failure(503, "no-state", f"the server cannot store it: {waiting.trouble}")
        body: Json = {"state": QUEUED, "entry": name, "turn": self._cluster.turn(waiting)}
        if waiting.place:
            body.update(waiting.place._asdict())
        return Reply(202, body)

    def _granted(self, name: str, entry: Entry, server: str) -> Json:
        addresses: list[str] = []
        for member in self._cluster.servers():
            if member.view.id == server:
                addresses = list(member.view.addresses)
        where = {"id": server, "addresses": addresses}
        return {"state": "granted", "session": name, "secret": entry.secret, "server": where}


def parse_ask(name: str, caller: Caller, body: Json) -> tuple[Ask, Json]:
    """With the details that are for the session's server. Raises Refusal."""
    request = parse_request(body)
    share = body.get("share", 0)
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 1:
        raise Refusal(400, "bad-request", "'share' must be a number from 0 to 1")
    ask = Ask(
        name,
        caller.client,
        *request,
        float(share),
        parse_filters(texts(body, "filters", MAX_FILTERS)),
        tuple(texts(body, "servers", MAX_SERVERS + 1)),  # the one that is asked comes on top
    )
    words = ("program", "host", "user")
    about = {key: without_controls(word(body, key))[:MAX_ABOUT] for key in words}
    limits = caller.limits
    return ask, {"about": about, "time_s": limits.time_s, "idle_s": limits.idle_s}


def texts(body: Json, key: str, most: int) -> list[str]:
    found = body.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Refusal(400, "bad-request", f"'{key}' must be a list of texts")
    try:
        bound(found, most)
    except ValueError as error:
        raise Refusal(400, "bad-request", f"'{key}': {error}") from None
    return found


def parse_filters(words: list[str]) -> tuple[Filter, ...]:
    try:
        return tuple(parse(word) for word in words)
    except ValueError as error:
        raise Refusal(400, "bad-request", str(error)) from None
