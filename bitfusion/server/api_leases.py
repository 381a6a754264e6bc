# SPDX-License-Identifier: Apache-2.0
"""Requests about sessions that outlive a connection: claimed, attached to, watched, ended."""

from __future__ import annotations

from collections.abc import Callable

from bitfusion.server.api import ADMIN, HOLDER, Incoming, Route, word
from bitfusion.server.api_sessions import SessionApi
from bitfusion.server.caller import Refusal
from bitfusion.server.leases import Lease, Leases
from bitfusion.server.overview import lasted_s
from bitfusion.server.peer import Answer
from bitfusion.server.sessions import Sessions
from bitfusion.wire.control import MAX_WAIT_S, Json, Reply

End = Callable[[str, str], bool]


class LeaseApi:
    def __init__(
        self, sessions: Sessions, leases: Leases, session_api: SessionApi, end: End
    ) -> None:
        """end: a session that another server of the cluster has; False where none does."""
        self._sessions = sessions
        self._leases = leases
        self._session_api = session_api
        self._end = end

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/sessions", ADMIN, self.list_sessions),
            Route("POST", "/v1/sessions/{}/attach", HOLDER, self.attach),
            Route("GET", "/v1/sessions/{}/events", HOLDER, self.get_events),
            Route("DELETE", "/v1/sessions/{}", HOLDER, self.end),
        ]

    def attach(self, asked: Incoming) -> Reply:
        lease = self._find(asked, word(asked.body, "secret"))
        session, record = self._leases.attach(lease, asked.peer), lease.record
        limits = {"time_s": record.time_s, "idle_s": record.idle_s}
        lease_s = self._leases.lease_s
        body: Json = {**self._session_api.describe(session), "limits": limits, "lease_s": lease_s}
        return Reply(200, body)

    def get_events(self, asked: Incoming) -> Answer:
        lease = self._find(asked, asked.call.secret)
        if asked.query_number("all", 0, 1):
            wait_s = asked.query_number("wait", 0, MAX_WAIT_S)
            return self._leases.get_all_events(lease, wait_s)
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
        elif not asked.caller.admin or not self._end(asked.names[0], "killed"):
            raise Refusal(404, "no-session", f"there is no session '{asked.names[0]}'")
        return Reply(200, {})

    def list_sessions(self, _asked: Incoming) -> Reply:
        rows = [describe(lease) for lease in self._leases.by_name.values()]
        return Reply(200, {"sessions": rows})


def describe(lease: Lease) -> Json:
    record, session = lease.record, lease.session
    used = session.used()
    return {
        "session": record.session,
        "client": record.client,
        "since_s": lasted_s(record.since_s),
        "gpus": [
            {"index": s.gpu, "uuid": uuid, "memory": s.memory, "used": held}
            for s, uuid, held in zip(record.slices, record.uuids, used)
        ],
        "share": record.share,
        "limits": {"time_s": record.time_s, "idle_s": record.idle_s},
        "processes": len(session.workers),
        "attached": session.owner not in (None, lease),
        **record.about,
    }
