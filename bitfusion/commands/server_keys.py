# SPDX-License-Identifier: Apache-2.0
"""Subcommands of `bitfusion server` about its keys: init and invite."""

from __future__ import annotations

import sys
import time

from bitfusion import bundle, config, values
from bitfusion.config import Config
from bitfusion.errors import UsageError
from bitfusion.options import Command, Option, Parsed, refuse_words, take_words
from bitfusion.printable import as_lines
from bitfusion.server.keys import CA, CA_KEY, Invitation, Keys
from bitfusion.server.state import StateFolder

FOLDER_OPTIONS = (
    Option(("--config",), "FILE", "settings (default: /etc/bitfusion/server.toml)"),
    config.option("server.state_dir"),
)
DEFAULT_NAME = "bitfusion"


def keys_of(settings: Config) -> Keys:
    return Keys(StateFolder(settings.text("server.state_dir")))


def init(parsed: Parsed) -> int:
    refuse_words(parsed)
    name, invitation = parsed.text("name"), parsed.text("join")
    if name is not None and invitation is not None:
        raise UsageError(verb=parsed.verb, why="options '--name' and '--join' exclude each other")
    settings = config.load_server(parsed)
    keys = keys_of(settings)
    if parsed.has("if_missing") and (keys.exist() or settings.truth("server.insecure")):
        return 0
    if invitation is not None:
        files = bundle.unpack(invitation, (CA, CA_KEY))
        keys.join(Invitation(files[CA], files[CA_KEY]))
    else:
        keys.make(check_name(parsed, name or DEFAULT_NAME))
    sys.stdout.write(as_lines([f"keys of cluster {keys.cluster()} are in {keys.folder}"]))
    return 0


def check_name(parsed: Parsed, name: str) -> str:
    try:
        return values.check_name(name)
    except ValueError as error:
        raise UsageError(verb=parsed.verb, why=str(error)) from None


def invite(parsed: Parsed) -> int:
    (path,) = take_words(parsed, "file")
    invitation = keys_of(config.load_server(parsed)).invite()
    files = {CA: invitation.ca, CA_KEY: invitation.ca_key}
    bundle.write(path, bundle.pack(files, time.time()))
    sys.stdout.write(
        f"'{path}' lets a server join: 'bitfusion server init --join {path}'. Whoever has it can\n"
        "pose as a server of this cluster: carry it in private, and delete it afterwards.\n"
    )
    return 0


INIT = Command(
    "[--name CLUSTER | --join FILE] [--if_missing] [options]",
    """\
Make the keys that this server needs to serve the network: of a new cluster, or of the one that
another server's invitation is from. Once; a server in clear text needs none.""",
    (
        Option(("--name",), "CLUSTER", f"what the cluster is called (default: {DEFAULT_NAME})"),
        Option(("--join",), "FILE", "join the cluster of this invitation"),
        Option(("--if_missing",), "", "do nothing where keys are, or settings say 'insecure'"),
        *FOLDER_OPTIONS,
    ),
    """\
examples:
  bitfusion server init --name lab
  bitfusion server init --join /root/lab.tar""",
    init,
)
INVITE = Command(
    "FILE [options]",
    """\
Write what another server needs to join this one's cluster: the cluster's certificate and its
key. Carry the file in private, and delete it afterwards.""",
    FOLDER_OPTIONS,
    """\
examples:
  bitfusion server invite /root/lab.tar""",
    invite,
    mixed=True,
)
