# SPDX-License-Identifier: Apache-2.0
"""bitfusion list_gpus: every GPU of the pool, and what is free."""

from __future__ import annotations

import json
import sys

from bitfusion import config
from bitfusion.client.pool import Listed, as_json, query
from bitfusion.options import Option, Parsed
from bitfusion.quantity import MIB

USAGE = "[--server_list HOST:PORT,…] [--json]"
ABOUT = """\
List the GPUs of the servers, with free and total memory. Where no server is configured, the GPUs
that a private
server would have."""
OPTIONS = (
    config.option("client.server_list"),
    config.option("client.driver"),
    Option(("--json",), "", "as JSON"),
)
EXAMPLES = """\
examples:
  bitfusion list_gpus
  bitfusion list_gpus --server_list gpu01:56001,gpu02:56001 --json"""


def run(parsed: Parsed) -> int:
    servers = query(config.load(config.client_files(), parsed, ("client", "softgpu")))
    if parsed.has("json"):
        sys.stdout.write(json.dumps([as_json(server) for server in servers], indent=2) + "\n")
    else:
        for number, server in enumerate(servers):
            sys.stdout.write(show(number, server))
    return 1 if any(server.error for server in servers) else 0


def show(number: int, server: Listed) -> str:
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
