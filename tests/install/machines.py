# SPDX-License-Identifier: Apache-2.0
"""Machines to install on: Debian booted by systemd-nspawn, each with a network namespace, joined
by a bridge.

A machine writes to memory over a root that debootstrap made once, so each is fresh and nothing of
it stays. Everything that is made here is taken away by close(), and only what was made here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "ip")
# What a machine has before: a system that boots, as an installer leaves it. Packages that ours
# depend on lie in apt's cache, because the machines reach each other and nothing else.
PRESENT = "systemd,systemd-sysv,dbus,iproute2,procps,ca-certificates"
DEPENDENCIES = (
    "python3",
    "python3-h11",
    "python3-cryptography",
    "python3-packaging",
    "python3-tomli",
)
FIREWALLS = ("ufw", "firewalld")
NETWORK = "198.51.100"  # for documentation: nobody's
CAP_SYS_RESOURCE = 24
BOOT_S, COMMAND_S = 120, 300
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failed(Exception):
    pass


def missing() -> str:
    """Why no machine can be made here; empty where it can."""
    if os.geteuid() != 0:
        return "it takes root"
    lacks = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacks:
        return f"{', '.join(lacks)} missing: apt-get install debootstrap systemd-container"
    return ""


def may_raise_limits() -> bool:
    status = Path("/proc/self/status").read_text()
    bounds = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounds.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def call(*words: str, **how: object) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, **how)  # type: ignore[call-overload]
    if done.returncode:
        raise Failed(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def wait_for(condition: Callable[[], object], patience_s: float, what: str) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.05)


class Archive(NamedTuple):
    """Where a distribution's packages come from, and what debootstrap is to know of it."""

    address: str
    components: str
    keyring: str
    script: str


DEBIAN = Archive("http://deb.debian.org/debian", "main", "debian-archive-keyring", "sid")
UBUNTU = Archive(
    "http://archive.ubuntu.com/ubuntu", "main,universe", "ubuntu-archive-keyring", "gutsy"
)
SUITES = {"bookworm": DEBIAN, "trixie": DEBIAN, "jammy": UBUNTU, "noble": UBUNTU}


def base(suite: str) -> Path:
    """A root of that suite; made once, with the packages of others that ours need."""
    root = BUILD / "roots" / suite
    if root.exists():
        return root
    print(f"  ROOT  {suite} (once)", flush=True)
    new = root.with_name(f"{suite}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    fast = ["eatmydata"] if shutil.which("eatmydata") else []
    archive = SUITES[suite]
    words = [f"--include={PRESENT}", f"--components={archive.components}"]
    keyring = f"/usr/share/keyrings/{archive.keyring}.gpg"
    if os.path.exists(keyring):
        words += [f"--keyring={keyring}"]
    else:
        print(f"  {keyring} is not here: what debootstrap fetches is not checked", flush=True)
        words += ["--no-check-gpg"]
    words += [suite, str(new)]
    scripts = "/usr/share/debootstrap/scripts"
    script = suite if os.path.exists(f"{scripts}/{suite}") else archive.script
    words += [archive.address, f"{scripts}/{script}"]
    call(*fast, "debootstrap", "--variant=minbase", *words)
    shutil.copy("/etc/resolv.conf", new / "etc/resolv.conf")
    inside = ("chroot", str(new), "env", f"PATH={PATH}", "DEBIAN_FRONTEND=noninteractive")
    call(*inside, "apt-get", "update")
    call(*inside, "apt-get", "install", "--yes", "--download-only", *DEPENDENCIES, *FIREWALLS)
    new.rename(root)
    return root


def hierarchies() -> List[Path]:
    """Where processes are put into control groups."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where))
    return found


class Network:
    """A bridge in a namespace of its own."""

    def __init__(self) -> None:
        self.name = f"bf{os.getpid()}"
        self.joined = 0
        call("ip", "netns", "add", self.name)
        self._in("link", "add", "bridge", "type", "bridge")
        self._in("link", "set", "bridge", "up")

    def _in(self, *words: str) -> None:
        call("ip", "-n", self.name, *words)

    def join(self, namespace: str) -> str:
        """The address of that namespace then."""
        self.joined += 1
        port, address = f"port{self.joined}", f"{NETWORK}.{self.joined}"
        self._in("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._in("link", "set", port, "master", "bridge", "up")
        call("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            call("ip", "-n", namespace, "link", "set", link, "up")
        return address

    def close(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


class Machine:
    """One that is booted."""

    def __init__(self, name: str, root: Path, network: Network, folders: Dict[Path, str]) -> None:
        """folders: those of this machine that it sees, and where."""
        self.name = f"bf{os.getpid()}-{name}"
        self.groups = [where / self.name for where in hierarchies()]
        self.log = BUILD / "roots" / f"{name}.log"
        call("ip", "netns", "add", self.name)
        self.address = network.join(self.name)
        for group in self.groups:
            group.mkdir()
        words = [
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
            *("--volatile=overlay", f"--directory={root}", f"--machine={self.name}"),
            *("--hostname=" + name, f"--network-namespace-path=/run/netns/{self.name}"),
            *(f"--bind-ro={source}:{target}" for source, target in folders.items()),
            "systemd.mask=systemd-networkd.service",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._enter_groups,
                start_new_session=True,
            )
        try:
            wait_for(self._booted, BOOT_S, f"{name} to boot; see {self.log}")
        except BaseException:
            self.close()
            raise

    def _enter_groups(self) -> None:
        for group in self.groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def _booted(self) -> bool:
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended:\n{self.log.read_text(errors='replace')}")
        self.leader = self._find_leader()
        if not self.leader:
            return False
        state = self.try_to("systemctl is-system-running")
        return state.stdout.strip() in ("running", "degraded")

    def _find_leader(self) -> int:
        """The process that is 1 inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if numbers.split()[-1] == "1" and len(numbers.split()) > 2:
                return int(child)
        return 0

    # ------------------------------------------ what happens inside

    def _enter(self, script: str) -> List[str]:
        return [
            *(
                "nsenter",
                f"--target={self.leader}",
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--cgroup",
            ),
            *("--root", "--wd", "env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"),
            *("DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"cd; {script}"),
        ]

    def try_to(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._enter(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )

    def do(self, script: str) -> str:
        """Its output; raises Failed."""
        done = self.try_to(script)
        if done.returncode:
            raise Failed(
                f"on {self.name}: {script}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def begin(self, script: str) -> subprocess.Popen[str]:
        """In the background, both outputs in one."""
        return subprocess.Popen(
            self._enter(script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def path(self, name: str) -> Path:
        return Path(f"/proc/{self.leader}/root{name}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # as a power button
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        for group in self.groups:
            remove_group(group)


def remove_group(group: Path) -> None:
    """With what systemd made below it; whatever still runs in it is the machine's."""
    for folder, _below, _files in os.walk(group, topdown=False):
        try:
            for pid in Path(folder, "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
        for _ in range(100):
            try:
                os.rmdir(folder)
                break
            except OSError:
                time.sleep(0.02)


def files(machine: Machine, without: Sequence[str] = ()) -> List[str]:
    """Every path that is not made anew at each boot, with owner and mode."""
    skipped = (
        *without,
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/packages",
        "/root",
        "/home",
        "/programs",
        "/var/log",
        "/var/cache",
    )
    pruned = " -o ".join(f"-path {path}" for path in skipped)
    found = machine.do(f"find / \\( {pruned} \\) -prune -o -printf '%p %u:%g %m\\n'")
    return sorted(found.splitlines())
