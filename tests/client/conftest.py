# SPDX-License-Identifier: Apache-2.0
"""An environment for runs, which must leave no process behind."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from runs import describe, marked
from waiting import wait_for


@pytest.fixture()
def environment(tmp_path: pathlib.Path) -> Iterator[dict[str, str]]:
    """Libraries that need only exist, and a folder for sockets that must be empty at the end."""
    for name in ("client", "softgpu"):
        (tmp_path / "lib" / name).mkdir(parents=True)
        (tmp_path / "lib" / name / "libcuda.so.1").touch()
    folder = tempfile.mkdtemp(prefix="bf-")  # short, for a socket's path
    env = {k: v for k, v in os.environ.items() if not k.startswith("BITFUSION_")}
    env.pop("XDG_RUNTIME_DIR", None)
    mark = f"{os.getpid()}-{tmp_path.name}"
    yield {
        **env,
        "BITFUSION_LIBDIR": str(tmp_path / "lib"),
        "TMPDIR": folder,
        "HOME": str(tmp_path),
        "TEST_MARK": mark,
        "BITFUSION_WORKER_ENVIRONMENT": "TEST_MARK",
    }
    assert wait_for(lambda: not marked(mark)), [describe(pid) for pid in marked(mark)]
    shutil.rmtree(folder)
