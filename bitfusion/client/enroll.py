# SPDX-License-Identifier: Apache-2.0
"""Installs a token's bundle. A bundle comes from elsewhere, so it may say only what tokens need:
which servers, whose certificate, which token.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from bitfusion import bundle, configfile, paths
from bitfusion.certificates import first_certificate
from bitfusion.configfile import CLIENT_FILE
from bitfusion.errors import ConfigError, Enrolled, SystemFailure, WrongBundle, reason
from bitfusion.settings import BY_NAME, CLIENT_SECTIONS

CA_FILE = "ca.crt"
ALLOWED = ("client.server_list", "client.ca", "client.token", "client.encrypt")
NEEDED = ALLOWED[:3]
GROUP = "bitfusion"


class Place(NamedTuple):
    """Where a bundle's files go, and who may read them."""

    folder: str
    folder_mode: int
    file_mode: int
    group: int  # -1: leave it


def system_place() -> Place:
    import grp

    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        raise SystemFailure(
            what="enroll this machine",
            why=f"there is no group '{GROUP}', whose members may use it",
            hint=f"groupadd --system {GROUP}; or 'bitfusion enroll --user'",
        ) from None
    return Place(os.path.dirname(paths.system_file(CLIENT_FILE)), 0o755, 0o640, group)


def user_place() -> Place:
    return Place(os.path.dirname(paths.user_file(CLIENT_FILE)), 0o700, 0o600, -1)


class Bundle(NamedTuple):
    client: str  # its name
    files: dict[str, bytes]


def read_bundle(path: str) -> Bundle:
    """Raises WrongBundle."""
    files = bundle.unpack(path, (CA_FILE, CLIENT_FILE))
    return Bundle(check(path, files), files)


def enroll(given: Bundle, place: Place, force: bool) -> bool:
    """Whether anything changed."""
    files = given.files
    target = os.path.join(place.folder, CLIENT_FILE)
    there = {file: read(os.path.join(place.folder, file)) for file in files}
    if there == files:
        return False
    replaceable = force or renews(there, files) or not there[CLIENT_FILE]
    if not replaceable and says_something(target):
        raise Enrolled(path=target)
    try:
        os.makedirs(place.folder, place.folder_mode, exist_ok=True)
        if there[CLIENT_FILE]:
            install(f"{target}.old", there[CLIENT_FILE], place)
        for file in (CA_FILE, CLIENT_FILE):  # the settings last: they name the other
            install(os.path.join(place.folder, file), files[file], place)
    except OSError as error:
        raise SystemFailure(what=f"write to '{place.folder}'", why=reason(error)) from None
    return True


def renews(there: dict[str, bytes], files: dict[str, bytes]) -> bool:
    """The same client's newer token for the same servers: nothing that somebody chose is lost."""
    if there[CA_FILE] != files[CA_FILE]:
        return False
    try:
        said, given = (
            dict(settings_of(some[CLIENT_FILE].decode("utf-8"))) for some in (there, files)
        )
    except (ConfigError, ValueError):
        return False
    tokens = [settings.pop("client.token", "").partition(":")[0] for settings in (said, given)]
    return tokens[0] == tokens[1] and said == given


def check(path: str, files: dict[str, bytes]) -> str:
    """The client's name; raises WrongBundle."""
    try:
        check_certificate(first_certificate(files[CA_FILE].decode("ascii")))
        said = dict(settings_of(files[CLIENT_FILE].decode("utf-8")))
        for key, text in said.items():
            if key not in ALLOWED:
                raise ValueError(f"a bundle may not set '{key}'")
            BY_NAME[key].parse(text)
        missing = [key for key in NEEDED if not said.get(key)]
        if missing or said["client.ca"] != CA_FILE:
            raise ValueError(f"'{missing[0] if missing else NEEDED[1]}' is not as it must be")
    except ConfigError as error:
        raise WrongBundle(path=path, why=str(error)) from None
    except ValueError as error:
        raise WrongBundle(path=path, why=str(error)) from None
    return said["client.token"].partition(":")[0]


def check_certificate(text: str) -> None:
    """Raise ValueError unless TLS can check servers by it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        why = (error.reason or "it cannot be read").lower().replace("_", " ")
        raise ValueError(f"'{CA_FILE}' holds no certificate ({why})") from None


def settings_of(text: str) -> list[tuple[str, str]]:
    found = configfile.parse(text, CLIENT_FILE, BY_NAME, CLIENT_SECTIONS)
    return [(key, value) for key, value, _ in found]


def says_something(path: str) -> bool:
    """The sample of a package does not: all its lines are comments."""
    try:
        return any(True for _ in configfile.read(path, BY_NAME, CLIENT_SECTIONS))
    except ConfigError:
        return True


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(bundle.MAX_FILE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SystemFailure(what=f"read '{path}'", why=reason(error)) from None


def install(path: str, data: bytes, place: Place) -> None:
    """Whole or not at all, and never readable for others in between."""
    new = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
        os.fchown(file.fileno(), -1, place.group)
        os.fchmod(file.fileno(), place.file_mode)
    os.replace(new, path)
