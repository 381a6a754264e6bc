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
import ssl
import time
from collections import Counter
from typing import NamedTuple, Optional

from bitfusion import certificates, linux, log
from bitfusion.pump import Pump, secure
from bitfusion.server.data import NO_TLS, RELAY
from bitfusion.server.guard import network_of
from bitfusion.server.keys import CERTIFICATE, KEY, Keys
from bitfusion.server.worker import drop_privileges
from bitfusion.wire.control import unix_address

MAX_RELAYS = 2048
MAX_YOUNG = 64  # that have not lived so long, nor brought a good ticket:
YOUNG_S = 10.0  # a stranger's ends before, for want of a ticket
MAX_YOUNG_OF = 32  # of them of one address; the oldest makes room for a new one
PATIENCE_S = 5.0
CONNECTION, SERVED = b".", b"+"  # messages: take this descriptor; this pid has brought a ticket
MAX_MESSAGE = 128


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

    def has(self, pid: int) -> bool:
        """Whether this process serves a connection for us."""
        return linux.parent_of(pid) == self._pid

    def served(self, pid: int) -> None:
        """The relay with this pid brought a good ticket, so it is no stranger's."""
        try:
            if self._socket is not None:
                self._socket.send(SERVED + str(pid).encode())
        except OSError:
            pass  # then it counts as young for a while

    def take(self, sock: socket.socket, address: str) -> None:
        """A connection that begins with TLS, from this address; it is ours no more."""
        message = CONNECTION + address.encode()[: MAX_MESSAGE - 1]
        with sock:
            for _ in range(2):
                try:
                    if self._socket is None:
                        self._start()
                    assert self._socket is not None
                    socket.send_fds(self._socket, [message], [sock.fileno()])
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


class Relay(NamedTuple):
    born_s: float
    network: str  # whence its connection came
    served: bool = False


class Relays:
    """The process that forks one for each connection."""

    def __init__(self, server: socket.socket, keys: Keys, data: str, user: str) -> None:
        self._server = server
        self._keys = keys
        self._data = data
        self._owner = os.geteuid()  # of the server's sockets
        self._user = user
        self._born: dict[int, Relay] = {}  # by pid, the oldest first

    def run(self) -> None:
        while True:
            message, fds, _flags, _address = socket.recv_fds(self._server, MAX_MESSAGE, 1)
            if not message:
                return
            self._reap()
            text = message[1:].decode("ascii", "replace")
            if message[:1] == SERVED and int(text) in self._born:
                self._born[int(text)] = self._born[int(text)]._replace(served=True)
            for fd in fds:
                with socket.socket(fileno=fd) as sock:
                    self._fork(sock, text)

    def _reap(self) -> None:
        try:
            while self._born:
                pid, _status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._born.pop(pid, None)
        except ChildProcessError:
            self._born.clear()

    def _fork(self, sock: socket.socket, address: str) -> None:
        now_s, network = time.monotonic(), network_of(address)
        self._make_room(network, now_s)
        if len(self._born) >= MAX_RELAYS:
            return
        pid = os.fork()
        if pid:
            self._born[pid] = Relay(now_s, network)
            return
        try:
            self._server.close()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a client's data
            self._serve(sock, address)
        except OSError:
            pass  # a stranger, or one that went away
        finally:
            os._exit(0)

    def _make_room(self, network: str, now_s: float) -> None:
        """As data.py does, among those that may be strangers'."""
        young = {
            pid: relay.network
            for pid, relay in self._born.items()
            if not relay.served and now_s - relay.born_s < YOUNG_S
        }
        counts = Counter(young.values())
        if counts[network] < MAX_YOUNG_OF:
            if len(young) < MAX_YOUNG:
                return
            network = counts.most_common(1)[0][0]
        oldest = next(pid for pid, its in young.items() if its == network)
        os.kill(oldest, signal.SIGKILL)  # a child that has not been waited for, so it is ours
        self._born[oldest] = self._born[oldest]._replace(served=True)  # and counts no more

    def _serve(self, sock: socket.socket, address: str) -> None:
        certificate, key = self._keys.path(CERTIFICATE), self._keys.path(KEY)
        context = certificates.server_context(certificate, key)
        if self._user:
            drop_privileges(self._user)
        secured: Optional[ssl.SSLSocket] = None
        try:
            secured = secure(context, sock, True, PATIENCE_S)
        finally:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(PATIENCE_S)
            plain.bind(RELAY + f"{address or '-'} {os.getpid()}".encode())
            plain.connect(unix_address(self._data))
            linux.expect_owner(plain, self._owner)  # the server may just have ended
            if secured is None:
                plain.sendall(NO_TLS)  # so that the server says so, of this address
        Pump(secured, plain).run()
