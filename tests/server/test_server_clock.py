# SPDX-License-Identifier: Apache-2.0
"""A server whose wall clock is put forward and back, as at a machine's first contact with a time
server: sessions, places in the queue and leases go by the monotonic clock, tokens by this one.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from identities import Lab
from servers import Server, connect, wait_for

DAY_S = 86400.0
JUMPS_S = (30.0, -30.0, 2 * DAY_S, -2 * DAY_S, 400 * DAY_S, 0.0)


class Clock:
    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.put(0)

    def put(self, forward_s: float) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(str(forward_s))
        os.replace(new, self._path)


def status(lab: Lab, access: object) -> int:
    return lab.channel(access).request("GET", "/v1/gpus").status  # type: ignore[arg-type]


def place(channel: Any, entry: object) -> Any:
    return channel.request("GET", f"/v1/queue/{entry}?wait=0&position=0").body


def test_nothing_is_lost(
    lab: Lab, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock")
    good = lab.client("good", "--expires", "never")
    short = lab.client("short", "--expires", "1h")
    monkeypatch.setenv("WALL_CLOCK", str(tmp_path / "clock"))
    lab.server = Server("echo", 1, 1000, 0, {"limits.idle": "60s", "limits.time": "1h"}, lab.state)
    session = lab.claim(good)
    stream, _pid = connect(session)
    waits = lab.channel(short)
    entry = waits.request("POST", "/v1/sessions", {"gpus": 1, "wait": 0}).body["entry"]
    for forward_s in JUMPS_S:
        clock.put(forward_s)
        stream.sendall(b"ping")
        assert stream.recv(9) == b"ping"
        over = forward_s > 3600  # for a client whose token would have ended
        assert over or wait_for(lambda: place(waits, entry).get("position") == 1)
        expected = 401 if over else 200
        assert (status(lab, good), status(lab, short)) == (200, expected), forward_s
        pool = lab.channel(good).request("GET", "/v1/pool").body
        (held,) = pool["servers"][0]["gpus"][0]["sessions"]  # type: ignore[index]
        assert 0 <= held["since_s"] < 60 + abs(forward_s)
    session.channel.close()
    assert wait_for(lambda: place(waits, entry).get("state") == "granted")
    assert "ends" not in lab.server.log and "Traceback" not in lab.server.log
