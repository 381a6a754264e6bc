# SPDX-License-Identifier: Apache-2.0
"""Whether this server belongs to the cluster of its store: one cluster has one CA, whose keys all
its servers have, and no two servers have one ID.
"""

from __future__ import annotations

import os
from typing import Optional

from bitfusion import __version__, log
from bitfusion.server.desk import Desk
from bitfusion.server.records import CLUSTER, SERVERS, pack_server
from bitfusion.server.seal import SEAL, make_seal
from bitfusion.server.store import ABSENT, Change
from bitfusion.server.views import ServerView
from bitfusion.wire.control import Json


class Membership:
    def __init__(self, desk: Desk, me: ServerView, keys: Optional[str]) -> None:
        """keys: what names those of this server; None where nobody else has its store."""
        self._desk = desk
        self._replica = desk.replica
        self._me = me
        self._keys = keys
        self._was_registered = False

    @property
    def cluster(self) -> str:
        """Its ID; "" while it is not known."""
        found = self._replica.values.get(CLUSTER, {}).get("id", "")
        return found if isinstance(found, str) else ""

    @property
    def other_keys(self) -> str:
        """The cluster's, where ours are others; else ""."""
        found = self._replica.values.get(CLUSTER, {}).get("keys")
        return str(found) if None not in (found, self._keys) and found != self._keys else ""

    @property
    def trouble(self) -> str:
        """Why nobody gets GPUs from here, though the store is in reach."""
        if self.other_keys:
            return (
                f"this server's keys are not those of the cluster at {self._replica.store.where}"
            )
        if self._was_registered and not self.registered:
            return f"another server has this one's ID {self._me.id}"
        return ""

    @property
    def registered(self) -> bool:
        """As the one that we are: else somebody else with our ID acts for it."""
        found = self._replica.values.get(f"{SERVERS}{self._me.id}")
        return found is not None and found.get("instance") == self._desk.instance

    def look(self) -> bool:
        """Write what should be there; whether this server belongs."""
        if not self._found():
            return False
        if self.other_keys:
            log.once(f"{self.trouble}: nobody gets GPUs from it")
            return False
        self._register()
        if self.registered and SEAL not in self._replica.values:
            self._desk.write(SEAL, [Change(SEAL, make_seal(), ABSENT)])
        return self.registered

    def _found(self) -> bool:
        """The first server says what the cluster is."""
        found = self._replica.values.get(CLUSTER)
        if found is not None and (found.get("keys") is not None or self._keys is None):
            return True
        wanted: Json = {"id": self.cluster or os.urandom(8).hex(), "keys": self._keys}
        change = Change(CLUSTER, wanted, self._replica.version(CLUSTER))
        self._desk.write(CLUSTER, [change])
        return False

    def _register(self) -> None:
        """An earlier run of this server may still be registered; another server must not be."""
        key = f"{SERVERS}{self._me.id}"
        wanted = pack_server(self._me, self._desk.instance, __version__)
        found = self._replica.values.get(key)
        self._was_registered = self._was_registered or self.registered
        if found is not None and self.trouble:
            log.once(f"{self.trouble}: remove server.id from one's state_dir, and start it again")
        elif found != wanted:
            change = Change(key, wanted, self._replica.version(key), lease=True)
            self._desk.write(key, [change])
