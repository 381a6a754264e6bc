# SPDX-License-Identifier: Apache-2.0
"""What a server tells and assumes about its clients, from its configuration."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from bitfusion import config, linux
from bitfusion.config import Config
from bitfusion.server.caller import Limits

MAX_ADDRESSES = 16  # that a client is told


def addresses_of(listening: tuple[str, int]) -> list[str]:
    """How clients reach a server that listens there.

    By an address, where it listens on all: many a machine's name is known to itself alone, and
    its resolver (nss-myhostname, systemd-resolved) makes up an answer that hides that.
    """
    host, port = listening
    wild = host in ("0.0.0.0", "::")
    ours = linux.own_address() or socket.gethostname()
    return [config.format_address((ours if wild else host, port))]


def default_limits(settings: Config) -> Limits:
    return Limits(
        settings.number("limits.gpus"),
        settings.number("limits.memory"),
        settings.seconds("limits.time"),
        settings.seconds("limits.idle"),
    )


def all_addresses(first: Iterable[str], others: Iterable[Iterable[str]]) -> list[str]:
    """Of a cluster, for a client that should reach it also when one server is down. The server
    that tells it comes first.
    """
    found = dict.fromkeys(first)
    for addresses in others:
        found.update(dict.fromkeys(addresses))
    return list(found)[:MAX_ADDRESSES]
