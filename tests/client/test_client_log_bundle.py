# SPDX-License-Identifier: Apache-2.0
"""bitfusion log_bundle: everything in it, no secret in it, nothing overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "5ecre7" * 10


def bundle(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    config = folder / "client.toml"
    config.write_text(f'[client]\ntoken = "alice:{SECRET}"\nca = "ca.crt"\n')
    return subprocess.run(
        [sys.executable, str(ROOT / "bin/bitfusion"), "log_bundle", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={**os.environ, "BITFUSION_CONFIG": str(config), "BITFUSION_SERVER_LIST": ""},
    )


def test_all_of_it(tmp_path: Path) -> None:
    done = bundle(tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    path = tmp_path / done.stdout.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as file:
        texts = {}
        for member in file.getmembers():
            data = file.extractfile(member)
            assert data is not None
            texts[os.path.basename(member.name)] = data.read()
    names = {"version.txt", "config.txt", "health.txt", "gpus.json", "system.txt", "log.txt"}
    assert set(texts) == names
    assert b"bitfusion 0." in texts["version.txt"]
    assert b"alice:****" in texts["config.txt"]
    assert b"this machine: " in texts["health.txt"]
    assert not any(SECRET.encode() in text for text in texts.values())


def test_nothing_of_the_current_folder_is_run(tmp_path: Path) -> None:
    """Others may write to it: to /tmp, everybody."""
    for name in ("json.py", "socket.py", "bitfusion.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    done = bundle(tmp_path)
    assert done.returncode == 0 and not (tmp_path / "ran").exists()


def test_a_file_that_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    done = bundle(tmp_path, "-o", str(there))
    assert done.returncode == 1
    assert done.stderr == f"bitfusion: cannot write '{there}': file exists\n"
    assert there.read_text() == "precious"


def test_bad_days(tmp_path: Path) -> None:
    assert bundle(tmp_path, "--days", "many").returncode == 2
