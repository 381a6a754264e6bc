# SPDX-License-Identifier: Apache-2.0
"""bitfusion client: run a program on GPUs that are held already."""

from __future__ import annotations

import os

from bitfusion.client import launcher, program, reservation
from bitfusion.client.hub import Watch
from bitfusion.client.remote import oversee
from bitfusion.commands.run import words_of
from bitfusion.options import Option, Parsed

USAGE = "[-f FILE] [--] program [args]"
ABOUT = """\
Run a program on the GPUs of 'request_gpus'. Any number of programs may use them, one after the
other or at once; they share the slice of memory."""
OPTIONS = (Option(("-f", "--file"), "FILE", "the reservation (default: this user's only one)"),)
EXAMPLES = """\
examples:
  bitfusion client -- python3 train.py
  bitfusion client -f /tmp/bitfusion123456789 "python3 train.py --epochs 3\""""


def run(parsed: Parsed) -> int:
    words = words_of(parsed)
    _path, held = reservation.choose(parsed.text("file"))
    path = program.find(words[0], dict(os.environ))
    environment = launcher.environment_for(held.software, held.gpus, held.socket, dict(os.environ))
    status = oversee(
        lambda: program.Program(path, words, environment), lambda tell: Watch(held.events, tell)
    )
    return program.end_like(status)
