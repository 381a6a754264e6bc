# SPDX-License-Identifier: Apache-2.0
"""Our keys in etcd, as its requests and answers write them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from bitfusion.server.etcd import decode, encode, number
from bitfusion.server.store import ANY, PRESENT, Change, Check
from bitfusion.wire.control import Json, unpack_object

PAGE = 500  # keys of one answer
MARKS = "marks/"  # not told to anybody
EPOCH = "epoch"  # {"n": how often the state was put back, "ready": whether that is done}


class Entry(NamedTuple):
    value: bytes
    version: int  # the revision that changed it last
    leased: bool


class Epoch(NamedTuple):
    n: int
    ready: bool


class Known:
    """What a store knows of etcd."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0  # of the last change; 0: nothing to hold etcd to
        self.etcd_id = 0
        self.lease = 0

    @property
    def epoch(self) -> Epoch:
        if EPOCH not in self.entries:
            return Epoch(0, True)
        value = unpack_object(self.entries[EPOCH].value)
        n = value.get("n")
        return Epoch(n if isinstance(n, int) else 0, value.get("ready") is not False)


class Keys:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._end = prefix[:-1] + chr(ord(prefix[-1]) + 1)

    def range(self, after: str, revision: int) -> Json:
        """The next page; as of that revision, unless it is 0."""
        body: Json = {
            "key": encode(f"{self._prefix}{after}\0" if after else self._prefix),
            "range_end": encode(self._end),
            "limit": str(PAGE),
        }
        return {**body, "revision": str(revision)} if revision else body

    def watch(self, revision: int) -> Json:
        request: Json = {
            "key": encode(self._prefix),
            "range_end": encode(self._end),
            "start_revision": str(revision),
        }
        return {"create_request": request}

    def name(self, pair: Json) -> str:
        return decode(pair["key"]).decode("utf-8", "replace")[len(self._prefix) :]

    def entry(self, pair: Json) -> Entry:
        value = decode(pair.get("value", ""))
        return Entry(value, number(pair, "mod_revision"), number(pair, "lease") != 0)

    def transaction(
        self, changes: Sequence[Change], lease: int, checks: Sequence[Check] = ()
    ) -> Json:
        expected = [(c.key, c.expected) for c in changes] + list(checks)
        return {
            "compare": [self._compare(*pair) for pair in expected if pair[1] != ANY],
            "success": [self._operation(change, lease) for change in changes],
        }

    def _compare(self, key: str, version: int) -> Json:
        compare: Json = {"target": "MOD", "key": encode(self._prefix + key)}
        if version == PRESENT:
            return {**compare, "result": "GREATER", "mod_revision": "0"}
        return {**compare, "result": "EQUAL", "mod_revision": str(version)}

    def _operation(self, change: Change, lease: int) -> Json:
        key = encode(self._prefix + change.key)
        if change.value is None:
            return {"request_delete_range": {"key": key}}
        put: Json = {"key": key, "value": encode(json.dumps(change.value, separators=(",", ":")))}
        if change.lease:
            put["lease"] = str(lease)
        return {"request_put": put}
