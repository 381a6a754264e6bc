# SPDX-License-Identifier: Apache-2.0
"""bitfusion health: what is well and what is not, on this machine and on the servers."""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

from bitfusion import config, log
from bitfusion.client import admin, channels, control
from bitfusion.client import health as client
from bitfusion.client.access import access
from bitfusion.config import Config
from bitfusion.errors import BitfusionError
from bitfusion.health import EXIT_STATUS, PASS, Check, expiry, shown, worst
from bitfusion.options import Option, Parsed, refuse_words
from bitfusion.printable import as_lines
from bitfusion.quantity import seconds_of
from bitfusion.wire.control import Reply

USAGE = "[options]"
ABOUT = """\
Check this machine as a client, the way to each server, and each server as it sees itself; where no
server is configured, the one that runs on this machine, for those who may ask it. Each
check is PASS, MARGINAL (it works, not at its best), WARNING or FAIL, with what to do. Exit status
0 for PASS and MARGINAL, 3 for WARNING, 1 for FAIL."""
OPTIONS = (
    config.option("client.server_list"),
    Option(("-q", "--quiet"), "", "only what is not PASS"),
    Option(("--json",), "", "as JSON, one object per machine"),
)
EXAMPLES = """\
examples:
  bitfusion health
  bitfusion health --server_list gpu01 --quiet || mail -s gpu01 ops"""


class Machine(NamedTuple):
    name: str
    checks: list[Check]


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    log.set_level(log.SILENT)  # what is wrong is a check's word
    settings = config.load_client(parsed)
    servers = settings.addresses("client.server_list")
    machines = [Machine("this machine", client.own_checks())]
    machines += [examine(address, settings) for address in servers]
    service = None if servers else admin.open_service(settings.seconds("client.timeout"))
    if service is not None:
        machines.append(examine_service(service))
    elif not servers:
        advice = (
            "a private server serves each run; '--server_list' or 'bitfusion enroll' changes it"
        )
        machines[0].checks.append(Check("servers", PASS, "none configured", advice))
    if parsed.has("json"):
        sys.stdout.write(as_json(machines))
    else:
        sys.stdout.write("".join(show(machine, parsed.has("quiet")) for machine in machines))
    return EXIT_STATUS[worst(check for machine in machines for check in machine.checks)]


def examine_service(channel: channels.Channel) -> Machine:
    """The server of this machine, over its admin socket: there is no way to it to examine."""
    try:
        reply = channel.request("GET", "/v1/health")
        if reply.status != 200:
            raise control.explain(channel, reply, "its health")
        checks = client.server_checks(reply.body)
    except BitfusionError as error:
        checks = [client.failed(error)]
    finally:
        channel.close()
    return Machine(f"the server on {channel.name}", checks)


def examine(address: tuple[str, int], settings: Config) -> Machine:
    name, timeout_s = config.format_address(address), settings.seconds("client.timeout")
    try:
        channel = channels.HttpChannel(address, name, timeout_s, access(settings))
    except BitfusionError as error:
        return Machine(name, [client.failed(error)])
    try:
        greeting = control.greet(channel)
        before_s = time.time()
        status, answer = channel.request("GET", "/v1/health")
        asked_s = (before_s, time.time())
        if status != 200:
            raise control.explain(channel, Reply(status, answer), "its health")
        checks = client.server_checks(answer)
        checks.append(client.data_port(channel, answer.get("data_port"), timeout_s))
        checks += client.way_to(channel, answer, asked_s)
        checks.append(client.data_encryption(channel, greeting.get("encrypt")))
        checks += token(greeting)
    except BitfusionError as error:
        checks = [client.failed(error)]
    finally:
        channel.close()
    return Machine(name, checks)


def token(greeting: dict[str, object]) -> list[Check]:
    you = greeting.get("you")
    left_s = seconds_of(you.get("token_expires_in_s")) if isinstance(you, dict) else None
    if left_s is None:
        return []
    return [expiry("token", left_s, "operators extend it by 'bitfusion token extend'")]


def show(machine: Machine, quiet: bool) -> str:
    checks = [check for check in machine.checks if check.level != PASS or not quiet]
    if quiet and not checks:
        return ""
    return as_lines([f"{machine.name}: {worst(machine.checks)}", *shown(checks)])


def as_json(machines: list[Machine]) -> str:
    value = [
        {
            "name": machine.name,
            "level": worst(machine.checks),
            "checks": [check._asdict() for check in machine.checks],
        }
        for machine in machines
    ]
    return json.dumps(value, indent=2) + "\n"
