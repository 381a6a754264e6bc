# SPDX-License-Identifier: Apache-2.0
"""bitfusion server drain, undrain and stop: for operators, about a server that runs."""

from __future__ import annotations

import sys

from bitfusion import config
from bitfusion.client import admin
from bitfusion.errors import UsageError
from bitfusion.options import Command, Option, Parsed
from bitfusion.quantity import plural
from bitfusion.wire.control import Json

CONFIG = Option(("--config",), "FILE", "settings (default: /etc/bitfusion/server.toml)")
NOW = Option(("--now",), "", "end its sessions as well, after a warning to their clients")
OPTIONS = (CONFIG, config.option("server.state_dir"))


def _ask(parsed: Parsed, what: str) -> str:
    """Returns how many sessions run on, in words."""
    if len(parsed.words) > 1:
        raise UsageError(verb=parsed.verb, why=f"unexpected word '{parsed.words[1]}'")
    server = parsed.words[0] if parsed.words else "this"
    client = config.load_without_servers(None)
    channel = admin.open_admin(config.load_server(parsed), client, offline=False)
    try:
        now: Json = {"now": parsed.has("now")}
        body = admin.ask(channel, "POST", f"/v1/servers/{server}/{what}", now)
    finally:
        channel.close()
    count = body.get("sessions")
    return plural(count if isinstance(count, int) else 0, "session")


def drain(parsed: Parsed) -> int:
    sessions = _ask(parsed, "drain")
    then = "ended now" if parsed.has("now") else "may go on"
    sys.stdout.write(f"drained: it gets no new sessions; {sessions} {then}\n")
    return 0


def undrain(parsed: Parsed) -> int:
    _ask(parsed, "undrain")
    sys.stdout.write("in service again\n")
    return 0


def stop(parsed: Parsed) -> int:
    sessions = _ask(parsed, "stop")
    wait = "" if parsed.has("now") else f"; {sessions} left for the next server"
    sys.stdout.write(f"stopping{wait}\n")
    return 0


DRAIN = Command(
    "[SERVER] [--now]",
    "Give a server no new sessions; those that it has run on. SERVER is its ID, name or address, "
    "this machine's where none is given.",
    (NOW, *OPTIONS),
    "examples:\n  bitfusion server drain\n  bitfusion server drain gpu02 --now",
    drain,
    mixed=True,
)
UNDRAIN = Command(
    "[SERVER]",
    "Give a drained server new sessions again.",
    OPTIONS,
    "examples:\n  bitfusion server undrain",
    undrain,
    mixed=True,
)
STOP = Command(
    "[--now]",
    "Stop this machine's server. Its sessions wait for the next one, as for an upgrade.",
    (NOW, *OPTIONS),
    "examples:\n  bitfusion server stop\n  bitfusion server stop --now",
    stop,
    mixed=True,
)
