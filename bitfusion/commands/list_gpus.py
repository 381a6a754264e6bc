# SPDX-License-Identifier: Apache-2.0
"""bitfusion list_gpus: every GPU of the pool, and what is free."""

from __future__ import annotations

from collections.abc import Sequence

from bitfusion.client.pool import Listed
from bitfusion.commands import listing
from bitfusion.options import Parsed
from bitfusion.quantity import MIB

USAGE = listing.USAGE
ABOUT = """\
List the GPUs of the servers, with free and total memory. Where no server is configured, the GPUs
that a private server would have."""
OPTIONS = listing.OPTIONS
EXAMPLES = """\
examples:
  bitfusion list_gpus
  bitfusion list_gpus --server_list gpu01:56001,gpu02:56001 --json"""


def run(parsed: Parsed) -> int:
    return listing.run(parsed, show)


def show(servers: Sequence[Listed]) -> str:
    return "".join(show_server(number, server) for number, server in enumerate(servers))


def show_server(number: int, server: Listed) -> str:
    if server.error:
        return f"- server {number} [{server.name}]: {server.error}\n"
    tasks = {held["session"] for gpu in server.gpus for held in gpu.sessions}
    lines = [f"- server {number} [{server.name}]: running {len(tasks)} tasks"]
    for gpu in server.gpus:
        lines.append(
            f"   |- GPU {gpu.number}: free memory {gpu.free // MIB} MiB / {gpu.memory // MIB} MiB"
            f"  {gpu.name}"
        )
    return "\n".join(lines) + "\n"
