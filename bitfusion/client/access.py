# SPDX-License-Identifier: Apache-2.0
"""How servers are approached, as the configuration says."""

from __future__ import annotations

from typing import NamedTuple

from bitfusion.config import Config
from bitfusion.errors import ConfigError
from bitfusion.values import AUTO


class Access(NamedTuple):
    """By TLS and with a token, or in clear text."""

    ca: str = ""  # file
    token: str = ""  # NAME:SECRET
    encrypt: str = AUTO  # data connections


CLEAR = Access()


def access(settings: Config) -> Access:
    texts = (settings.text(f"client.{key}") for key in ("ca", "token", "encrypt"))
    wanted = Access(*texts)
    if wanted.token and not wanted.ca:
        raise ConfigError(
            place=settings.origins["client.token"],
            why="the token would be sent in clear text: 'ca' is missing",
            hint="'bitfusion enroll BUNDLE' installs both",
        )
    return wanted
