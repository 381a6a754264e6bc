# SPDX-License-Identifier: Apache-2.0
"""One server of a crowd's, whichever process it is, and its clients' tokens."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from typing import Any, Optional

from crowd_rules import Quota
from ports import Port
from servers import Server
from waiting import wait_for

from bitfusion.client.access import Access
from bitfusion.client.channels import HttpChannel, LineChannel
from bitfusion.server.keys import CA, Keys
from bitfusion.server.state import ADMIN, StateFolder

GPUS, MIB = 4, 1000
QUOTAS = {
    "two": Quota(gpus=2),
    "three": Quota(gpus=3),
    "part": Quota(mib=700),
    "more": Quota(mib=2500),
    "both": Quota(4, 1200),
}


class Node:
    """One server after another, on the same port and in the same folder."""

    def __init__(self, settings: dict[str, str], of: Optional[Node] = None) -> None:
        """of: a server whose cluster it joins."""
        self._folder = tempfile.TemporaryDirectory(prefix="bf-")
        self._state = StateFolder(self._folder.name)
        self.id, self.keys = self._state.server_id(), Keys(self._state)
        if of is not None:
            self.keys.join(of.keys.invite())
        else:
            self.keys.make("crowd")
        self._settings = settings
        self.all: list[Server] = []
        self.tokens: dict[str, Access] = of.tokens if of else {}  # of the cluster's clients
        self._where = Port()
        self.start()

    @property
    def now(self) -> Server:
        return self.all[-1]

    def start(self) -> None:
        how: Any = {"settings": self._settings, "state": self._folder.name}
        self.all.append(Server("echo", GPUS, MIB, where=self._where, **how))
        self.operator = LineChannel(self._state.connect(ADMIN, socket.SOCK_STREAM, 10.0), 10.0)

    def restart(self, number: int) -> None:
        self.now.process.send_signal(number)
        self.now.process.wait(100)
        self.operator.close()
        self.start()
        assert wait_for(self.is_ready), self.now.log

    def is_ready(self) -> bool:
        """It knows its clients, which may take a moment with a store that is busy."""
        channel = self.channel(next(iter(self.tokens)))
        try:
            return channel.request("GET", "/v1/pool").status == 200
        finally:
            channel.close()

    def admit(self, name: str) -> None:
        """A client of the cluster."""
        quota = QUOTAS.get(name, Quota())
        limits = {"gpus": quota.gpus, "memory": quota.mib << 20}
        reply = self.operator.request("POST", "/v1/tokens", {"name": name, **limits})
        assert reply.status == 201, reply
        self.tokens[name] = Access(self.keys.path(CA), str(reply.body["token"]))

    def knows(self, names: Sequence[str]) -> bool:
        known: Any = self.operator.request("GET", "/v1/tokens").body["tokens"]
        return {client["name"] for client in known} >= set(names)

    def channel(self, name: str) -> HttpChannel:
        address = ("127.0.0.1", self.now.port)
        return HttpChannel(address, f"127.0.0.1:{self.now.port}", 10.0, self.tokens[name])

    def pool(self) -> Any:
        return self.operator.request("GET", "/v1/pool").body

    def free(self) -> list[int]:
        gpus: Any = self.operator.request("GET", "/v1/gpus").body["gpus"]
        return [int(gpu["free"]) >> 20 for gpu in gpus]

    def left(self) -> list[int]:
        return [pid for server in self.all for pid in server.processes()]
