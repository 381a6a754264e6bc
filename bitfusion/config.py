# SPDX-License-Identifier: Apache-2.0
"""The configuration: where each setting's value comes from.

An option beats the environment, which beats the user's file, which beats the machine's, which
beats the default.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Optional

from bitfusion import paths
from bitfusion.errors import ConfigError, NotPermitted, UsageError
from bitfusion.options import Option, Parsed, canonical
from bitfusion.settings import BY_NAME, CLIENT_SECTIONS, SERVER_SECTIONS, SETTINGS, Setting
from bitfusion.values import DEFAULT_PORT as DEFAULT_PORT
from bitfusion.values import Address
from bitfusion.values import format_address as format_address

DEFAULT = "default"
MASK = "********"


def option(name: str) -> Option:
    setting = BY_NAME[name]
    assert setting.option, name
    return Option((setting.option,), setting.value, setting.help)


class Config:
    """Values by setting name, and where each came from."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.origins: dict[str, str] = {s.name: DEFAULT for s in SETTINGS}
        self._values: dict[str, object] = {}

    def set(self, name: str, text: str, origin: str) -> None:
        try:
            self._values[name] = BY_NAME[name].parse(text)
        except ValueError as error:
            raise ConfigError(place=origin, why=str(error)) from None
        self.texts[name], self.origins[name] = text, origin

    def value(self, name: str) -> object:
        if name not in self._values:  # parsed when it is needed: a run asks for few of them
            self._values[name] = BY_NAME[name].parse(self.source(name))
        return self._values[name]

    def source(self, name: str) -> str:
        """The value as a file would say it."""
        default = BY_NAME[name].default
        return (
            self.texts[name]
            if name in self.texts
            else default
            if isinstance(default, str)
            else default()
        )

    def shown(self, name: str) -> str:
        text = self.source(name)
        return f"{text.partition(':')[0]}:{MASK}" if BY_NAME[name].secret and text else text

    def text(self, name: str) -> str:
        value = self.value(name)
        assert isinstance(value, str)
        return value

    def truth(self, name: str) -> bool:
        value = self.value(name)
        assert isinstance(value, bool)
        return value

    def number(self, name: str) -> int:
        value = self.value(name)
        assert isinstance(value, int)
        return value

    def seconds(self, name: str) -> float:
        value = self.value(name)
        assert isinstance(value, float)
        return value

    def address(self, name: str) -> Address:
        value = self.value(name)
        assert isinstance(value, tuple)
        return value

    def ports(self, name: str) -> tuple[int, int]:
        value = self.value(name)
        assert isinstance(value, tuple)
        return value

    def addresses(self, name: str) -> tuple[Address, ...]:
        value = self.value(name)
        assert isinstance(value, tuple)
        return value


def load(files: Sequence[str], parsed: Optional[Parsed], sections: Sequence[str]) -> Config:
    """Read these files (missing ones are skipped), the environment, then the options.

    A file that may not be read is an error unless another file, the environment or an option says
    which servers to use.
    """
    config = Config()
    refused: Optional[NotPermitted] = None
    for path in files:
        if not _is_there(path):
            continue
        try:
            _read_file(config, path, sections)
        except NotPermitted as error:
            refused = refused or error
    for setting in SETTINGS:
        if setting.name.partition(".")[0] not in sections:
            continue
        given = os.environ.get(setting.environment) if setting.environment else None
        if given:
            config.set(setting.name, given, setting.environment)
        if parsed is not None and setting.option:
            _take_option(config, setting, parsed)
    if refused is not None and "client.server_list" not in config.texts:
        raise refused
    return config


def _is_there(path: str) -> bool:
    """Also where it is in a folder that we may not look into: then reading it says so."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _read_file(config: Config, path: str, sections: Sequence[str]) -> None:
    from bitfusion import configfile  # only here, so that a run without a file stays fast

    for name, text, origin in configfile.read(path, BY_NAME, sections):
        if BY_NAME[name].path and text:
            text = os.path.join(os.path.dirname(os.path.abspath(path)), text)
        config.set(name, text, origin)


def _take_option(config: Config, setting: Setting, parsed: Parsed) -> None:
    key = canonical(setting.option)
    if option(setting.name) in parsed.table and parsed.has(key):
        text = (parsed.text(key) or "") if setting.value else "true"
        try:
            config.set(setting.name, text, f"{parsed.verb}: {setting.option}")
        except ConfigError as error:
            error.hint = UsageError.hint.format(verb=parsed.verb)
            raise


def client_files() -> tuple[str, ...]:
    given = os.environ.get("BITFUSION_CONFIG")
    if given:
        if not os.path.exists(given):
            raise ConfigError(place="BITFUSION_CONFIG", why=f"no such file '{given}'")
        return (given,)
    return (paths.system_file("client.toml"), paths.user_file("client.toml"))


def server_files(given: Optional[str]) -> tuple[str, ...]:
    """given: of --config."""
    if given is not None and not os.path.exists(given):
        raise ConfigError(place="--config", why=f"no such file '{given}'")
    return (given,) if given else (paths.system_file("server.toml"),)


def load_client(parsed: Optional[Parsed]) -> Config:
    return load(client_files(), parsed, CLIENT_SECTIONS)


def load_without_servers(parsed: Optional[Parsed]) -> Config:
    """Of a command that does without servers: what it may not read was not meant for it."""
    try:
        return load_client(parsed)
    except NotPermitted:
        if os.environ.get("BITFUSION_CONFIG"):
            raise
        return load((paths.user_file("client.toml"),), parsed, CLIENT_SECTIONS)


def load_server(parsed: Optional[Parsed]) -> Config:
    """Of a command that has the option --config. Who may not read the settings of the machine's
    server has to do with a server of their own, if any.
    """
    given = parsed.text("config") if parsed else None
    try:
        return load(server_files(given), parsed, SERVER_SECTIONS)
    except NotPermitted:
        if given:
            raise
        return load((), parsed, SERVER_SECTIONS)
