# SPDX-License-Identifier: Apache-2.0
"""GET /v1/pool, list_gpus and smi: who sees what, of this server and of others."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, Tuple

import pytest
from identities import Lab

from bitfusion.client.pool import Listed, Overview, Row
from bitfusion.commands import list_gpus, smi
from bitfusion.server import overview
from bitfusion.server.api_operator import OperatorApi
from bitfusion.server.caller import Caller, Refusal
from bitfusion.server.filters import Filter
from bitfusion.server.pool import Slice
from bitfusion.server.records import Claim, Entry
from bitfusion.server.views import Ask, GpuView, ServerView

GIB = 1 << 30
SECOND = 1_000_000_000


def test_a_client_sees_its_own(lab: Lab) -> None:
    alice, bob = lab.client("alice", "--gpus", "2", "--time", "8h"), lab.client("bob")
    boss = lab.client("boss", "--admin")
    lab.start("echo", 2, 1000)
    sessions = [lab.claim(access, fraction="0.5") for access in (alice, bob)]
    seen = {}
    for name, access in (("alice", alice), ("bob", bob), ("boss", boss)):
        reply = lab.channel(access).request("GET", "/v1/pool")
        assert reply.status == 200
        seen[name] = reply.body
    for name, session in zip(("alice", "bob"), sessions):
        pool: Any = seen[name]
        held = [h for gpu in pool["servers"][0]["gpus"] for h in gpu["sessions"]]
        own = [h for h in held if h["session"]]
        others = [h for h in held if not h["session"]]
        assert [h["session"] for h in own] == [session.name] and own[0]["client"] == name
        assert others == [{"session": "", "memory": 500 << 20}]
        assert pool["servers"][0]["tasks"] == 2
        assert pool["you"]["held"] == {"gpus": 1, "memory": 500 << 20}
    everything: Any = seen["boss"]
    assert lab.server is not None  # and the log says whose each is
    assert re.search(rf"session {sessions[0].name} has GPU .* for client alice", lab.server.log)
    names = {h["client"] for gpu in everything["servers"][0]["gpus"] for h in gpu["sessions"]}
    assert names == {"alice", "bob"}
    text = json.dumps(seen["bob"])
    assert sessions[0].name not in text and "alice" not in text
    you: Any = seen["alice"]
    assert you["you"]["limits"]["gpus"] == 2 and you["you"]["limits"]["time_s"] == 8 * 3600


def claim(client: str, memory: int, gpu: int = 0) -> Claim:
    filters: Tuple[Filter, ...] = ()
    ask = Ask("5e55", client, 1, "1", memory, 0.0, filters, (), 0.0)
    return Claim(Entry(ask, "c0", {"secret": "x"}, 1000.0, 1), "s1", (Slice(gpu, memory),), 1000.0)


def test_claims_of_another_server() -> None:
    gpus = (GpuView(0, "A", 4 * GIB, "u0"), GpuView(1, "B", 4 * GIB, "u1"))
    view = ServerView("s1", "gpu01", ("gpu01:56001",), gpus)
    claims = [claim("alice", GIB), claim("bob", 2 * GIB)]
    rows: Any = overview.claimed(view, claims, Caller("alice"))
    assert [row["free"] for row in rows] == [GIB, 4 * GIB]
    assert [held["session"] for held in rows[0]["sessions"]] == ["5e55", ""]
    assert "secret" not in json.dumps(rows) and "bob" not in json.dumps(rows)
    rows = overview.claimed(view, claims, Caller("op", admin=True))
    assert [held["client"] for held in rows[0]["sessions"]] == ["alice", "bob"]


def row(**held: Any) -> Row:
    return Row(0, "GPU", "u", 4 * GIB, 2 * GIB, [{"session": "", "memory": GIB}, held], 0.5)


def test_tables() -> None:
    mine = row(
        session="abc", client="alice", memory=GIB, used=0, busy=0.25, program="/usr/bin/x y"
    )
    servers = [
        Listed("gpu01:56001", "0.1", [mine], "", "drained", "580.1", "13.0", 3),
        Listed("gpu02:56001", "0.1", [], "the cluster has lost it", "down"),
    ]
    you: Any = {
        "client": "alice",
        "limits": {"gpus": 4, "memory": 8 * GIB, "time_s": 3600.0, "idle_s": 0},
        "held": {"gpus": 1, "memory": GIB},
    }
    pool = Overview(servers, [{"position": 1}, {"position": 2}], you)
    table = smi.show(pool)
    assert len({len(line) for line in table.splitlines()}) == 1
    for text in ("drained", "driver 580.1", "50%", "25%", "abc", " x", "1 slice of other clients"):
        assert text in table, text
    assert "the cluster has lost it" in table
    listed = list_gpus.show(pool).splitlines()
    assert listed[0] == "- server 0 [gpu01:56001]: running 3 tasks, drained: it takes nobody new"
    assert listed[2] == "- server 1 [gpu02:56001]: the cluster has lost it"
    assert listed[3] == "queue: 2 runs waiting"
    assert listed[4] == "client alice: 1 of 4 GPUs, 1024 of 8192 MiB, runs of 1h at most"


def test_a_server_is_ruled_by_a_name_that_only_it_has() -> None:
    views = [ServerView(f"s{n}", "gpu01", (f"gpu01:{56000 + n}",), ()) for n in (1, 2)]
    views.append(ServerView("s3", "gpu03", (), ()))
    cluster: Any = SimpleNamespace(servers=lambda: [SimpleNamespace(view=v) for v in views])
    no: Any = None
    api = OperatorApi(no, no, cluster, "s2")

    def find(name: str) -> str:
        asked: Any = SimpleNamespace(names=[name])
        return api._server(asked)

    named = [find(name) for name in ("s1", "gpu01:56001", "this", "s2", "gpu03")]
    assert named == ["s1", "s1", "s2", "s2", "s3"]
    with pytest.raises(Refusal, match="several .* gpu01:56001, gpu01:56002; say which"):
        find("gpu01")
    with pytest.raises(Refusal, match="no server 'gpu04'"):
        find("gpu04")
    assert [api._name(server) for server in ("s2", "s3", "s9")] == ["gpu01:56002", "gpu03", "s9"]
