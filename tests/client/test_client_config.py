# SPDX-License-Identifier: Apache-2.0
"""Settings: precedence, validation with file and line."""

from __future__ import annotations

import os
import pathlib

import pytest

from bitfusion import config
from bitfusion.errors import ConfigError
from bitfusion.options import parse

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(path: pathlib.Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_option_beats_environment_beats_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (config.option("client.transport"),)
    system = write(tmp_path / "a.toml", '[client]\ntransport = "unix"\ntimeout = 7\n')
    user = write(tmp_path / "b.toml", '[client]\nserver_list = ["gpu01", "[::1]:5"]\n')
    loaded = config.load((system, user), None, ("client",))
    assert loaded.text("client.transport") == "unix"
    assert loaded.seconds("client.timeout") == 7
    assert loaded.addresses("client.server_list") == (("gpu01", 56001), ("::1", 5))
    assert loaded.origins["client.timeout"] == f"{system}:3"
    monkeypatch.setenv("BITFUSION_TRANSPORT", "auto")
    loaded = config.load((system, user), parse("run", table, []), ("client",))
    assert loaded.text("client.transport") == "auto"
    loaded = config.load((system,), parse("run", table, ["--transport", "tcp"]), ("client",))
    assert loaded.text("client.transport") == "tcp"


def test_an_option_of_the_same_name_elsewhere_is_not_a_setting() -> None:
    """run's -m is not the software GPU's --memory."""
    from bitfusion.commands import run

    parsed = parse("run", run.OPTIONS, ["-n", "1", "-m", "100", "x"])
    assert config.load((), parsed, ("client", "softgpu")).number("softgpu.memory") == 4 << 30


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('[client]\n\ntransport = "pigeon"\n', 3, "'pigeon' is none of"),
        ("[client]\ntimeout = 3\ntimeuot = 4\n", 3, "unknown key 'timeuot' in \\[client\\]"),
        ("[client\n", 1, "Expected"),
        ("[client]\na = \n", 2, "Invalid value"),
        ("x = 1\n", 1, "unknown key 'x' outside any section"),
        ("[client]\ntransport = true\n", 2, "'True' is not a text"),
        ("[softgpu]\n# size\nmemory = '4Q'\n", 3, "not a size"),
        ("[server]\nlisten = 'nowhere:99999'\n", 2, "no port"),
        ("[server]\ndata_ports = '9-5'\n", 2, "not a range"),
        ("[server]\nlisten = 56111\n", 2, "write HOST:PORT"),
        ("[server]\nspare_workers = 65\n", 2, "not from 0 to 64"),
    ],
)
def test_mistakes_are_told_with_file_and_line(
    tmp_path: pathlib.Path, text: str, line: int, why: str
) -> None:
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError, match=why) as caught:
        config.load((path,), None, ("client",))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert caught.value.exit_status == 2


def test_a_file_that_the_environment_names_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("BITFUSION_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"^BITFUSION_CONFIG: no such file '/.*none.toml'$"):
        config.client_files()


def test_unreadable_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"# one\n# tw\xffo\n")
    with pytest.raises(ConfigError, match=r"c.toml:2: byte 0xff is not UTF-8$"):
        config.load((str(path),), None, ("client",))


def test_samples_are_valid_and_name_every_key() -> None:
    for name, sections in (("client", ("client", "softgpu")), ("server", ("server", "softgpu"))):
        path = ROOT / "etc" / "bitfusion" / f"{name}.toml"
        config.load((str(path),), None, sections)
        text = path.read_text()
        for setting in config.SETTINGS:
            section, _, key = setting.name.partition(".")
            if section == name:
                assert f"{key} =" in text, setting.name


@pytest.mark.parametrize(
    "text",
    ["", "a b", ":1", "56001", "1:2", "a:", "[::1", "a:70000", "[::1]x", "a:-1", "::::", "[x]:1"],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        config.parse_address(text)


def test_home_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BITFUSION_CONFIG", raising=False)
    assert config.client_files()[1] == os.path.join(str(tmp_path), ".bitfusion", "client.toml")
    monkeypatch.setenv("BITFUSION_CONFIG", __file__)
    assert config.client_files() == (__file__,)
