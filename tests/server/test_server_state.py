# SPDX-License-Identifier: Apache-2.0
"""The server's folder: whose its files are, and who may serve from it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from bitfusion.errors import SystemFailure
from bitfusion.server.keys import Keys
from bitfusion.server.state import StateFolder

ROOT = Path(__file__).resolve().parents[2]

only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="does not apply: only root works in others' folders"
)


@pytest.fixture
def of_nobody(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    entry = pwd.getpwnam("nobody")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    for above in (tmp_path, *tmp_path.parents):
        if "pytest" in str(above):
            above.chmod(0o755)
    warm_up(tmp_path / "other")
    return folder


def warm_up(folder: Path) -> None:
    """Load what making keys takes, as others may not read this Python's modules."""
    folder.mkdir(0o700)
    Keys(StateFolder(str(folder))).make("lab")


@only_root
def test_what_root_makes_is_the_owners(of_nobody: Path) -> None:
    """The service, which is nobody's here, could not read its keys else."""
    keys = Keys(StateFolder(str(of_nobody)))
    keys.make("lab")
    assert os.geteuid() == 0, "root again afterwards"
    owners = {path.stat().st_uid for path in of_nobody.rglob("*")}
    assert owners == {pwd.getpwnam("nobody").pw_uid}


@only_root
def test_root_follows_no_link_where_the_owner_may_not_go(of_nobody: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    target.chmod(0o644)
    (of_nobody / "server.id.new").symlink_to(target)
    with pytest.raises((OSError, SystemFailure)):
        Keys(StateFolder(str(of_nobody))).make("lab")
    assert target.read_text() == "as it was" and os.geteuid() == 0


@only_root
def test_root_does_not_serve_from_anothers_folder(of_nobody: Path) -> None:
    folder = StateFolder(str(of_nobody))
    with pytest.raises(SystemFailure, match="it belongs to user 'nobody'"):
        folder.lock()
    assert not list(of_nobody.iterdir())


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SystemFailure, match="others may write to it"):
        StateFolder(str(tmp_path))


@only_root
def test_a_worker_of_a_service_has_no_capability() -> None:
    """Of a server that is no root, but may change the user: nothing of that is left."""
    script = (
        "import os; from bitfusion import linux; from bitfusion.server import worker;"
        "assert os.geteuid() != 0 and linux.may_change_user();"
        "worker.drop_privileges('nobody'); assert not linux.may_change_user();"
        "lines = [line.split() for line in open('/proc/self/status') if line.startswith('Cap')];"
        "print({name: int(value, 16) for name, value in lines if name != 'CapBnd:'}, os.getuid())"
    )
    done = subprocess.run(
        [
            *("setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups"),
            *("--inh-caps=+setuid,+setgid,+kill", "--ambient-caps=+setuid,+setgid,+kill"),
            *(sys.executable, "-c", script),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if "ermission denied" in done.stderr or "No module named" in done.stderr:
        pytest.skip("does not apply: others cannot read this checkout")
    nobody = pwd.getpwnam("nobody").pw_uid
    expected = dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapAmb:"), 0)
    assert done.stdout.strip() == f"{expected} {nobody}", done.stderr
