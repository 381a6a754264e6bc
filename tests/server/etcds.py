# SPDX-License-Identifier: Apache-2.0
"""An etcd of our own: on loopback, in memory, ended by its process id."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from typing import Optional

import waiting
from ports import Port

from bitfusion import linux
from bitfusion.server.etcd import Endpoint, resolve
from bitfusion.server.loop import Loop
from bitfusion.server.store_etcd import EtcdStore

PROGRAM = shutil.which("etcd")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def answers(port: int, tls: bool) -> bool:
    """With TLS it is enough that it listens: it does when it serves."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            if tls:
                return True
            sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            sock.settimeout(60)
            return b'"health":"true"' in sock.recv(4096)
    except OSError:
        return False


class EtcdServer:
    def __init__(self, *options: str) -> None:
        self._options = options
        self._tls = "--cert-file" in options
        assert PROGRAM, "Debian's package 'etcd-server' is not installed"
        self.folder = tempfile.mkdtemp(prefix="bitfusion-etcd-", dir=MEMORY)
        self.process: Optional[subprocess.Popen[bytes]] = None
        self._client, self._peer = Port(), Port()
        self.start()
        assert self.process, self.log

    @property
    def port(self) -> int:
        return self._client.number

    def become_another(self) -> None:
        """While it does not run: of another cluster, when it is started again."""
        self._peer.give_back()
        self._peer = Port()

    @property
    def log(self) -> str:
        with open(os.path.join(self.folder, "log"), errors="replace") as file:
            return file.read()[-3000:]

    def start(self) -> None:
        """With what it had, on the port that it had."""
        url = f"http{'s' if self._tls else ''}://{self._client}"
        peer = f"http://{self._peer}"
        parent = os.getpid()
        assert PROGRAM
        with open(os.path.join(self.folder, "log"), "wb") as log:
            process = subprocess.Popen(
                [
                    *(PROGRAM, "--data-dir", os.path.join(self.folder, "data")),
                    *("--listen-client-urls", url, "--advertise-client-urls", url),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                    *("--heartbeat-interval", "20", "--election-timeout", "100"),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                preexec_fn=lambda: linux.die_with_parent(signal.SIGKILL, parent),
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if answers(self.port, self._tls):
                self.process = process
                return
            time.sleep(0.01)
        process.kill()
        process.wait()

    def get(self, key: str) -> dict[str, object]:
        """What a key holds; {} where it is not there."""
        body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v3/kv/range", body, 10) as it:
            found = json.load(it).get("kvs", [])
        value: dict[str, object] = {}
        return json.loads(base64.b64decode(found[0]["value"])) if found else value

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        assert self.process
        waiting.stop(self.process.pid)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """While it does not run."""
        shutil.rmtree(os.path.join(self.folder, "data"))

    def copy(self) -> None:
        shutil.copytree(os.path.join(self.folder, "data"), os.path.join(self.folder, "copy"))

    def put_copy_back(self) -> None:
        self.empty()
        shutil.copytree(os.path.join(self.folder, "copy"), os.path.join(self.folder, "data"))

    def end(self) -> None:
        if self.process:
            self.kill()
        self._client.give_back()
        self._peer.give_back()
        shutil.rmtree(self.folder)

    def endpoints(self) -> list[Endpoint]:
        return resolve([("127.0.0.1", self.port)])

    def store(self, loop: Loop, prefix: str = "/bitfusion/", lease_s: float = 30) -> EtcdStore:
        return EtcdStore(loop, self.endpoints(), prefix, lease_s)
