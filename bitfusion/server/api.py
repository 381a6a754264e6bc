# SPDX-License-Identifier: Apache-2.0
"""The control plane's requests and answers, whatever carried them: values in, values out."""

from __future__ import annotations

import os
import socket

from bitfusion import __version__
from bitfusion.quantity import parse_fraction
from bitfusion.server.pool import InUse, NotEnough, Request
from bitfusion.server.sessions import Refusal, Session, Sessions
from bitfusion.wire.control import PROTOCOL, Call, Json, Reply, failure


class Api:
    def __init__(self, sessions: Sessions, data: Json) -> None:
        """data: where data connections go, as clients are told."""
        self.sessions = sessions
        self.data = data

    def handle(self, call: Call, owner: object) -> Reply:
        parts = call.path.partition("?")[0].strip("/").split("/")
        try:
            return self._route(call, parts, owner)
        except Refusal as refusal:
            return failure(refusal.status, refusal.kind, str(refusal))
        except NotEnough as error:
            return failure(409, "too-much", str(error))
        except InUse as error:
            return failure(409, "in-use", str(error))

    def _route(self, call: Call, parts: list[str], owner: object) -> Reply:
        if parts == ["v1", "server"] and call.method == "GET":
            return Reply(200, self._server())
        if parts == ["v1", "gpus"] and call.method == "GET":
            return Reply(200, {"gpus": self.list_gpus()})
        if parts == ["v1", "sessions"] and call.method == "POST":
            return Reply(201, self._session(self.sessions.open(owner, parse_request(call.body))))
        if len(parts) == 3 and parts[:2] == ["v1", "sessions"] and call.method == "DELETE":
            self.sessions.close(owner, parts[2])
            return Reply(200, {})
        if (
            len(parts) == 4
            and parts[1] == "sessions"
            and parts[3] == "tickets"
            and call.method == "POST"
        ):
            pid = call.body.get("pid", 0)
            ticket = self.sessions.make_ticket(
                owner, parts[2], pid if isinstance(pid, int) else 0, call.body.get("cold") is True
            )
            return Reply(201, {"ticket": ticket})
        return failure(404, "not-found", f"no {call.method} of {call.path[:100]}")

    def _server(self) -> Json:
        return {
            "product": "bitfusion",
            "version": __version__,
            "protocol": PROTOCOL,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
        }

    def list_gpus(self) -> list[Json]:
        pool = self.sessions.pool
        rows: list[Json] = []
        for index, gpu in enumerate(pool.gpus):
            held = [
                {
                    "session": session.name,
                    "memory": part.memory,
                    "used": used,
                    "processes": len(session.workers),
                }
                for session in self.sessions.by_name.values()
                for part, used in zip(session.slices, session.used())
                if part.gpu == index
            ]
            rows.append(
                {
                    "index": index,
                    "name": gpu.name,
                    "uuid": gpu.uuid,
                    "memory": gpu.memory,
                    "free": pool.free(index),
                    "sessions": held,
                }
            )
        return rows

    def _session(self, session: Session) -> Json:
        gpus = self.sessions.pool.gpus
        return {
            "session": session.name,
            "software": self.sessions.inventory.software,
            "gpus": [
                {
                    "index": s.gpu,
                    "name": gpus[s.gpu].name,
                    "memory": s.memory,
                    "total": gpus[s.gpu].memory,
                }
                for s in session.slices
            ],
            "data": self.data,
        }


def parse_request(body: Json) -> Request:
    gpus, fraction, memory = body.get("gpus"), body.get("fraction", "1"), body.get("memory", 0)
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 1 <= gpus <= 1 << 20:
        raise Refusal(400, "bad-request", "'gpus' must be a whole number above 0")
    if not isinstance(memory, int) or isinstance(memory, bool) or not 0 <= memory < 1 << 62:
        raise Refusal(400, "bad-request", "'memory' must be a number of bytes")
    if not isinstance(fraction, str):
        raise Refusal(400, "bad-request", "'fraction' must be a text such as '0.5'")
    try:
        parse_fraction(fraction)
    except ValueError as error:
        raise Refusal(400, "bad-request", f"'fraction': {error}") from None
    return Request(gpus, fraction, memory)
