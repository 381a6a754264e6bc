# SPDX-License-Identifier: Apache-2.0
"""The RPMs as files: what is in them, with which modes, what they need, that their bytes repeat.

`make test-rpm` installs them, which takes root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Dict, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = os.uname().machine
STEPS = ROOT / "bitfusion/install/steps.sh"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("rpmbuild"), reason="does not apply: rpmbuild is not installed"
    ),
]


def check(command: List[str], **more: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def build(folder: Path) -> Dict[str, Path]:
    """By name: client, server. The sdist here is any archive of the sources."""
    folder.mkdir()
    version = re.findall(r'"(.+)"', (ROOT / "bitfusion/__init__.py").read_text())[-1]
    names = check(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    sdist = folder / f"bitfusion-{version}.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in names.splitlines():
            if (ROOT / name).is_file():
                archive.add(ROOT / name, f"bitfusion-{version}/{name}")
    libraries = str(ROOT / "build/lib")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000"}
    check([str(ROOT / "rpm/build.sh"), str(sdist), MACHINE, libraries], env=environment)
    return {path.name.split("-")[1]: path for path in folder.glob("*.rpm")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    return build(tmp_path_factory.mktemp("rpm") / "first")


def query(package: Path, form: str) -> List[str]:
    return check(["rpm", "-qp", "--nosignature", "--qf", form, str(package)]).splitlines()


def modes(package: Path) -> Dict[str, str]:
    rows = query(package, "[%{FILENAMES}\t%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME}\n]")
    return dict(row.split("\t") for row in rows)


def test_files_and_modes(packages: Dict[str, Path]) -> None:
    client, server = modes(packages["client"]), modes(packages["server"])
    only = {name: mode for name, mode in server.items() if name not in client}
    assert only == {
        "/etc/bitfusion/server.toml": "100640 root:bitfusion",
        "/usr/lib/systemd/system/bitfusion-server.service": "100644 root:root",
        "/var/lib/bitfusion": "40700 bitfusion:bitfusion",
    }
    assert {name: server[name] for name in client} == client
    assert client.pop("/etc/bitfusion") == "40750 root:bitfusion"
    assert client.pop("/usr/bin/bitfusion") == "100755 root:root"
    assert set(client.values()) == {"100644 root:root", "40755 root:root", "120777 root:root"}
    for name in ("client/libcuda.so.1", "softgpu/libcuda.so.1", "server/libbfexecutor.so"):
        assert f"/usr/lib/bitfusion/{name}" in client
    assert not [name for name in client if name.endswith((".pyc", ".c", ".h"))]


def test_settings_are_kept(packages: Dict[str, Path]) -> None:
    rows = query(packages["server"], "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    noreplace = {row.split()[0] for row in rows if row.split()[1:] == ["cn"]}
    assert noreplace == {"/etc/bitfusion/server.toml", "/etc/security/limits.d/bitfusion.conf"}


def test_needs_and_provides(packages: Dict[str, Path]) -> None:
    client = set(query(packages["client"], "[%{REQUIRES}\n]"))
    server = set(query(packages["server"], "[%{REQUIRES}\n]"))
    common = {"libzstd.so.1()(64bit)", "(python3-tomli if python3 < 3.11)", "shadow-utils"}
    assert common <= client & server
    extra = {"config(bitfusion-server)", "python3-cryptography", "python3-h11"}
    assert server - client == extra and "config(bitfusion-client)" in client
    provides = query(packages["server"], "[%{PROVIDES}\n]")
    assert "bitfusion-client" in provides
    assert not [name for name in provides if "libcuda" in name or "libnvidia" in name]


def test_the_scripts_are_the_shared_steps(packages: Dict[str, Path]) -> None:
    for package, tags in (
        ("client", ("PREIN", "POSTIN", "POSTUN")),
        ("server", ("PREIN", "POSTIN", "PREUN", "POSTUN")),
    ):
        for tag in tags:
            script = "\n".join(query(packages[package], f"%{{{tag}}}"))
            assert STEPS.read_text() in script, (package, tag)
            check(["sh", "-n", "-c", script])


def test_two_builds_give_the_same_bytes(packages: Dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path / "elsewhere")
    assert {
        name: path.read_bytes() == packages[name].read_bytes() for name, path in again.items()
    } == {
        "client": True,
        "server": True,
    }


def test_rpmlint_finds_no_error(packages: Dict[str, Path]) -> None:
    if not shutil.which("rpmlint"):
        pytest.skip("does not apply: rpmlint is not installed")
    words = ["rpmlint", "-c", str(ROOT / "rpm/rpmlint.toml"), str(ROOT / "rpm/bitfusion.spec")]
    said = check([*words, *map(str, packages.values())])
    assert " 0 errors" in said, said
