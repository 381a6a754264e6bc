# SPDX-License-Identifier: Apache-2.0
"""What list_gpus and smi share: options, asking the pool, JSON, the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from bitfusion import config
from bitfusion.client.pool import Listed, as_json, query
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "[options]"
OPTIONS = (
    config.option("client.server_list"),
    config.option("client.driver"),
    Option(("--json",), "", "as JSON, one object per server"),
)


def run(parsed: Parsed, show: Callable[[Sequence[Listed]], str]) -> int:
    refuse_words(parsed)
    servers = query(config.load_client(parsed))
    if parsed.has("json"):
        text = json.dumps([as_json(server) for server in servers], indent=2) + "\n"
    else:
        text = show(servers)
    sys.stdout.write(text)
    return 1 if any(server.error for server in servers) else 0
