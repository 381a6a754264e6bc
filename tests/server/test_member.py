# SPDX-License-Identifier: Apache-2.0
"""What a server tells its cluster about its machine."""

from __future__ import annotations

import pathlib

from bitfusion.server.member import has_rdma


def test_rdma_is_an_active_port(tmp_path: pathlib.Path) -> None:
    assert not has_rdma(str(tmp_path / "none"))
    port = tmp_path / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text("1: DOWN\n")
    assert not has_rdma(str(tmp_path))
    (port / "state").write_text("4: ACTIVE\n")
    assert has_rdma(str(tmp_path))
