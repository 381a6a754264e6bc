# SPDX-License-Identifier: Apache-2.0
"""Debian packages: the same bytes wherever, whenever and by whomever they are built; what is in
them, and what lintian finds.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = platform.machine()
LIBRARIES = {
    "client": ["libcuda.so.1", "libnvidia-ml.so.1", "libbitfusion-presence.so"],
    "server": ["libbfexecutor.so"],
    "softgpu": ["libcuda.so.1", "libnvidia-ml.so.1", "libnvJitLink.so.13"],
}
TOOLS = ("dpkg-buildpackage", "dh", "dh_python3", "gcc")
NAMES = ("bitfusion-client", "bitfusion-server")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS) or MACHINE not in ("x86_64", "aarch64"),
        reason="does not apply: no debhelper here (apt-get install debhelper dh-python)",
    ),
]


def copy_tree(target: Path) -> Path:
    """What git knows, and what it does not know yet."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def put_libraries(tree: Path) -> None:
    """In place of those that take minutes to build: what is in them is not looked at here."""
    source = tree / "nothing.c"
    source.write_text("int nothing(void) { return 0; }\n")
    for part, names in LIBRARIES.items():
        folder = tree / "build/release" / MACHINE / "lib" / part
        folder.mkdir(parents=True)
        for name in names:
            words = ["gcc", "-shared", "-fPIC", "-s", "-Wl,--build-id=none", f"-Wl,-soname,{name}"]
            subprocess.run([*words, "-o", folder / name, source], check=True)
    source.unlink()


def build(tree: Path, umask: int, environment: Dict[str, str]) -> Dict[str, Path]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "DEB"))}
    done = subprocess.run(
        ["bitfusion/install/deb.sh", MACHINE],
        cwd=tree,
        capture_output=True,
        text=True,
        env={**clean, **environment},
        preexec_fn=lambda: os.umask(umask) and None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: tree / f"build/packages/{name}.deb" for name in NAMES}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> List[Dict[str, Path]]:
    """Twice: in another folder, at another time, by somebody careful."""
    found = []
    names = ("a", "a-much-longer-name/of-another-folder")
    trees = [copy_tree(tmp_path_factory.mktemp("deb") / name) for name in names]
    for number, tree in enumerate(trees):
        put_libraries(tree)
        environment = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}
        if number:
            environment = {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1000000000"}
            for path in tree.rglob("*.py"):
                os.utime(path, (1.2e9, 1.2e9))
        found.append(build(tree, 0o077 if number else 0o022, environment))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_two_builds_are_the_same_bytes(built: List[Dict[str, Path]], name: str) -> None:
    first, second = (each[name].read_bytes() for each in built)
    assert first == second


def contents(package: Path) -> Dict[str, str]:
    """Mode and owner of each path."""
    listed = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 5) for line in listed.splitlines())
    return {row[5].split(" ->")[0][1:]: f"{row[0]} {row[1]}" for row in rows}


def test_what_is_in_them(built: List[Dict[str, Path]]) -> None:
    client, server = (contents(built[0][name]) for name in NAMES)
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


def test_every_python_file_is_in_them(built: List[Dict[str, Path]]) -> None:
    listed = contents(built[0]["bitfusion-client"])
    files = [*(ROOT / "bitfusion").rglob("*.py"), *(ROOT / "bitfusion").rglob("*.toml")]
    ours = {path.relative_to(ROOT).as_posix() for path in files}
    ours = {name for name in ours if not name.startswith("bitfusion/install/")}
    prefix = "/usr/lib/bitfusion/python/"
    assert {name[len(prefix) :] for name in listed if name.endswith((".py", ".toml"))} - {
        name[len(prefix) :] for name in listed if "/doc/" in name
    } == ours


@pytest.mark.skipif(not shutil.which("lintian"), reason="does not apply: there is no lintian here")
def test_lintian_finds_no_error(built: List[Dict[str, Path]]) -> None:
    """Warnings neither, but of what the stand-ins of libraries lack."""
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error", *map(str, built[0].values())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_libraries_are_the_same_in_every_folder(tmp_path: Path) -> None:
    """One that is quickly built stands for all: the same compiler and flags build them."""
    pytest.importorskip("ziglang")
    name = f"build/release/{MACHINE}/lib/client/libbitfusion-presence.so"
    found = []
    for folder, umask in (("a", 0o022), ("another/folder", 0o077)):
        tree = copy_tree(tmp_path / folder)
        (tree / "build").mkdir()
        (tree / "build/venv").symlink_to(sys.prefix)
        done = subprocess.run(
            ["make", "release", f"MACHINES={MACHINE}", f"RELEASED={name}"],
            cwd=tree,
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "CC" and not k.startswith("MAKE")},
            preexec_fn=lambda mask=umask: os.umask(mask) and None,  # type: ignore[misc]
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found.append((tree / name).read_bytes())
    assert found[0] == found[1]
