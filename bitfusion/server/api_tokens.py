# SPDX-License-Identifier: Apache-2.0
"""Operators' requests about clients and their tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Optional

from bitfusion import log, values
from bitfusion.quantity import LONGEST_S
from bitfusion.server.api import ADMIN, Incoming, Route, word
from bitfusion.server.caller import Refusal
from bitfusion.server.peer import Later
from bitfusion.server.store import APPLIED, Store
from bitfusion.server.tokens import LIMITS, Record, Tokens, check, new_secret
from bitfusion.wire.control import Json, Reply, failure

WHOLE = ("gpus", "memory")
MOST_WHOLE = 1 << 62


class Place(NamedTuple):
    """What a new token's bundle says beside the token."""

    ca: str  # PEM; "" where the server speaks clear text, and tokens are of no use
    addresses: list[str]


class TokenApi:
    def __init__(self, tokens: Tokens, store: Store, place: Callable[[], Place]) -> None:
        """store: where the tokens are kept."""
        self._tokens = tokens
        self._store = store
        self._place = place

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/tokens", ADMIN, self.list_all),
            Route("POST", "/v1/tokens", ADMIN, self.create),
            Route("GET", "/v1/tokens/{}", ADMIN, self.show),
            Route("PATCH", "/v1/tokens/{}", ADMIN, self.change),
            Route("POST", "/v1/tokens/{}/rotate", ADMIN, self.rotate),
            Route("DELETE", "/v1/tokens/{}", ADMIN, self.revoke),
        ]

    def list_all(self, _asked: Incoming) -> Reply:
        return Reply(200, {"tokens": [self._describe(name) for name in self._tokens.names()]})

    def show(self, asked: Incoming) -> Reply:
        return Reply(200, self._describe(asked.names[0]))

    def create(self, asked: Incoming) -> Later:
        name, body, place = self._name(asked.body), asked.body, self._place()
        if not place.ca:
            raise Refusal(409, "no-keys", "this server speaks clear text and asks for no tokens")
        secret, hashed = new_secret()
        now_s = time.time()
        record = Record(
            hashed,
            now_s,
            expires_s=self._expiry(body, now_s),
            admin=body.get("admin") is True,
            limits=self._limits(body),
        )
        later = Later()
        self._tokens.create(name, record, self._then(later, 201, name, secret))
        return later

    def rotate(self, asked: Incoming) -> Later:
        name, grace_s = asked.names[0], self._number(asked.body, "grace_s") or 0.0
        secret, hashed = new_secret()
        later = Later()
        done = self._then(later, 201, name, secret)
        self._tokens.rotate(name, hashed, grace_s, time.time(), done)
        return later

    def change(self, asked: Incoming) -> Later:
        name, body = asked.names[0], asked.body
        fields: dict[str, object] = {}
        if "expires_in_s" in body:
            fields["expires_s"] = self._expiry(body, time.time())
        if isinstance(body.get("disabled"), bool):
            fields["disabled"] = body["disabled"]
        limits = self._limits(body)
        if limits:
            fields["limits"] = {**self._tokens.get(name).limits, **limits}
        if not fields:
            raise Refusal(400, "bad-request", "nothing to change")
        later = Later()
        later.owed = True  # also to who disables itself
        self._tokens.change(name, self._then(later, 200, name), **fields)
        return later

    def revoke(self, asked: Incoming) -> Later:
        later = Later()
        later.owed = True
        answer = self._then(later, 200, "")

        def done(outcome: str) -> None:
            if outcome == APPLIED:
                log.info(f"{asked.caller.client} revoked the token of client '{asked.names[0]}'")
            answer(outcome)

        self._tokens.revoke(asked.names[0], done)
        return later

    def _then(
        self, later: Later, status: int, name: str, secret: str = ""
    ) -> Callable[[str], None]:
        failures = self._store.failures

        def done(outcome: str) -> None:
            try:
                check(outcome, self._store, failures)
                body = self._describe(name) if name else {}
            except Refusal as refusal:
                later.complete(failure(refusal.status, refusal.kind, str(refusal)))
                return
            if secret:
                place = self._place()
                body.update(token=f"{name}:{secret}", ca=place.ca, addresses=place.addresses)
            later.complete(Reply(status, body))

        return done

    def _describe(self, name: str) -> Json:
        record = self._tokens.get(name)
        now_s = time.time()
        state = "disabled" if record.disabled else "valid"
        if state == "valid" and record.expires_s and now_s >= record.expires_s:
            state = "expired"
        return {
            "name": name,
            "state": state,
            "created_s": record.created_s,
            "expires_s": record.expires_s,
            "admin": record.admin,
            "old_until_s": record.old_until_s if record.old_until_s > now_s else 0,
            "limits": self._tokens.limits(name)._asdict(),
        }

    def _name(self, body: Json) -> str:
        try:
            return values.check_name(word(body, "name"))
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None

    def _expiry(self, body: Json, now_s: float) -> float:
        """0 for never, else when."""
        left_s = self._number(body, "expires_in_s") or 0.0
        return now_s + left_s if left_s else 0.0

    def _limits(self, body: Json) -> Json:
        found: Json = {}
        for name in LIMITS:
            number = self._number(body, name)
            if number is not None:
                found[name] = int(number) if name in WHOLE else float(number)
        return found

    def _number(self, body: Json, name: str) -> Optional[float]:
        value, most = body.get(name), MOST_WHOLE if name in WHOLE else LONGEST_S
        if value is None:
            return None
        kinds = (int,) if name in WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value <= most:
            raise Refusal(400, "bad-request", f"'{name}' must be a number from 0 to {most:.0f}")
        return value
