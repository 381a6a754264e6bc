# SPDX-License-Identifier: Apache-2.0
"""Places in the queue that clients bring with them: a client whose contact ended shows to the next
one what it was told of its place, under a seal whose key is in the cluster's store.

A turn that is not of this client, not of this cluster, or too old is no turn: its ask comes last.
Nobody else can make one, and all that one is good for is the place of an ask of one's own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple, Optional

from bitfusion.server.replica import Replica
from bitfusion.wire.control import Json

SEAL = "seal"  # the key in the store
MOST_AGE_S = 600.0  # much longer than a client waits for its contact; clocks may differ
MAX_TURN = 255  # characters


class Turn(NamedTuple):
    ask: str  # its id
    seq: int
    at: float  # when it was made


def make_seal() -> Json:
    return {"key": os.urandom(32).hex()}


class Seal:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def _key(self) -> bytes:
        """b"" while it is not known."""
        found = self._replica.values.get(SEAL, {}).get("key", "")
        return found.encode() if isinstance(found, str) else b""

    def _sign(self, client: str, text: str) -> str:
        made = hmac.new(self._key(), f"{client}\n{text}".encode(), hashlib.sha256)
        return made.hexdigest()

    def write(self, client: str, turn: Turn, now_s: float) -> str:
        """now_s: since the epoch. Nothing where we know no key."""
        if not self._key():
            return ""
        text = f"{turn.ask} {turn.seq:x} {int(turn.at * 1000):x} {int(now_s):x}"
        return f"{text} {self._sign(client, text)}"

    def read(self, client: str, words: object, now_s: float) -> Optional[Turn]:
        if not isinstance(words, str) or len(words) > MAX_TURN or not words.isascii():
            return None
        text, _, signature = words.rpartition(" ")
        if not self._key() or not hmac.compare_digest(self._sign(client, text), signature):
            return None
        ask, seq, at, said = text.split(" ")  # as we wrote it
        if abs(now_s - int(said, 16)) > MOST_AGE_S:
            return None
        return Turn(ask, int(seq, 16), int(at, 16) / 1000)
