# SPDX-License-Identifier: Apache-2.0
"""bitfusion run: a program on GPUs of a server, or of a private one made for this run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Optional

from bitfusion import config, inventory, log, quantity
from bitfusion.client import control, program
from bitfusion.client.launcher import run_program
from bitfusion.config import Config
from bitfusion.errors import TooMuch, UsageError
from bitfusion.options import Option, Parsed, positive
from bitfusion.server.nursery import Worker
from bitfusion.wire.control import Json

USAGE = "-n N [-p FRACTION | -m MB] [options] [--] program [arguments]"
ABOUT = """\
Run a program with GPUs. They come from the servers of --server_list or the configuration; where
there is none, from a private server that lives as long as the run and serves this machine's GPUs,
or software GPUs.
Options end at the first word that is not one. A single quoted word with
spaces is split as a shell would."""
OPTIONS = (
    Option(("-n", "--num_gpus"), "N", "number of GPUs"),
    Option(
        ("-p", "--partial"),
        "FRACTION",
        "part of each GPU's memory, above 0 and at most 1 (default: 1)",
    ),
    Option(("-m", "--memory"), "MB", "MiB of memory on each GPU, instead of -p"),
    config.option("client.server_list"),
    config.option("client.driver"),
    config.option("client.transport"),
    Option(("-v", "--verbose"), "", "say what happens, on stderr"),
)
EXAMPLES = """\
examples:
  bitfusion run -n 1 -- python3 train.py
  bitfusion run -n 2 -p 0.25 --server_list gpu01:56001 "python3 train.py --epochs 3"
  bitfusion run -n 1 -m 2048 bash"""


def asked_for(parsed: Parsed) -> Json:
    """The session that the options ask for."""
    verb = parsed.verb
    if parsed.text("num_gpus") is None:
        raise UsageError(verb=verb, why="how many GPUs? option '-n' is missing")
    request: Json = {"gpus": positive(verb, "-n", parsed.text("num_gpus") or "")}
    fraction, memory = parsed.text("partial"), parsed.text("memory")
    if fraction is not None and memory is not None:
        raise UsageError(verb=verb, why="options '-p' and '-m' exclude each other")
    if fraction is not None:
        try:
            quantity.parse_fraction(fraction)
        except ValueError as error:
            raise UsageError(verb=verb, why=f"-p: {error}") from None
        request["fraction"] = fraction
    if memory is not None:
        request["memory"] = positive(verb, "-m", memory) * quantity.MIB
    return request


def words_of(parsed: Parsed) -> list[str]:
    words = parsed.words
    if len(words) == 1 and any(c.isspace() for c in words[0]) and not os.path.exists(words[0]):
        import shlex

        try:
            words = shlex.split(words[0])
        except ValueError as error:
            raise UsageError(
                verb=parsed.verb, why=f"cannot split the quoted command: {error}"
            ) from None
    if not words:
        raise UsageError(verb=parsed.verb, why="which program? it is missing")
    return words


def describe(request: Json) -> str:
    count, memory = request["gpus"], request.get("memory")
    text = f"{count} GPU{'s' if count != 1 else ''}"
    return f"{text} with {memory // quantity.MIB} MiB each" if isinstance(memory, int) else text


def local_inventory(settings: Config, wanted: int) -> inventory.Inventory:
    """Software GPUs are made as many as are asked for, unless their number is set."""
    count = settings.number("softgpu.gpus")
    found = inventory.find(
        settings.text("client.driver"), count or wanted, settings.number("softgpu.memory")
    )
    if len(found.gpus) < wanted:
        raise TooMuch(
            asked=describe({"gpus": wanted}), why=f"{found.origin} here: {len(found.gpus)}"
        )
    return found


def run(parsed: Parsed, worker: Optional[Worker] = None, ledgers: bool = True) -> int:
    request, words = asked_for(parsed), words_of(parsed)
    settings = config.load(config.client_files(), parsed, ("client", "softgpu"))
    log.set_level(log.INFO if parsed.has("verbose") else log.WARN)
    path = program.find(words[0], dict(os.environ))
    servers = settings.addresses("client.server_list")
    if servers and not settings.text("client.driver"):
        status = _run_on(servers, settings, request, path, words)
    else:
        status = _run_privately(settings, request, path, words, worker, ledgers)
    return program.end_like(status)


def _claim(channel: control.Channel, settings: Config, request: Json) -> control.Session:
    return control.claim(
        channel,
        request,
        describe(request),
        settings.text("client.transport"),
        settings.seconds("client.timeout"),
    )


def _run_on(
    servers: tuple[tuple[str, int], ...],
    settings: Config,
    request: Json,
    path: str,
    words: list[str],
) -> int:
    names = [config.format_address(address) for address in servers]
    log.info(f"Choosing GPUs from server list [{' '.join(names)}]")

    def attempt(address: tuple[str, int]) -> control.Session:
        name = config.format_address(address)
        log.info(f"Query server {name} gpu availability")
        channel = control.HttpChannel(address, name, settings.seconds("client.timeout"))
        try:
            control.greet(channel)
            return _claim(channel, settings, request)
        except BaseException:
            channel.close()
            raise

    session = first_that_works(servers, attempt)
    try:
        return run_program(session, path, words)
    finally:
        session.channel.close()


def first_that_works(
    servers: tuple[tuple[str, int], ...], attempt: Callable[[tuple[str, int]], control.Session]
) -> control.Session:
    """All GPUs of a run come from one server: the first in the list that can give them."""
    from bitfusion.errors import BitfusionError

    failure: Optional[BitfusionError] = None
    for address in servers:
        try:
            return attempt(address)
        except BitfusionError as error:
            if failure is not None:
                log.warn(str(failure))
            failure = error
    assert failure is not None
    raise failure


def _run_privately(
    settings: Config,
    request: Json,
    path: str,
    words: list[str],
    worker: Optional[Worker],
    ledgers: bool,
) -> int:
    from bitfusion.server import private

    wanted = request["gpus"]
    assert isinstance(wanted, int)
    found = local_inventory(settings, wanted)
    log.info(f"No server configured: starting a private one on {found.origin}")
    server = private.start(found, settings.text("client.transport"), worker, ledgers)
    try:
        channel = control.LineChannel(server.control, settings.seconds("client.timeout"))
        return run_program(_claim(channel, settings, request), path, words)
    finally:
        server.stop()
