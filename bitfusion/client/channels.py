# SPDX-License-Identifier: Apache-2.0
"""Control connections: to a private server one line of JSON each way, to one on the network HTTP,
with TLS where there is a certificate to check it by.
"""

from __future__ import annotations

import json
import select
import socket
from typing import TYPE_CHECKING, Optional, Protocol

from bitfusion.client.access import CLEAR, Access
from bitfusion.errors import (
    AccessDenied,
    NotAServer,
    NotTrusted,
    ServerLost,
    reason,
)
from bitfusion.wire.control import (
    CLEAR_TEXT,
    SECRET_HEADER,
    Json,
    Reply,
    pack_line,
    unpack_object,
)

if TYPE_CHECKING:
    from bitfusion.certificates import Certificate
    from bitfusion.client.trust import Seen

MAX_REPLY = 16 << 20


class Channel(Protocol):
    name: str
    host: str
    address: tuple[str, int]
    access: Access
    certificate: Optional[Certificate]  # what TLS proved about the server

    def fileno(self) -> int: ...
    def request(
        self, method: str, path: str, body: Optional[Json] = None, secret: str = ""
    ) -> Reply: ...
    def close(self) -> None: ...


class LineChannel:
    """To a private server: one line of JSON each way."""

    def __init__(
        self, sock: socket.socket, timeout_s: float, name: str = "private server"
    ) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.address = (self.host, 0)
        self.access = CLEAR
        self.certificate: Optional[Certificate] = None
        self._socket = sock
        self._timeout_s = timeout_s

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(
        self, method: str, path: str, body: Optional[Json] = None, secret: str = ""
    ) -> Reply:
        self._socket.settimeout(self._timeout_s)
        try:
            call: Json = {"method": method, "path": path, "body": body or {}}
            if secret:
                call["secret"] = secret
            self._socket.sendall(pack_line(call))
            value = unpack_object(self._read_line())
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise ServerLost(server=self.name, why=why) from None
        status, answer = value.get("status"), value.get("body")
        assert isinstance(status, int) and isinstance(answer, dict)
        return Reply(status, answer)

    def _read_line(self) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            part = self._socket.recv(65536)
            if not part or len(data) > MAX_REPLY:
                raise ConnectionError("it ended")
            data += part
        return data

    def close(self) -> None:
        self._socket.close()


class HttpChannel:
    """To a server on the network."""

    def __init__(
        self,
        address: tuple[str, int],
        name: str,
        timeout_s: float,
        access: Access = CLEAR,
        seen: Optional[Seen] = None,
    ) -> None:
        """seen: as of trust.connect."""
        from bitfusion.client import trust  # and with it http.client: a private run needs neither

        self.name = name
        self.host = address[0]
        self.address = address
        self.access = access
        self._broken = trust.BROKEN
        self._answered = False
        self._timeout_s = timeout_s
        self._connection, self.certificate = trust.connect(
            address, name, timeout_s, access, seen or trust.ignore
        )

    def fileno(self) -> int:
        return self._connection.sock.fileno() if self._connection.sock else -1

    def request(
        self, method: str, path: str, body: Optional[Json] = None, secret: str = ""
    ) -> Reply:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data else {}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        if secret:
            headers[SECRET_HEADER] = secret
        self._connection.auto_open = 0  # a new connection would not own our session
        self.be_patient(self._timeout_s)  # of which the answer before has taken some
        try:
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
            text = response.read(MAX_REPLY)
        except OSError as error:
            if self.certificate is not None:
                from bitfusion import certificates

                certificates.forget_errors()
            failure = ServerLost if self._answered else NotAServer
            raise failure(server=self.name, why=reason(error)) from None
        except self._broken:
            raise NotAServer(server=self.name, why="it does not speak HTTP") from None
        self._answered = True
        try:
            reply = Reply(response.status, unpack_object(text))
        except ValueError:
            why = "its answer is not JSON that makes sense"
            raise NotAServer(server=self.name, why=why) from None
        if kind_of(reply)[0] == CLEAR_TEXT:
            raise NotTrusted(
                server=self.name,
                why="it speaks TLS, and no 'ca' is configured here",
                hint=AccessDenied.hint,
            )
        return reply

    def be_patient(self, timeout_s: float) -> None:
        """Wait so long for each answer from now on."""
        self._timeout_s = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)

    def close(self) -> None:
        self._connection.close()


def kind_of(reply: Reply) -> tuple[str, str]:
    """Kind and text of a failure."""
    error = reply.body.get("error")
    if isinstance(error, dict):
        return str(error.get("kind", "")), str(error.get("text", ""))[:300]
    return "", f"status {reply.status}"


def is_dead(channel: Channel) -> bool:
    """Whether the other end has hung up; without reading what it may have said."""
    fd = channel.fileno()
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))
