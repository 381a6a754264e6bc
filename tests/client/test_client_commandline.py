# SPDX-License-Identifier: Apache-2.0
"""What users type: options, quoting, mistakes; one clear line and the right status for each."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bitfusion import cli, errors, inventory, settings
from bitfusion.client.program import find
from bitfusion.commands import run
from bitfusion.options import Command, Option, Parsed, describe, parse, take_words

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = (
    Option(("-n", "--num_gpus"), "N", "how many"),
    Option(("--server_list",), "LIST", "which"),
    Option(("-v", "--verbose"), "", "talk"),
)


def values(*words: str) -> tuple[dict[str, str], list[str]]:
    parsed = parse("run", TABLE, words)
    return parsed.values, parsed.words


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        (["-n", "1", "prog", "-v"], {"num_gpus": "1"}, ["prog", "-v"]),
        (["-n1", "--", "prog"], {"num_gpus": "1"}, ["prog"]),
        (["-n=1", "prog"], {"num_gpus": "1"}, ["prog"]),
        (["--num_gpus=1", "--", "--", "x"], {"num_gpus": "1"}, ["--", "x"]),
        (["--num-gpus", "1", "prog", "--", "x"], {"num_gpus": "1"}, ["prog", "--", "x"]),
        (["--server-list=a:1,b", "-v", "p"], {"server_list": "a:1,b", "verbose": ""}, ["p"]),
        (["-v", "-v", "p"], {"verbose": ""}, ["p"]),
        (["-vn1", "p"], {"verbose": "", "num_gpus": "1"}, ["p"]),
        (["-vn", "1", "p"], {"verbose": "", "num_gpus": "1"}, ["p"]),
        (["--", "-v"], {}, ["-v"]),
        (["-", "-v"], {}, ["-", "-v"]),
        ([], {}, []),
    ],
)
def test_parse(words: list[str], options: dict[str, str], rest: list[str]) -> None:
    assert values(*words) == (options, rest)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-x", "p"], "unknown option '-x'"),
        (["--frob=1", "p"], "unknown option '--frob'"),
        (["-vx", "1"], "unknown option '-x'"),
        (["-vn"], "option '-n' needs a value"),
        (["-v="], "unknown option '-='"),
        (["-n"], "needs a value"),
        (["-n", "1", "-n", "2", "p"], "given twice"),
        (["--verbose=1", "p"], "takes no value"),
        (["-n", "", "p"], "'-n' has an empty value|'--num_gpus' has an empty value"),
        (["--server_list=", "p"], "'--server_list' has an empty value"),
    ],
)
def test_mistakes(words: list[str], why: str) -> None:
    with pytest.raises(errors.UsageError, match=why):
        values(*words)


def test_words_and_options_in_any_order() -> None:
    parsed = parse("token create", TABLE, ["alice", "-n", "1", "--", "-v"], mixed=True)
    assert (parsed.values, parsed.words) == ({"num_gpus": "1"}, ["alice", "-v"])
    assert take_words(parsed, "name", "flag") == ["alice", "-v"]
    with pytest.raises(errors.UsageError, match="unexpected word '-v'"):
        take_words(parsed, "name")
    with pytest.raises(errors.UsageError, match="which end"):
        take_words(parsed, "name", "flag", "end")


def words_of(*words: str) -> list[str]:
    return run.words_of(parse("run", run.OPTIONS, ["-n", "1", *words]))


def test_memory_is_in_mib_or_has_a_unit() -> None:
    def asked(text: str) -> object:
        return run.asked_for(parse("run", run.OPTIONS, ["-n", "1", "-m", text]))["memory"]

    assert asked("2048") == asked("2G") == asked("2GiB") == asked("2048M") == 2 << 30


def test_a_quoted_command_is_split_like_a_shell_would(tmp_path: object) -> None:
    assert words_of("python3 train.py --name 'a b'") == ["python3", "train.py", "--name", "a b"]
    assert words_of("--", "python3 x.py") == ["python3", "x.py"]
    assert words_of("prog", "a b") == ["prog", "a b"]
    path = os.path.join(str(tmp_path), "a program")
    with open(path, "w"):
        assert words_of(path) == [path]
    with pytest.raises(errors.UsageError, match="quotation"):
        words_of("echo 'a")
    with pytest.raises(errors.UsageError, match="missing"):
        words_of(" ")
    with pytest.raises(errors.UsageError, match="missing"):
        words_of("")


WRONG_MEMORY = [
    ("2X", "is not a number of MiB, or a size such as 2G"),
    ("-1", "is not a number of MiB, or a size such as 2G"),
    ("1K", "is not from 1 MiB to 1024 TiB"),
    ("00", "is not from 1 MiB to 1024 TiB"),
    ("1025T", "is not from 1 MiB to 1024 TiB"),
    ("999999999999999", "is not from 1 MiB to 1024 TiB"),
]
MANY_FILTERS = ["--filter", "device.id=0"] * 33
MANY_SERVERS = ",".join(f"gpu{number}" for number in range(33))
BAD = [
    (["run"], "option '-n' is missing", 2),
    (["run", "-n", "0", "true"], "'0'", 2),
    (["run", "-n", "two", "true"], "'two'", 2),
    (["run", "-n", "1"], "which program", 2),
    (["run", "-n", "1", "-p", "0", "true"], "'0' is not above 0", 2),
    (["run", "-n", "1", "-p", "1.5", "true"], "'1.5' is not above 0 and at most 1", 2),
    (["run", "-n", "1", "-p", "0.5", "-m", "100", "true"], "exclude each other", 2),
    *(
        ([*words, text], f"{words[-1]}: '{text}' {why}", 2)
        for words in (["run", "-n", "1", "-m"], ["token", "create", "x", "--memory"])
        for text, why in WRONG_MEMORY
    ),
    (["run", "-n", "1", "-m", "0", "true"], "-m: '0' is not from 1 MiB to 1024 TiB", 2),
    (["run", "-n", "1", "--frob", "true"], "unknown option '--frob'", 2),
    (["run", "-n", "1", "--transport", "pigeon", "true"], "'pigeon' is none of auto", 2),
    (["run", "-n", "1", "--server_list", "a:b", "true"], "no port from 1 to 65535", 2),
    (["run", "-n", "1", "--server_list", "a:0", "true"], "'a:0' has no port from 1 to 65535", 2),
    (["run", "-n", "1", "--server_list", "a:65536", "true"], "no port from 1 to 65535", 2),
    (["list_gpus", "--server_list", "a,[::1]:0"], "'[::1]:0' has no port from 1 to 65535", 2),
    (["list_gpus", "--server_list", "a..b"], "'a..b' is not an address such as gpu01:56001", 2),
    (["server", "--listen", "\udcff"], "is not an address such as gpu01:56001", 2),
    (["log_bundle", "--server_list", "a b"], "--server_list: 'a b' is not an address", 2),
    (["stats", "--from", "2026-11-23", "--to", "2026-11-22"], "--from is later than --to", 2),
    (["run", "-n", "1", *MANY_FILTERS, "true"], "--filter: 33 of them, and 32 are the most", 2),
    (["run", "-n", "1", "--server_list", MANY_SERVERS, "true"], "--server_list: 33 of them", 2),
    (["request_gpus", "-n", "1", "--server_list", MANY_SERVERS], "--server_list: 33 of them", 2),
    (["list_gpus", "extra"], "unexpected word 'extra'", 2),
    (["version", "extra"], "unexpected word 'extra'", 2),
    (["help", "run", "extra"], "unexpected word 'extra'", 2),
    (["softgpu", "--memory", "0", "true"], "'0' is not from 1M to 128G", 2),
    (["softgpu", "--memory", "100K", "true"], "'100K' is not from 1M to 128G", 2),
    (["softgpu", "--memory", "129G", "true"], "'129G' is not from 1M to 128G", 2),
    (["softgpu", "--gpus", "0", "true"], "'0' is not from 1 to 16", 2),
    (["softgpu", "--gpus", "17", "true"], "'17' is not from 1 to 16", 2),
    (["run", "-n", "1", "no-such-program"], "cannot run 'no-such-program': not found", 127),
    (["run", "-n", "1", "/no/such"], "not found", 127),
    (["run", "-n", "1", "/etc/passwd"], "permission denied", 126),
    (["run", "-n", "1", "/tmp"], "it is a folder", 126),
    (["run", "-n", "1", "--driver", "/no/such.so", "true"], "'/no/such.so': no such file", 2),
    (["run", "-n", "1", "--server_list", "127.0.0.1:1", "true"], "connection refused", 1),
    (["frobnicate"], "unknown command 'frobnicate'", 2),
    (["help", "frobnicate"], "unknown command 'frobnicate'", 2),
    (["softgpu"], "which program", 2),
    (["server", "extra"], "unexpected word 'extra'", 2),
    (["server", "--config", "/no/such.toml"], "no such file", 2),
]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/no/such  -x", "its interpreter '/no/such' is not there"),
        ("#!/bin/sh\r\n", r"its interpreter '/bin/sh\r' is not there"),
        ("", "not a program"),
    ],
)
@pytest.mark.parametrize("verb", [("run", "-n", "1"), ("softgpu",)])
def test_a_script_that_nothing_can_read(
    tmp_path: pathlib.Path, text: str, why: str, verb: tuple[str, ...]
) -> None:
    script = tmp_path / "script"
    script.write_text(text)
    script.chmod(0o755)
    words = [sys.executable, os.path.join(ROOT, "bin", "bitfusion"), *verb, str(script)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 126
    assert f"cannot run '{script}': {why}" in done.stderr


def test_a_program_that_is_not_there_gets_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").touch()
    given = {
        "train": "./train",
        "nvidia-smi": "bitfusion smi",
        "A=1": "'env A=1 program'",
        "x": "",
    }
    for program, hint in given.items():
        with pytest.raises(errors.ProgramNotFound) as caught:
            find(program, {"PATH": "/nowhere"})
        assert hint in caught.value.hint and bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize(("words", "text", "status"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input(words: list[str], text: str, status: int) -> None:
    with pytest.raises(errors.BitfusionError) as caught:
        cli.dispatch(words)
    assert text in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_status == status


def test_errors_reach_the_user_as_one_line_and_a_hint() -> None:
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "bin", "bitfusion"), "run", "--fr\nob"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "bitfusion: run: unknown option '--fr\\nob'\nhint: see 'bitfusion help run'\n"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/a/tls"), "use '/a/tls': read-only file"),
        (OSError(errno.EROFS, "Read-only file system", b"/a\xff"), "use '/a\udcff': read-only"),
        (OSError(errno.EBADF, "Bad file descriptor", 3), "go on: bad file descriptor"),
        (OSError(errno.ENOSPC, "No space left on device"), "go on: no space left on device"),
    ],
)
def test_what_the_system_refuses_is_told_with_its_file(error: OSError, text: str) -> None:
    assert str(cli.system_failure(error)).startswith(f"cannot {text}")


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("no-such-host.invalid:1", "no such host"),
        ("192.0.2.1:0", "cannot assign requested address"),
    ],
)
def test_an_address_that_is_not_ours_is_bad_input(
    listen: str, why: str, tmp_path: pathlib.Path
) -> None:
    path = os.path.join(ROOT, "bin", "bitfusion")
    words = ["server", "--insecure", "--state_dir", str(tmp_path), "--listen", listen]
    done = subprocess.run([sys.executable, path, *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"bitfusion: cannot listen on '{listen}': {why}\nhint: ")


def test_an_old_python_is_told_in_one_line() -> None:
    path = os.path.join(ROOT, "bin", "bitfusion")
    code = f"import runpy, sys; sys.version_info = (3, 8, 1); runpy.run_path({path!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "bitfusion: cannot run with Python 3.8: it needs 3.9 or newer\n"


def test_runs_through_a_symbolic_link_from_anywhere(tmp_path: object) -> None:
    link = os.path.join(str(tmp_path), "bf")
    os.symlink(os.path.join(ROOT, "bin", "bitfusion"), link)
    for command in ([sys.executable, link], [sys.executable, "-m", "bitfusion"]):
        done = subprocess.run(
            [*command, "version"],
            cwd="/",
            env={**os.environ, "PYTHONPATH": ROOT if "-m" in command else ""},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("bitfusion 0.")


def every_command() -> Iterator[tuple[str, Command]]:
    for verb in cli.VERBS:
        if verb != "help":
            yield cli.load_command(verb, [])[:2]
            module = importlib.import_module(f"bitfusion.commands.{verb}")
            for name in getattr(module, "SUBCOMMANDS", {}):
                yield cli.load_command(verb, [name])[:2]


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in cli.VERBS:
        assert cli.dispatch(["help", verb]) == 0
        text = capsys.readouterr().out
        assert len(text.splitlines()) <= 24, verb
        for paragraph in text.split("\n\n")[:2]:  # usage and what it does: no ragged breaks
            lines = paragraph.splitlines()
            for line, following in zip(lines, lines[1:]) if verb != "help" else ():
                assert len(f"{line} {following.split()[0]}") > 79, (verb, line)
        assert "bitfusion" in text
        if verb != "help":
            assert "examples:" in text
    assert cli.dispatch([]) == 0
    assert all(verb in capsys.readouterr().out for verb in ["run"])


@pytest.mark.parametrize("name", [name for name, _command in every_command()])
def test_help_is_no_wider_than_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch([*name.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 24, max(lines, key=len)


def errors_defined_in(path: pathlib.Path) -> set[str]:
    classes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef))
    known = {name for name, value in vars(errors).items() if isinstance(value, type)}
    return {c.name for c in classes for b in c.bases if isinstance(b, ast.Name) and b.id in known}


def test_what_users_are_told_stands_in_one_file() -> None:
    package = pathlib.Path(ROOT, "bitfusion")
    for path in package.rglob("*.py"):
        if path != package / "errors.py":
            assert not errors_defined_in(path), path
    assert len(errors_defined_in(package / "errors.py")) > 30


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
TEXTS = [
    *(["help", verb] for verb in cli.VERBS),
    ["run", "--fröb"],
    ["run", "-n", "1", "--server_list", "fröb:1", "true"],
    ["run", "-n", "1", "/fröb/\udcff"],
    ["list_gpus", "--server_list", "fröb:1,127.0.0.1:1"],
    ["smi", "--server_list", "fröb:1,127.0.0.1:1"],
]


@pytest.mark.parametrize("words", TEXTS, ids=" ".join)
def test_every_text_can_be_printed_in_an_ascii_locale(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "bin", "bitfusion"), *words],
        env={**os.environ, **ASCII},
        capture_output=True,
    )
    assert b"Traceback" not in done.stderr and b"Error" not in done.stderr, done.stderr
    assert done.stdout or done.stderr.startswith(b"bitfusion: ")
    assert done.returncode == (0 if words[0] == "help" else done.returncode)
    assert words[0] != "help" or done.stdout.isascii() and b"\\" not in done.stdout


def hint_of(words: list[str]) -> tuple[str, str]:
    with pytest.raises(errors.TooMuch) as caught:
        cli.dispatch(words)
    return str(caught.value), caught.value.hint


def test_the_hint_fits_where_the_gpus_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    library = os.path.join(ROOT, "bitfusion", "paths.py")  # any file: nobody loads it
    monkeypatch.setattr("bitfusion.inventory.has_nvidia_driver", lambda: False)
    monkeypatch.setattr("bitfusion.paths.library", lambda _name: library)
    why, hint = hint_of(["run", "-n", "99", "true"])
    assert why == "cannot give 99 GPUs: a private server has at most 16 software GPUs"
    assert "--server_list" in hint and "list_gpus" not in hint
    monkeypatch.setenv("BITFUSION_SOFTGPU_GPUS", "1")
    why, hint = hint_of(["run", "-n", "2", "-m", "5", "true"])
    assert why == "cannot give 2 GPUs: there is 1 software GPU"
    assert "BITFUSION_SOFTGPU_GPUS" in hint
    gpus = inventory.Inventory(
        (inventory.Gpu("A", 1), inventory.Gpu("B", 1)), "x", "driver 'x'", {}
    )
    monkeypatch.setattr("bitfusion.inventory.find", lambda *_words: gpus)
    why, hint = hint_of(["run", "-n", "3", "--driver", "x", "true"])
    assert why == "cannot give 3 GPUs: driver 'x': 2 GPUs"
    assert hint == "see 'bitfusion list_gpus --driver x'"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"gpus": 1}, "1 GPU"),
        ({"gpus": 2, "fraction": "0.5"}, "2 GPUs with 0.5 of their memory"),
        ({"gpus": 1, "fraction": "0.5"}, "1 GPU with 0.5 of its memory"),
        ({"gpus": 1, "memory": 5 << 20}, "1 GPU with 5 MiB"),
        ({"gpus": 2, "memory": 5 << 20}, "2 GPUs with 5 MiB each"),
    ],
)
def test_requests_in_words(request_: dict[str, object], text: str) -> None:
    assert run.describe(request_) == text


def test_every_verb_and_option_is_documented() -> None:
    with open(os.path.join(ROOT, "docs", "commands.md")) as file:
        text = file.read()
    for verb in cli.VERBS:
        assert f"bitfusion {verb}" in text, verb
    for name, command in every_command():
        assert f"bitfusion {name}" in text, name
        for option in command.options:
            for word in option.names:
                assert f"`{word}" in text, (name, word)
    for setting in settings.SETTINGS:
        assert setting.name.partition(".")[2] in text, setting.name
        assert setting.environment in text


def test_describe_wraps_long_heads() -> None:
    table = (Option(("--" + "x" * 40,), "V", "why"), Option(("-a",), "", "long " * 20))
    lines = describe(table, 79).splitlines()
    assert lines[1].strip() == "why"
    assert max(map(len, lines)) <= 79 and "".join(lines[2:]).count("long") == 20


def test_parsed_of_nothing() -> None:
    assert Parsed("run").text("x") is None and not Parsed("run").has("x")


def test_a_run_loads_nothing_heavy() -> None:
    """What a private run does not need costs it milliseconds: these stay out of its way."""
    heavy = "argparse h11 http.client inspect logging shlex subprocess tempfile textwrap tomllib "
    heavy += "traceback"
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "import bitfusion.cli, bitfusion.commands.run, bitfusion.server.private\n"
        f"print(*set({heavy.split()!r}) & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
