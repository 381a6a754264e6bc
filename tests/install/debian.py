# SPDX-License-Identifier: Apache-2.0
"""`make test-install`: two fresh machines, a server's and a client's package, and everything that
may happen to them until nothing is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional, Sequence

import blocks
import machines
from machines import BUILD, ROOT, Failed, Machine, Network, wait_for

PACKAGES, NEWER = "/packages", "/packages/newer"
PROGRAMS = "/programs"
LIMIT_S, LIMIT_COMMANDS = 120, 5
USER = "ada"
UNIT = "bitfusion-server.service"
PORTS = ("56001", "55001-55100", "45201-46225")
FIREWALL_OFFLINE = """#!/bin/sh
# firewalld's rules for good, without its daemon.
case $1 in
--state) echo running ;;
--permanent) shift; exec firewall-offline-cmd "$@" ;;
--quiet) shift; [ "$1" != --permanent ] || exec "$0" "$@" >/dev/null 2>&1 ;;
esac
"""
# What a removed package may leave: what the administrator or the users made.
CONFIG, STATE = "/etc/bitfusion", "/var/lib/bitfusion"


def check(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


class Story:
    """What happens, in this order: each step finds what the one before left."""

    def __init__(self, server: Machine, client: Machine) -> None:
        self.server = server
        self.client = client

    # ------------------------------------------ first use

    def first_run(self) -> None:
        """From nothing to a program on a GPU of the other machine."""
        self._prepare()
        on_server = blocks.commands(ROOT / "README.md", "server")
        on_client = blocks.commands(ROOT / "README.md", "client")
        began = time.monotonic()
        for command in on_server:
            self.server.do(command)
        carry(self.server, self.client, "/root/alice.tar")
        said = "".join(self.client.do(command) for command in on_client)
        took_s = time.monotonic() - began
        self._tidy()
        check("wrong 0" in said, f"the program says: {said}")
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        text = f"{took_s:.0f} s (others made this machine {busy:.1f} times as busy as it can be)"
        check(took_s <= LIMIT_S * busy, f"it took {text}, more than {LIMIT_S}")
        count = len(on_server + on_client)
        check(count <= LIMIT_COMMANDS, f"{count} commands, more than {LIMIT_COMMANDS}")
        say(f"from nothing to a program that ran: {count} commands, {text}")

    def _prepare(self) -> None:
        """Where a user would be: beside the packages and a program, asked nothing by apt."""
        for machine in (self.server, self.client):
            machine.do(
                f"ln -sf {PACKAGES}/*.deb {PROGRAMS}/vector_add .; ln -sf vector_add program;"
                "echo 'APT::Get::Assume-Yes \"true\";' >/etc/apt/apt.conf.d/99yes"
            )

    def _tidy(self) -> None:
        for machine in (self.server, self.client):
            machine.do("rm -f *.deb vector_add program alice.tar /etc/apt/apt.conf.d/99yes")

    def documented(self) -> None:
        """What docs/install.md says, in its order, on machines where nothing is installed."""
        self._prepare()
        for block in blocks.read(ROOT / "docs/install.md"):
            if block.kind == "server":
                self.server.do(f"set -e; {block.text}")
            elif block.kind == "client":
                if self.server.path("/root/alice.tar").exists():
                    carry(self.server, self.client, "/root/alice.tar")
                self.client.do("set -e; " + block.text.replace("ada", "bea"))
        self.client.do("userdel --remove bea")
        self._tidy()
        for machine in (self.server, self.client):
            self._nothing_left(machine)

    def addresses(self) -> None:
        """The program's calls came over the network, to where the bundle says."""
        settings = self.client.do("bitfusion config --json")
        check(
            self.server.address in settings,
            f"the bundle names no address of the server: {settings}",
        )
        said = self.client.do(f"bitfusion run -v -n 1 -- {PROGRAMS}/vector_add 2>&1")
        check("TCP" in said or "tcp" in said, said)
        example = "/usr/share/doc/bitfusion*/examples/add_vectors.py"  # the README names it
        said = self.client.do(f"bitfusion run -n 1 -- python3 {example}")
        check("right" in said, said)

    def modes(self) -> None:
        """Who may read what."""
        expected = {
            CONFIG: "root:bitfusion 750",
            f"{CONFIG}/client.toml": "root:bitfusion 640",
            f"{CONFIG}/ca.crt": "root:bitfusion 640",
        }
        self._compare_modes(self.client, expected)
        expected = {
            CONFIG: "root:bitfusion 750",
            f"{CONFIG}/server.toml": "root:bitfusion 640",
            STATE: "bitfusion:bitfusion 700",
            f"{STATE}/tls": "bitfusion:bitfusion 700",
            f"{STATE}/tls/ca.key": "bitfusion:bitfusion 600",
            f"{STATE}/state.db": "bitfusion:bitfusion 600",
        }
        self._compare_modes(self.server, expected)

    def _compare_modes(self, machine: Machine, expected: Dict[str, str]) -> None:
        for path, mode in expected.items():
            found = machine.do(f"stat -c '%U:%G %a' {path}").strip()
            check(found == mode, f"{path} on {machine.name} is {found}, not {mode}")

    def members(self) -> Optional[str]:
        """Who is not in the group hears so; who is may run programs, with raised limits.

        A step that could not try all of it says what it lacked.
        """
        self.client.do(f"useradd --create-home --shell /bin/sh {USER}")
        command = f"su - {USER} -c 'bitfusion run -n 1 -- {PROGRAMS}/vector_add'"
        refused = self.client.try_to(command)
        lines = refused.stderr.splitlines()
        check(
            refused.returncode == 2, f"not a member: status {refused.returncode}\n{refused.stderr}"
        )
        check(
            len(lines) == 2
            and "bitfusion: " in lines[0]
            and f"usermod -aG bitfusion {USER}" in lines[1],
            refused.stderr,
        )
        self.client.do(f"usermod -aG bitfusion {USER}")
        self.client.do(command)
        limits = self.client.do(f"su - {USER} -c 'ulimit -l; ulimit -n'").split()
        if not machines.may_raise_limits():
            return "nobody here may raise limits (no CAP_SYS_RESOURCE)"
        check(limits == ["unlimited", "65536"], f"limits of a member: {limits}")
        return None

    def virtual_environment(self) -> None:
        """In a user's environment, we run on the system's Python, the program on the user's."""
        self.client.do(
            "mkdir -p /tmp/venv/bin; printf '#!/bin/sh\\nexit 99\\n' >/tmp/venv/bin/python3;"
            "chmod +x /tmp/venv/bin/python3; cp /tmp/venv/bin/python3 /tmp/venv/bin/python"
        )
        inside = (
            "export PATH=/tmp/venv/bin:$PATH PYTHONPATH=/tmp/nonsense PYTHONHOME=/tmp/nonsense;"
        )
        said = self.client.try_to(
            f"{inside} bitfusion run -n 1 -- sh -c 'python3; echo $? $PYTHONPATH'"
        )
        check(said.stdout.split() == ["99", "/tmp/nonsense"], f"{said.stdout}{said.stderr}")
        alone = f"{inside} BITFUSION_CONFIG=/dev/null bitfusion run -n 1 --"
        self.client.do(f"{alone} {PROGRAMS}/vector_add")
        self.client.do(f"{inside} bitfusion softgpu -- {PROGRAMS}/vector_add")

    # ------------------------------------------ the service

    def sandbox(self) -> None:
        """The service has its own user, its workers another without any right."""
        pid = self._main_pid()
        status = self.server.do(f"cat /proc/{pid}/status")
        check(f"\nUid:\t{self.server.do('id -u bitfusion').strip()}\t" in status, status)
        check("NoNewPrivs:\t1" in status, status)
        worker = self.server.do("pgrep bitfusion-spar").split()[0]
        status = self.server.do(f"cat /proc/{worker}/status")
        check(f"\nUid:\t{self.server.do('id -u bitfusion-worker').strip()}\t" in status, status)
        for line in status.splitlines():
            if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb")):
                check(int(line.split()[1], 16) == 0, f"a worker has rights: {line}")
        peeks = (f"cat {STATE}/tls/ca.key", f"ls {STATE}", f"cat {CONFIG}/server.toml")
        for peek in peeks:
            done = self.server.try_to(
                f"setpriv --reuid bitfusion-worker --regid bitfusion-worker --clear-groups {peek}"
            )
            check(done.returncode, f"a worker's user may {peek}")
        done = self.server.try_to(f"nsenter -t {pid} -m touch /usr/nonsense")
        check(done.returncode, "the service could write to /usr")

    def _main_pid(self) -> int:
        return int(self.server.do(f"systemctl show -P MainPID {UNIT}"))

    def survives(self, what: Callable[[], object]) -> None:
        """A program that computes goes on, rightly, when that has happened to the server."""
        script = (
            f"{PROGRAMS}/steady & steady=$!; while [ ! -e /tmp/enough ];"
            f" do {PROGRAMS}/vector_add || exit 3; done; "
            "kill -0 $steady && kill $steady"
        )
        self.client.do("rm -f /tmp/enough")
        program = self.client.begin(f"bitfusion run -n 1 -p 0.5 -- sh -c '{script}'")
        try:
            wait_for(
                lambda: self.server.try_to("pgrep bitfusion-work").returncode == 0, 30, "a worker"
            )
            time.sleep(1)
            what()
            time.sleep(1)
            lasted = program.poll() is None
            self.client.do("touch /tmp/enough")
            out, _none = program.communicate(timeout=60)
            check(
                lasted and program.returncode == 0,
                f"the program failed, status {program.returncode}: {out}",
            )
        finally:
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
                program.wait(30)

    def restart(self) -> None:
        before = self._main_pid()
        self.survives(lambda: self.server.do(f"systemctl restart {UNIT}"))
        check(self._main_pid() != before, "the service was not restarted")

    def crash(self) -> None:
        before = self._main_pid()

        def kill() -> None:
            self.server.do(f"kill -9 {before}")
            wait_for(lambda: self._is_new(before), 30, "the service to be started again")

        self.survives(kill)

    def _is_new(self, before: int) -> bool:
        active = self.server.do(f"systemctl show -P ActiveState {UNIT}").strip()
        return active == "active" and self._main_pid() not in (0, before)

    def watchdog(self) -> None:
        """A server that hangs is started again, and its sessions go on."""
        folder = f"/run/systemd/system/{UNIT}.d"
        self.server.do(
            f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=2\\n' >{folder}/quick.conf;"
            f"systemctl daemon-reload; systemctl restart {UNIT}"
        )
        time.sleep(3)
        before = self._main_pid()
        check(
            self.server.do(f"systemctl show -P NRestarts {UNIT}").strip() == "0",
            "it was restarted although it turns",
        )

        def hang() -> None:
            self.server.do(f"kill -STOP {before}")
            wait_for(lambda: self._is_new(before), 30, "the watchdog")

        self.survives(hang)
        self.server.do(f"rm -r {folder}; systemctl daemon-reload; systemctl restart {UNIT}")

    def slip(self) -> None:
        """Settings that cannot be read: no trying again, and once mended all goes on."""

        def slip() -> None:
            settings = f"{CONFIG}/server.toml"
            self.server.do(f"cp -a {settings} /root/kept; echo 'x = = 3' >>{settings}")
            check(
                self.server.try_to(f"systemctl restart {UNIT}").returncode, "it started like that"
            )
            time.sleep(2)
            tries = self.server.do(
                f"journalctl -u {UNIT} -o cat --since -10s | grep -c 'Invalid value'"
            )
            shown = self.server.do(f"systemctl show -P ActiveState -P Result {UNIT}").split()
            check(
                sorted(shown) == ["exit-code", "failed"] and int(tries) <= 2, f"{shown}, {tries}"
            )
            self.server.do(f"cp -a /root/kept {settings}; rm /root/kept; systemctl start {UNIT}")

        self.survives(slip)

    def documented_service(self) -> None:
        """What docs/systemd.md says."""
        for block in blocks.read(ROOT / "docs/systemd.md"):
            self.server.do(f"set -e; {block.text}")
        over = ("inactive", "failed")  # after "deactivating", which is not active either
        wait_for(
            lambda: self.server.try_to(f"systemctl is-active {UNIT}").stdout.strip() in over,
            30,
            "its end",
        )
        self._nothing_runs(self.server)
        self.server.do(f"systemctl start {UNIT}")

    def commands_without_the_service(self) -> None:
        """What root does to its folder meanwhile is the service's own afterwards."""
        self.server.do(
            f"systemctl stop {UNIT}; bitfusion token create bob; systemctl start {UNIT}"
        )
        others = self.server.do(f"find {STATE} ! -user bitfusion")
        check(not others, f"of others in the service's folder: {others}")
        check("bob" in self.server.do("bitfusion token list"), "the token is not there")

    # ------------------------------------------ upgrade, removal

    def upgrade(self) -> None:
        """Both ends, under a program that runs; what the administrator has set stays."""
        self.server.do(f"sed -i 's/^#spare_workers.*/spare_workers = 2/' {CONFIG}/server.toml")
        before = self._main_pid()

        def both() -> None:
            self.server.do(f"apt install --yes {NEWER}/bitfusion-server.deb")
            self.client.do(f"apt install --yes {NEWER}/bitfusion-client.deb")

        self.survives(both)
        check(self._main_pid() != before, "an upgrade did not start the new server")
        check(
            "+1" in self.server.do("dpkg-query -W bitfusion-server"), "the server was not upgraded"
        )
        check(
            "spare_workers = 2" in self.server.do(f"cat {CONFIG}/server.toml"),
            "settings were lost",
        )
        self.client.do(f"bitfusion run -n 1 -- {PROGRAMS}/vector_add")

    def twice(self) -> None:
        """Every script of the packages may be run again, and changes nothing then."""
        for machine, package in (
            (self.server, "bitfusion-server"),
            (self.client, "bitfusion-client"),
        ):
            version = machine.do(f"dpkg-query -W -f '${{Version}}' {package}")
            before = machines.files(machine, [f"{STATE}"])
            name = "DPKG_MAINTSCRIPT_NAME=postinst"
            script = f"/var/lib/dpkg/info/{package}.postinst configure {version}"
            for _ in range(2):
                machine.do(f"DPKG_MAINTSCRIPT_PACKAGE={package} {name} {script}")
            self._same(before, machines.files(machine, [f"{STATE}"]), "postinst run again")

    def _same(self, before: List[str], after: List[str], what: str) -> None:
        changes = [f"- {line}" for line in sorted(set(before) - set(after))]
        changes += [f"+ {line}" for line in sorted(set(after) - set(before))]
        check(not changes, f"{what}:\n" + "\n".join(changes[:40]))

    def remove(self) -> None:
        """Ends what runs, keeps what was made; and who installs it again goes on with that.

        Whose number is the service's user's in a container runs on.
        """
        self.server.do(
            "systemd-run --unit=another -p KillSignal=KILL unshare --pid --fork --mount-proc"
            " setpriv --reuid $(id -u bitfusion) --regid $(id -g bitfusion) --clear-groups"
            " sleep 9999"
        )
        for machine, package in (
            (self.server, "bitfusion-server"),
            (self.client, "bitfusion-client"),
        ):
            machine.do(f"apt-get remove --yes {package}")
            self._nothing_runs(machine)
            left = machine.do("find /usr /lib -xdev -iname '*bitfusion*'")
            check(not left, f"removed on {machine.name}, but there is {left}")
        self.server.do("pgrep -x sleep -u bitfusion && systemctl stop another")
        check("tls" in self.server.do(f"ls {STATE}"), "the keys were removed")
        check("client.toml" in self.client.do(f"ls {CONFIG}"), "the token was removed")
        self.server.do(f"apt install --yes {NEWER}/bitfusion-server.deb")
        self.client.do(f"apt install --yes {NEWER}/bitfusion-client.deb")
        self.client.do(f"bitfusion run -n 1 -- {PROGRAMS}/vector_add")

    def _nothing_runs(self, machine: Machine) -> None:
        left = machine.try_to("pgrep -af bitfusion | grep -v 'sh -c'").stdout
        check(not left, f"still runs: {left}")

    def purge(self) -> None:
        """Nothing is left, and doing all of it again leaves nothing either.

        The server goes while a session waits for it to start again.
        """
        program = self.client.begin(f"bitfusion run -n 1 -- {PROGRAMS}/steady")
        wait_for(
            lambda: self.server.try_to("pgrep bitfusion-work").returncode == 0, 30, "a worker"
        )
        self.server.do(f"systemctl stop {UNIT}")
        check(self.server.try_to("pgrep bitfusion-work").returncode == 0, "no worker has stayed")
        self.server.do("apt-get purge --yes bitfusion-server")
        self._nothing_left(self.server)
        self.client.try_to("pkill steady")
        program.communicate(timeout=60)
        self.server.do(f"apt install --yes {NEWER}/bitfusion-server.deb")
        for machine, package in (
            (self.server, "bitfusion-server"),
            (self.client, "bitfusion-client"),
        ):
            machine.do(f"apt-get purge --yes {package}")
            self._nothing_left(machine)
            before = machines.files(machine)
            machine.do(
                f"apt-get install --yes {PACKAGES}/{package}.deb; apt-get purge --yes {package}"
            )
            self._nothing_left(machine)
            self._same(before, machines.files(machine), f"{package} installed and purged")

    def _nothing_left(self, machine: Machine) -> None:
        self._nothing_runs(machine)
        left = machine.do(
            "find / -xdev \\( -path /packages -o -path /root -o -path /home -o"
            " -path /var/cache/apt -o -path /var/log \\) -prune -o -iname '*bitfusion*' -print;"
            "getent passwd bitfusion bitfusion-worker; getent group bitfusion bitfusion-worker;"
            "dpkg-query -W 'bitfusion*' 2>/dev/null || :"
        )
        check(not left.strip(), f"purged on {machine.name}, but there is {left}")

    def ufw(self) -> None:
        machine = self.server
        machine.do("apt-get install --yes ufw && ufw --force enable")
        self._firewall("ufw", "ufw status", 2)
        machine.do("apt-get purge --yes ufw")
        self._nothing_left(machine)

    def firewalld(self) -> Optional[str]:
        """Where the daemon cannot run (this kernel may lack what it wants), its own offline
        command does what it is told, to the same files.
        """
        machine = self.server
        start, why = "systemctl restart firewalld && firewall-cmd --state", None
        if machine.try_to(f"apt-get install --yes firewalld && {start}").returncode:
            why = "firewalld does not run on this kernel: firewall-offline-cmd stood in for it"
            machine.do("mv /usr/bin/firewall-cmd /usr/bin/firewall-cmd.real")
            stand_in = machine.path("/usr/bin/firewall-cmd")
            stand_in.write_text(FIREWALL_OFFLINE)
            stand_in.chmod(0o755)
            self._firewall("firewalld", "firewall-cmd --permanent --list-ports", 1)
            machine.do("mv /usr/bin/firewall-cmd.real /usr/bin/firewall-cmd")
        else:
            listing = "firewall-cmd --list-ports; firewall-cmd --permanent --list-ports"
            self._firewall("firewalld", listing, 2)
        machine.do("apt-get purge --yes firewalld")
        self._nothing_left(machine)
        return why

    def _firewall(self, name: str, listing: str, times: int) -> None:
        """Where one is active, the package opens its ports in it and closes them again; and
        so do the commands of docs/install.md.
        """
        machine = self.server

        def opened() -> bool:
            text = machine.do(listing).replace("1:55100", "1-55100").replace("1:46225", "1-46225")
            counts = {text.count(f"{ports}/tcp") for ports in PORTS}
            check(counts <= {0, times}, f"in {name}:\n{text}")
            return counts == {times}

        before = machine.do(listing)
        check(not opened(), f"open before: {before}")
        machine.do(f"apt-get install --yes {PACKAGES}/bitfusion-server.deb")
        check(opened(), f"installed, and closed: {machine.do(listing)}")
        self.client.do(f"timeout 10 bash -c '</dev/tcp/{machine.address}/56001'")
        machine.do("apt-get remove --yes bitfusion-server")
        check(machine.do(listing) == before, f"removed, and open: {machine.do(listing)}")
        machine.do(f"apt-get install --yes {PACKAGES}/bitfusion-server.deb")
        check(opened(), "installed again, and closed")
        machine.do("apt-get purge --yes bitfusion-server")
        check(machine.do(listing) == before, f"{name} is not as it was: {machine.do(listing)}")
        for block in blocks.read(ROOT / "docs/install.md"):
            if block.kind == name:
                machine.do(f"set -e; {block.text}")
        check(opened(), f"as documented, and closed: {machine.do(listing)}")

    def exchange(self) -> None:
        """One package takes the other's place; purging the old one takes nothing of the new's."""
        machine = self.server
        machine.do(
            f"apt-get install --yes {PACKAGES}/bitfusion-client.deb; echo x >{CONFIG}/client.toml"
        )
        machine.do(f"apt-get install --yes {PACKAGES}/bitfusion-server.deb")
        machine.do(
            "apt-get purge --yes bitfusion-client && bitfusion version"
            f" && test -s {CONFIG}/client.toml"
        )
        machine.do(f"systemctl is-active {UNIT}")
        machine.do(f"apt-get install --yes {PACKAGES}/bitfusion-client.deb")
        machine.do(
            "dpkg --purge bitfusion-server && bitfusion version"
            f" && test -s {CONFIG}/client.toml && test ! -e {STATE}"
        )
        machine.do("apt-get purge --yes bitfusion-client")
        self._nothing_left(machine)


def carry(source: Machine, target: Machine, path: str) -> None:
    target.path(path).write_bytes(source.path(path).read_bytes())


STEPS: Sequence[Callable[[Story], Optional[str]]] = (
    Story.first_run,
    Story.addresses,
    Story.modes,
    Story.members,
    Story.virtual_environment,
    Story.sandbox,
    Story.restart,
    Story.crash,
    Story.watchdog,
    Story.slip,
    Story.commands_without_the_service,
    Story.documented_service,
    Story.upgrade,
    Story.twice,
    Story.remove,
    Story.purge,
    Story.exchange,
    Story.documented,
    Story.ufw,
    Story.firewalld,
)


def play(suite: str) -> bool:
    folders = {BUILD / "packages": PACKAGES, BUILD / "programs": PROGRAMS}
    root = machines.base(suite)
    network = Network()
    made: List[Machine] = []
    partly = 0
    try:
        for name in ("server", "client"):
            made.append(Machine(name, root, network, folders))
        story = Story(*made)
        for step in STEPS:
            began = time.monotonic()
            try:
                lacked = step(story)
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"FAIL {suite} {step.__name__}: {error}", flush=True)
                print(made[0].try_to(f"journalctl --no-pager -n 40 -u {UNIT}").stdout)
                return False
            took = f"({time.monotonic() - began:.1f} s)"
            if lacked:
                partly += 1
                print(f"PART {suite} {step.__name__} {took}, does not apply: {lacked}", flush=True)
            else:
                print(f"PASS {suite} {step.__name__} {took}", flush=True)
        print(f"{suite}: {len(STEPS) - partly} steps passed, {partly} in part", flush=True)
        return True
    finally:
        for machine in made:
            machine.close()
        network.close()


def main(suites: List[str]) -> int:
    why = machines.missing()
    if why:
        print(f"bitfusion: cannot try packages here: {why}", file=sys.stderr)
        return 2
    for package in ("bitfusion-server.deb", "bitfusion-client.deb"):
        for folder in (BUILD / "packages", BUILD / "packages/newer"):
            if not (folder / package).exists():
                print(f"{folder / package} is not there: make deb", file=sys.stderr)
                return 1
    unknown = set(suites) - set(machines.SUITES)
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(machines.SUITES)}")
        return 2
    return 0 if all(play(suite) for suite in suites or ["bookworm"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
