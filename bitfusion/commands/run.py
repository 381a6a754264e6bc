# SPDX-License-Identifier: Apache-2.0
"""bitfusion run: a program on GPUs of a server, or of a private one made for this run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Optional

from bitfusion import config, inventory, log, quantity
from bitfusion.client import channels, control, program
from bitfusion.client.access import access
from bitfusion.config import Config
from bitfusion.errors import TooMuch, UsageError
from bitfusion.options import Option, Parsed, parse_value, positive
from bitfusion.wire.control import Json

if TYPE_CHECKING:
    from bitfusion.client.claim import Wanted
    from bitfusion.client.trust import Seen
    from bitfusion.server.nursery import Worker

USAGE = "-n N [-p FRACTION | -m MB] [options] [--] program [args]"
ABOUT = """\
Run a program with GPUs of the servers of --server_list or the configuration; where there is none,
of a private server for this machine's GPUs, or software GPUs. A single word with spaces is split
as a shell would."""
OPTIONS = (
    Option(("-n", "--num_gpus"), "N", "number of GPUs"),
    Option(("-p", "--partial"), "FRACTION", "part of each GPU's memory (default: 1)"),
    Option(("-m", "--memory"), "MB", "memory of each, in MiB or as 2G, not -p"),
    Option(("--filter",), "KEY=VALUE", "such GPUs only; may be repeated", True),
    Option(("--share",), "FRACTION", "part of their time at most (default: fair)"),
    config.option("client.queue_timeout"),
    config.option("client.server_list"),
    config.option("client.driver"),
    config.option("client.transport"),
    Option(("-v", "--verbose"), "", "say what happens, on stderr"),
)
SOFTWARE = b"bitfusion: no server configured and no GPU here: running on a software GPU\n"
EXAMPLES = """\
examples:
  bitfusion run -n 1 -- python3 train.py
  bitfusion run -n 2 -p 0.25 --timeout 2h "python3 train.py --epochs 3"
  bitfusion run -n 1 --filter device.name=A100 -m 2048 bash"""


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
        parse_value(parsed, "-p", quantity.parse_fraction, fraction)
        request["fraction"] = fraction
    if memory is not None:
        request["memory"] = parse_value(parsed, "-m", quantity.parse_memory, memory)
    return {**request, **conditions(parsed)}


def conditions(parsed: Parsed) -> Json:
    """What concerns servers of a pool only."""
    found: Json = {}
    share, filters = parsed.text("share"), parsed.all("filter")
    if share is not None:
        numerator, denominator = parse_value(parsed, "--share", quantity.parse_fraction, share)
        found["share"] = numerator / denominator
    if filters:
        from bitfusion.server.filters import MAX_FILTERS, bound, parse

        try:
            bound(filters, MAX_FILTERS)
            found["filters"] = [str(parse(text)) for text in filters]
        except ValueError as error:
            raise UsageError(verb=parsed.verb, why=f"--filter: {error}") from None
    return found


def forced(parsed: Parsed, settings: Config) -> Json:
    """Servers of the command line are the only ones to give GPUs; those of the configuration are
    where to ask.
    """
    if not parsed.has("server_list"):
        return {}
    from bitfusion.server.filters import MAX_SERVERS, bound

    addresses = settings.addresses("client.server_list")
    servers = [config.format_address(address) for address in addresses]
    try:
        bound(servers, MAX_SERVERS)
    except ValueError as error:
        raise UsageError(verb=parsed.verb, why=f"--server_list: {error}") from None
    return {"servers": servers}


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
    if not words or not words[0]:
        raise UsageError(verb=parsed.verb, why="which program? it is missing")
    return words


def describe(request: Json) -> str:
    memory, fraction = request.get("memory"), request.get("fraction")
    count = request["gpus"]
    assert isinstance(count, int)
    text, each = quantity.plural(count, "GPU"), "" if count == 1 else " each"
    if isinstance(memory, int):
        return f"{text} with {quantity.format_mib(memory)}{each}"
    return (
        f"{text} with {fraction} of {'its' if not each else 'their'} memory" if fraction else text
    )


class Plan(NamedTuple):
    """What a run is about, from its options and the configuration."""

    request: Json
    path: str
    words: list[str]
    settings: Config
    listing: str  # the command that shows this user the GPUs that the run may have

    def claim(self, channel: channels.Channel) -> control.Session:
        asked, transport = describe(self.request), self.settings.text("client.transport")
        timeout_s = self.settings.seconds("client.timeout")
        return control.claim(channel, self.request, asked, transport, timeout_s, self.listing)

    def wanted(self) -> Wanted:
        """From servers of the network."""
        from bitfusion.client.claim import Wanted

        settings = self.settings
        return Wanted(
            self.request,
            describe(self.request),
            " ".join(self.words),
            self.listing,
            self.connect,
            settings.text("client.transport"),
            settings.seconds("client.timeout"),
            settings.seconds("client.queue_timeout"),
            settings.seconds("client.lease") or control.DEFAULT_LEASE_S,
        )

    def connect(
        self, address: tuple[str, int], timeout_s: float, seen: Optional[Seen] = None
    ) -> channels.HttpChannel:
        name = config.format_address(address)
        return channels.HttpChannel(address, name, timeout_s, access(self.settings), seen)

    def find_gpus(self) -> inventory.Inventory:
        """This machine's. Software GPUs are as many as are asked for, unless their number is
        set.
        """
        settings, wanted = self.settings, self.request["gpus"]
        assert isinstance(wanted, int)
        count = settings.number("softgpu.gpus")
        found = inventory.find(
            settings.text("client.driver"), count or wanted, settings.number("softgpu.memory")
        )
        if len(found.gpus) < wanted:
            raise self.too_few(found, count)
        return found

    def too_few(self, found: inventory.Inventory, count: int) -> TooMuch:
        asked, there = describe({"gpus": self.request["gpus"]}), len(found.gpus)
        gpus = quantity.plural(there, "software GPU" if found.software else "GPU")
        if not found.software:
            why = f"{found.origin}: {gpus}"
            return TooMuch(asked=asked, why=why, listing=self.listing)
        if count:
            why = f"there {'is' if there == 1 else 'are'} {gpus}"
            hint = f"{self.settings.origins['softgpu.gpus']} says so"
        else:
            why = f"a private server has at most {gpus}"
            hint = "option '--server_list' takes GPUs of a server"
        return TooMuch(asked=asked, why=why, listing="", hint=hint)


def list_command(parsed: Parsed) -> str:
    for name in ("driver", "server_list"):
        if parsed.has(name):
            return f"bitfusion list_gpus --{name} {parsed.text(name)}"
    return "bitfusion list_gpus"


def run(parsed: Parsed, worker: Optional[Worker] = None, ledgers: bool = True) -> int:
    request, words = asked_for(parsed), words_of(parsed)
    settings = config.load_client(parsed)
    log.set_level(log.INFO if parsed.has("verbose") else log.WARN)
    path = program.find(words[0], dict(os.environ))
    plan = Plan(
        {**request, **forced(parsed, settings)}, path, words, settings, list_command(parsed)
    )
    servers = settings.addresses("client.server_list")
    if servers and not settings.text("client.driver"):
        status = _run_on(servers, plan)
    else:
        status = _run_privately(plan, worker, ledgers)
    return program.end_like(status)


def claim_from(servers: tuple[tuple[str, int], ...], plan: Plan) -> control.Session:
    """GPUs of one of these servers."""
    names = [config.format_address(address) for address in servers]
    log.info(f"Choosing GPUs from server list [{' '.join(names)}]")
    from bitfusion.client.claim import claim

    return claim(servers, plan.wanted())


def _run_on(servers: tuple[tuple[str, int], ...], plan: Plan) -> int:
    from bitfusion.client.launcher import run_program
    from bitfusion.client.remote import Remote

    session = claim_from(servers, plan)
    address = session.channel.address
    remote = Remote(
        lambda timeout_s: plan.connect(address, timeout_s),
        plan.settings.seconds("client.lease"),
    )
    try:
        return run_program(session, plan.path, plan.words, keep=remote)
    finally:
        session.channel.close()


def _run_privately(plan: Plan, worker: Optional[Worker], ledgers: bool) -> int:
    for option in ("share", "filters"):
        if plan.request.pop(option, None):
            name = option.rstrip("s")
            why = f"option '--{name}' is about servers of a pool, and none is configured"
            raise UsageError(verb="run", why=why)
    from bitfusion.server import private

    found = plan.find_gpus()
    log.info(f"No server configured: starting a private one on {found.origin}")
    if found.software and os.isatty(2) and not plan.settings.text("client.driver"):
        os.write(2, SOFTWARE)
    server = private.start(found, plan.settings.text("client.transport"), worker, ledgers)
    try:
        from bitfusion.client.launcher import run_program  # meanwhile the server starts

        channel = channels.LineChannel(server.control, plan.settings.seconds("client.timeout"))
        return run_program(plan.claim(channel), plan.path, plan.words)
    finally:
        server.stop()
