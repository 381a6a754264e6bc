# SPDX-License-Identifier: Apache-2.0
"""bitfusion token: who may use the cluster, until when, and how much of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Optional

from bitfusion import bundle, config, quantity, values
from bitfusion.client import tokens
from bitfusion.client.admin import ask, open_admin
from bitfusion.client.channels import Channel
from bitfusion.client.enroll import CA_FILE
from bitfusion.configfile import CLIENT_FILE
from bitfusion.errors import SystemFailure, UsageError
from bitfusion.options import Command, Option, Parsed, parse_value, refuse_words, take_words
from bitfusion.printable import as_lines, printable
from bitfusion.wire.control import Json

USAGE = "create|list|show|rotate|extend|limit|disable|enable|revoke [NAME] [options]"
ABOUT = """\
Make and rule the tokens of clients. Where a server runs on this machine, it is told; where none
runs, its state is changed; elsewhere, a server of the configuration is asked, which takes a token
made with '--admin'. 'bitfusion help token create' explains one of these."""
OPTIONS = (
    Option(("--config",), "FILE", "the server's (default: /etc/bitfusion/server.toml)"),
    config.option("server.state_dir"),
)
EXAMPLES = """\
examples:
  bitfusion token create alice --gpus 2 --time 8h
  bitfusion token revoke alice"""

NEVER = "never"
DEFAULT_LIFE, DEFAULT_GRACE = "365d", "1d"
JSON_OPTION = Option(("--json",), "", "as JSON")
OUTPUT = Option(("-o", "--output"), "FILE", "where the bundle goes (default: NAME.tar)")
SERVERS = Option(
    ("--server_list",), "HOST:PORT,...", "servers it is to use (default: the cluster's)"
)
LIMITS = (
    Option(("--gpus",), "N", "GPUs it may have at once"),
    Option(("--memory",), "MB", "memory it may have in all, in MiB or as 16G"),
    Option(("--time",), "TIME", "how long each session may last"),
    Option(("--idle",), "TIME", "how long a session may do nothing"),
)
CLIENT_TOML = """\
# Client '{name}' of a Bitfusion cluster. 'bitfusion enroll' puts this file and ca.crt in place.
# The token is a secret.

[client]
server_list = {servers}
ca = "{ca}"
token = "{token}"
"""


def run(parsed: Parsed) -> NoReturn:
    word = parsed.words[0] if parsed.words else ""
    known = ", ".join(SUBCOMMANDS)
    why = f"it can {known}, not '{word}'" if word else f"a word is missing: {known}"
    raise UsageError(verb=parsed.verb, why=why)


def connect(parsed: Parsed) -> Channel:
    return open_admin(config.load_server(parsed), config.load_without_servers(None))


def name_of(parsed: Parsed) -> str:
    (name,) = take_words(parsed, "name")
    try:
        return values.check_name(name)
    except ValueError as error:
        raise UsageError(verb=parsed.verb, why=str(error)) from None


def number(parsed: Parsed, key: str, parse: Callable[[str], float]) -> Json:
    """{key: value} of an option that is given."""
    text = parsed.text(key)
    if text is None:
        return {}
    return {key: parse_value(parsed, f"--{key}", parse, text)}


def parse_memory(text: str) -> int:
    """0: as much as there is, whatever [limits] of the server says."""
    return 0 if text == "0" else quantity.parse_memory(text)


def parse_life(text: str) -> float:
    return 0.0 if text == NEVER else values.parse_patience(text)


def limits_of(parsed: Parsed) -> Json:
    found = {
        **number(parsed, "gpus", values.parse_count),
        **number(parsed, "memory", parse_memory),
    }
    for key in ("time", "idle"):
        for seconds in number(parsed, key, quantity.parse_duration).values():
            found[f"{key}_s"] = seconds
    return found


def life_of(parsed: Parsed) -> Json:
    given = number(parsed, "expires", parse_life)
    return {"expires_in_s": given.get("expires", quantity.parse_duration(DEFAULT_LIFE))}


def create(parsed: Parsed) -> int:
    name = name_of(parsed)
    try:
        addresses = values.parse_addresses(parsed.text("server_list") or "")
    except ValueError as error:
        raise UsageError(verb=parsed.verb, why=str(error)) from None
    body = {"name": name, "admin": parsed.has("admin"), **life_of(parsed), **limits_of(parsed)}
    path = parsed.text("output") or f"{name}.tar"
    bundle.refuse_existing(path)
    channel = connect(parsed)
    made = tokens.made(channel, ask(channel, "POST", "/v1/tokens", body))
    write_bundle(path, made, [values.format_address(a) for a in addresses])
    return 0


def write_bundle(path: str, made: Json, servers: Sequence[str]) -> None:
    """Of the answer to create or rotate, whose secret nobody can ask for again."""
    text = CLIENT_TOML.format(
        name=str(made["token"]).partition(":")[0],
        servers=json.dumps(list(servers) or made["addresses"]),
        ca=CA_FILE,
        token=made["token"],
    )
    files = {CA_FILE: str(made["ca"]).encode(), CLIENT_FILE: text.encode()}
    try:
        bundle.write(path, bundle.pack(files, time.time()))
    except SystemFailure as error:
        name = made["name"]
        error.hint = (
            f"client '{name}' has no bundle now: 'bitfusion token rotate {name}' makes one"
        )
        raise
    expires_s = made.get("expires_s")
    until = f"until {day(expires_s)}" if isinstance(expires_s, float) and expires_s else "for good"
    sys.stdout.write(
        f"'{path}' holds the token of client '{printable(str(made['name']))}', valid {until}.\n"
        f"Carry it in private; on the client: bitfusion enroll {path}\n"
    )


def day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def rotate(parsed: Parsed) -> int:
    name = name_of(parsed)
    grace = parsed.text("grace") or DEFAULT_GRACE
    given = number(parsed, "grace", quantity.parse_duration)
    grace_s = given.get("grace", quantity.parse_duration(DEFAULT_GRACE))
    path = parsed.text("output") or f"{name}.tar"
    bundle.refuse_existing(path)
    channel = connect(parsed)
    answer = ask(channel, "POST", f"/v1/tokens/{name}/rotate", {"grace_s": grace_s})
    made = tokens.made(channel, answer)
    write_bundle(path, made, [])
    old = f"is good for {grace} yet" if grace_s else "is good no more"
    sys.stdout.write(as_lines([f"The token before {old}."]))
    return 0


def extend(parsed: Parsed) -> int:
    everyone, life = parsed.has("all"), life_of(parsed)
    if everyone:
        refuse_words(parsed)
    else:
        name_of(parsed)
    channel = connect(parsed)
    names = parsed.words
    for row in tokens.listed(channel, ask(channel, "GET", "/v1/tokens")) if everyone else ():
        if lasts(row, life["expires_in_s"]):
            sys.stdout.write(as_lines([f"client '{row['name']}': {describe_end(row)} already"]))
        else:
            names.append(str(row["name"]))
    for name in names:
        made = tokens.described(channel, ask(channel, "PATCH", f"/v1/tokens/{name}", life))
        sys.stdout.write(as_lines([f"client '{name}': {describe_end(made)}"]))
    return 0


def limit(parsed: Parsed) -> int:
    name, limits = name_of(parsed), limits_of(parsed)
    if not limits:
        known = ", ".join(option.names[0] for option in LIMITS)
        raise UsageError(verb=parsed.verb, why=f"which limit? one of {known} is missing")
    return show_one(parsed, "PATCH", name, limits)


def lasts(row: Json, life_s: object) -> bool:
    """Whether a token is good for so long anyway: extending all of them shortens none."""
    assert isinstance(life_s, float)  # 0: for good
    expires_s = row["expires_s"]
    assert isinstance(expires_s, (int, float))
    return not expires_s or bool(life_s and expires_s >= time.time() + life_s)


def change(parsed: Parsed, body: Json) -> int:
    name = name_of(parsed)
    channel = connect(parsed)
    made = tokens.described(channel, ask(channel, "PATCH", f"/v1/tokens/{name}", body))
    sys.stdout.write(as_lines([f"client '{name}' is {made['state']}"]))
    if made["state"] == "disabled":
        tell_of_our_own(channel, name)
    return 0


def tell_of_our_own(channel: Channel, name: str) -> None:
    """Whoever asked by a token which is good for nothing now hears that here, not later."""
    if channel.access.token.partition(":")[0] == name:
        sys.stdout.write("That is the token used here: servers refuse this client from now on.\n")


def disable(parsed: Parsed) -> int:
    return change(parsed, {"disabled": True})


def enable(parsed: Parsed) -> int:
    return change(parsed, {"disabled": False})


def revoke(parsed: Parsed) -> int:
    name = name_of(parsed)
    channel = connect(parsed)
    ask(channel, "DELETE", f"/v1/tokens/{name}")
    sys.stdout.write(as_lines([f"the token of client '{name}' is revoked, and its sessions end"]))
    tell_of_our_own(channel, name)
    return 0


def show_all(parsed: Parsed) -> int:
    refuse_words(parsed)
    channel = connect(parsed)
    return show_rows(parsed, tokens.listed(channel, ask(channel, "GET", "/v1/tokens")))


def show(parsed: Parsed) -> int:
    return show_one(parsed, "GET", name_of(parsed))


def show_one(parsed: Parsed, method: str, name: str, body: Optional[Json] = None) -> int:
    channel = connect(parsed)
    answer = ask(channel, method, f"/v1/tokens/{name}", body)
    return show_rows(parsed, [tokens.described(channel, answer)])


def show_rows(parsed: Parsed, rows: Sequence[Json]) -> int:
    if parsed.has("json"):
        sys.stdout.write(json.dumps(list(rows), indent=2) + "\n")
        return 0
    lines: list[tuple[str, ...]] = [
        ("CLIENT", "STATE", "EXPIRES", "GPUS", "MEMORY", "TIME", "IDLE", "RIGHTS")
    ]
    lines += [tuple(map(printable, row_of(row))) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        text = "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths))
        sys.stdout.write(as_lines([text.rstrip()]))
    return 0


def row_of(row: Json) -> tuple[str, ...]:
    limits = row["limits"]
    assert isinstance(limits, dict)
    return (
        str(row["name"]),
        str(row["state"]) + ("*" if row["old_until_s"] else ""),
        describe_end(row).removeprefix("valid ").removeprefix("until "),
        str(limits["gpus"] or "-"),
        quantity.format_mib(limits["memory"]) if limits["memory"] else "-",
        quantity.format_duration(limits["time_s"]) if limits["time_s"] else "-",
        quantity.format_duration(limits["idle_s"]) if limits["idle_s"] else "-",
        "admin" if row["admin"] else "client",
    )


def describe_end(row: Json) -> str:
    expires_s = row["expires_s"]
    assert isinstance(expires_s, (int, float))
    return f"valid until {day(expires_s)}" if expires_s else "valid for good"


EXPIRES = Option(("--expires",), "TIME", f"valid for so long, or '{NEVER}' to end (default: 365d)")


def _command(
    usage: str,
    about: str,
    options: Sequence[Option],
    example: str,
    action: Callable[[Parsed], int],
) -> Command:
    examples = f"examples:\n  bitfusion token {example}"
    return Command(usage, about, (*options, *OPTIONS), examples, action, mixed=True)


SUBCOMMANDS = {
    "create": _command(
        "NAME [options]",
        "Make a client and write its bundle, which 'bitfusion enroll' installs there.",
        (
            EXPIRES,
            *LIMITS,
            Option(("--admin",), "", "an operator: sees and rules everything"),
            SERVERS,
            OUTPUT,
        ),
        "create alice --expires 90d --gpus 2 --memory 16G --time 8h",
        create,
    ),
    "list": _command(
        "[--json]",
        "List the clients; '*' stands where a rotated token is still good beside the new one.",
        (JSON_OPTION,),
        "list --json",
        show_all,
    ),
    "show": _command("NAME [--json]", "Show one client.", (JSON_OPTION,), "show alice", show),
    "rotate": _command(
        "NAME [options]",
        "Give a client a new token, and write its bundle.",
        (Option(("--grace",), "TIME", "how long the old one is good yet (default: 1d)"), OUTPUT),
        "rotate alice --grace 7d",
        rotate,
    ),
    "extend": _command(
        "NAME|--all [options]",
        "Let one client's token, or everyone's, be valid for so long from now.",
        (EXPIRES, Option(("--all",), "", "every client's")),
        "extend --all --expires 365d",
        extend,
    ),
    "limit": _command(
        "NAME [options]",
        "Change what a client may have; 0 takes a limit away. Sessions that run keep theirs.",
        (*LIMITS, JSON_OPTION),
        "limit alice --gpus 4 --time 0",
        limit,
    ),
    "disable": _command(
        "NAME",
        "Keep a client out until it is enabled again; its sessions end at once.",
        (),
        "disable alice",
        disable,
    ),
    "enable": _command("NAME", "Let a disabled client in again.", (), "enable alice", enable),
    "revoke": _command(
        "NAME",
        "Forget a client and its token for good; its sessions end at once.",
        (),
        "revoke alice",
        revoke,
    ),
}
