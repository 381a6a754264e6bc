# SPDX-License-Identifier: Apache-2.0
"""bitfusion version"""

from __future__ import annotations

import json
import sys

from bitfusion import __version__
from bitfusion.options import Option, Parsed, refuse_words
from bitfusion.wire.control import PROTOCOL

USAGE = "[--json]"
ABOUT = "Show the version, and the version of the protocol between client and server."
OPTIONS = (Option(("--json",), "", "as JSON"),)
EXAMPLES = """\
examples:
  bitfusion version"""


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    if parsed.has("json"):
        sys.stdout.write(json.dumps({"version": __version__, "protocol": PROTOCOL}) + "\n")
    else:
        sys.stdout.write(f"bitfusion {__version__} (protocol {PROTOCOL})\n")
    return 0
