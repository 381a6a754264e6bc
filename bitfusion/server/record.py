# SPDX-License-Identifier: Apache-2.0
"""All that a session is, as it is kept elsewhere while no server runs. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, NamedTuple

from bitfusion.server.pool import Slice
from bitfusion.wire.control import Json

MAX_SIZE = 48 << 10  # as JSON; a nursery's message has some more to say around it
FORMAT = 1  # one more where an older server would misread it; new fields alone are ignored there


class Record(NamedTuple):
    session: str
    client: str
    secret: str  # its SHA-256, in hexadecimal digits
    slices: tuple[Slice, ...]
    uuids: tuple[str, ...]  # of the slices' GPUs
    started_s: float  # monotonic, which all processes since this machine's start agree on
    since_s: float  # the same moment since the epoch, for people
    time_s: float = 0  # limits; 0: none
    idle_s: float = 0
    share: float = 0
    about: Json = {}  # program, host, user: for people
    claim: Json = {}  # what the cluster knows of it
    ending: str = ""  # why it is about to end, where it is
    format: int = FORMAT

    def opens_with(self, secret: str) -> bool:
        return hmac.compare_digest(self.secret, hash_secret(secret))

    def whose(self) -> str:
        """For the log: 'client alice, eve@box: python3'. What stands behind the program's name may
        be a secret, and logs are kept, and sent to others.
        """
        program, host, user = (str(self.about.get(k, "")) for k in ("program", "host", "user"))
        program = program.partition(" ")[0]
        origin = f"{user}@{host}: {program}" if user or host or program else ""
        return ", ".join(filter(None, (f"client {self.client}" * bool(self.client), origin)))

    def check(self) -> None:
        """ValueError where nobody could keep it."""
        size = len(json.dumps(self.pack()))
        if size > MAX_SIZE:
            raise ValueError(f"its record takes {size} bytes, and {MAX_SIZE} are the most")

    def pack(self) -> Json:
        return {**self._asdict(), "slices": [list(s) for s in self.slices]}


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def unpack(value: Json) -> Record:
    """Of this or another version of ours; ValueError where it makes no sense."""
    written = value.get("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise ValueError(
            f"a newer version of Bitfusion wrote it (format {written}, ours is {FORMAT})"
        )
    known: dict[str, Any] = {key: item for key, item in value.items() if key in Record._fields}
    try:
        known["slices"] = tuple(Slice(int(gpu), int(size)) for gpu, size in known["slices"])
        known["uuids"] = tuple(str(uuid) for uuid in known["uuids"])
        record = Record(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the record of a session: {error}") from None
    if len(record.uuids) != len(record.slices) or not record.slices:
        raise ValueError("not the record of a session: its GPUs are not named")
    return record
