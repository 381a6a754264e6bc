# SPDX-License-Identifier: Apache-2.0
"""Sessions on a server: control requests, and data connections opened with a ticket.

The session lives as long as the control connection, so that connection is kept and used for every
request.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bitfusion import __version__, linux
from bitfusion.client.channels import Channel, kind_of
from bitfusion.errors import (
    AccessDenied,
    BitfusionError,
    Busy,
    CannotReach,
    NotAServer,
    ServerLost,
    ServerNotReady,
    ServerRefused,
    TooMuch,
    VersionMismatch,
    reason,
)
from bitfusion.quantity import seconds_of
from bitfusion.values import ALWAYS
from bitfusion.wire.calls import CALLS
from bitfusion.wire.control import (
    MAX_ANSWER,
    OK,
    PROTOCOL,
    TRANSPORT_TCP,
    TRANSPORT_UNIX,
    Json,
    Reply,
    is_name,
    pack_ticket,
    speaks,
    unix_address,
)

if TYPE_CHECKING:
    pass

ADVICE = {  # on refusals that a new bundle does not help against, or not it alone
    "disabled": "operators let a client in again: 'bitfusion token enable CLIENT'",
    "expired": "operators prolong a token: 'bitfusion token extend CLIENT'",
}
DEFAULT_LEASE_S = 30.0
# For a worker to say its first word: it may have to start the driver of a machine full of GPUs. A
# server that may be silent for longer may take longer for this, too.
WELCOME_S = 120.0
MAX_LEASE_S = 86400.0  # a server that says more is believed so far


def greet(channel: Channel) -> Json:
    """Make sure that this is a server of our version."""
    status, answer = channel.request("GET", "/v1/server")
    if status == 401 or (status == 503 and kind_of(Reply(status, answer))[0]):
        raise explain(channel, Reply(status, answer), "its version")
    theirs, protocol = str(answer.get("version")), answer.get("protocol")
    if not isinstance(protocol, int) or "version" not in answer:
        raise NotAServer(server=channel.name, why="it is not a Bitfusion server")
    calls = str(answer.get("calls", ""))
    if (protocol, calls, series(theirs)) != (PROTOCOL, CALLS, series(__version__)):
        raise VersionMismatch(
            server=channel.name,
            theirs=theirs[:40],
            they_speak=speaks(protocol, calls),
            ours=__version__,
            we_speak=speaks(PROTOCOL, CALLS),
        )
    if status != 200:
        raise explain(channel, Reply(status, answer), "its version")
    warn_of_expiry(answer)
    return answer


def series(version: str) -> list[str]:
    return version.split(".")[:2]


def warn_of_expiry(answer: Json) -> None:
    """Of our token, which the server tells who knows it."""
    you = answer.get("you")
    left_s = seconds_of(you.get("token_expires_in_s")) if isinstance(you, dict) else None
    if isinstance(you, dict) and left_s is not None:
        from bitfusion.client import trust

        what = f"the token of client '{you.get('client')}'"
        trust.warn_of_expiry(what, left_s, "operators extend it by 'bitfusion token extend'")


def explain(channel: Channel, reply: Reply, asked: str, listing: str = "") -> BitfusionError:
    kind, text = kind_of(reply)
    if reply.status == 401:
        return AccessDenied(ADVICE.get(kind, ""), server=channel.name, why=text)
    if kind == "too-much":
        return TooMuch(asked=asked, why=text, listing=listing)
    if kind == "in-use":
        return Busy(asked=asked, why=text, listing=listing)
    if reply.status == 503:
        return ServerNotReady(server=channel.name, why=text)
    hint = "'bitfusion smi' shows those that run" if kind == "no-session" else ""
    return ServerRefused(hint, server=channel.name, why=text)


class Session:
    """GPUs claimed from one server."""

    def __init__(
        self, channel: Channel, answer: Json, transport: str, timeout_s: float, secret: str = ""
    ) -> None:
        """secret: what attaches other connections to it; "" where this one is its only one."""
        self.secret = secret
        self.name = str(answer.get("session"))
        if not is_name(self.name):
            raise NotAServer(server=channel.name, why="the name of its session makes no sense")
        if secret and not is_name(secret):  # it goes into a header
            raise NotAServer(server=channel.name, why="the secret of its session makes no sense")
        self.used = False  # a process of the program asked for its GPUs
        self._transport = transport
        self._timeout_s = timeout_s
        self.cut = ""  # what became of a connection that the program had not ended
        self.renew(channel, answer)

    def renew(self, channel: Channel, answer: Json) -> None:
        """It lives by this connection from now on."""
        self.channel = channel
        self.software = bool(answer.get("software"))
        self.gpus = list_of_objects(answer.get("gpus"))
        lease_s = seconds_of(answer.get("lease_s"))
        self.lease_s = DEFAULT_LEASE_S if lease_s is None else min(max(0.0, lease_s), MAX_LEASE_S)
        linux.keep_descriptor_alive(channel.fileno(), self.lease_s)
        data = answer.get("data")
        self._data: Json = data if isinstance(data, dict) else {}

    def attach_over(self, channel: Channel) -> Reply:
        """Ask for another connection to be what it lives by."""
        path = f"/v1/sessions/{self.name}/attach"
        return channel.request("POST", path, {"secret": self.secret})

    def open_data(self, pid: int, cold: bool = False) -> tuple[socket.socket, int]:
        """A connection for one client process, with its ticket shown, and its transport."""
        self.used = True
        path = f"/v1/sessions/{self.name}/tickets"
        reply = self.channel.request("POST", path, {"pid": pid, "cold": cold})
        if reply.status != 201:
            raise explain(self.channel, reply, "a connection")
        ticket = reply.body.get("ticket")
        # Who listens where the server says gets the line of a ticket, and no other.
        if not isinstance(ticket, str) or not is_name(ticket):
            raise NotAServer(server=self.channel.name, why="its ticket makes no sense")
        sock, transport = self._connect()
        begun = threading.Event()
        if transport == TRANSPORT_TCP:
            sock = self._secure(sock, lambda: self._note_cut(pid) if begun.is_set() else None)
        try:
            sock.sendall(pack_ticket(ticket))
            answer = read_answer(sock, self._timeout_s)
        except OSError as error:
            sock.close()
            raise ServerLost(server=self.channel.name, why=reason(error)) from None
        if answer != OK:
            sock.close()
            raise ServerRefused(
                server=self.channel.name, why=answer.decode("utf-8", "replace").strip()
            )
        begun.set()
        sock.settimeout(None)
        linux.give_up_receiving(sock, max(WELCOME_S, self.lease_s))  # the proxy lifts it
        return sock, transport

    def _note_cut(self, pid: int) -> None:
        self.cut = f"the encrypted connection of process {pid} to {self.channel.name} was cut"

    def _secure(self, sock: socket.socket, cut: Callable[[], None]) -> socket.socket:
        """Encrypted, where one of us wants it. What stays on this machine needs no encryption.
        cut: to be called when the other end goes before the program does.
        """
        ours, theirs = self.channel.access.encrypt, str(self._data.get("encrypt", ""))
        if ALWAYS not in (ours, theirs):
            return sock
        from bitfusion.client import secure

        certificate, name = self.channel.certificate, self.channel.name
        try:
            secure.agree(ours, theirs, name)
            server = certificate.server if certificate else ""
            secured = secure.secure(sock, self.channel.access.ca, server, name, cut)
        except BitfusionError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise ServerLost(server=name, why=reason(error)) from None
        secured.settimeout(self._timeout_s)
        return secured

    def data_port(self) -> int:
        return port_of(self._data.get("tcp"))

    def _connect(self) -> tuple[socket.socket, int]:
        if self._transport != "tcp":
            try:
                return self._connect_here(), TRANSPORT_UNIX
            except OSError as error:
                if self._transport == "unix" or not self.data_port():
                    raise CannotReach(server=self.channel.name, why=reason(error)) from None
        address = (self.channel.host, self.data_port())
        try:
            sock = socket.create_connection(address, self._timeout_s)
        except OSError as error:
            server = f"{address[0]}:{address[1]}"
            raise CannotReach(server=server, why=reason(error)) from None
        linux.keep_alive(sock)
        return sock, TRANSPORT_TCP

    def _connect_here(self) -> socket.socket:
        """To the server's Unix socket, where it is the one that has its name here: tickets, and
        what is not encrypted, must not reach whoever else took the name.
        """
        here = linux.network_place()
        if not here or self._data.get("place") != here or "unix" not in self._data:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "it is not on this machine")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout_s)
            sock.connect(unix_address(str(self._data["unix"])))
            owner = self._data.get("uid")
            linux.expect_owner(sock, owner if isinstance(owner, int) else -1)
        except OSError:
            sock.close()
            raise
        return sock


def list_of_objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def port_of(value: object) -> int:
    """Of TCP; 0 for what is none."""
    return value if isinstance(value, int) and 0 < value < 1 << 16 else 0


def read_answer(sock: socket.socket, timeout_s: float) -> bytes:
    """One line and not a byte more: what follows is for the proxy."""
    answer, until_s = b"", time.monotonic() + timeout_s
    while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        byte = sock.recv(1)
        if not byte:
            break
        answer += byte
    return answer


def claim(
    channel: Channel, request: Json, asked: str, transport: str, timeout_s: float, listing: str
) -> Session:
    """Of a private server. listing: the command that shows this user what the server has."""
    reply = channel.request("POST", "/v1/sessions", request)
    if reply.status != 201:
        raise explain(channel, reply, asked, listing)
    return Session(channel, reply.body, transport, timeout_s)


def list_gpus(channel: Channel) -> list[Json]:
    reply = channel.request("GET", "/v1/gpus")
    if reply.status != 200:
        raise explain(channel, reply, "the list of GPUs")
    return list_of_objects(reply.body.get("gpus"))
