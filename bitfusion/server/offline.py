# SPDX-License-Identifier: Apache-2.0
"""Operators' requests without a running server: the same answers, straight from the state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional, cast

from bitfusion.certificates import Certificate
from bitfusion.client.access import CLEAR
from bitfusion.config import Config
from bitfusion.errors import StoreUnusable
from bitfusion.server.api import Api
from bitfusion.server.api_tokens import Place, TokenApi
from bitfusion.server.caller import OPERATOR
from bitfusion.server.clients import addresses_of, all_addresses, default_limits
from bitfusion.server.keys import Keys
from bitfusion.server.loop import Loop
from bitfusion.server.peer import Later, Peer
from bitfusion.server.records import SERVERS
from bitfusion.server.state import StateFolder
from bitfusion.server.storage import make_store
from bitfusion.server.tokens import Tokens
from bitfusion.wire.control import Call, Json, Reply

PATIENCE_S = 5.0


class OfflineChannel:
    """As client/control.py's channels."""

    name = "the state of this machine's server"
    host, address = "", ("", 0)
    access = CLEAR
    certificate: Optional[Certificate] = None

    def __init__(self, folder: StateFolder, settings: Config) -> None:
        self._folder = folder
        self._loop = Loop()
        self._store = make_store(settings, folder.path, self._loop)
        self._tokens = Tokens(self._store.commit, default_limits(settings))
        self._servers: dict[str, list[str]] = {}  # that run elsewhere, with their addresses
        keys = Keys(folder)
        ours = addresses_of(settings.address("server.listen"))

        def place() -> Place:
            return Place(keys.authority(), all_addresses(ours, self._servers.values()))

        routes = TokenApi(self._tokens, self._store, place).routes()
        self._api = Api(routes, lambda _call, _peer, _holds: OPERATOR)
        self._synced = False
        with folder.as_owner():
            self._store.open(self._changed, self._note)
            self._turn_until(lambda: self._synced)

    def _changed(self, key: str, value: Optional[Json], version: int) -> None:
        self._tokens.changed(key, value, version)
        if key.startswith(SERVERS):
            addresses = (value or {}).get("addresses")
            known = addresses if isinstance(addresses, list) else []
            self._servers[key] = [str(address) for address in known]

    def _note(self, synced: bool) -> None:
        self._synced = synced

    def _turn_until(self, condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise StoreUnusable(where=self._store.where, why="no answer in time")
            self._loop.turn(min(left_s, 0.05))

    def fileno(self) -> int:
        return -1

    def request(
        self, method: str, path: str, body: Optional[Json] = None, secret: str = ""
    ) -> Reply:
        nobody = cast(Peer, None)  # which no handler here looks at
        with self._folder.as_owner():
            answer = self._api.handle(Call(method, path, body or {}), nobody)
            if isinstance(answer, Later):
                self._turn_until(lambda: answer.reply is not None)
                assert answer.reply is not None
                return answer.reply
            return answer

    def close(self) -> None:
        with self._folder.as_owner():
            self._store.close()
