# SPDX-License-Identifier: Apache-2.0
"""Debian packages: the same bytes wherever, whenever and by whomever they are built; what is in
them, and what lintian finds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
from artefacts import LIBRARIES, MACHINE, ROOT, Packages, build_debs, check, sources

TOOLS = ("dpkg-buildpackage", "dh", "dh_python3", "cc")


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS) or MACHINE not in ("x86_64", "aarch64"),
        reason="no debhelper here (apt-get install debhelper dh-python)",
    ),
]


@pytest.mark.packages
def test_two_builds_are_the_same_bytes(debs: Packages, tmp_path: Path) -> None:
    """Again in another folder, at another time, by somebody careful."""
    tree = sources(tmp_path / "a-much-longer-name/of-another-folder")
    for path in tree.rglob("*.py"):
        os.utime(path, (1.2e9, 1.2e9))
    others = {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1000000000"}
    again = build_debs(tree, 0o077, **others)
    assert {name for name in again if again[name].read_bytes() != debs[name].read_bytes()} == set()


def contents(package: Path) -> Dict[str, str]:
    """Mode and owner of each path."""
    listed = check(["dpkg-deb", "--contents", package])
    rows = (line.split(None, 5) for line in listed.splitlines())
    return {row[5].split(" ->")[0][1:]: f"{row[0]} {row[1]}" for row in rows}


def test_what_is_in_them(debs: Packages) -> None:
    client, server = contents(debs["client"]), contents(debs["server"])
    for listed in (client, server):
        assert listed["/usr/bin/bitfusion"] == "-rwxr-xr-x root/root"
        assert "/usr/lib/bitfusion/python/bitfusion/cli.py" in listed
        assert "/etc/security/limits.d/bitfusion.conf" in listed
        assert "/usr/share/man/man1/bitfusion-run.1.gz" in listed
        for part, names in LIBRARIES.items():
            for name in names:
                assert listed[f"/usr/lib/bitfusion/{part}/{name}"] == "-rw-r--r-- root/root"
        assert not [path for path in listed if path.endswith((".pyc", ".c", ".h", ".o", ".sh"))]
        assert set(listed.values()) <= {
            *("drwxr-xr-x root/root", "-rw-r--r-- root/root", "-rwxr-xr-x root/root"),
            *("lrwxrwxrwx root/root", "-rw-r----- root/root"),
        }
    only = {path for path in server if path not in client and "/doc/" not in path}
    assert {"/etc/bitfusion/server.toml", "/lib/systemd/system/bitfusion-server.service"} <= only
    assert server["/etc/bitfusion/server.toml"] == "-rw-r----- root/root"
    missing = {path for path in client if path not in server}
    assert all("bitfusion-client" in path for path in missing), missing


def test_every_python_file_is_in_them(debs: Packages) -> None:
    listed = contents(debs["client"])
    files = [*(ROOT / "bitfusion").rglob("*.py"), *(ROOT / "bitfusion").rglob("*.toml")]
    ours = {path.relative_to(ROOT).as_posix() for path in files}
    ours = {name for name in ours if not name.startswith("bitfusion/install/")}
    prefix = "/usr/lib/bitfusion/python/"
    assert {name[len(prefix) :] for name in listed if name.endswith((".py", ".toml"))} - {
        name[len(prefix) :] for name in listed if "/doc/" in name
    } == ours


@pytest.mark.packages
@pytest.mark.skipif(not shutil.which("lintian"), reason="does not apply: there is no lintian here")
def test_lintian_finds_nothing(debs: Packages) -> None:
    """No warning either: those that are not to be mended are explained in debian/*-overrides."""
    check(["lintian", "--allow-root", "--fail-on", "error,warning", *debs.values()])


def test_says_what_it_lacks(tmp_path: Path) -> None:
    for tool in ("sh", "dirname", "env"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [ROOT / "bitfusion/install/deb.sh", MACHINE],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    first, hint = done.stderr.splitlines()
    assert first == "bitfusion: cannot build Debian packages: dpkg-buildpackage is missing"
    assert "apt-get install" in hint and "debhelper" in hint


@pytest.mark.packages
def test_libraries_are_the_same_in_every_folder(tmp_path: Path) -> None:
    """One that is quickly built stands for all: the same compiler and flags build them."""
    pytest.importorskip("ziglang")
    name = f"build/release/{MACHINE}/lib/client/libbitfusion-presence.so"
    environment = {k: v for k, v in os.environ.items() if k != "CC" and not k.startswith("MAKE")}
    found = []
    for folder, umask in (("a", 0o022), ("another/folder", 0o077)):
        tree = sources(tmp_path / folder)
        (tree / "build").mkdir()
        (tree / "build/venv").symlink_to(sys.prefix)
        words = ["make", "release", f"MACHINES={MACHINE}", f"RELEASED={name}"]
        check(words, cwd=tree, env=environment, umask=umask)
        found.append((tree / name).read_bytes())
    assert found[0] == found[1]
