# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own, and talking to it."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any, Optional

from ports import Port
from waiting import wait_for

from bitfusion.client import channels, control, pool
from bitfusion.client.claim import Wanted, claim

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "client"))

import fake_proxy  # noqa: E402

PATIENCE_S = 60.0  # with a server on a machine that is busy


class Server:
    def __init__(
        self,
        worker: str,
        gpus: int,
        mib: int,
        descriptors: int = 0,
        settings: Optional[dict[str, str]] = None,
        state: str = "",
        counting: bool = False,
        tree: str = "",
        where: Optional[Port] = None,
    ) -> None:
        """descriptors: how many it may open at once; 0 for as many as we. state: its folder.
        counting: it says how many functions a turn of its loop calls. tree: another version's.
        where: that of an earlier one.
        """

        def limit() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a background job ignores
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._state = tempfile.TemporaryDirectory(prefix="bf-")
        self.state = state or self._state.name
        self.where = where or Port()
        self.mark = f"{os.getpid()}-{random.random()}"
        self.process = subprocess.Popen(
            [
                *(sys.executable, os.path.join(tree or ROOT, "tests/server/serve.py"), worker),
                *(str(gpus), str(mib), self.state),
                *(f"server.listen={self.where}",),
                *(f"{name}={value}" for name, value in (settings or {}).items()),
            ],
            env={**os.environ, "TEST_MARK": self.mark, "COUNT_TURNS": "1" * counting},
            stderr=self._log,
            preexec_fn=limit,
        )
        assert wait_for(lambda: "serves" in self.log or self.process.poll() is not None)
        assert "serves" in self.log, self.log
        words = self.log.partition(" serves ")[2].replace(",", "").split()
        self.port = int(words[words.index("on") + 1].rpartition(":")[2])
        self.data_port = int(words[words.index("port") + 1])

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def channel(self) -> channels.HttpChannel:
        return channels.HttpChannel(("127.0.0.1", self.port), f"127.0.0.1:{self.port}", PATIENCE_S)

    def claim(self, transport: str = "auto", **request: Any) -> control.Session:
        """At once, or Busy."""
        return claim_over(self.channel(), transport, **request)

    def free(self) -> list[int]:
        rows = pool.remote(("127.0.0.1", self.port), PATIENCE_S).gpus
        return [row.free >> 20 for row in rows]

    def processes(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if f"TEST_MARK={self.mark}".encode() in file.read():
                            found.append(int(name))
                except OSError:
                    pass
        return found

    def stop(self) -> int:
        """With all sessions."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(100)


def claim_over(
    channel: channels.HttpChannel, transport: str = "auto", **request: Any
) -> control.Session:
    """At once, or Busy."""
    wanted = Wanted(
        {"gpus": 1, **request},
        "it",
        "program",
        "list",
        lambda *_where: channel,
        transport,
        PATIENCE_S,
        0.0,
        0.0,
    )
    return claim((channel.address,), wanted)


def connect(session: control.Session) -> tuple[socket.socket, int]:
    """A data connection and the pid of its worker."""
    stream, _transport = session.open_data(os.getpid())
    stream.settimeout(60)
    name, pid = fake_proxy.hello(stream)
    assert name == session.name
    return stream, pid


def name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
