# SPDX-License-Identifier: Apache-2.0
"""bitfusion kill: end a session; for operators."""

from __future__ import annotations

import sys

from bitfusion import config
from bitfusion.client import admin
from bitfusion.errors import UsageError
from bitfusion.options import Option, Parsed, take_words
from bitfusion.wire.control import is_name

USAGE = "[options] SESSION"
ABOUT = """\
End a session, whoever has it. Its client is told and ends its program in order, which takes ten
seconds at most; the run's exit status is 122. For operators: on the server's machine, or with a
token that has the right."""
OPTIONS = (
    Option(("--config",), "FILE", "the server's settings (default: /etc/bitfusion/server.toml)"),
    config.option("server.state_dir"),
)
MIXED = True
EXAMPLES = """\
examples:
  bitfusion kill 5d344a39d6af9124
  bitfusion kill 5d344a39d6af9124 --config ./server.toml"""


def run(parsed: Parsed) -> int:
    (session,) = take_words(parsed, "session")
    if not is_name(session):
        raise UsageError(verb=parsed.verb, why=f"'{session}' is no session's name")
    client = config.load_without_servers(None)
    channel = admin.open_admin(config.load_server(parsed), client, offline=False)
    try:
        admin.ask(channel, "DELETE", f"/v1/sessions/{session}")
    finally:
        channel.close()
    sys.stdout.write(f"session {session} ends\n")
    return 0
