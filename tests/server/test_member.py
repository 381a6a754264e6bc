# SPDX-License-Identifier: Apache-2.0
"""What a server tells its cluster about its machine."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace
from typing import Any

import pytest

from bitfusion.server import fleet
from bitfusion.server.api_operator import OperatorApi
from bitfusion.server.caller import Refusal
from bitfusion.server.member import has_rdma
from bitfusion.server.views import GpuView, ServerView


def test_rdma_is_an_active_port(tmp_path: pathlib.Path) -> None:
    assert not has_rdma(str(tmp_path / "none"))
    port = tmp_path / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text("1: DOWN\n")
    assert not has_rdma(str(tmp_path))
    (port / "state").write_text("4: ACTIVE\n")
    assert has_rdma(str(tmp_path))


GPU = GpuView(0, "Test GPU", 1000, "gpu-0")
POOL = [
    ServerView("aa11", "GPU01.lab.example", ("10.0.0.1:56001", "[fd00::1]:56001"), (GPU,)),
    ServerView("bb22", "gpu02", ("10.0.0.2:56001",), (GPU,)),
    ServerView("cc33", "gpu02", ("10.0.0.2:56101",), (GPU,)),
]
CALLED = {
    "aa11": ["aa11", "gpu01", "GPU01", "gpu01.lab.example", "gpu01:56001", "10.0.0.1",
             "10.0.0.1:56001", "fd00::1", "[fd00::1]", "[FD00::1]:56001"],
    "bb22": ["bb22", "gpu02:56001", "10.0.0.2:56001"],
    "": ["gpu0", "10.0.0", "gpu01:1", "lab.example", "56001"],
    "several": ["gpu02", "10.0.0.2"],
}  # fmt: skip


@pytest.mark.parametrize("server", CALLED)
def test_operators_and_clients_call_a_server_alike(server: str) -> None:
    """`server drain` and `run --server_list`."""
    cluster: Any = SimpleNamespace(servers=lambda: [SimpleNamespace(view=v) for v in POOL])
    api = OperatorApi(cluster, cluster, cluster, "dd44")
    hosts = fleet.Fleet(spread=False)
    for view in POOL:
        hosts.put(view)
    for name in CALLED[server]:
        asked: Any = SimpleNamespace(names=(name,))
        found = {host.id for host, _gpus in hosts.selector((), (name,)).hosts()}
        if server in ("", "several"):
            said = "has no server" if not server else f"several servers are called '{name}'"
            with pytest.raises(Refusal, match=said) as refusal:
                api._server(asked)
            assert not server or "10.0.0.2:56001, 10.0.0.2:56101" in str(refusal.value)
            assert len(found) == len(server and POOL[1:])
        else:
            assert api._server(asked) == server and found == {server}
