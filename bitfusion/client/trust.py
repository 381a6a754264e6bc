# SPDX-License-Identifier: Apache-2.0
"""Connections of HTTP to servers: in clear text, or by TLS to servers of one cluster only."""

from __future__ import annotations

import errno
import http.client
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Optional

from bitfusion import linux, log
from bitfusion.client.answer import Answer
from bitfusion.errors import CannotReach, NotTrusted, ServerNotReady, reason
from bitfusion.quantity import plural
from bitfusion.wire.control import NO_ROOM

if TYPE_CHECKING:
    import ssl

    from bitfusion.certificates import Certificate
    from bitfusion.client.access import Access

DAY_S, HOUR_S = 86400.0, 3600.0
RESET = "something is there and ended the connection: its log may say why"
FULL = "TLSV1_ALERT_INTERNAL_ERROR"  # what a server says in place of a handshake
BROKEN = (http.client.HTTPException, ValueError)  # the latter of a chunk of less than nothing


class Connected(NamedTuple):
    connection: http.client.HTTPConnection
    certificate: Optional[Certificate]  # what TLS proved about the server


Seen = Callable[[socket.socket], None]


def ignore(_sock: socket.socket) -> None: ...


def connect(
    address: tuple[str, int], name: str, timeout_s: float, access: Access, seen: Seen = ignore
) -> Connected:
    """Raises CannotReach, NotTrusted or ServerNotReady. seen: gets each socket before it is
    connected, so that another thread may hang up.
    """
    if access.ca:
        return _connect_by_tls(address, name, timeout_s, access.ca, seen)
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    connection.response_class = Answer
    try:
        connection.sock = open_socket(address, timeout_s, seen)
    except OSError as error:
        raise unreachable(name, error) from None
    return Connected(connection, None)


def open_socket(address: tuple[str, int], timeout_s: float, seen: Seen) -> socket.socket:
    failure: Optional[OSError] = None
    for family, kind, protocol, _name, where in socket.getaddrinfo(
        *address, type=socket.SOCK_STREAM
    ):
        sock: Optional[socket.socket] = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(timeout_s)
            seen(sock)
            sock.connect(where)
            linux.keep_alive(sock)
            return sock
        except OSError as error:
            failure = error
            if sock is not None:
                sock.close()
    raise failure or OSError("its name has no address")


def unreachable(name: str, error: OSError) -> CannotReach:
    hint = RESET if error.errno == errno.ECONNRESET else ""
    return CannotReach(hint, server=name, why=reason(error))


def _connect_by_tls(
    address: tuple[str, int], name: str, timeout_s: float, ca: str, seen: Seen
) -> Connected:
    import ssl

    from bitfusion import certificates

    context = certificates.client_context(ca)
    connection = http.client.HTTPSConnection(*address, timeout=timeout_s, context=context)
    connection.response_class = Answer
    try:
        sock = open_socket(address, timeout_s, seen)
        connection.sock = context.wrap_socket(sock, server_hostname=address[0])
        certificate = certificates.examine(connection.sock.getpeercert())
    except ssl.SSLError as error:
        if error.reason == FULL:
            raise ServerNotReady(server=name, why=NO_ROOM) from None
        raise not_trusted(name, certificates.explain(error), ca) from None
    except certificates.NotOurs as error:
        connection.close()
        raise not_trusted(name, str(error), ca) from None
    except OSError as error:
        certificates.forget_errors()
        raise unreachable(name, error) from None
    _warn_of_expiry(name, certificate, context)
    return Connected(connection, certificate)


def not_trusted(name: str, why: str, ca: str) -> NotTrusted:
    if "expired" in why:
        hint = "servers renew their certificates while they run: its log says why this one did not"
    elif "clear text" in why:
        hint = "has it keys ('bitfusion server init')? Without 'ca' we would speak clear text too"
    else:
        hint = f"is it a server of the cluster whose certificate is in '{ca}'?"
    return NotTrusted(server=name, why=why, hint=hint)


def _warn_of_expiry(name: str, certificate: Certificate, context: ssl.SSLContext) -> None:
    from bitfusion import certificates

    ends = (
        (f"the certificate of server '{name}'", certificate.expires_s),
        ("the cluster's own certificate", certificates.authority_expires_s(context)),
    )
    for what, expires_s in ends:
        warn_of_expiry(what, expires_s - time.time(), "tell an operator")


def warn_of_expiry(what: str, left_s: float, remedy: str) -> None:
    """A month before something ends that would keep everybody out."""
    from bitfusion.certificates import EXPIRY_WARNING_S

    if left_s < EXPIRY_WARNING_S:
        days, hours = int(left_s // DAY_S), max(0, int(left_s // HOUR_S))
        left = plural(days, "day") if days > 1 else plural(hours, "hour")
        log.once(f"{what} expires in {left}: {remedy}")
