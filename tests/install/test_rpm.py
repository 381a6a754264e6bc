# SPDX-License-Identifier: Apache-2.0
"""The RPMs as files: what is in them, with which modes, what they need, that their bytes repeat.

`make test-rpm` installs them, which takes root.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Dict, List

import pytest
from artefacts import ROOT, Packages, build_rpms, check

STEPS = ROOT / "bitfusion/install/steps.sh"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("rpmbuild"), reason="no rpmbuild here (apt-get install rpm)"
    ),
]


def query(package: Path, form: str) -> List[str]:
    return check(["rpm", "-qp", "--nosignature", "--qf", form, package]).splitlines()


def modes(package: Path) -> Dict[str, str]:
    rows = query(package, "[%{FILENAMES}\t%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME}\n]")
    return dict(row.split("\t") for row in rows)


def test_files_and_modes(rpms: Packages) -> None:
    client, server = modes(rpms["client"]), modes(rpms["server"])
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


def test_settings_are_kept(rpms: Packages) -> None:
    rows = query(rpms["server"], "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    noreplace = {row.split()[0] for row in rows if row.split()[1:] == ["cn"]}
    assert noreplace == {"/etc/bitfusion/server.toml", "/etc/security/limits.d/bitfusion.conf"}


def test_needs_and_provides(rpms: Packages) -> None:
    client = set(query(rpms["client"], "[%{REQUIRES}\n]"))
    server = set(query(rpms["server"], "[%{REQUIRES}\n]"))
    common = {"libzstd.so.1()(64bit)", "(python3-tomli if python3 < 3.11)", "shadow-utils"}
    assert common <= client & server
    extra = {"config(bitfusion-server)", "python3-cryptography", "python3-h11"}
    assert server - client == extra and "config(bitfusion-client)" in client
    page = (ROOT / "docs/install.md").read_text().partition("## RHEL")[2].partition("\n## ")[0]
    wished = set(query(rpms["server"], "[%{RECOMMENDS}\n]"))
    assert wished == {"python3-packaging"}
    names = {
        name for need in client | server | wished for name in re.findall(r"python3-\w+", need)
    }
    assert names == set(re.findall(r"`(python3-\w+)`", page))  # where each is to be had
    provides = query(rpms["server"], "[%{PROVIDES}\n]")
    assert "bitfusion-client" in provides
    for package in rpms.values():  # newer versions of rpm require them
        owners = query(package, "[user(%{FILEUSERNAME})\ngroup(%{FILEGROUPNAME})\n]")
        needed = set(owners) - {"user(root)", "group(root)"}
        assert needed and needed <= set(query(package, "[%{PROVIDES}\n]"))
    assert not [name for name in provides if "libcuda" in name or "libnvidia" in name]


def test_the_scripts_are_the_shared_steps(rpms: Packages) -> None:
    for package, tags in (
        ("client", ("PREIN", "POSTIN", "POSTUN")),
        ("server", ("PREIN", "POSTIN", "PREUN", "POSTUN")),
    ):
        for tag in tags:
            script = "\n".join(query(rpms[package], f"%{{{tag}}}"))
            assert STEPS.read_text() in script, (package, tag)
            check(["sh", "-n", "-c", script])


@pytest.mark.packages
def test_two_builds_give_the_same_bytes(rpms: Packages, sdist: Path, tmp_path: Path) -> None:
    again = build_rpms(sdist, tmp_path)
    assert {name for name in again if again[name].read_bytes() != rpms[name].read_bytes()} == set()


@pytest.mark.packages
def test_rpmlint_finds_no_error(rpms: Packages) -> None:
    if not shutil.which("rpmlint"):
        pytest.skip("does not apply: rpmlint is not installed")
    words = ["rpmlint", "-c", ROOT / "rpm/rpmlint.toml", ROOT / "rpm/bitfusion.spec"]
    said = check([*words, *rpms.values()])
    assert " 0 errors" in said, said
