# SPDX-License-Identifier: Apache-2.0
"""The verbs; the only place that prints an error or ends the process."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bitfusion import linux
from bitfusion.errors import BitfusionError, SystemFailure, UnknownVerb, UsageError
from bitfusion.options import HELP, describe, parse

VERBS = {
    "run": "run a program on GPUs of the pool, or of this machine",
    "list_gpus": "show the GPUs of the pool and what is free",
    "smi": "show the GPUs, their memory and the sessions on them",
    "server": "serve this machine's GPUs",
    "softgpu": "run a program directly on the software GPU",
    "version": "show the version",
    "help": "show help about a command",
}

HELP_WIDTH = 79
OVERVIEW = """\
usage: bitfusion COMMAND [options] [--] [words]

{verbs}

'bitfusion help COMMAND' explains one. The commonest:
  bitfusion run -n 1 -p 0.5 -- python3 train.py
"""


def overview() -> str:
    width = max(len(verb) for verb in VERBS)
    return OVERVIEW.format(verbs="\n".join(f"  {v:{width}}  {text}" for v, text in VERBS.items()))


def help_for(verb: str) -> str:
    if verb not in VERBS:
        raise UnknownVerb(verb=verb)
    if verb == "help":
        return overview()
    import textwrap  # only here: a run does without

    command = importlib.import_module(f"bitfusion.commands.{verb}")
    usage = textwrap.fill(
        f"usage: bitfusion {verb} {command.USAGE}", HELP_WIDTH, subsequent_indent="         "
    )
    about = textwrap.fill(command.ABOUT, HELP_WIDTH)
    options = describe((*command.OPTIONS, HELP), HELP_WIDTH)
    return f"{usage}\n\n{about}\n\noptions:\n{options}\n\n{command.EXAMPLES.strip()}\n"


def dispatch(words: Sequence[str]) -> int:
    verb = words[0] if words else "help"
    verb = {"-h": "help", "--help": "help", "--version": "version"}.get(verb, verb)
    verb = verb.replace("-", "_") if verb.replace("-", "_") in VERBS else verb
    if verb not in VERBS:
        raise UnknownVerb(verb=verb)
    if verb == "help":
        about = [word for word in words[1:] if word not in HELP.names]
        if len(about) > 1:
            raise UsageError(verb=verb, why=f"unexpected word '{about[1]}'")
        sys.stdout.write(help_for(about[0]) if about else overview())
        return 0
    command = importlib.import_module(f"bitfusion.commands.{verb}")
    parsed = parse(verb, command.OPTIONS, words[1:])
    if parsed.has(HELP.key):
        sys.stdout.write(help_for(verb))
        return 0
    status: int = command.run(parsed)
    return status


def report(error: BitfusionError) -> None:
    text = f"bitfusion: {error}\n" + (f"hint: {error.hint}\n" if error.hint else "")
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody reads it; the exit status says it too


def leave(status: int) -> NoReturn:
    """Flush and end at once: tearing the interpreter down takes milliseconds, changes nothing."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status)


def open_streams() -> None:
    """Make both usable whatever we inherited, and able to take every text in any locale."""
    linux.open_standard_descriptors()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> NoReturn:
    open_streams()
    try:
        status = dispatch(sys.argv[1:])
    except BitfusionError as error:
        report(error)
        status = error.exit_status
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:  # no processes, no space, ... wherever that strikes
        report(SystemFailure(what="go on", why=(error.strerror or str(error)).lower()))
        status = SystemFailure.exit_status
    except KeyboardInterrupt:
        status = 130
    leave(status)
