# SPDX-License-Identifier: Apache-2.0
"""bitfusion completion: what a shell needs to complete our commands."""

from __future__ import annotations

import sys

from bitfusion.errors import UsageError
from bitfusion.options import Option, Parsed, take_words

USAGE = "bash|zsh|fish"
ABOUT = """\
Print the completion of commands and options for a shell. The packages install it; elsewhere, let
the shell read it when it starts."""
OPTIONS: tuple[Option, ...] = ()
EXAMPLES = """\
examples:
  source <(bitfusion completion bash)
  bitfusion completion fish > ~/.config/fish/completions/bitfusion.fish"""


def run(parsed: Parsed) -> int:
    from bitfusion.manual import MAKERS

    (shell,) = take_words(parsed, "shell")
    if shell not in MAKERS:
        raise UsageError(verb=parsed.verb, why=f"'{shell}' is none of {', '.join(MAKERS)}")
    sys.stdout.write(MAKERS[shell]())
    return 0
