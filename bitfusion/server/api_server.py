# SPDX-License-Identifier: Apache-2.0
"""Who answers here."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from bitfusion import __version__
from bitfusion.server.api import ANYBODY, Incoming, Route
from bitfusion.wire.calls import CALLS
from bitfusion.wire.control import PROTOCOL, Json, Reply


class ServerApi:
    def __init__(self, server: str = "") -> None:
        """server: its ID, of one that outlives a run."""
        self.server = server
        self.cluster: Callable[[], str] = lambda: ""  # its ID
        self.encrypt = ""  # its data, as the setting says; "" without keys

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/server", ANYBODY, self.describe_server)]

    def describe_server(self, asked: Incoming) -> Reply:
        body: Json = {
            "product": "bitfusion",
            "version": __version__,
            "protocol": PROTOCOL,
            "calls": CALLS,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "id": self.server,
            "cluster": self.cluster(),
            "auth": bool(self.encrypt),
            "encrypt": self.encrypt,
        }
        caller = asked.caller
        if caller.client:
            you: Json = {"client": caller.client}
            if caller.token_expires_s:
                you["token_expires_in_s"] = int(caller.token_expires_s - time.time())
            body["you"] = you
        return Reply(200, body)
