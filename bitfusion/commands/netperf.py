# SPDX-License-Identifier: Apache-2.0
"""bitfusion netperf: what the way to a GPU costs, measured with real driver calls."""

from __future__ import annotations

import json
import sys
import tempfile

from bitfusion import config
from bitfusion.client import netperf
from bitfusion.commands import run as run_command
from bitfusion.options import Option, Parsed, parse, parse_value, refuse_words
from bitfusion.values import parse_patience

USAGE = "[options]"
ABOUT = """\
Take a small slice of a GPU as a run does, and measure the time of calls that wait and the
bandwidth of copies. The transport and encryption count in."""
OPTIONS = (
    config.option("client.server_list"),
    config.option("client.driver"),
    config.option("client.transport"),
    Option(("-t", "--time"), "TIME", "how long to measure each thing (default: 1s)"),
    Option(("--json",), "", "as JSON"),
)
EXAMPLES = """\
examples:
  bitfusion netperf --server_list gpu01
  bitfusion netperf --transport tcp --time 5s --json"""
SLICE_MIB = 256
PASSED = ("server_list", "driver", "transport")


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    seconds = parse_value(parsed, "-t", parse_patience, parsed.text("time") or "1s")
    with tempfile.NamedTemporaryFile("r", prefix="bitfusion-netperf-") as file:
        words = ["-n", "1", "-m", str(SLICE_MIB)]
        for key in PASSED:
            if parsed.has(key):
                words += [f"--{key}", parsed.text(key) or ""]
        words += ["--", sys.executable, netperf.__file__, str(seconds), file.name]
        status = run_command.run(parse(parsed.verb, run_command.OPTIONS, words))
        found = json.load(file) if status == 0 else None
    if found is not None:
        as_json = json.dumps(found, indent=2) + "\n"
        sys.stdout.write(as_json if parsed.has("json") else show(found))
    return status


def show(found: dict[str, float]) -> str:
    """In the order of what matters to most programs."""
    lines = [
        f"a call that waits      {found['sync_us']:9.1f} us (99 %: {found['sync_p99_us']:.1f} us)",
        f"a download of 4 KiB    {found['download_4k_us']:9.1f} us",
    ]
    for name in ("upload", "download", "upload_pinned", "download_pinned"):
        label = name.replace("_", ", ")
        lines.append(f"{label:22} {found[f'{name}_bytes_per_s'] / 1e9:9.2f} GB/s")
    return "\n".join(lines) + "\n"
