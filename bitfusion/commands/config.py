# SPDX-License-Identifier: Apache-2.0
"""bitfusion config: every setting, its value and where it comes from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bitfusion import config
from bitfusion.config import Config
from bitfusion.options import Option, Parsed, refuse_words
from bitfusion.settings import CLIENT_SECTIONS, SERVER_SECTIONS, SETTINGS

USAGE = "[--show] [--config FILE] [--json]"
ABOUT = """\
Show every setting of clients and of a server on this machine: its value, and the file and line,
environment variable or default that it comes from. Secrets are masked. Files with mistakes are
told with the line."""
OPTIONS = (
    Option(("--show",), "", "show the settings (what it does anyway)"),
    Option(("--config",), "FILE", "the server's (default: /etc/bitfusion/server.toml)"),
    Option(("--json",), "", "as JSON, by role and name"),
)
EXAMPLES = """\
examples:
  bitfusion config --show
  bitfusion config --json --config ./server.toml"""


class Role(NamedTuple):
    """A set of settings that is read together."""

    name: str
    files: Sequence[str]
    settings: Config
    sections: Sequence[str]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Name, value, origin of each."""
        for setting in SETTINGS:
            if setting.name.partition(".")[0] in self.sections:
                origin = self.settings.origins[setting.name]
                yield setting.name, self.settings.shown(setting.name), origin


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    client, server = config.client_files(), config.server_files(parsed.text("config"))
    roles = (
        Role("client", client, config.load_client(None), CLIENT_SECTIONS),
        Role("server", server, config.load(server, None, SERVER_SECTIONS), SERVER_SECTIONS),
    )
    sys.stdout.write(as_json(roles) if parsed.has("json") else "\n".join(map(show, roles)))
    return 0


def show(role: Role) -> str:
    rows = list(role.rows())
    name_width = max(len(name) for name, _, _ in rows)
    width = max(len(value) for _, value, _ in rows)
    lines = [f"# {role.name}"]
    for path in role.files:
        lines.append(f"# {path}{'' if os.path.exists(path) else ' (not there)'}")
    lines += [f"{n:{name_width}}  {v or '-':{width}}  {origin}" for n, v, origin in rows]
    return "\n".join(lines) + "\n"


def as_json(roles: Sequence[Role]) -> str:
    value = {
        role.name: {name: {"value": v, "origin": origin} for name, v, origin in role.rows()}
        for role in roles
    }
    return json.dumps(value, indent=2) + "\n"
