# SPDX-License-Identifier: Apache-2.0
"""The state that several servers share, in etcd.

All keys under our prefix are kept here too, and only the watch changes them, so that every server
sees the same changes in the same order. Whatever goes wrong with etcd (an endpoint dies, freezes,
forgets our lease, has compacted what we missed) is mended in one way: read everything again and
tell the differences.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Optional

from bitfusion import log
from bitfusion.server.etcd import (
    NOT_FOUND,
    NOT_SERVING,
    TIMEOUT_S,
    Answer,
    Endpoint,
    Etcd,
    Watch,
    number,
)
from bitfusion.server.etcd_keys import MARKS, Entry, Keys, Known
from bitfusion.server.etcd_sync import Sync
from bitfusion.server.loop import Loop
from bitfusion.server.store import (
    ABSENT,
    APPLIED,
    CONFLICT,
    UNAVAILABLE,
    Change,
    Changed,
    Check,
    Done,
    validate,
)
from bitfusion.wire.control import Json, unpack_object

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0
MAX_IN_FLIGHT = 1000


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
        self.failures, self.trouble = 0, ""
        self._loop = loop
        self._etcd = Etcd(loop, endpoints, tls)
        self._tls = tls
        self._keys = Keys(prefix)
        self._lease_s = max(2, round(lease_s))
        self._known = Known()
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
            attempt = self._attempt

            def call(path: str, body: Json, heard: Callable[[Json], None]) -> None:
                self._etcd.call(path, body, lambda answer: self._heard(attempt, answer, heard))

            def again(pause_s: float) -> None:
                self._loop.after(
                    pause_s, lambda: self._sync() if attempt == self._attempt else None
                )

            Sync(self._keys, call, self._known, self._lease_s, self._read, again).start()

    def _heard(self, attempt: int, answer: Answer, heard: Callable[[Json], None]) -> None:
        if attempt == self._attempt:
            if answer.error:
                self._lost(answer.error)
            else:
                heard(answer.body)

    def _read(self, found: Known) -> None:
        """Everything: tell what is new, and watch from there."""
        for key in [key for key in self._known.entries if key not in found.entries]:
            self._tell(key, None)
        for key, entry in found.entries.items():
            self._tell(key, entry)
        self._known.revision, self._known.etcd_id = found.revision, found.etcd_id
        attempt = self._attempt

        def current(action: Callable[[], None]) -> None:
            if attempt == self._attempt:
                action()

        self._watch = self._etcd.watch(
            self._keys.watch(found.revision + 1),
            lambda message: current(lambda: self._hear(message)),
            lambda why: current(lambda: self._lost(why)),
        )

        def look() -> None:
            if not self._synced:
                self._lost("it does not answer")

        self._loop.after(TIMEOUT_S, lambda: current(look))

    # ------------------------------------------ the feed

    def _tell(self, key: str, entry: Optional[Entry]) -> None:
        known = self._known.entries.get(key)
        value: Optional[Json] = None
        if entry is not None and known is not None and entry.version == known.version:
            return
        if entry is not None:
            try:
                value = unpack_object(entry.value)
            except ValueError:
                log.once(f"key '{key}' of {self.where} is not JSON, ignoring it")
        if entry is not None and value is not None:
            self._known.entries[key] = entry
            self._changed(key, value, entry.version)
        elif known is not None:
            del self._known.entries[key]
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
        key, deleted = self._keys.name(pair), event.get("type") == "DELETE"
        if key == self._own_mark() and not deleted:
            self._caught_up()
        elif not key.startswith(MARKS):
            self._tell(key, None if deleted else self._keys.entry(pair))
        self._known.revision = max(self._known.revision, number(pair, "mod_revision"))

    def _own_mark(self) -> str:
        return f"{MARKS}{self._known.lease:x}"

    def _mark(self) -> None:
        """When the watch shows us a change of our own, it has shown all before it."""
        attempt = self._attempt

        def answered(answer: Answer) -> None:
            if answer.error:
                self._failed(answer, attempt)

        mark = Change(self._own_mark(), {}, lease=True)
        self._etcd.call("/v3/kv/txn", self._keys.transaction([mark], self._known.lease), answered)

    def _caught_up(self) -> None:
        if not self._synced:
            self._synced, self._pause_s = True, 0.0
            if self._said:
                log.info(f"the cluster's state at {self.where} is there again")
                self._said = ""
            self._keep_later(self._attempt)
            self._state(True)

    def _settle(self) -> None:
        due = [done for revision, done in self._waiting if revision <= self._known.revision]
        self._waiting = [w for w in self._waiting if w[0] > self._known.revision]
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
            self._etcd.call("/v3/lease/keepalive", {"ID": str(self._known.lease)}, answered)

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
                self._failed(answer, attempt)  # first: who asked looks whether the store is lost
                done(UNAVAILABLE)
            elif not answer.body.get("succeeded"):
                done(CONFLICT)
            else:
                self._applied(answer.body, attempt, done)

        self._in_flight += 1
        body = self._keys.transaction(changes, self._known.lease, checks)
        self._etcd.call("/v3/kv/txn", body, answered)

    def _failed(self, answer: Answer, attempt: int) -> None:
        if attempt != self._attempt or self._closed:
            return
        if answer.code == NOT_FOUND:
            self._lost("it forgot our lease")
        elif answer.code in NOT_SERVING:
            self._lost(answer.error)
        else:
            self.failures += 1
            self.trouble = f"the cluster's state at {self.where} takes no change: {answer.error}"
            log.once(self.trouble)

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
        elif not changed or revision <= self._known.revision:
            done(APPLIED)
        else:
            self._waiting.append((revision, done))

    # ------------------------------------------ the end

    def close(self) -> None:
        """Give the lease back, and do not wait long for that: the loop has ended."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.close()
        self._etcd.close()
        if self._known.lease and self._synced:
            revoke(self._etcd.endpoint, self._known.lease, self._tls)


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
