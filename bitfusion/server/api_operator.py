# SPDX-License-Identifier: Apache-2.0
"""Requests of operators about servers: taking one out of service and back, stopping this one."""

from __future__ import annotations

import os
import signal

from bitfusion import log
from bitfusion.server.api import ADMIN, Incoming, Route
from bitfusion.server.caller import Refusal
from bitfusion.server.cluster import Cluster
from bitfusion.server.leases import Leases
from bitfusion.server.loop import Timers
from bitfusion.server.peer import Answer, Later
from bitfusion.server.store import APPLIED, StoreLost
from bitfusion.server.views import names_of
from bitfusion.wire.control import THIS, Json, Reply, failure


class OperatorApi:
    def __init__(self, timers: Timers, leases: Leases, cluster: Cluster, server_id: str) -> None:
        self._timers = timers
        self._leases = leases
        self._cluster = cluster
        self._server_id = server_id

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/servers/{}/drain", ADMIN, self.drain),
            Route("POST", "/v1/servers/{}/undrain", ADMIN, self.undrain),
            Route("POST", "/v1/servers/{}/stop", ADMIN, self.stop),
        ]

    def _server(self, asked: Incoming) -> str:
        """Its ID, from whatever it is called."""
        wanted = asked.names[0]
        if wanted in (THIS, self._server_id):
            return self._server_id
        views = [member.view for member in self._cluster.servers()]
        named = [view for view in views if wanted.lower() in names_of(view)]
        if len(named) > 1:
            where = ", ".join(self._name(view.id) for view in named)
            text = f"several servers are called '{wanted[:60]}': {where}; say which by its address"
            raise Refusal(409, "ambiguous", text)
        if not named:
            raise Refusal(404, "no-server", f"the cluster has no server '{wanted[:60]}'")
        return named[0].id

    def _name(self, server: str) -> str:
        """Its address, which no two have; else its name."""
        for member in self._cluster.servers():
            if member.view.id == server:
                return next(iter(member.view.addresses), member.view.name)
        return server

    def drain(self, asked: Incoming) -> Answer:
        """It gets no new sessions; with `now` those that it has end as well."""
        server, later = self._server(asked), Later()
        failures = self._cluster.replica.store.failures

        def done(outcome: str) -> None:
            if outcome == APPLIED and asked.body.get("now") is True:
                self._end_sessions(server)
            self._complete(later, server, outcome, failures)

        self._cluster.drain(server, done)
        return later

    def _end_sessions(self, server: str) -> None:
        for claim in self._cluster.claims():
            if claim.server == server:
                self._cluster.end(claim.session, "drained")

    def undrain(self, asked: Incoming) -> Answer:
        server, later = self._server(asked), Later()
        failures = self._cluster.replica.store.failures
        self._cluster.undrain(
            server, lambda outcome: self._complete(later, server, outcome, failures)
        )
        return later

    def _complete(self, later: Later, server: str, outcome: str, failures: int) -> None:
        if outcome == APPLIED:
            running = sum(claim.server == server for claim in self._cluster.claims())
            later.complete(self._about(server, running))
        else:
            lost = StoreLost(self._cluster.replica.store, failures)
            later.complete(failure(lost.status, lost.kind, str(lost)))

    def stop(self, asked: Incoming) -> Reply:
        """This server only, as SIGTERM would; with `now` as SIGINT, which ends its sessions."""
        if self._server(asked) != self._server_id:
            raise Refusal(409, "not-here", "a server is stopped on its own machine")
        now = asked.body.get("now") is True
        log.info(f"{asked.caller.client or 'an operator'} stops the server")
        number = signal.SIGINT if now else signal.SIGTERM
        self._timers.after(0.05, lambda: os.kill(os.getpid(), number))
        sessions = 0 if now else len(self._leases.by_name)
        return self._about(self._server_id, sessions)

    def _about(self, server: str, sessions: int) -> Reply:
        about: Json = {"server": server, "name": self._name(server), "sessions": sessions}
        return Reply(200, about)
