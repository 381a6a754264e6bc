# SPDX-License-Identifier: Apache-2.0
"""bitfusion enroll: install a token's bundle."""

from __future__ import annotations

import sys

from bitfusion import paths
from bitfusion.client import enroll
from bitfusion.errors import UsageError
from bitfusion.options import Option, Parsed, take_words
from bitfusion.printable import as_lines

USAGE = "[--user | --system] [--force] BUNDLE"
ABOUT = """\
Install a bundle that 'bitfusion token create' wrote: for this machine, in /etc/bitfusion and
readable by members of the group 'bitfusion' (the default for root), or for this user, in
~/.bitfusion. Doing it again changes nothing."""
OPTIONS = (
    Option(("--user",), "", "for this user only"),
    Option(("--system",), "", "for this machine"),
    Option(("--force",), "", "replace settings that are there"),
)
EXAMPLES = """\
examples:
  bitfusion enroll alice.tar
  sudo bitfusion enroll --system lab.tar"""

MIXED = True


def run(parsed: Parsed) -> int:
    (path,) = take_words(parsed, "bundle")
    user, system = parsed.has("user"), parsed.has("system")
    if user and system:
        raise UsageError(
            verb=parsed.verb, why="options '--user' and '--system' exclude each other"
        )
    given = enroll.read_bundle(path)
    whole = system or (paths.is_root() and not user)
    place = enroll.system_place() if whole else enroll.user_place()
    changed = enroll.enroll(given, place, parsed.has("force"))
    what = "enrolled as" if changed else "nothing to do: this is already"
    sys.stdout.write(as_lines([f"{what} client '{given.client}' in {place.folder}"]))
    return 0
