# SPDX-License-Identifier: Apache-2.0
"""What docs/install.md says for RPM systems, by a real dnf on the root of rpm_root.py.

Two folders stand for the archives of a distribution: python3-h11 is in the one that only
installing epel-release makes known, as on Enterprise Linux 9. Systemd does not run in that root:
the service's first start is what the unit says that it begins with.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict

import blocks
from rpm_root import ROOT, SPEC, System, build_package, run

TOOLS = ("dnf", "createrepo_c")
REPOSITORY = "[{name}]\nname={name}\nbaseurl=file://{folder}\ngpgcheck=0\n"
EPEL = (
    SPEC.format(name="epel-release")
    + """%description
x
%install
mkdir -p %{{buildroot}}/etc/yum.repos.d
cat >%{{buildroot}}/etc/yum.repos.d/epel.repo <<'END'
{repository}END
%files
/etc/yum.repos.d/epel.repo
"""
)
# All that the documented commands may reach: each does its work in the root.
COMMANDS = {
    # Debian's rpm asks bash where its database is: in the home, also of a root.
    "dnf": "exec /usr/bin/env HOME=/root {path} {dnf} --installroot={root}"
    " --releasever=9 --disableplugin='*' -y -q"
    " --setopt=reposdir={root}/etc/yum.repos.d --setopt=cachedir={work}/cache"
    ' --setopt=logdir={work} --setopt=persistdir={work}/dnf "$@"',
    "systemctl": '[ "$1 $2" = \'enable --now\' ] || exec {chroot} systemctl "$@";'
    ' {chroot} systemctl --quiet enable "$3" &&'
    " exec {chroot} STATE_DIRECTORY=/var/lib/bitfusion setpriv --reuid bitfusion"
    " --regid bitfusion --clear-groups bitfusion server init --if_missing",
    "bitfusion": 'exec {chroot} sh -c \'cd && exec bitfusion "$@"\' sh "$@"',
    **{name: f'exec {{chroot}} {name} "$@"' for name in ("rm", "userdel", "groupdel")},
}


def lacks() -> str:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"no {', '.join(missing)} here (apt-get install dnf createrepo-c)" if missing else ""


def check_dnf(system: System, packages: Dict[str, Path], archives: Dict[str, Path]) -> None:
    """archives: the packages of the distribution's, by name. On a root without ours."""
    work = system.work / "dnf"
    user = Prompt(system, work)
    for part in ("client", "server"):
        shutil.copy(packages[f"{part} 1"], user.folder)
    epel = REPOSITORY.format(name="epel", folder=work / "epel")
    release = build_package(work, "epel-release", EPEL.format(repository=epel))
    for name, package in (("base", release), ("epel", archives["python3-h11"])):
        (work / name).mkdir()
        shutil.copy(package, work / name)
        run("createrepo_c", "--quiet", work / name)
    (system.root / "etc/yum.repos.d").mkdir()
    base = REPOSITORY.format(name="base", folder=work / "base")
    (system.root / "etc/yum.repos.d/base.repo").write_text(base)
    system.rpm("-e", "python3-h11")

    server, (client, swap, removal) = user.blocks("dnf_server"), user.blocks("dnf_client")
    user.play(*server)
    assert {"bitfusion", "bitfusion-worker"} <= system.accounts()
    assert system.owner("var/lib/bitfusion/tls/ca.key") == "0600 bitfusion:bitfusion"
    assert (system.root / "root/alice.tar").exists()
    wanted = system.root / "etc/systemd/system/multi-user.target.wants/bitfusion-server.service"
    assert wanted.is_symlink()
    user.play("dnf remove bitfusion-server\n")
    assert not wanted.is_symlink() and (system.root / "var/lib/bitfusion/tls").exists()
    user.play(client)
    assert system.owner("etc/bitfusion/client.toml") == "0640 root:bitfusion"
    user.play(swap)
    assert "bitfusion-server" in system.rpm("-qa", "bitfusion*")
    user.play(removal)
    assert not system.accounts() and not system.rpm("-qa", "bitfusion*")
    left = {name for name in system.files() if "bitfusion" in name}
    assert left <= {"etc/security/limits.d/bitfusion.conf.rpmsave"}, left


class Prompt:
    """An administrator's, whose every command is one of COMMANDS."""

    def __init__(self, system: System, work: Path) -> None:
        self.folder = work / "here"
        self.path = work / "bin"
        for folder in (self.folder, self.path, system.root / "root"):
            folder.mkdir(parents=True, exist_ok=True)
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        for name, text in COMMANDS.items():
            script = text.format(
                dnf=shutil.which("dnf"), root=system.root, work=work,
                path=path, chroot=f"/usr/sbin/chroot {system.root} /usr/bin/env HOME=/root {path}",
            )  # fmt: skip
            (self.path / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.path / name).chmod(0o755)

    def blocks(self, kind: str) -> list[str]:
        return [each.text for each in blocks.read(ROOT / "docs/install.md") if each.kind == kind]

    def play(self, *texts: str) -> None:
        for text in texts:
            done = subprocess.run(
                ["/bin/sh", "-c", f"set -e\n{text}"],
                cwd=self.folder,
                env={"PATH": str(self.path), "LANG": "C.UTF-8", "TMPDIR": "/tmp"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
