# SPDX-License-Identifier: Apache-2.0
"""As root: the RPMs' scripts in a root of their own; files, modes, owners, accounts are looked at.

unshare -m python3 tests/install/rpm_root.py FOLDER    FOLDER holds the RPMs, with release 1

The root has this machine's /usr below an overlay, so that it has a shell, Python and what the
scripts call, and an /etc and /var with next to nothing. A package made here stands for the
distribution: what ours require is looked up there, by rpm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Set

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAM = HERE / "add_vectors.py"
SAID = "1000 sums on Bitfusion Software GPU: right\n"
MACHINE = os.uname().machine
PORTS = ("56001", "55001-55100", "45201-46225")
SPEC = """\
Name: {name}
Version: 1
Release: 1
Summary: Stands for a distribution
License: none
BuildArch: noarch
"""
SYSTEM_SPEC = (
    SPEC.format(name="test-system")
    + """\
Provides: /bin/sh, /usr/bin/python3, glibc = 2.34, shadow-utils, libzstd.so.1()(64bit)
Provides: python3 = 3.9.18, python3-tomli, python3-cryptography
%description
x
%files
"""
)
H11_SPEC = SPEC.format(name="python3-h11") + "%description\nx\n%files\n"
FIREWALL = [
    "#!/bin/sh",
    'echo "$*" >>/var/firewall.log',
    "case $* in --state) echo running ;; *--query-port*) exit 1 ;; esac",
]


def run(*command: object, fails: bool = False, **more: object) -> str:
    """What it says. fails: it must."""
    words = [str(word) for word in command]
    done = subprocess.run(  # type: ignore[call-overload]
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )
    assert (done.returncode != 0) == fails, f"{words} gave {done.returncode}:\n{done.stdout}"
    return str(done.stdout)


class System:
    """A root to install into. Its mounts end with this process, as `unshare -m` has it."""

    def __init__(self, work: Path, machine_usr: str = "/usr") -> None:
        self.root, self.work = work / "root", work
        for name in (
            "usr",
            "etc/security",
            "var/lib/rpm",
            "var/lib/misc",
            "tmp",
            "proc",
            "dev",
            "home",
        ):
            (self.root / name).mkdir(parents=True)
        for name in ("upper", "overlay"):
            (work / name).mkdir()
        layers = f"lowerdir={machine_usr},upperdir={work}/upper,workdir={work}/overlay"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root / "usr")
        run("mount", "-t", "proc", "proc", self.root / "proc")
        for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
            run("mknod", "-m", "666", self.root / "dev" / name, "c", 1, minor)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "usr/share/licenses").mkdir(exist_ok=True)  # RPM systems have it
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        etc = {
            "passwd": "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home:/bin/sh\n",
            "group": "root:x:0:\nann:x:1000:\n",
            "shadow": "",
            "gshadow": "",
            "nsswitch.conf": "passwd: files\ngroup: files\n",
        }
        for name, text in etc.items():
            (self.root / "etc" / name).write_text(text)
        shutil.copy("/etc/ld.so.cache", self.root / "etc")
        shutil.copy("/etc/login.defs", self.root / "etc")

    def close(self) -> None:
        run("umount", self.root / "usr", self.root / "proc")
        mounts = Path("/proc/self/mounts").read_text()
        assert str(self.work) not in mounts, mounts
        shutil.rmtree(self.work)

    def rpm(self, *words: object, fails: bool = False) -> str:
        return run("rpm", "--root", self.root, *words, fails=fails)

    def inside(self, *words: object, user: str = "") -> str:
        more = [f"--userspec={user}"] if user else []
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp/home"}
        return run("/usr/sbin/chroot", *more, self.root, *words, env=environment)

    def files(self) -> Set[str]:
        """All that this root has and the machine's /usr has not, but what others write there."""
        found = {f"usr/{path.relative_to(self.work / 'upper')}" for path in self.walk("upper")}
        for name in ("etc", "var"):
            found |= {str(p.relative_to(self.root)) for p in self.walk(f"root/{name}")}
        others = ("var/lib/rpm", "var/firewall.log", "var/tmp", "etc/.pwd.lock")
        backups = ("passwd-", "group-", "shadow-", "gshadow-")
        found.discard("etc/systemd/system")  # systemctl's
        return {
            name for name in found if not name.startswith(others) and not name.endswith(backups)
        }

    def walk(self, name: str) -> List[Path]:
        """Files, links and empty folders of our own."""
        base = self.work / name
        found = []
        for path in base.rglob("*"):
            if path.is_char_device():
                continue  # how the overlay writes that something of the machine's is gone
            if path.is_dir() and not path.is_symlink():
                # The overlay has empty copies of the machine's folders where ours were.
                machines = name == "upper" and (Path("/usr") / path.relative_to(base)).is_dir()
                if machines or any(path.iterdir()):
                    continue
            found.append(path)
        return found

    def owner(self, path: str) -> str:
        """As mode user:group, by the names that this root has for them."""
        status = (self.root / path).stat()
        names: Dict[str, Dict[int, str]] = {}
        for kind in ("passwd", "group"):
            rows = [row.split(":") for row in (self.root / "etc" / kind).read_text().split()]
            names[kind] = {int(row[2]): row[0] for row in rows}
        mode = f"{status.st_mode & 0o7777:04o}"
        return f"{mode} {names['passwd'][status.st_uid]}:{names['group'][status.st_gid]}"

    def accounts(self) -> Set[str]:
        lines = (self.root / "etc/passwd").read_text() + (self.root / "etc/group").read_text()
        return {line.split(":")[0] for line in lines.splitlines()} - {"root", "ann"}


def build_package(work: Path, name: str, spec: str) -> Path:
    (work / f"{name}.spec").write_text(spec)
    words = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {work}/{name}-build"]
    run(*words, work / f"{name}.spec")
    (made,) = (work / f"{name}-build/RPMS/noarch").glob("*.rpm")
    return made


def check_client(system: System, packages: Dict[str, Path], kept: str) -> None:
    """Install, run, upgrade, erase. kept: what the administrator wrote remains."""
    before = system.files()
    said = system.rpm("-i", packages["client 1"])
    assert "usermod -aG bitfusion USER" in said, said
    assert system.accounts() == {"bitfusion"} or kept, system.accounts()
    assert system.owner("etc/bitfusion") == "0750 root:bitfusion"
    assert not (system.root / "etc/bitfusion/server.toml").exists() or kept
    assert "conflicts" in system.rpm("-i", packages["server 1"], fails=True)
    pyc = list((system.root / "usr/lib/bitfusion/python").rglob("*.pyc"))
    assert len(pyc) > 100, len(pyc)
    assert system.rpm("-V", "bitfusion-client") == ""
    shutil.copy(PROGRAM, system.root / "tmp/add_vectors.py")
    words = ["bitfusion", "run", "-n", "1", "--", "python3", "/tmp/add_vectors.py"]
    assert system.inside(*words, user="ann:bitfusion") == SAID
    (system.root / "etc/bitfusion/client.toml").write_text("[client]\n")
    limits = system.root / "etc/security/limits.d/bitfusion.conf"
    limits.write_text(limits.read_text() + "# ours\n")
    said = system.rpm("-U", packages["client 2"])
    assert "usermod" not in said, said  # they know by now
    assert limits.read_text().endswith("# ours\n")
    assert system.owner("etc/bitfusion/client.toml") == "0640 root:bitfusion"
    assert system.inside(*words, user="ann:bitfusion") == SAID
    system.rpm("-e", "bitfusion-client")
    left = system.files() - before
    limits_kept = "etc/security/limits.d/bitfusion.conf.rpmsave"
    assert left <= {"etc/bitfusion/client.toml", limits_kept}, left


def check_server(system: System, packages: Dict[str, Path], firewall: bool) -> None:
    before = system.files()
    log = system.root / "var/firewall.log"
    log.write_text("")
    said = system.rpm("-i", packages["server 1"])
    assert firewall == ("opened TCP" in said) and firewall != ("no firewall" in said), said
    assert {"bitfusion", "bitfusion-worker"} <= system.accounts()
    owners = {
        "etc/bitfusion": "0750 root:bitfusion",
        "etc/bitfusion/server.toml": "0640 root:bitfusion",
        "var/lib/bitfusion": "0700 bitfusion:bitfusion",
        "usr/bin/bitfusion": "0755 root:root",
        "usr/lib/bitfusion/client/libcuda.so.1": "0644 root:root",
        "usr/lib/systemd/system/bitfusion-server.service": "0644 root:root",
    }
    assert {path: system.owner(path) for path in owners} == owners
    assert system.rpm("-V", "bitfusion-server") == ""
    settings = system.root / "etc/bitfusion/server.toml"
    settings.write_text(settings.read_text() + "# ours\n")
    state = system.root / "var/lib/bitfusion/state.db"
    state.write_text("tokens")
    (system.root / "usr/lib/bitfusion/python/bitfusion/__pycache__/gone.pyc").write_text("")
    system.rpm("-U", packages["server 2"])
    assert system.rpm("-q", "bitfusion-server") == f"bitfusion-server-0.1.0-2.{MACHINE}\n"
    assert settings.read_text().endswith("# ours\n") and state.read_text() == "tokens"
    assert not list((system.root / "usr/lib/bitfusion").rglob("gone.pyc"))
    changed = system.rpm("-V", "bitfusion-server", fails=True).split()
    assert [word for word in changed if "/" in word] == ["/etc/bitfusion/server.toml"], changed
    system.inside("bitfusion", "version")
    system.rpm("-e", "bitfusion-server")
    left = system.files() - before
    assert left <= {"etc/bitfusion/server.toml.rpmsave", "var/lib/bitfusion/state.db"}, left
    assert state.read_text() == "tokens"
    done = log.read_text()
    for port in PORTS if firewall else ():
        for verb in ("add", "remove"):
            assert f"--permanent --{verb}-port={port}/tcp" in done, done


def main(folder: Path) -> None:
    assert os.geteuid() == 0, "this needs root"
    assert not os.path.exists("/usr/lib/bitfusion"), "Bitfusion is installed on this machine"
    system = System(Path(tempfile.mkdtemp(prefix="bf-rpm-")))
    try:
        check(system, folder)
    finally:
        system.close()


def check(system: System, folder: Path) -> None:
    work = system.work
    packages = {
        f"{part} {release}": folder / f"bitfusion-{part}-0.1.0-{release}.{MACHINE}.rpm"
        for part in ("client", "server")
        for release in (1, 2)
    }
    system.rpm("-i", build_package(work, "test-system", SYSTEM_SPEC))
    h11 = build_package(work, "python3-h11", H11_SPEC)
    assert "python3-h11" in system.rpm("-i", packages["server 1"], fails=True)
    system.rpm("-i", h11)
    firewall = system.root / "usr/bin/firewall-cmd"
    for tool in (firewall, system.root / "usr/sbin/ufw"):
        tool.unlink(missing_ok=True)
    for again in (False, True):
        check_client(system, packages, "client.toml" if again else "")
        if again:
            firewall.write_text("\n".join([*FIREWALL, ""]))
            firewall.chmod(0o755)
        check_server(system, packages, firewall=again)
    print("client and server installed, upgraded, erased twice: files, modes, accounts are right")
    why = rpm_dnf.lacks()
    if why:
        print(f"docs/install.md's dnf commands: {why}")
        return
    firewall.unlink()
    for name in ("etc/bitfusion", "var/lib/bitfusion"):
        shutil.rmtree(system.root / name)
    rpm_dnf.check_dnf(system, packages, {"python3-h11": h11})
    print("dnf installed, exchanged and removed them as docs/install.md says")


if __name__ == "__main__":
    import rpm_dnf

    main(Path(sys.argv[1]).resolve())
