# SPDX-License-Identifier: Apache-2.0
"""What a server tells and assumes about its clients, from its configuration."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from bitfusion import config, linux
from bitfusion.config import Config
from bitfusion.server.caller import Limits

MAX_ADDRESSES = 16  # that a client is told


def addresses_of(listening: tuple[str, int]) -> list[str]:
    """How clients reach a server that listens there."""
    host, port = listening
    wild = host in ("0.0.0.0", "::")
    return [config.format_address((own_name() if wild else host, port))]


def own_name() -> str:
    """This machine's name where it stands for an address that others can reach; else an address.

    Many a machine's name is known to itself alone, for which it is an address of loopback.
    """
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = [ipaddress.ip_address(str(where[0])) for *_kind, where in found]
    if any(not address.is_loopback and not address.is_link_local for address in addresses):
        return name
    return linux.own_address() or name


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
