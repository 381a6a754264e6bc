# SPDX-License-Identifier: Apache-2.0
"""Encrypted data connections, in processes beside the server: its loop passes such a connection on
unread, and a process of its own takes TLS off it and brings what is inside, ticket first, to the
server's Unix socket for data, as a client of this machine would.

A process, because encrypting is work that neither the loop nor other connections should wait for;
it ends with its connection, and outlives the server as the worker behind it does.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from typing import Optional

from bitfusion import certificates, linux, log
from bitfusion.pump import Pump, secure
from bitfusion.server.keys import CERTIFICATE, KEY, Keys
from bitfusion.server.worker import drop_privileges
from bitfusion.wire.control import unix_address

MAX_RELAYS = 2048
MAX_YOUNG = 64  # that have not lived so long:
YOUNG_S = 10.0  # a stranger's ends before, for want of a ticket
PATIENCE_S = 5.0


class RelayProcess:
    """The server's side: passes connections on, and never waits."""

    def __init__(self, keys: Keys, data: str, user: str) -> None:
        """data: the name of the server's Unix socket for data."""
        self._keys = keys
        self._data = data
        self._user = user
        self._socket: Optional[socket.socket] = None
        self._pid = 0
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                linux.set_process_name("bitfusion-relay")
                signal.pthread_sigmask(signal.SIG_SETMASK, set())  # the server's are a descriptor
                linux.close_all_but({theirs.fileno()})
                os.setsid()
                Relays(theirs, self._keys, self._data, self._user).run()
            finally:
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours

    def take(self, sock: socket.socket) -> None:
        """A connection that begins with TLS; it is ours no more."""
        with sock:
            for _ in range(2):
                try:
                    if self._socket is None:
                        self._start()
                    assert self._socket is not None
                    socket.send_fds(self._socket, [b"."], [sock.fileno()])
                    return
                except BlockingIOError:
                    return  # too many come at once: this one has to come again
                except OSError as error:
                    log.once(f"starting the relay of encrypted data again: {error.strerror}")
                    self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            linux.wait_for_end(self._pid, PATIENCE_S)


class Relays:
    """The process that forks one for each connection."""

    def __init__(self, server: socket.socket, keys: Keys, data: str, user: str) -> None:
        self._server = server
        self._keys = keys
        self._data = data
        self._user = user
        self._born: dict[int, float] = {}  # pid -> when

    def run(self) -> None:
        while True:
            message, fds, _flags, _address = socket.recv_fds(self._server, 16, 1)
            if not message:
                return
            self._reap()
            for fd in fds:
                with socket.socket(fileno=fd) as sock:
                    self._fork(sock)

    def _reap(self) -> None:
        try:
            while self._born:
                pid, _status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._born.pop(pid, None)
        except ChildProcessError:
            self._born.clear()

    def _fork(self, sock: socket.socket) -> None:
        now_s = time.monotonic()
        young = sum(now_s - born_s < YOUNG_S for born_s in self._born.values())
        if young >= MAX_YOUNG or len(self._born) >= MAX_RELAYS:
            return
        pid = os.fork()
        if pid:
            self._born[pid] = now_s
            return
        try:
            self._server.close()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a client's data
            self._serve(sock)
        except OSError:
            pass  # a stranger, or one that went away
        finally:
            os._exit(0)

    def _serve(self, sock: socket.socket) -> None:
        certificate, key = self._keys.path(CERTIFICATE), self._keys.path(KEY)
        context = certificates.server_context(certificate, key)
        if self._user:
            drop_privileges(self._user)
        secured = secure(context, sock, True, PATIENCE_S)
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(PATIENCE_S)
        plain.connect(unix_address(self._data))
        Pump(secured, plain).run()
