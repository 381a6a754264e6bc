# SPDX-License-Identifier: Apache-2.0
"""Knowing all that is in etcd, and putting back what it has lost.

etcd that comes back with less than it had (emptied, or an old copy of it) would mean that tokens
are revoked and claims given up that nobody gave up. So one of the servers, whoever is first to say
so under the key `epoch`, puts back what it remembers; the others wait for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitfusion import log
from bitfusion.server.etcd import number
from bitfusion.server.etcd_keys import EPOCH, MARKS, Keys, Known
from bitfusion.server.store import ABSENT, PRESENT, Change
from bitfusion.wire.control import Json, unpack_object

EPOCH_PAUSE_S = 0.5
BATCH = 20  # changes put back at once: etcd takes 1.5 MB

Call = Callable[
    [str, Json, Callable[[Json], None]], None
]  # path, body, what to do with the answer


class Sync:
    """One attempt to read everything again. Errors of `call` end it; the caller begins anew."""

    def __init__(
        self,
        keys: Keys,
        call: Call,
        known: Known,
        lease_s: int,
        done: Callable[[Known], None],
        again: Callable[[float], None],
    ) -> None:
        self._keys = keys
        self._call = call
        self._known = known
        self._lease_s = lease_s
        self._done = done
        self._again = again
        self._found = Known()

    def start(self) -> None:
        """With the lease that we had, if etcd still knows it."""
        if self._known.lease:
            lease: Json = {"ID": str(self._known.lease)}
            self._call("/v3/lease/keepalive", lease, self._kept)
        else:
            self._grant()

    def _kept(self, body: Json) -> None:
        if number(body, "TTL") > 0:
            self._read("")
        else:
            self._grant()

    def _grant(self) -> None:
        def granted(body: Json) -> None:
            self._known.lease = number(body, "ID")
            self._read("")

        self._known.lease = 0
        self._call("/v3/lease/grant", {"TTL": str(self._lease_s)}, granted)

    def _read(self, after: str) -> None:
        self._call("/v3/kv/range", self._keys.range(after, self._found.revision), self._page)

    def _page(self, body: Json) -> None:
        found = self._found
        if not found.revision:
            found.revision = number(body, "header", "revision")
            found.etcd_id = number(body, "header", "cluster_id")
        pairs = body.get("kvs", ())
        assert isinstance(pairs, (list, tuple))
        for pair in pairs:
            if not self._keys.name(pair).startswith(MARKS):
                found.entries[self._keys.name(pair)] = self._keys.entry(pair)
        if body.get("more") and pairs:
            self._read(self._keys.name(pairs[-1]))
        else:
            self._judge()

    def _judge(self) -> None:
        """Is it what it was?"""
        known, found = self._known, self._found
        older = found.revision < known.revision or found.etcd_id != known.etcd_id
        if not found.epoch.ready:
            self._again(EPOCH_PAUSE_S)
        elif known.revision and older and found.epoch.n <= known.epoch.n:
            restore = Restoration(self._keys, self._call, known, found, lambda: self._again(0))
            restore.start()
        else:
            found.lease = known.lease
            self._done(found)


class Restoration:
    """Puts back the keys that do not belong to anybody's lease."""

    def __init__(
        self, keys: Keys, call: Call, known: Known, found: Known, end: Callable[[], None]
    ) -> None:
        self._keys = keys
        self._call = call
        self._known = known
        self._found = found
        self._end = end
        self._n = known.epoch.n + 1
        self._changes = list_changes(known, found)

    def start(self) -> None:
        """Ours to do, unless somebody else is quicker; should we die, the key goes with us."""
        log.warn("the cluster's state in etcd is older than it was: putting back what was lost")
        mine = self._found.entries.get(EPOCH)
        value: Json = {"n": self._n, "ready": False}
        change = Change(EPOCH, value, mine.version if mine else ABSENT, lease=True)
        self._commit([change], lambda done: self._next() if done else self._end())

    def _commit(self, changes: Sequence[Change], then: Callable[[bool], None]) -> None:
        body = self._keys.transaction(changes, self._known.lease)
        self._call("/v3/kv/txn", body, lambda answer: then(bool(answer.get("succeeded"))))

    def _next(self) -> None:
        batch, self._changes = self._changes[:BATCH], self._changes[BATCH:]
        if batch:
            self._commit(batch, lambda _done: self._next())
        else:
            self._finish()

    def _finish(self) -> None:
        self._known.revision = 0  # what etcd has now is what counts
        change = Change(EPOCH, {"n": self._n, "ready": True}, PRESENT)
        self._commit([change], lambda _done: self._end())


def list_changes(known: Known, found: Known) -> list[Change]:
    wanted = {k: e for k, e in known.entries.items() if not e.leased and k != EPOCH}
    changes = []
    for key, entry in wanted.items():
        there = found.entries.get(key)
        if there is None or there.value != entry.value:
            changes.append(Change(key, unpack_object(entry.value)))
    for key, entry in found.entries.items():
        if key not in wanted and not entry.leased and key != EPOCH:
            changes.append(Change(key, None))
    return changes
