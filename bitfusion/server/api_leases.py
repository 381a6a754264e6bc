# SPDX-License-Identifier: Apache-2.0
"""Requests about sessions that outlive a connection: claimed, attached to, watched, ended."""

from __future__ import annotations

import os
import time

from bitfusion.server.api import ADMIN, CLIENT, Incoming, Route
from bitfusion.server.api_sessions import SessionApi, parse_request
from bitfusion.server.caller import Refusal
from bitfusion.server.leases import Lease, Leases
from bitfusion.server.peer import Answer, Peer
from bitfusion.server.record import Record, hash_secret
from bitfusion.server.sessions import MAX_OWNED, Sessions
from bitfusion.wire.control import MAX_WAIT_S, Json, Reply

MAX_TEXT = 100  # of what a launcher says about its program


class LeaseApi:
    def __init__(
        self, sessions: Sessions, leases: Leases, session_api: SessionApi, server: Json
    ) -> None:
        """server: what clients are told about where a session is: its ID and addresses."""
        self._sessions = sessions
        self._leases = leases
        self._session_api = session_api
        self._server = server
        self._claimed: dict[Peer, list[Lease]] = {}  # and not attached to yet

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/sessions", CLIENT, self.claim),
            Route("GET", "/v1/sessions", ADMIN, self.list_sessions),
            Route("POST", "/v1/sessions/{}/attach", CLIENT, self.attach),
            Route("GET", "/v1/sessions/{}/events", CLIENT, self.get_events),
            Route("DELETE", "/v1/sessions/{}", CLIENT, self.end),
        ]

    def claim(self, asked: Incoming) -> Reply:
        request, limits = parse_request(asked.body), asked.caller.limits
        claimed = self._claimed.setdefault(asked.peer, [])
        claimed[:] = [lease for lease in claimed if is_unclaimed(lease)]
        if len(claimed) >= MAX_OWNED:
            raise Refusal(429, "too-many", "too many sessions of one connection")
        slices = self._sessions.pool.choose(request)
        name, secret = os.urandom(8).hex(), os.urandom(32).hex()
        record = Record(
            name,
            asked.caller.client,
            hash_secret(secret),
            slices,
            tuple(self._sessions.pool.gpus[s.gpu].uuid for s in slices),
            time.monotonic(),
            time.time(),
            limits.time_s,
            limits.idle_s,
            about=describe_program(asked.body),
        )
        claimed.append(self._leases.begin(record))
        body: Json = {
            "state": "granted",
            "session": name,
            "secret": secret,
            "server": self._server,
        }
        return Reply(201, body)

    def gone(self, peer: Peer) -> None:
        """Whoever asked for a session and went away before it was used will not use it."""
        for lease in self._claimed.pop(peer, []):
            if is_unclaimed(lease):
                self._leases.end(lease, "lost", "its client went away", 0)

    def attach(self, asked: Incoming) -> Reply:
        lease = self._find(asked, str(asked.body.get("secret", "")))
        session, record = self._leases.attach(lease, asked.peer), lease.record
        limits = {"time_s": record.time_s, "idle_s": record.idle_s}
        lease_s = self._leases.lease_s
        body: Json = {**self._session_api.describe(session), "limits": limits, "lease_s": lease_s}
        return Reply(200, body)

    def get_events(self, asked: Incoming) -> Answer:
        lease = self._find(asked, asked.call.secret)
        after = int(asked.query_number("after", 0, 1 << 31))
        return self._leases.get_events(lease, after, asked.query_number("wait", 0, MAX_WAIT_S))

    def _find(self, asked: Incoming, secret: str) -> Lease:
        return self._leases.find(asked.names[0], asked.caller.client, secret)

    def end(self, asked: Incoming) -> Reply:
        """By its launcher, or by an operator, who says so to the launcher first."""
        lease = self._leases.by_name.get(asked.names[0])
        if lease is not None and lease.session.owner is asked.peer:
            self._sessions.close(asked.peer, asked.names[0])
        elif lease is not None and asked.caller.admin:
            self._leases.end(lease, "killed", "an operator ended it")
        else:
            raise Refusal(404, "no-session", "no such session")
        return Reply(200, {})

    def list_sessions(self, _asked: Incoming) -> Reply:
        rows = [describe(lease) for lease in self._leases.by_name.values()]
        return Reply(200, {"sessions": rows})


def is_unclaimed(lease: Lease) -> bool:
    return lease.session.owner is None and not lease.session.closing


def describe(lease: Lease) -> Json:
    record, session = lease.record, lease.session
    used = session.used()
    return {
        "session": record.session,
        "client": record.client,
        "since_s": record.since_s,
        "gpus": [
            {"index": s.gpu, "uuid": uuid, "memory": s.memory, "used": held}
            for s, uuid, held in zip(record.slices, record.uuids, used)
        ],
        "share": record.share,
        "limits": {"time_s": record.time_s, "idle_s": record.idle_s},
        "processes": len(session.workers),
        "attached": session.owner is not None,
        **record.about,
    }


def describe_program(body: Json) -> Json:
    """What the launcher says about its run, cut to size; for people only."""
    texts = {key: body.get(key, "") for key in ("program", "host", "user")}
    return {key: str(text)[:MAX_TEXT] for key, text in texts.items() if isinstance(text, str)}
