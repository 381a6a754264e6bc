# SPDX-License-Identifier: Apache-2.0
"""bitfusion smi: a table like nvidia-smi's, of the pool."""

from __future__ import annotations

from collections.abc import Sequence

from bitfusion import __version__
from bitfusion.client.pool import Listed, Row
from bitfusion.commands import listing
from bitfusion.options import Parsed
from bitfusion.quantity import MIB

USAGE = listing.USAGE
ABOUT = """\
Show the GPUs of the servers with the memory that sessions hold, and the sessions. Where no server
is configured, the GPUs that a private server would have."""
OPTIONS = listing.OPTIONS
EXAMPLES = """\
examples:
  bitfusion smi
  bitfusion smi --server_list gpu01:56001 --json"""

WIDTH = 77
RULE = "+" + "-" * WIDTH + "+"
HEAVY = "|" + "=" * WIDTH + "|"


def run(parsed: Parsed) -> int:
    return listing.run(parsed, show)


def cell(text: str) -> str:
    text = text if len(text) <= WIDTH - 2 else text[: WIDTH - 5] + "..."
    return f"| {text:{WIDTH - 2}} |"


def show(servers: Sequence[Listed]) -> str:
    return "".join(f"{line}\n" for server in servers for line in show_server(server))


def show_server(server: Listed) -> list[str]:
    lines = [
        RULE,
        cell(f"Bitfusion {__version__}   {server.name}   server version {server.version or '-'}"),
        RULE,
    ]
    if server.error:
        return [*lines, cell(server.error), RULE]
    lines += [cell(f"{'GPU':>3}  {'Name':32} {'Memory held':>24}   {'Sessions':>8}"), HEAVY]
    lines += [show_gpu(gpu) for gpu in server.gpus]
    lines += [
        RULE,
        cell(f"{'GPU':>3}  {'Session':32} {'Used / slice':>24}   {'Processes':>9}"),
        HEAVY,
    ]
    held = [show_session(gpu, session) for gpu in server.gpus for session in gpu.sessions]
    return lines + (held or [cell("no running sessions")]) + [RULE]


def show_gpu(gpu: Row) -> str:
    memory = f"{(gpu.memory - gpu.free) // MIB}MiB / {gpu.memory // MIB}MiB"
    return cell(f"{gpu.number:>3}  {gpu.name[:32]:32} {memory:>24}   {len(gpu.sessions):>8}")


def show_session(gpu: Row, session: dict[str, object]) -> str:
    used, memory = session.get("used"), session.get("memory")
    assert isinstance(used, int) and isinstance(memory, int)
    text = f"{used // MIB}MiB / {memory // MIB}MiB"
    return cell(
        f"{gpu.number:>3}  {str(session.get('session'))[:32]:32} {text:>24}   "
        f"{session.get('processes')!s:>9}"
    )
