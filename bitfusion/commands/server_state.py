# SPDX-License-Identifier: Apache-2.0
"""bitfusion server drain, undrain and stop: for operators, about a server that runs."""

from __future__ import annotations

import sys

from bitfusion import config
from bitfusion.client import admin
from bitfusion.errors import NoServer, NotRunning, UsageError
from bitfusion.options import Command, Option, Parsed, refuse_words
from bitfusion.printable import as_lines
from bitfusion.quantity import plural
from bitfusion.wire.control import THIS, Json

CONFIG = Option(("--config",), "FILE", "settings (default: /etc/bitfusion/server.toml)")
NOW = Option(("--now",), "", "end its sessions as well, after a warning to their clients")
OPTIONS = (CONFIG, config.option("server.state_dir"))


def _ask(parsed: Parsed, what: str, server: str = THIS) -> tuple[str, str]:
    """Which server it was, and how many sessions run on, in words."""
    client = config.load_without_servers(None)
    here = server == THIS
    settings = config.load_server(parsed)
    try:
        channel = admin.open_admin(settings, client, offline=False, network=not here)
    except (NoServer, NotRunning) as error:
        if here and what != "stop":
            error.hint = f"'bitfusion server {what} SERVER' asks for one of the network"
        raise
    try:
        now: Json = {"now": parsed.has("now")}
        body = admin.ask(channel, "POST", f"/v1/servers/{server}/{what}", now)
    finally:
        channel.close()
    count = body.get("sessions")
    return str(body.get("name")), plural(count if isinstance(count, int) else 0, "session")


def _which(parsed: Parsed) -> str:
    refuse_words(parsed, 1)
    server = parsed.words[0] if parsed.words else THIS
    if not server or not all(c.isascii() and (c.isalnum() or c in ".:-_[]") for c in server):
        raise UsageError(verb=parsed.verb, why=f"'{server}' is no server's ID, name or address")
    return server


def drain(parsed: Parsed) -> int:
    name, sessions = _ask(parsed, "drain", _which(parsed))
    then = "ended now" if parsed.has("now") else "may go on"
    sys.stdout.write(as_lines([f"drained {name}: it gets no new sessions; {sessions} {then}"]))
    return 0


def undrain(parsed: Parsed) -> int:
    name, _sessions = _ask(parsed, "undrain", _which(parsed))
    sys.stdout.write(as_lines([f"{name} is in service again"]))
    return 0


def stop(parsed: Parsed) -> int:
    refuse_words(parsed)
    name, sessions = _ask(parsed, "stop")
    wait = "" if parsed.has("now") else f"; {sessions} left for the next server"
    sys.stdout.write(as_lines([f"stopping {name}{wait}"]))
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
