# SPDX-License-Identifier: Apache-2.0
"""The state that several servers share, in etcd.

All keys under our prefix are kept here too, and only the watch changes them, so that every server
sees the same changes in the same order. Whatever goes wrong with etcd (an endpoint dies, freezes,
forgets our lease, has compacted what we missed) is mended in one way: read everything again and
tell the differences.

etcd that comes back with less than it had (emptied, or an old copy of it) would mean that tokens
are revoked and claims given up that nobody gave up. So one of the servers, whoever is first to say
so under the key `epoch`, puts back what it remembers; the others wait for that.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from bitfusion import log
from bitfusion.server.etcd import (
    NOT_FOUND,
    NOT_SERVING,
    TIMEOUT_S,
    Answer,
    Endpoint,
    Etcd,
    Watch,
    decode,
    encode,
    number,
)
from bitfusion.server.loop import Loop
from bitfusion.server.store import (
    ABSENT,
    ANY,
    APPLIED,
    CONFLICT,
    PRESENT,
    UNAVAILABLE,
    Change,
    Changed,
    Check,
    Done,
    validate,
)
from bitfusion.wire.control import Json, unpack_object

PAGE = 500  # keys of one answer
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0
EPOCH = "epoch"  # {"n": how often it was put back, "ready": whether that is done}
EPOCH_PAUSE_S = 0.5
MARKS = "marks/"  # not told
MAX_IN_FLIGHT = 1000
BATCH = 20  # changes put back at once: etcd takes 1.5 MB


class Entry(NamedTuple):
    value: bytes
    version: int  # the revision that changed it last
    leased: bool


class EtcdStore:
    def __init__(
        self,
        loop: Loop,
        endpoints: Sequence[Endpoint],
        prefix: str = "/bitfusion/",
        lease_s: float = 30.0,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        names = dict.fromkeys(endpoint.name for endpoint in endpoints)
        self.where = f"etcd{'s' if tls else ''}://{','.join(names)}"
        self._loop = loop
        self._etcd = Etcd(loop, endpoints, tls)
        self._tls = tls
        self._prefix = prefix
        self._lease_s = max(2, round(lease_s))
        self._lease = 0
        self._entries: dict[str, Entry] = {}
        self._revision = 0  # of the last change we know
        self._etcd_id = 0
        self._synced = False
        self._closed = False
        self._attempt = 0  # counts them, so that answers to an older one are ignored
        self._pause_s = 0.0
        self._said = ""
        self._watch: Optional[Watch] = None
        self._waiting: list[tuple[int, Done]] = []  # until the feed has come to that revision
        self._in_flight = 0
        self._changed: Changed = lambda _key, _value, _version: None
        self._state: Callable[[bool], None] = lambda _synced: None

    def open(self, changed: Changed, state: Callable[[bool], None]) -> None:
        self._changed, self._state = changed, state
        self._loop.after(0, self._sync)

    # ------------------------------------------ losing it and finding it again

    def _lost(self, why: str) -> None:
        """This endpoint, or what we knew: start again with the next one."""
        if self._closed:
            return
        self._attempt += 1
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        was_synced, self._synced = self._synced, False
        waiting, self._waiting = self._waiting, []
        self._etcd.leave(why)
        self._say(f"lost the cluster's state at {self.where}: {why}; running sessions go on")
        if was_synced:
            self._state(False)
            self._pause_s = 0.0
        for _revision, done in waiting:
            done(UNAVAILABLE)
        self._again(self._attempt)

    def _again(self, attempt: int) -> None:
        self._loop.after(
            self._pause_s * random.uniform(0.5, 1.0),
            lambda: self._sync() if attempt == self._attempt else None,
        )
        self._pause_s = min(LAST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))

    def _say(self, text: str) -> None:
        if not self._said:
            log.warn(text)
        self._said = text

    def _sync(self) -> None:
        if not self._closed:
            self._attempt += 1
            Sync(self, self._attempt).start()

    # ------------------------------------------ the feed

    def _tell(self, key: str, entry: Optional[Entry]) -> None:
        known = self._entries.get(key)
        value: Optional[Json] = None
        if entry is not None and known is not None and entry.version == known.version:
            return
        if entry is not None:
            try:
                value = unpack_object(entry.value)
            except ValueError:
                log.once(f"key '{key}' of {self.where} is not JSON, ignoring it")
        if entry is not None and value is not None:
            self._entries[key] = entry
            self._changed(key, value, entry.version)
        elif known is not None:
            del self._entries[key]
            self._changed(key, None, ABSENT)

    def _hear(self, message: Json) -> None:
        result = message.get("result")
        if not isinstance(result, dict):
            self._lost(f"the watch failed: {message.get('error')}"[:200])
            return
        if result.get("canceled"):
            self._lost(str(result.get("cancel_reason") or "it has compacted what we had to read"))
            return
        if result.get("created"):
            self._mark()
        for event in result.get("events", ()):
            self._apply(event)
        self._settle()

    def _apply(self, event: Json) -> None:
        pair = event.get("kv")
        assert isinstance(pair, dict)
        key, deleted = self._key(pair), event.get("type") == "DELETE"
        if key == self._own_mark() and not deleted:
            self._caught_up()
        elif not key.startswith(MARKS):
            self._tell(key, None if deleted else self._entry(pair))
        self._revision = max(self._revision, number(pair, "mod_revision"))

    def _key(self, pair: Json) -> str:
        return decode(pair["key"]).decode("utf-8", "replace")[len(self._prefix) :]

    def _entry(self, pair: Json) -> Entry:
        value = decode(pair.get("value", ""))
        return Entry(value, number(pair, "mod_revision"), number(pair, "lease") != 0)

    def _own_mark(self) -> str:
        return f"{MARKS}{self._lease:x}"

    def _mark(self) -> None:
        """When the watch shows us a change of our own, it has shown all before it."""
        attempt = self._attempt

        def answered(answer: Answer) -> None:
            if answer.error:
                self._failed(answer, attempt)

        mark = Change(self._own_mark(), {}, lease=True)
        self._etcd.call("/v3/kv/txn", self._transaction([mark], ()), answered)

    def _caught_up(self) -> None:
        if not self._synced:
            self._synced, self._pause_s = True, 0.0
            if self._said:
                log.info(f"the cluster's state at {self.where} is there again")
                self._said = ""
            self._keep_later(self._attempt)
            self._state(True)

    def _settle(self) -> None:
        due = [done for revision, done in self._waiting if revision <= self._revision]
        self._waiting = [w for w in self._waiting if w[0] > self._revision]
        for done in due:
            done(APPLIED)

    # ------------------------------------------ the lease

    def _keep_later(self, attempt: int) -> None:
        self._loop.after(self._lease_s / 3, lambda: self._keep(attempt))

    def _keep(self, attempt: int) -> None:
        def answered(answer: Answer) -> None:
            if attempt != self._attempt or self._closed:
                return
            if answer.error:
                self._lost(answer.error)
            elif number(answer.body, "TTL") <= 0:
                self._lost("it forgot our lease")
            else:
                self._keep_later(attempt)

        if attempt == self._attempt and not self._closed:
            self._etcd.call("/v3/lease/keepalive", {"ID": str(self._lease)}, answered)

    # ------------------------------------------ transactions

    def commit(self, changes: Sequence[Change], done: Done, checks: Sequence[Check] = ()) -> None:
        validate(changes, checks)
        if not self._synced or self._in_flight >= MAX_IN_FLIGHT:
            self._loop.after(0, lambda: done(UNAVAILABLE))
            return
        attempt = self._attempt

        def answered(answer: Answer) -> None:
            self._in_flight -= 1
            if answer.error:
                done(UNAVAILABLE)
                self._failed(answer, attempt)
            elif not answer.body.get("succeeded"):
                done(CONFLICT)
            else:
                self._applied(answer.body, attempt, done)

        self._in_flight += 1
        self._etcd.call("/v3/kv/txn", self._transaction(changes, checks), answered)

    def _failed(self, answer: Answer, attempt: int) -> None:
        if attempt != self._attempt or self._closed:
            return
        if answer.code == NOT_FOUND:
            self._lost("it forgot our lease")
        elif answer.code in NOT_SERVING:
            self._lost(answer.error)
        else:
            log.once(f"the cluster's state at {self.where} takes no change: {answer.error}")

    def _applied(self, body: Json, attempt: int, done: Done) -> None:
        responses = body.get("responses", ())
        assert isinstance(responses, (list, tuple))
        changed = any(
            "response_put" in response or number(response, "response_delete_range", "deleted")
            for response in responses
        )
        revision = number(body, "header", "revision")
        if attempt != self._attempt:
            done(UNAVAILABLE)  # the feed was interrupted meanwhile
        elif not changed or revision <= self._revision:
            done(APPLIED)
        else:
            self._waiting.append((revision, done))

    def _transaction(self, changes: Sequence[Change], checks: Sequence[Check]) -> Json:
        expected = [(c.key, c.expected) for c in changes] + list(checks)
        return {
            "compare": [self._compare(*pair) for pair in expected if pair[1] != ANY],
            "success": [self._operation(change) for change in changes],
        }

    def _compare(self, key: str, version: int) -> Json:
        compare: Json = {"target": "MOD", "key": encode(self._prefix + key)}
        if version == PRESENT:
            return {**compare, "result": "GREATER", "mod_revision": "0"}
        return {**compare, "result": "EQUAL", "mod_revision": str(version)}

    def _operation(self, change: Change) -> Json:
        key = encode(self._prefix + change.key)
        if change.value is None:
            return {"request_delete_range": {"key": key}}
        value = encode(json.dumps(change.value, separators=(",", ":")))
        put: Json = {"key": key, "value": value}
        if change.lease:
            put["lease"] = str(self._lease)
        return {"request_put": put}

    # ------------------------------------------ the end

    def close(self) -> None:
        """Give the lease back, and do not wait long for that: the loop has ended."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.close()
        self._etcd.close()
        if self._lease and self._synced:
            revoke(self._etcd.endpoint, self._lease, self._tls)


class Sync:
    """One attempt to know everything again: lease, all keys, watch."""

    def __init__(self, store: EtcdStore, attempt: int) -> None:
        self._store = store
        self._attempt = attempt
        self._found: dict[str, Entry] = {}
        self._revision = 0
        self._etcd_id = 0

    def _call(self, path: str, body: Json, heard: Callable[[Json], None]) -> None:
        def answered(answer: Answer) -> None:
            if self._attempt == self._store._attempt:
                if answer.error:
                    self._store._lost(answer.error)
                else:
                    heard(answer.body)

        self._store._etcd.call(path, body, answered)

    def start(self) -> None:
        """With the lease that we had, if etcd still knows it."""
        if self._store._lease:
            lease: Json = {"ID": str(self._store._lease)}
            self._call("/v3/lease/keepalive", lease, self._kept)
        else:
            self._grant()

    def _kept(self, body: Json) -> None:
        if number(body, "TTL") > 0:
            self._read()
        else:
            self._grant()

    def _grant(self) -> None:
        def granted(body: Json) -> None:
            self._store._lease = number(body, "ID")
            self._read()

        self._store._lease = 0
        self._call("/v3/lease/grant", {"TTL": str(self._store._lease_s)}, granted)

    def _read(self, after: str = "") -> None:
        prefix = self._store._prefix
        body: Json = {
            "key": encode(after + "\0" if after else prefix),
            "range_end": encode(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
            "limit": str(PAGE),
        }
        if self._revision:
            body["revision"] = str(self._revision)
        self._call("/v3/kv/range", body, self._page)

    def _page(self, body: Json) -> None:
        store = self._store
        if not self._revision:
            self._revision = number(body, "header", "revision")
            self._etcd_id = number(body, "header", "cluster_id")
        pairs = body.get("kvs", ())
        assert isinstance(pairs, (list, tuple))
        for pair in pairs:
            if not store._key(pair).startswith(MARKS):
                self._found[store._key(pair)] = store._entry(pair)
        if body.get("more") and pairs:
            self._read(store._prefix + store._key(pairs[-1]))
        else:
            self._judge()

    # ------------------------------------------ is it what it was?

    def _judge(self) -> None:
        store = self._store
        epoch, known = read_epoch(self._found), read_epoch(store._entries)
        older = self._revision < store._revision or self._etcd_id != store._etcd_id
        if not epoch.ready:
            store._loop.after(EPOCH_PAUSE_S, self._anew)
        elif store._revision and older and epoch.n <= known.n:
            Restoration(self._call, self._anew, store, self._found).start()
        else:
            self._tell()

    def _anew(self) -> None:
        if self._attempt == self._store._attempt:
            self._store._sync()

    def _tell(self) -> None:
        store = self._store
        for key in [key for key in store._entries if key not in self._found]:
            store._tell(key, None)
        for key, entry in self._found.items():
            store._tell(key, entry)
        store._revision, store._etcd_id = self._revision, self._etcd_id
        self._watch()

    def _watch(self) -> None:
        store, attempt = self._store, self._attempt
        prefix = store._prefix
        request: Json = {
            "key": encode(prefix),
            "range_end": encode(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
            "start_revision": str(self._revision + 1),
        }

        def current(action: Callable[[], None]) -> None:
            if store._attempt == attempt:
                action()

        store._watch = store._etcd.watch(
            {"create_request": request},
            lambda message: current(lambda: store._hear(message)),
            lambda why: current(lambda: store._lost(why)),
        )

        def look() -> None:
            if not store._synced:
                store._lost("it does not answer")

        store._loop.after(TIMEOUT_S, lambda: current(look))


class Epoch(NamedTuple):
    n: int
    ready: bool


def read_epoch(entries: dict[str, Entry]) -> Epoch:
    if EPOCH not in entries:
        return Epoch(0, True)
    value = unpack_object(entries[EPOCH].value)
    n = value.get("n")
    return Epoch(n if isinstance(n, int) else 0, value.get("ready") is not False)


class Restoration:
    """Puts back what etcd has lost: keys that do not belong to anybody's lease."""

    def __init__(
        self,
        call: Callable[[str, Json, Callable[[Json], None]], None],
        end: Callable[[], None],
        store: EtcdStore,
        found: dict[str, Entry],
    ) -> None:
        self._call = call
        self._end = end
        self._store = store
        self._found = found
        self._n = read_epoch(store._entries).n + 1
        self._changes = self._list_changes()

    def _list_changes(self) -> list[Change]:
        wanted = {k: e for k, e in self._store._entries.items() if not e.leased and k != EPOCH}
        changes = []
        for key, entry in wanted.items():
            found = self._found.get(key)
            if found is None or found.value != entry.value:
                changes.append(Change(key, unpack_object(entry.value)))
        for key, found in self._found.items():
            if key not in wanted and not found.leased and key != EPOCH:
                changes.append(Change(key, None))
        return changes

    def start(self) -> None:
        """Ours to do, unless somebody else is quicker; should we die, the key goes with us."""
        found = self._found.get(EPOCH)
        value: Json = {"n": self._n, "ready": False}
        change = Change(EPOCH, value, found.version if found else ABSENT, lease=True)
        log.warn(
            f"the cluster's state at {self._store.where} is older than it was: "
            f"putting back what was lost"
        )
        self._commit([change], lambda done: self._next() if done else self._end())

    def _commit(self, changes: Sequence[Change], then: Callable[[bool], None]) -> None:
        body = self._store._transaction(changes, ())
        self._call("/v3/kv/txn", body, lambda answer: then(bool(answer.get("succeeded"))))

    def _next(self) -> None:
        batch, self._changes = self._changes[:BATCH], self._changes[BATCH:]
        if batch:
            self._commit(batch, lambda _done: self._next())
        else:
            self._finish()

    def _finish(self) -> None:
        self._store._revision = 0  # what etcd has now is what counts
        change = Change(EPOCH, {"n": self._n, "ready": True}, PRESENT)
        self._commit([change], lambda _done: self._end())


def revoke(endpoint: Endpoint, lease: int, tls: Optional[ssl.SSLContext]) -> None:
    """Without the loop, which has ended."""
    import http.client

    host, port = str(endpoint.address[0]), int(str(endpoint.address[1]))
    connection = (
        http.client.HTTPSConnection(host, port, timeout=1, context=tls)
        if tls
        else http.client.HTTPConnection(host, port, timeout=1)
    )
    try:
        connection.request("POST", "/v3/lease/revoke", json.dumps({"ID": str(lease)}))
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        log.debug("etcd did not take our lease back; it ends by itself")
    finally:
        connection.close()
