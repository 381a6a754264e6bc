# SPDX-License-Identifier: Apache-2.0
"""Settings: precedence, validation with file and line."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any, NoReturn

import pytest

from bitfusion import cli, config, paths, quantity, settings, values
from bitfusion.commands.kill import OPTIONS as SERVER_OPTIONS
from bitfusion.errors import ConfigError, NotPermitted
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
        ("[client]\ntransport = true\n", 2, "'true' is none of"),
        ("[client]\ntransport = 1979-05-27\n", 2, "'1979-05-27' is not a text"),
        ("[client]\ntoken = 'alice'\n", 2, "the token is not NAME:SECRET"),
        ("[client]\nqueue_timeout = '10 minutes'\n", 2, "not a time such as 30s, 10m"),
        ("[client]\nlease = 0\n", 2, "not a time above 0"),
        ("[server]\ninsecure = 'maybe'\n", 2, "'maybe' is neither true nor false"),
        ("[cluster]\nstore = 'redis://a:1'\n", 2, "neither sqlite nor etcd://HOST:PORT"),
        ("[cluster]\n\nstore = 'etcd://'\n", 3, "neither sqlite nor etcd://HOST:PORT"),
        ("[limits]\ngpus = -1\n", 2, "'-1' is not a whole number"),
        ("[client]\n[cliemt]\n", 2, "\\[cliemt\\] is no section of this file"),
        ("[limits]\n[limit]\ngpus = 1\n", 3, "unknown key 'gpus' in \\[limit\\]"),
        ("[softgpu]\n# size\nmemory = '4Q'\n", 3, "not a size"),
        ("[server]\nlisten = 'nowhere:99999'\n", 2, "no port"),
        ("[server]\ndata_ports = '9-5'\n", 2, "not a range"),
        ("[server]\nlisten = 56111\n", 2, "write HOST:PORT"),
        ("[server]\nspare_workers = 65\n", 2, "not from 0 to 64"),
        ('[server]\nhost_memory = "0%"\n', 2, "not from 1% to 100%"),
        ('[server]\nhost_memory = "200M"\n', 2, "less than 256M"),
    ],
)
def test_mistakes_are_told_with_file_and_line(
    tmp_path: pathlib.Path, text: str, line: int, why: str
) -> None:
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError, match=why) as caught:
        config.load((path,), None, (*settings.CLIENT_SECTIONS, *settings.SERVER_SECTIONS))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert caught.value.exit_status == 2


def test_a_file_that_the_environment_names_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("BITFUSION_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"^BITFUSION_CONFIG: no such file '/.*none.toml'$"):
        config.client_files()


@pytest.mark.parametrize(
    ("sections", "text", "other"),
    [
        (settings.SERVER_SECTIONS, '[server]\n[client]\nencrypt = "always"\n', "client.toml"),
        (settings.CLIENT_SECTIONS, "[client]\n[limits]\ngpus = 2\n", "server.toml"),
    ],
)
def test_what_a_file_says_in_vain_is_a_mistake(
    tmp_path: pathlib.Path, sections: tuple[str, ...], text: str, other: str
) -> None:
    path = write(tmp_path / "s.toml", text)
    with pytest.raises(ConfigError, match=r"s.toml:3: \[\w+\] is not for this file$") as caught:
        config.load((path,), None, sections)
    assert other in caught.value.hint


def test_a_folder_that_we_may_not_look_into_is_no_missing_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a machine's servers would be forgotten silently, and the run be a private one."""

    def refuse(*_words: object, **_names: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match="c.toml: permission denied") as caught:
        config.load((str(tmp_path / "c.toml"),), None, ("client",))
    assert "group" in caught.value.hint


def test_settings_that_name_servers_do_without_those_one_may_not_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a user who is not in the group, with a bundle or a server of their own."""
    mine, theirs = tmp_path / "mine.toml", tmp_path / "theirs.toml"
    mine.write_text('[client]\nserver_list = ["one:1"]\n')
    theirs.write_text("")
    read = open

    def guarded(path: str, *words: Any, **names: Any) -> Any:
        if path == str(theirs):
            raise PermissionError(13, "Permission denied")
        return read(path, *words, **names)

    monkeypatch.setattr("builtins.open", guarded)
    found = config.load((str(theirs), str(mine)), None, ("client",))
    assert found.addresses("client.server_list") == (("one", 1),)
    with pytest.raises(NotPermitted):
        config.load((str(theirs),), None, ("client",))
    monkeypatch.setenv("BITFUSION_SERVER_LIST", "two:2")
    found = config.load((str(theirs),), None, ("client",))
    assert found.addresses("client.server_list") == (("two", 2),)
    monkeypatch.delenv("BITFUSION_SERVER_LIST")
    monkeypatch.setattr(paths, "system_file", lambda name: str(theirs))
    monkeypatch.setattr(paths, "user_file", lambda name: str(tmp_path / "none.toml"))
    parsed = parse("softgpu", (config.option("softgpu.gpus"),), [])
    assert config.load_without_servers(parsed).number("softgpu.gpus") == 0
    monkeypatch.setenv("BITFUSION_CONFIG", str(theirs))
    with pytest.raises(NotPermitted):
        config.load_without_servers(parsed)


def test_unreadable_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"# one\n# tw\xffo\n")
    with pytest.raises(ConfigError, match=r"c.toml:2: byte 0xff is not UTF-8$"):
        config.load((str(path),), None, ("client",))


SAMPLES = [("client", settings.CLIENT_SECTIONS), ("server", settings.SERVER_SECTIONS)]


@pytest.mark.parametrize(("name", "sections"), SAMPLES)
def test_samples_show_every_key_with_its_default(
    name: str, sections: tuple[str, ...], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    sample = (ROOT / "etc" / "bitfusion" / f"{name}.toml").read_text()
    live = [line for line in sample.splitlines() if line and not line.startswith(("#", "["))]
    assert live == []  # as it is, it changes nothing
    path = write(tmp_path / f"{name}.toml", re.sub(r"(?m)^#(?=\w+ = )", "", sample))
    loaded, plain = config.load((path,), None, sections), config.Config()
    for setting in settings.SETTINGS:
        if setting.name.partition(".")[0] in sections:
            assert loaded.origins[setting.name].startswith(path), setting.name
            assert loaded.value(setting.name) == plain.value(setting.name), setting.name
        else:
            assert loaded.origins[setting.name] == "default", setting.name


def test_defaults_are_valid_and_in_help() -> None:
    for setting in settings.SETTINGS:
        config.Config().value(setting.name)
        told = setting.default if isinstance(setting.default, str) else ""
        if setting.option and "(default: " in setting.help and told not in ("", "auto"):
            assert f"(default: {told}" in setting.help, setting.name


def test_paths_are_relative_to_their_file(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "c.toml", '[client]\nca = "ca.crt"\n')
    assert config.load((path,), None, ("client",)).text("client.ca") == str(tmp_path / "ca.crt")
    path = write(tmp_path / "c.toml", '[client]\nca = ""\n')
    assert config.load((path,), None, ("client",)).text("client.ca") == ""


def test_a_flag_sets_a_truth() -> None:
    table = (config.option("server.insecure"),)
    assert config.load((), parse("server", table, ["--insecure"]), ("server",)).truth(
        "server.insecure"
    )
    assert not config.load((), parse("server", table, []), ("server",)).truth("server.insecure")


def test_where_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert config.Config().text("server.state_dir") == "/state/bitfusion"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert config.Config().text("server.state_dir") == "/home/me/.local/state/bitfusion"


def test_show_tells_values_and_origins_and_masks_secrets(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "0123456789abcdef" * 4
    client = write(tmp_path / "c.toml", f'[client]\ntoken = "alice:{secret}"\nlease = 60\n')
    server = write(tmp_path / "s.toml", '[server]\nlisten = "0.0.0.0"\n[limits]\ntime = "8h"\n')
    tmp_path.chmod(0o500)  # nothing is written beside them
    monkeypatch.setenv("BITFUSION_CONFIG", client)
    monkeypatch.setenv("BITFUSION_TRANSPORT", "tcp")
    assert cli.dispatch(["config", "--show", "--config", server]) == 0
    out = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1] != "#" if line
    }
    assert rows["client.token"] == ["alice:********", f"{client}:2"] and secret not in out
    assert rows["client.lease"] == ["60", f"{client}:3"]
    assert rows["client.transport"] == ["tcp", "BITFUSION_TRANSPORT"]
    assert rows["server.listen"] == ["0.0.0.0", f"{server}:2"]
    assert rows["limits.time"] == ["8h", f"{server}:4"] and rows["client.ca"] == ["-", "default"]
    assert set(rows) == set(settings.BY_NAME)
    assert cli.dispatch(["config", "--json", "--config", server]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server"]["limits.time"] == {"value": "8h", "origin": f"{server}:4"}
    assert secret not in json.dumps(told)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [("30", 30, "30s"), ("30s", 30, "30s"), ("10m", 600, "10m"), ("8h", 28800, "8h"),
     ("365d", 31536000, "365d"), ("1h30m", 5400, "1h30m"), ("90m", 5400, "1h30m"), ("0", 0, "0s"),
     ("1.5h", 5400, "1h30m"), ("250ms", 0.25, "0s"), ("2w", 1209600, "14d")],
)  # fmt: skip
def test_times(text: str, seconds: float, shown: str) -> None:
    assert quantity.parse_duration(text) == seconds
    assert quantity.format_duration(seconds) == shown
    assert quantity.parse_duration(shown) == int(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "10 m", "-1s", "1y", "1h30", "h1", "1e3", "1,5h", "9999999999w", "\u0661s"]
)
def test_wrong_times(text: str) -> None:
    with pytest.raises(ValueError):
        quantity.parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["", "a b", ":1", "56001", "1:2", "a:", "[::1", "a:70000", "[::1]x", "a:-1", "::::", "[x]:1"],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        values.parse_address(text)


def test_home_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BITFUSION_CONFIG", raising=False)
    assert config.client_files()[1] == os.path.join(str(tmp_path), ".bitfusion", "client.toml")
    monkeypatch.setenv("BITFUSION_CONFIG", __file__)
    assert config.client_files() == (__file__,)


def test_who_may_not_read_the_machines_settings_has_a_server_of_their_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "server.toml", '[server]\nlisten = "0.0.0.0:1"\n')
    monkeypatch.setattr(paths, "system_file", lambda _name: path)
    assert config.load_server(None).address("server.listen") == ("0.0.0.0", 1)

    def refuse(*_words: object, **_names: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert config.load_server(None).address("server.listen") == ("127.0.0.1", 56001)
    with pytest.raises(ConfigError, match="permission denied"):
        config.load_server(parse("server", SERVER_OPTIONS, ["--config", path]))
