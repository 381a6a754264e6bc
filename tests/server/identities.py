# SPDX-License-Identifier: Apache-2.0
"""A server with keys, its clients' tokens, and commands that rule them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from typing import Any, Optional

from servers import PATIENCE_S, Server, claim_over

from bitfusion.client import channels, control
from bitfusion.client.access import Access
from bitfusion.server import authority
from bitfusion.server.keys import CA, CA_KEY, CERTIFICATE, KEY, Invitation, Keys
from bitfusion.server.state import StateFolder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BITFUSION = [sys.executable, os.path.join(ROOT, "bin", "bitfusion")]


class Lab:
    """A folder with the keys of a cluster, clients' bundles, and at most one server."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.state = os.path.join(folder, "state")
        os.makedirs(self.state, 0o700)
        self.keys = Keys(StateFolder(self.state))
        self.keys.make("lab")
        self.ca = self.keys.path(CA)
        self.server: Optional[Server] = None

    def start(
        self,
        worker: str = "echo",
        gpus: int = 2,
        mib: int = 1000,
        encrypt: str = "auto",
        descriptors: int = 0,
    ) -> Server:
        where = self.server.where if self.server else None  # it comes back where it was
        settings = {"server.encrypt": encrypt}
        self.server = Server(worker, gpus, mib, descriptors, settings, self.state, where=where)
        return self.server

    def resign(self, life_s: float) -> None:
        """Another certificate of the server, which ends so soon, or has ended."""
        pair = authority.Pair(self.keys._read(CA), self.keys._read(CA_KEY))
        server = StateFolder(self.state).server_id()
        made = authority.make_server(pair, server, ["x"], time.time(), life_s)
        self.keys._write(KEY, made.key)
        self.keys._write(CERTIFICATE, made.certificate)

    def environment(self, home: str = "", **more: str) -> dict[str, str]:
        found = {**os.environ, "HOME": home or self.folder, "BITFUSION_CONFIG": "", **more}
        found["BITFUSION_STATE_DIR"] = self.state
        return found

    def command(self, *words: str, home: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BITFUSION, *words],
            cwd=self.folder,
            env=self.environment(home),
            capture_output=True,
            text=True,
            timeout=100,
        )

    def popen(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*BITFUSION, *words],
            cwd=self.folder,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def token(self, *words: str) -> str:
        """bitfusion token ..., which must work."""
        done = self.command("token", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, name: str, *words: str) -> Access:
        self.token("create", name, *words)
        return self.bundle(name)

    def bundle(self, name: str) -> Access:
        path = os.path.join(self.folder, f"{name}.tar")
        with tarfile.open(path) as tar:
            stream = tar.extractfile("client.toml")
            assert stream is not None
            text = stream.read().decode()
        os.unlink(path)
        return Access(self.ca, text.rpartition('token = "')[2].partition('"')[0])

    def channel(self, access: Access, timeout_s: float = PATIENCE_S) -> channels.HttpChannel:
        assert self.server is not None
        port = self.server.port
        return channels.HttpChannel(("127.0.0.1", port), f"127.0.0.1:{port}", timeout_s, access)

    def claim(self, access: Access, **request: Any) -> control.Session:
        return claim_over(self.channel(access), **request)


def foreign_ca(folder: str) -> str:
    """The certificate of another cluster."""
    path = os.path.join(folder, "foreign.crt")
    with open(path, "wb") as file:
        file.write(authority.make_authority("lab", time.time()).certificate)
    return path


__all__ = ["BITFUSION", "Invitation", "Lab", "foreign_ca"]
