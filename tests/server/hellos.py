# SPDX-License-Identifier: Apache-2.0
"""What a client of TLS says first."""

from __future__ import annotations

import ssl


def hello() -> bytes:
    """A whole one."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("nobody answered")
