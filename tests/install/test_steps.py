# SPDX-License-Identifier: Apache-2.0
"""The steps of installing, with commands of a system that only writes down what it is told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest

from bitfusion import __version__, settings, values

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "bitfusion/install/steps.sh"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]

# Each keeps what it is told in a file of its name, one line for each thing that is there.
COMMANDS = {
    "getent": """grep -q "^$2$" "$STATE/$1" || exit 2
        [ -e "$STATE/person" ] && echo "$2:x:1000:" || echo "$2:x:900:\"""",
    "groupadd": 'for last; do :; done; echo "$last" >>"$STATE/group"',
    "groupdel": 'sed -i "/^$1$/d" "$STATE/group"',
    "useradd": 'for last; do :; done; echo "$last" >>"$STATE/passwd"',
    "userdel": 'sed -i "/^$1$/d" "$STATE/passwd"',
    # numbers of persons begin at 1000; nobody's processes here are to be found
    "id": 'test -e "$STATE/person" && echo 1000',
    "chown": 'echo "$*" >>"$STATE/owners"',
}
FIREWALLD = """
permanent=now
for word; do case $word in
	--state) echo running ;;
	--permanent) permanent=for-good ;;
	--add-port=*) echo "$permanent ${word#*=}" >>"$STATE/open" ;;
	--remove-port=*) sed -i "\\#^$permanent ${word#*=}\\$#d" "$STATE/open" ;;
	--query-port=*) grep -q "^$permanent ${word#*=}\\$" "$STATE/open" ;;
esac; done
"""
UFW = """
case $1 in
status) echo Status: active ;;
show) sed 's/^/ufw allow /' "$STATE/open" ;;
allow) echo "$2" >>"$STATE/open" ;;
delete) sed -i "\\#^$3\\$#d" "$STATE/open" ;;
esac
"""
OPEN = {
    "firewall-cmd": [
        f"{when} {ports}/tcp"
        for ports in ("56001", "55001-55100", "45201-46225")
        for when in ("for-good", "now")
    ],
    "ufw": ["56001/tcp", "55001:55100/tcp", "45201:46225/tcp"],
}


class System:
    """A machine's commands and files, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "state", "etc"):
            (folder / name).mkdir()
        for name in ("group", "passwd", "owners", "open"):
            (folder / "state" / name).touch()
        for name, text in COMMANDS.items():
            self.add(name, text)

    def add(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def do(self, steps: str, shell: str = "dash") -> str:
        start = [shell, "sh"] if shell == "busybox" else [shell]
        script = (
            f"set -e; . {STEPS}; BF_CONFIG={self.folder}/etc/bitfusion;"
            f"BF_STATE={self.folder}/state/lib; BF_OPENED={self.folder}/var/ports;"
            f"BF_OPENED_BEFORE={self.folder}/etc/opened; BF_PROC={self.folder}/proc; {steps}"
        )
        done = subprocess.run(
            [*start, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", "STATE": f"{self.folder}/state"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def list(self, name: str) -> List[str]:
        return sorted((self.folder / "state" / name).read_text().split("\n")[:-1])


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_accounts_and_folders_twice(system: System, shell: str) -> None:
    for _ in range(2):
        system.do("bf_make_server_accounts; bf_make_server_folders", shell)
        assert system.list("group") == ["bitfusion", "bitfusion-worker"]
        assert system.list("passwd") == ["bitfusion", "bitfusion-worker"]
        modes = {
            path.name: path.stat().st_mode & 0o777
            for path in (system.folder / "etc/bitfusion", system.folder / "state/lib")
        }
        assert modes == {"bitfusion": 0o750, "lib": 0o700}
    assert f"root:bitfusion {system.folder}/etc/bitfusion" in system.list("owners")
    assert f"bitfusion:bitfusion {system.folder}/state/lib" in system.list("owners")
    for _ in range(2):
        system.do("bf_remove_accounts", shell)
        assert system.list("group") == system.list("passwd") == []


def test_a_persons_account_is_neither_used_nor_removed(system: System) -> None:
    system.do("bf_make_server_accounts")
    (system.folder / "state/person").touch()
    said = system.do("bf_make_server_accounts || echo refused $?", "dash")
    assert said == "refused 1\n"
    system.do("bf_remove_accounts")
    for kind in ("passwd", "group"):
        assert system.list(kind) == ["bitfusion", "bitfusion-worker"]


PROCESSES = {
    "1": ["1:name=systemd:/init.scope", "0::/init.scope"],
    "70": ["0::/system.slice/bitfusion-server.service"],
    "71": ["7:pids:/", "1:name=systemd:/system.slice/bitfusion-server.service"],
    "72": ["0::/system.slice/docker-1.scope"],
    "73": ["0::/machine.slice/m.scope/payload/system.slice/bitfusion-server.service"],
    "74": ["0::/system.slice/bitfusion-server.service/below", "0::/a/b"],
    "75": ["0::/own.slice/bitfusion-server.service"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_only_the_services_own_processes_are_ended(system: System, shell: str) -> None:
    """Not those of a container, where the same number, or even the same unit, is another's."""
    for number, lines in PROCESSES.items():
        (system.folder / "proc" / number).mkdir(parents=True)
        (system.folder / "proc" / number / "cgroup").write_text("\n".join([*lines, ""]))
    for said, found in (("", ["70", "71"]), ("/own.slice/bitfusion-server.service", ["75"])):
        system.add("systemctl", f"echo {said}")
        assert system.do("bf_processes", shell).split() == found
    system.add("systemctl", "echo x; exit 1")
    assert system.do("bf_processes", shell) == ""


def test_what_cannot_be_removed_stays_and_is_named(system: System) -> None:
    """A group may be a user's primary one, or come from a directory of the network."""
    system.do("bf_make_server_accounts")
    for name in ("userdel", "groupdel"):
        system.add(name, "exit 8")
    said = system.do("bf_purge_server")
    assert "user 'bitfusion-worker' stays" in said and "group 'bitfusion' stays" in said


def test_purging_the_server_keeps_what_a_removed_client_has(system: System) -> None:
    etc = system.folder / "etc/bitfusion"
    system.do("bf_make_server_accounts; bf_make_server_folders")
    (etc / "client.toml").touch()
    system.add("dpkg-query", "echo config-files")
    system.do("bf_purge_server")
    assert (etc / "client.toml").exists()
    system.add("dpkg-query", "echo not-installed")
    system.do("bf_purge_server")
    assert not etc.exists()


def test_purging_one_package_keeps_what_the_other_has(system: System) -> None:
    etc, lib = system.folder / "etc/bitfusion", system.folder / "state/lib"
    system.do("bf_make_server_accounts; bf_make_server_folders")
    for name in ("client.toml", "client.toml.old", "ca.crt", "server.toml"):
        (etc / name).write_text("x")
    if os.path.exists("/usr/bin/bitfusion"):
        pytest.skip("does not apply: Bitfusion is installed on this machine")
    system.do("bf_purge_client")
    assert [path.name for path in etc.iterdir()] == ["server.toml"] and lib.exists()
    assert system.list("passwd") == ["bitfusion", "bitfusion-worker"]
    system.do("bf_purge_server")
    assert not etc.exists() and not lib.exists()
    assert system.list("group") == system.list("passwd") == []
    system.do("bf_purge_server; bf_purge_client")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", sorted(OPEN))
def test_ports_are_opened_once_and_closed_again(system: System, command: str, shell: str) -> None:
    system.add(command, {"firewall-cmd": FIREWALLD, "ufw": UFW}[command])
    said = system.do("bf_open_ports", shell)
    assert "opened TCP 56001 55001-55100 45201-46225 in" in said
    assert system.list("open") == sorted(OPEN[command])
    assert system.do("bf_open_ports", shell) == ""
    assert system.list("open") == sorted(OPEN[command])
    for _ in range(2):
        system.do("bf_close_ports", shell)
        assert system.list("open") == []


@pytest.mark.parametrize("command", sorted(OPEN))
def test_what_others_opened_stays_open(system: System, command: str) -> None:
    system.add(command, {"firewall-cmd": FIREWALLD, "ufw": UFW}[command])
    theirs = [line for line in OPEN[command] if "56001" in line]
    (system.folder / "state/open").write_text("\n".join([*theirs, ""]))
    assert "opened TCP 55001-55100 45201-46225 in" in system.do("bf_open_ports")
    system.do("bf_close_ports")
    assert system.list("open") == sorted(theirs)


def test_the_record_of_ports_moves_out_of_the_settings(system: System) -> None:
    system.add("ufw", UFW)
    system.do("bf_open_ports")
    old, new = system.folder / "etc/opened", system.folder / "var/ports"
    for step in ("bf_open_ports", "bf_close_ports"):
        assert new.stat().st_mode & 0o777 == 0o600
        new.rename(old)
        assert system.do(step) == "" and not old.exists()
    assert not new.exists() and system.list("open") == []


def test_what_was_closed_by_hand_stays_closed(system: System) -> None:
    system.add("ufw", UFW)
    system.do("bf_open_ports")
    (system.folder / "state/open").write_text("")
    assert system.do("bf_open_ports") == "" and system.list("open") == []


def test_without_a_firewall_it_says_what_to_open(system: System) -> None:
    system.add("ufw", "echo Status: inactive")
    system.add("firewall-cmd", "echo not running; exit 252")
    said = system.do("bf_open_ports")
    assert "56001, 55001-55100, 45201-46225" in said and not system.list("open")


def test_the_ports_are_the_settings() -> None:
    text = STEPS.read_text()
    ports = re.search(r"^BF_PORTS='(.*?)'", text, re.M)
    assert ports
    control, data, _bulk = ports.group(1).split()
    assert control == str(values.DEFAULT_PORT)
    assert data == settings.BY_NAME["server.data_ports"].default


def test_one_version() -> None:
    first = (ROOT / "debian/changelog").read_text().split("\n")[0]
    assert re.match(r"bitfusion \((.*?)\)", first).group(1) == __version__  # type: ignore[union-attr]


def unit() -> Dict[str, List[str]]:
    found: Dict[str, List[str]] = {}
    for line in (ROOT / "systemd/bitfusion-server.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_says_what_the_checks_of_health_want() -> None:
    known = unit()
    assert int(known["LimitNOFILE"][0]) >= 8192 and known["LimitMEMLOCK"] == ["infinity"]
    assert known["KillMode"] == ["process"], "sessions outlive the server's process"
    assert known["Type"] == ["notify"] and known["User"] == ["bitfusion"]


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="does not apply: there is no systemd-analyze"
)
def test_the_unit_is_closed(tmp_path: Path) -> None:
    """As far as docs/systemd.md says; each point that stays open has its reason there."""
    path = ROOT / "systemd/bitfusion-server.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    score = re.search(r"exposure level for .*: (\d+\.\d+)", done.stdout)
    assert score, done.stdout + done.stderr
    page = (ROOT / "docs/systemd.md").read_text()
    assert float(score.group(1)) <= float(re.search(r"exposure of (\d+\.\d+)", page).group(1))  # type: ignore[union-attr]
    for line in done.stdout.splitlines():
        opened = re.match(r"✗ (\w+)=", line)
        assert not opened or f"`{opened.group(1)}" in page, line
