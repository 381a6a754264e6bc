# SPDX-License-Identifier: Apache-2.0
"""What a server tells and assumes about its clients, from its configuration."""

from __future__ import annotations

import socket

from bitfusion import config
from bitfusion.config import Config
from bitfusion.server.caller import Limits


def addresses_of(listening: tuple[str, int]) -> list[str]:
    """How clients reach a server that listens there."""
    host, port = listening
    wild = host in ("0.0.0.0", "::")
    return [config.format_address((socket.gethostname() if wild else host, port))]


def default_limits(settings: Config) -> Limits:
    return Limits(
        settings.number("limits.gpus"),
        settings.number("limits.memory"),
        settings.seconds("limits.time"),
        settings.seconds("limits.idle"),
    )
