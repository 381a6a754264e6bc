# SPDX-License-Identifier: Apache-2.0
"""What list_gpus and smi share: options, asking the pool, JSON, the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from bitfusion import config, log
from bitfusion.client.pool import Overview, as_json, failed, nonsense, query
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "[options]"
OPTIONS = (
    config.option("client.server_list"),
    config.option("client.driver"),
    Option(("--json",), "", "as JSON"),
)


def run(parsed: Parsed, show: Callable[[Overview], str], live: bool = False) -> int:
    refuse_words(parsed)
    overview = query(config.load_client(parsed), live)
    if overview.trouble:
        log.warn(f"{overview.trouble}: this is what was known before")
    if parsed.has("json"):
        text = json.dumps(as_json(overview), indent=2) + "\n"
    else:
        text = shown(overview, show)
    sys.stdout.write(text)
    return 1 if failed(overview.servers) else 0


def shown(overview: Overview, show: Callable[[Overview], str]) -> str:
    try:
        return show(overview)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise nonsense(", ".join(server.name for server in overview.servers)) from None
