# SPDX-License-Identifier: Apache-2.0
"""bitfusion request_gpus: hold GPUs for programs to come."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bitfusion import config, linux, log
from bitfusion.client import channels, holder, reservation
from bitfusion.client.holder import Held
from bitfusion.commands import run as run_command
from bitfusion.commands.run import Plan
from bitfusion.errors import SystemFailure, reason
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "-n N [-p FRACTION | -m MB] [options]"
ABOUT = """\
Take GPUs as 'run' does, and hold them until 'release_gpus', whatever runs on them meanwhile. A
file says which; 'client' runs programs on them."""
OPTIONS = (
    *run_command.OPTIONS,
    Option(("-f", "--file"), "FILE", "the reservation's file (default: /tmp/bitfusion...)"),
)
EXAMPLES = """\
examples:
  bitfusion request_gpus -n 1 -m 2048
  bitfusion client -- python3 train.py
  bitfusion release_gpus"""


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    request, settings = run_command.asked_for(parsed), config.load_client(parsed)
    log.set_level(log.INFO if parsed.has("verbose") else log.WARN)
    wanted = {**request, **run_command.forced(parsed, settings)}
    plan = Plan(wanted, "", ["request_gpus"], settings, run_command.list_command(parsed))
    path = make_file(parsed)
    try:
        status = holder.start(path, lambda: claim(plan))
    except BaseException:
        reservation.remove(path)
        raise
    if status:
        reservation.remove(path)
        return status
    there = reservation.read(path)
    sys.stdout.write(
        f"Requested resources:\nServer List: {there.server}\n"
        f"Locked {run_command.describe(request)}, configuration saved to '{path}'\n"
    )
    return 0


def make_file(parsed: Parsed) -> str:
    path = parsed.text("file")
    if path is None:
        reservation.sweep()
        return reservation.reserve_path()
    path = os.path.abspath(path)
    try:
        reservation.create_named(path)
    except OSError as error:
        raise SystemFailure(what=f"make '{path}'", why=reason(error)) from None
    return path


@contextmanager
def quiet_children() -> Iterator[None]:
    """What is started meanwhile outlives us, and must not keep our terminal or pipe open."""
    ours = os.dup(2)
    linux.silence((2,))
    try:
        yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)


def claim(plan: Plan) -> Held:
    """In the holder's process."""
    settings = plan.settings
    servers = settings.addresses("client.server_list")
    if servers and not settings.text("client.driver"):
        session = run_command.claim_from(servers, plan)
        address = session.channel.address
        return Held(
            session,
            lambda timeout_s: plan.connect(address, timeout_s),
            settings.seconds("client.lease"),
        )
    from bitfusion.server import private

    with quiet_children():
        server = private.start(plan.find_gpus(), settings.text("client.transport"))
    channel = channels.LineChannel(server.control, settings.seconds("client.timeout"))
    try:
        return Held(plan.claim(channel), close=server.stop)
    except BaseException:
        server.stop()
        raise
