# SPDX-License-Identifier: Apache-2.0
"""Everything that can fail in a way the user can understand: text and exit status of each, all of
them here, so that they can be read beside each other.

Library code raises these; only cli.py turns them into lines and exit statuses. What one part says
to another, and no user reads, is an Exception beside what raises it.
"""

from __future__ import annotations

import socket


def reason(error: OSError) -> str:
    """Why, in a few words."""
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return (error.strerror or str(error)).lower()


class BitfusionError(Exception):
    """A known failure: `what failed: why`, the exit status, and what to do about it where that is
    known.
    """

    template = "{what}"
    exit_status = 1
    hint = ""

    def __init__(self, hint: str = "", **fields: object) -> None:
        super().__init__(self.template.format(**fields))
        self.hint = hint or self.hint.format(**fields)


class UsageError(BitfusionError):
    template = "{verb}: {why}"
    exit_status = 2
    hint = "see 'bitfusion help {verb}'"


class UnknownVerb(BitfusionError):
    template = "unknown command '{verb}'"
    exit_status = 2
    hint = "see 'bitfusion help'"


class ConfigError(BitfusionError):
    template = "{place}: {why}"
    exit_status = 2


class NotPermitted(ConfigError):
    """Settings that this user may not read, which is no matter where others are there."""


class TooMuch(BitfusionError):
    """More than there is at all: waiting would not help."""

    template = "cannot give {asked}: {why}"
    exit_status = 2
    hint = "see '{listing}'"


class Busy(BitfusionError):
    """There is enough, but others have it now."""

    template = "cannot give {asked}: {why}"
    hint = "try again later; '{listing}' shows what is free"


class ProgramNotFound(BitfusionError):
    template = "cannot run '{program}': not found"
    exit_status = 127
    hint = ""


class ProgramNotExecutable(BitfusionError):
    template = "cannot run '{program}': {why}"
    exit_status = 126


class CannotReach(BitfusionError):
    template = "cannot reach '{server}': {why}"
    hint = "is 'bitfusion server' running there, and listening on that address?"


class NotAServer(BitfusionError):
    template = "cannot use '{server}': {why}"
    hint = "is that the address of a Bitfusion server?"


class NotTrusted(BitfusionError):
    """What TLS says about the other end."""

    template = "cannot trust '{server}': {why}"


class AccessDenied(BitfusionError):
    template = "server '{server}' refused: {why}"
    hint = (
        "'bitfusion enroll BUNDLE' installs a token; operators make one: 'bitfusion token create'"
    )


class NotSafe(BitfusionError):
    template = "cannot serve '{address}' in clear text: it is not a loopback address"
    exit_status = 2
    hint = "run 'bitfusion server init'; or, on a network that you trust, use '--insecure'"


class VersionMismatch(BitfusionError):
    template = (
        "cannot use server '{server}': it has version {theirs} ({they_speak}),"
        " this is version {ours} ({we_speak})"
    )
    hint = "install the same version on both machines"


class ServerRefused(BitfusionError):
    template = "server '{server}' refused: {why}"


class ServerNotReady(ServerRefused):
    """It says itself that asking again later is worth it."""


class ServerLost(BitfusionError):
    template = "lost server '{server}': {why}"


class NotBuilt(BitfusionError):
    template = "cannot find '{path}': {why}"
    hint = "run 'make' in the checkout, or set BITFUSION_LIBDIR"


class DriverUnusable(BitfusionError):
    template = "cannot use driver '{path}': {why}"


class NoDriver(BitfusionError):
    template = "cannot use driver '{path}': no such file"
    exit_status = 2


class CannotListen(BitfusionError):
    template = "cannot listen on '{address}': {why}"


class NotOurAddress(CannotListen):
    """It cannot become right by itself, as a port that is taken can."""

    exit_status = 2
    hint = "'--listen' takes an address of this machine, or 0.0.0.0 for all of them"


class StateFolderInUse(BitfusionError):
    template = "cannot serve: another server uses folder '{path}'"
    hint = "give this one a folder of its own with --state_dir"


class StoreUnusable(BitfusionError):
    template = "cannot use the state in '{where}': {why}"


class OtherKeys(BitfusionError):
    template = "cannot join the cluster at {where}: its servers have other keys, '{theirs}'"
    hint = (
        "'bitfusion server invite' there, and 'bitfusion server init --join' here; if it is to"
        " have new keys, delete '/bitfusion/cluster' from etcd"
    )


class AlreadyThere(BitfusionError):
    template = "cannot make keys: '{path}' is there already"
    hint = (
        "nothing was changed: tokens and clients depend on these keys; to join another cluster,"
        " remove them first"
    )


class NoKeys(BitfusionError):
    template = "cannot {what}: there are no keys in '{path}'"
    hint = "'bitfusion server init' makes them"


class NoServer(BitfusionError):
    template = "cannot find a server to ask: none has its state in '{folder}'"
    hint = "'bitfusion server init' makes keys; BITFUSION_STATE_DIR says where they are"


class NotRunning(BitfusionError):
    template = "cannot find a server to ask: the one with its state in '{folder}' does not run"
    hint = "BITFUSION_STATE_DIR says where another one has its state"


class NoReservation(BitfusionError):
    template = "cannot find reserved GPUs: {why}"
    hint = "'bitfusion request_gpus -n 1' reserves some"


class SeveralReservations(BitfusionError):
    template = "cannot choose between reservations {files}"
    exit_status = 2
    hint = "option '-f' names one"


class NotReleased(BitfusionError):
    template = "cannot release '{file}': process {pid} does not end"


class WrongBundle(BitfusionError):
    template = "cannot use bundle '{path}': {why}"


class Enrolled(BitfusionError):
    template = "cannot enroll: '{path}' has other settings"
    hint = "'--force' replaces the file; the one before is kept as '{path}.old'"


class MissingPackage(BitfusionError):
    template = "cannot {what}: the Python package '{package}' is not installed"
    hint = "in a checkout run 'make'; else python3 -m pip install {package}"


class MissingServerPackage(MissingPackage):
    """One of several that clients do without."""

    hint = "in a checkout run 'make'; else python3 -m pip install 'bitfusion[server]'"


class SystemFailure(BitfusionError):
    """The operating system refused something that normally works."""

    template = "cannot {what}: {why}"
