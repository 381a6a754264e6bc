# SPDX-License-Identifier: Apache-2.0
"""The verbs; the only place that prints an error or ends the process."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from bitfusion import linux
from bitfusion.errors import BitfusionError, SystemFailure, UnknownVerb, reason
from bitfusion.options import HELP, Command, Parsed, describe, parse, refuse_words
from bitfusion.printable import one_line

VERBS = {
    "run": "run a program on GPUs of the pool, or of this machine",
    "request_gpus": "hold GPUs for programs to come",
    "client": "run a program on GPUs that are held",
    "release_gpus": "give held GPUs back",
    "list_gpus": "show the GPUs of the pool and what is free",
    "smi": "show the GPUs, their memory and the sessions on them",
    "stats": "show what clients used, over time",
    "health": "check this machine, the servers and the way to them",
    "netperf": "measure the way to a GPU",
    "server": "serve this machine's GPUs",
    "kill": "end a session",
    "token": "make and rule the tokens of clients",
    "enroll": "install a token and what comes with it",
    "softgpu": "run a program directly on the software GPU",
    "config": "show the settings and where they come from",
    "log_bundle": "collect what somebody who helps wants to see",
    "completion": "print the completion of commands for a shell",
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


def load_command(verb: str, words: Sequence[str]) -> tuple[str, Command, Sequence[str]]:
    """The command that these words name, with its whole name, and the words after it."""
    module = importlib.import_module(f"bitfusion.commands.{verb}")
    below: Mapping[str, Command] = getattr(module, "SUBCOMMANDS", {})
    name = words[0].replace("-", "_") if words else ""
    if name in below:
        return f"{verb} {name}", below[name], words[1:]
    mixed = getattr(module, "MIXED", False)
    texts = (module.USAGE, module.ABOUT, module.OPTIONS, module.EXAMPLES)
    return verb, Command(*texts, module.run, mixed), words


def help_for(words: Sequence[str]) -> str:
    if words[0] not in VERBS:
        raise UnknownVerb(verb=words[0])
    if words[0] == "help":
        return overview()
    name, command, rest = load_command(words[0], words[1:])
    parsed = Parsed("help")
    parsed.words += rest
    refuse_words(parsed)
    return describe_command(name, command)


def describe_command(name: str, command: Command) -> str:
    import textwrap  # only here: a run does without

    usage = textwrap.fill(
        f"usage: bitfusion {name} {command.usage}", HELP_WIDTH, subsequent_indent="         "
    )
    about = textwrap.fill(command.about, HELP_WIDTH)
    options = describe((*command.options, HELP), HELP_WIDTH)
    return f"{usage}\n\n{about}\n\noptions:\n{options}\n\n{command.examples.strip()}\n"


def dispatch(words: Sequence[str]) -> int:
    verb = words[0] if words else "help"
    verb = {"-h": "help", "--help": "help", "--version": "version"}.get(verb, verb)
    verb = verb.replace("-", "_") if verb.replace("-", "_") in VERBS else verb
    if verb not in VERBS:
        raise UnknownVerb(verb=verb)
    if verb == "help":
        about = [word.replace("-", "_") for word in words[1:] if word not in HELP.names]
        sys.stdout.write(help_for(about) if about else overview())
        return 0
    name, command, rest = load_command(verb, words[1:])
    parsed = parse(name, command.options, rest, command.mixed)
    if parsed.has(HELP.key):
        sys.stdout.write(describe_command(name, command))
        return 0
    return command.run(parsed)


def report(error: BitfusionError) -> None:
    lines = [f"bitfusion: {error}", *([f"hint: {error.hint}"] if error.hint else [])]
    text = "".join(f"{one_line(line)}\n" for line in lines)
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody reads it; the exit status says it too


def system_failure(error: OSError) -> SystemFailure:
    """Of an error that nobody expected where it struck; with the file, where it is of one."""
    of_file = isinstance(error.filename, (str, bytes))
    what = f"use '{os.fsdecode(error.filename)}'" if of_file else "go on"
    return SystemFailure(what=what, why=reason(error))


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
        report(system_failure(error))
        status = SystemFailure.exit_status
    except KeyboardInterrupt:
        status = 130
    leave(status)
