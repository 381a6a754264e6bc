# SPDX-License-Identifier: Apache-2.0
"""TLS as both ends of a cluster speak it: version 1.3, and certificates of the cluster's own CA.

A server is known by its CA, its role and its ID, which its certificate names; not by the address
it was reached at, since addresses of servers change and machines have several.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import NamedTuple, Optional

from bitfusion.errors import ConfigError

ORGANIZATION = "Bitfusion"
CLUSTER, SERVER = "cluster", "server"  # the organizational unit says which
EXPIRY_WARNING_S = 30 * 86400.0

EXPIRED, NOT_YET = 10, 9  # OpenSSL's X509_V_ERR_ numbers
FOREIGN = (7, 18, 19, 20, 21)
CLEAR_TEXT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


class Certificate(NamedTuple):
    """Of a server."""

    server: str  # its ID
    expires_s: float  # since the epoch


class NotOurs(Exception):
    """A certificate of the cluster, but not a server's."""


def client_context(ca: str) -> ssl.SSLContext:
    """Trusts servers of the cluster that this file tells, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # see above
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise ConfigError(place=ca, why="it holds no certificate") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError(place=ca, why=why, hint="client.ca names that file") from None
    return context


def forget_errors() -> None:
    """To be called when a connection of TLS failed, and its thread goes on with others.

    OpenSSL keeps errors for each thread, and Python may leave one there (since 3.12, of a broken
    pipe): the next connection that waits for something is then said to be broken.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("none")
    except ssl.SSLError:
        pass  # Python clears them before it says that there is no such cipher


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a control connection never speaks unasked: readable means lost
    context.load_cert_chain(certificate, key)
    return context


def examine(told: Optional[Mapping[str, object]]) -> Certificate:
    """What getpeercert() tells of a verified certificate; raises NotOurs."""
    names: dict[str, str] = {}
    subject, expires = (told or {}).get("subject"), (told or {}).get("notAfter")
    for part in subject if isinstance(subject, tuple) else ():
        names.update(part)
    if (
        names.get("organizationName") != ORGANIZATION
        or names.get("organizationalUnitName") != SERVER
    ):
        raise NotOurs("its certificate is not that of a server")
    return Certificate(names.get("commonName", ""), ssl.cert_time_to_seconds(str(expires)))


def inspect(server: ssl.SSLContext, client: ssl.SSLContext) -> Certificate:
    """What such a client finds of such a server, by a handshake in memory: the certificate is read
    and judged by the code that clients use. Raises ssl.SSLError or NotOurs.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # one flight each way, and one more to be sure
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return examine(ours.getpeercert())


def authority_expires_s(context: ssl.SSLContext) -> float:
    """When the last CA that a client's context trusts expires."""
    ends = [ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in context.get_ca_certs()]
    return max(ends, default=0.0)


def cluster_id(ca: str) -> str:
    """The name of a cluster for programs: 16 digits of its CA's fingerprint."""
    with open(ca) as file:
        return hashlib.sha256(
            ssl.PEM_cert_to_DER_cert(first_certificate(file.read()))
        ).hexdigest()[:16]


def first_certificate(text: str) -> str:
    """Of a file that may hold several."""
    end = "-----END CERTIFICATE-----"
    start = max(0, text.find("-----BEGIN CERTIFICATE-----"))
    return text[start:].partition(end)[0] + end


def explain(error: ssl.SSLError) -> str:
    """Why there is no connection, in a few words."""
    code = getattr(error, "verify_code", None)
    if code == EXPIRED:
        return "its certificate has expired"
    if code == NOT_YET:
        return "its certificate is not valid yet: do the clocks of both machines agree?"
    if code in FOREIGN:
        return "its certificate is of another cluster"
    if code is not None:
        return f"its certificate is not acceptable: {getattr(error, 'verify_message', '')}"
    if isinstance(error, ssl.SSLEOFError):
        return "it ended the connection"
    if error.reason in CLEAR_TEXT:
        return "it speaks clear text where TLS is expected"
    return f"no TLS with it: {(error.reason or str(error)).replace('_', ' ').lower()}"
