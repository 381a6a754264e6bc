# SPDX-License-Identifier: Apache-2.0
"""bitfusion version"""

from __future__ import annotations

import json
import sys

from bitfusion import __version__
from bitfusion.options import Option, Parsed, refuse_words
from bitfusion.wire.calls import CALLS
from bitfusion.wire.control import PROTOCOL, speaks

USAGE = "[--json]"
ABOUT = """\
Show the version, and what client and server must have the same: the protocol between them, and
the table of calls."""
OPTIONS = (Option(("--json",), "", "as JSON"),)
EXAMPLES = """\
examples:
  bitfusion version"""


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    if parsed.has("json"):
        sys.stdout.write(
            json.dumps({"version": __version__, "protocol": PROTOCOL, "calls": CALLS}) + "\n"
        )
    else:
        sys.stdout.write(f"bitfusion {__version__} ({speaks(PROTOCOL, CALLS)})\n")
    return 0
