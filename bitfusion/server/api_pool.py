# SPDX-License-Identifier: Apache-2.0
"""Requests about the server and its GPUs."""

from __future__ import annotations

import os
import socket
import time

from bitfusion import __version__
from bitfusion.server.api import ANYBODY, CLIENT, Incoming, Route
from bitfusion.server.sessions import Sessions
from bitfusion.wire.control import PROTOCOL, Json, Reply


class PoolApi:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/server", ANYBODY, self.describe_server),
            Route("GET", "/v1/gpus", CLIENT, self.list_gpus),
        ]

    def describe_server(self, asked: Incoming) -> Reply:
        body: Json = {
            "product": "bitfusion",
            "version": __version__,
            "protocol": PROTOCOL,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
        }
        caller = asked.caller
        if caller.client:
            you: Json = {"client": caller.client}
            if caller.token_expires_s:
                you["token_expires_in_s"] = int(caller.token_expires_s - time.time())
            body["you"] = you
        return Reply(200, body)

    def list_gpus(self, _asked: Incoming) -> Reply:
        pool = self._sessions.pool
        rows: list[Json] = []
        for index, gpu in enumerate(pool.gpus):
            held = [
                {
                    "session": session.name,
                    "memory": part.memory,
                    "used": used,
                    "processes": len(session.workers),
                }
                for session in self._sessions.by_name.values()
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
        return Reply(200, {"gpus": rows})
