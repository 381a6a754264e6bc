# SPDX-License-Identifier: Apache-2.0
"""Data connections by TLS: the proxy knows nothing of it and gets one end of a pair of sockets; a
thread of the launcher carries what goes through the other.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from bitfusion import certificates, linux, log, pump
from bitfusion.client.trust import not_trusted
from bitfusion.errors import ConfigError, ServerRefused
from bitfusion.values import ALWAYS, NEVER


def agree(ours: str, theirs: str, server: str) -> bool:
    """Whether data is encrypted; raises where the two exclude each other. theirs: "" of a server
    in clear text.
    """
    if ours == ALWAYS and theirs in ("", NEVER):
        why = "it speaks clear text" if not theirs else "its data is never encrypted"
        raise ServerRefused(server=server, why=f"{why}, and 'encrypt' is 'always' here")
    if ours == NEVER and theirs == ALWAYS:
        why = "its data is always encrypted, and 'encrypt' is 'never' here"
        raise ServerRefused(server=server, why=why)
    return ALWAYS in (ours, theirs)


def secure(
    sock: socket.socket,
    ca: str,
    server_id: str,
    name: str,
    cut: Callable[[], None] = lambda: None,
) -> socket.socket:
    """A socket in clear text for one of TLS with that server, whose ID the control plane told.
    cut: to be called when the server's end goes first.
    """
    if not ca:
        raise ConfigError(place=name, why="encryption needs 'ca'", hint="see 'bitfusion enroll'")
    try:
        secured = pump.secure(certificates.client_context(ca), sock)
    except ssl.SSLError as error:
        raise not_trusted(name, certificates.explain(error), ca) from None
    try:
        if certificates.examine(secured.getpeercert()).server != server_id:
            raise certificates.NotOurs("it is another server of the cluster")
    except certificates.NotOurs as error:
        secured.close()
        raise not_trusted(name, str(error), ca) from None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    cipher = secured.cipher()
    log.info(f"encrypting a connection with {name}: {secured.version()} {(cipher or '-')[0]}")
    relay = pump.Pump(secured, ours, cut)
    linux.start_thread(threading.Thread(target=relay.run, name="relay", daemon=True))
    return theirs
