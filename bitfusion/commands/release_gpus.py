# SPDX-License-Identifier: Apache-2.0
"""bitfusion release_gpus: give back what request_gpus holds."""

from __future__ import annotations

from collections.abc import Sequence

from bitfusion.client import reservation
from bitfusion.errors import NoReservation, UsageError
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "[-f FILE | --all]"
ABOUT = """\
Give the GPUs of 'request_gpus' back. Programs that still use them lose them."""
OPTIONS = (
    Option(("-f", "--file"), "FILE", "the reservation (default: this user's only one)"),
    Option(("--all",), "", "all reservations of this user"),
)
EXAMPLES = """\
examples:
  bitfusion release_gpus
  bitfusion release_gpus -f /tmp/bitfusion123456789"""


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    if parsed.has("all") and parsed.has("file"):
        raise UsageError(verb=parsed.verb, why="options '-f' and '--all' exclude each other")
    if parsed.has("all"):
        held, left = reservation.ours()
        for path in held:
            reservation.release(path, reservation.read(path))
        forget(left)
        return 0
    given = parsed.text("file")
    left = reservation.ours()[1] if given is None else [given]
    try:
        reservation.release(*reservation.choose(given))
    except NoReservation:  # says what became of them, for the last time
        forget(left)
        raise
    return 0


def forget(files: Sequence[str]) -> None:
    for path in files:
        reservation.forget(path)
