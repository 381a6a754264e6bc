# SPDX-License-Identifier: Apache-2.0
"""Who calls, how much they may have, and being refused. Pure; private servers load it too, so it
imports nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Of one client; 0 means none."""

    gpus: int = 0  # over all its sessions
    memory: int = 0  # bytes, over all its sessions
    time_s: float = 0  # of each session
    idle_s: float = 0


class Caller(NamedTuple):
    client: str
    limits: Limits = Limits()
    admin: bool = False
    token_expires_s: float = 0  # seconds since the epoch; 0: never


ANONYMOUS = Caller("anonymous")  # whoever talks to a server that asks nobody
OPERATOR = Caller("operator", admin=True)  # whoever may open the admin socket


class Refusal(Exception):
    """A request that cannot be granted: HTTP status, kind for programs, text for people."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
