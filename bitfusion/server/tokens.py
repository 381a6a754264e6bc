# SPDX-License-Identifier: Apache-2.0
"""Clients' tokens: who may come, until when, and how much they may have. Pure: records in, callers
and changes of records out; a store keeps them, a clock is an argument.

A token is NAME:SECRET. Its secret has 256 random bits, so guessing is hopeless however fast the
hash is: a slow one, made for what people can remember, would only let strangers burn our time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from bitfusion.server.caller import Caller, Limits, Refusal
from bitfusion.server.store import ABSENT, APPLIED, CONFLICT, Change, Done, Store, StoreLost
from bitfusion.wire.control import Json

PREFIX = "tokens/"
SECRET_BYTES = 32
MAX_TOKENS = 10_000
LIMITS = ("gpus", "memory", "time_s", "idle_s")
NOBODY = "0" * 64  # the hash of no secret that anybody could find


class Record(NamedTuple):
    """A client, as the store keeps it."""

    hash: str  # SHA-256 of the secret, hexadecimal
    created_s: float
    expires_s: float = 0  # since the epoch; 0: never
    admin: bool = False
    disabled: bool = False
    old_hash: str = ""  # of the secret before, while it still counts
    old_until_s: float = 0
    limits: Json = {}  # those of LIMITS that it has of its own

    def pack(self) -> Json:
        return dict(self._asdict())

    def accepts(self, hashed: str, now_s: float, late: bool = False) -> bool:
        """late: also the secret before, when it does not count any more."""
        new = hmac.compare_digest(hashed, self.hash)
        old = hmac.compare_digest(hashed, self.old_hash or NOBODY)
        return new or (old and (late or now_s < self.old_until_s))

    def expired(self, now_s: float) -> bool:
        return bool(self.expires_s) and now_s >= self.expires_s


def unpack(value: Json) -> Record:
    """Of what we or another server of ours packed."""
    fields = {name: value[name] for name in Record._fields if name in value}
    return Record(**fields)  # type: ignore[arg-type]


def new_secret() -> tuple[str, str]:
    """A secret and its hash."""
    secret = os.urandom(SECRET_BYTES).hex()
    return secret, hash_of(secret)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Known(NamedTuple):
    record: Record
    version: int


class Tokens:
    """All clients of the cluster, as the store's feed tells them."""

    def __init__(
        self,
        commit: Callable[[Sequence[Change], Done], None],
        defaults: Limits,
    ) -> None:
        """defaults: of clients without limits of their own."""
        self._commit = commit
        self._defaults = defaults
        # Called with a client that may not come any more, and why.
        self.barred: Callable[[str, str], None] = lambda _client, _why: None
        self.on_synced: Callable[[], None] = lambda: None  # all clients are known now
        self._synced = False
        self._known: dict[str, Known] = {}

    def state(self, synced: bool) -> None:
        """Of the store. What was known stays so while the store is away."""
        if synced and not self._synced:
            self._synced = True
            self.on_synced()

    def changed(self, key: str, value: Optional[Json], version: int) -> None:
        """Of the store's feed, which tells of other things too."""
        if not key.startswith(PREFIX):
            return
        name = key[len(PREFIX) :]
        if value is None:
            if self._known.pop(name, None) is not None:
                self.barred(name, "its token was revoked")
            return
        record = unpack(value)
        self._known[name] = Known(record, version)
        if record.disabled:
            self.barred(name, "its token was disabled")

    # ------------------------------------------ who calls

    def identify(self, authorization: str, now_s: float, holds: bool = False) -> Caller:
        """Of a header 'Bearer NAME:SECRET'; raises Refusal.

        holds: who asks about what it holds already may do so with a token that has expired or was
        replaced since, but not as an operator.
        """
        if not self._synced:
            raise Refusal(503, "unavailable", "the server does not know its clients yet")
        if not authorization:
            raise Refusal(401, "no-token", "it asks who you are, and you have no token")
        scheme, _, token = authorization.partition(" ")
        name, _, secret = token.strip().partition(":")
        known = self._known.get(name)
        record = known.record if known else Record(NOBODY, 0)
        hashed = hash_of(secret)
        good = record.accepts(hashed, now_s, holds)  # takes its time for unknown names too
        if scheme.lower() != "bearer" or known is None or not good:
            raise Refusal(
                401, "wrong-token", "your token is not known: was it replaced or revoked?"
            )
        if record.disabled:
            raise Refusal(401, "disabled", f"client '{name}' is disabled")
        if record.expired(now_s) and not holds:
            raise Refusal(401, "expired", f"the token of client '{name}' has expired")
        admin = record.admin and not record.expired(now_s) and record.accepts(hashed, now_s)
        return Caller(name, self.limits(name), admin, record.expires_s)

    def limits(self, name: str) -> Limits:
        known = self._known.get(name)
        return self._defaults._replace(**known.record.limits) if known else self._defaults  # type: ignore[arg-type]

    def bars(self, name: str) -> str:
        """Why this client may not have sessions; '' where it may. Ask when all are known."""
        known = self._known.get(name)
        if known is None:
            return "its token was revoked"
        return "its token was disabled" if known.record.disabled else ""

    # ------------------------------------------ operators

    def names(self) -> list[str]:
        return sorted(self._known)

    def get(self, name: str) -> Record:
        if name not in self._known:
            raise Refusal(404, "no-token", f"there is no client '{name}'")
        return self._known[name].record

    def create(self, name: str, record: Record, done: Done) -> None:
        if name in self._known:
            raise Refusal(409, "exists", f"client '{name}' exists: revoke it first, or rotate it")
        if len(self._known) >= MAX_TOKENS:
            raise Refusal(409, "too-many", f"there are {MAX_TOKENS} clients already")
        self._put(name, record, ABSENT, done)

    def rotate(self, name: str, hashed: str, grace_s: float, now_s: float, done: Done) -> None:
        """A new secret; the one before counts for some time yet."""
        old = self.get(name)
        record = old._replace(hash=hashed, old_hash=old.hash, old_until_s=now_s + grace_s)
        self._change(name, record, done)

    def change(self, name: str, done: Done, **fields: object) -> None:
        self._change(name, self.get(name)._replace(**fields), done)  # type: ignore[arg-type]

    def revoke(self, name: str, done: Done) -> None:
        self.get(name)
        self._put(name, None, self._known[name].version, done)

    def _change(self, name: str, record: Record, done: Done) -> None:
        self._put(name, record, self._known[name].version, done)

    def _put(self, name: str, record: Optional[Record], version: int, done: Done) -> None:
        value = record.pack() if record else None
        self._commit([Change(PREFIX + name, value, version)], done)


def check(outcome: str, store: Store, failures: int) -> None:
    """Raises Refusal where a change was not made. failures: as of StoreLost."""
    if outcome == CONFLICT:
        raise Refusal(409, "conflict", "somebody else changed it at the same time: try again")
    if outcome != APPLIED:
        raise StoreLost(store, failures)
