# SPDX-License-Identifier: Apache-2.0
"""Programs that look for NVIDIA's device files before they load the driver."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bitfusion import inventory, paths

QUESTIONS = """
import os, stat
for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia2", "nvidia00", "nvidia", "nvidia0x"):
    path = "/dev/" + name
    print(name, os.path.exists(path), os.path.lexists(path), os.access(path, os.R_OK | os.W_OK))
print(stat.S_ISCHR(os.stat("/dev/nvidia1").st_mode), os.stat("/dev/nvidia1").st_rdev)
print(os.path.exists("/dev/null"), os.path.exists("/dev/no-such-file"), os.stat("/").st_ino)
"""


def ask(**variables: str) -> list[str]:
    library = paths.library(paths.PRESENCE_LIBRARY)
    environment = {**os.environ, "LD_PRELOAD": library, **variables}
    command = [sys.executable, "-c", QUESTIONS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert not variables or done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(inventory.has_nvidia_driver(), reason="the real files are here")
def test_as_many_device_files_as_gpus() -> None:
    lines = ask(BITFUSION_DEVICES="2")
    yes, no = "True True True", "False False False"
    assert lines[:3] == [f"nvidiactl {yes}", f"nvidia0 {yes}", f"nvidia1 {yes}"]
    assert [line.split(" ", 1)[1] for line in lines[3:7]] == [no] * 4
    assert lines[7] == f"True {os.makedev(195, 1)}"
    assert lines[8] == f"True False {os.stat('/').st_ino}"


@pytest.mark.skipif(inventory.has_nvidia_driver(), reason="the real files are here")
def test_none_without_a_run() -> None:
    assert ask()[0] == "nvidiactl False False False"


def test_a_run_inside_a_run_is_not_deceived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITFUSION_DEVICES", "1")
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    assert not inventory.has_nvidia_driver()
