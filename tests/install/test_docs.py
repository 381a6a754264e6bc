# SPDX-License-Identifier: Apache-2.0
"""The commands in the README and docs/install.md are run, those for packages by debian.py (`make
test-install`); and its list of error messages is what the code says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Type

import blocks
import pytest
from artefacts import ROOT, check
from ports import Port
from test_wheel import SAID

from bitfusion import errors

COMMANDS = ("README.md", "docs/install.md")  # an ordinary user's
DOCUMENTS = (*COMMANDS, "docs/systemd.md")
OF_MACHINES = {"client", "server", "service", "ufw", "firewalld"}  # debian.py's
OF_RPM = {"dnf_server", "dnf_client"}  # rpm_root.py's
KINDS = {"scratch", "wheel", "source", "none"} | OF_MACHINES | OF_RPM
PORT = "56001"
# Whose text is all in a field: it says what the message of the moment is.
WITHOUT_TEXT = {"BitfusionError", "UsageError", "ConfigError", "NotPermitted", "SystemFailure"}

WHYS = {"what", "why"}  # their fields with a text of the code's

Home = Dict[str, str]


@pytest.fixture()
def home(tmp_path: Path) -> Iterator[Home]:
    """A user with `bitfusion` and `python` in the path, in a folder with a program."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bitfusion").symlink_to(ROOT / "bin/bitfusion")
    (tmp_path / "work").mkdir()
    shutil.copy(ROOT / "tests/install/add_vectors.py", tmp_path / "work/my_cuda_script.py")
    python = os.path.dirname(sys.executable)
    yield {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{python}:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": "/tmp",
        "BITFUSION_STATE_DIR": str(tmp_path / "state"),  # root's is the machine's
        "PIP_NO_INDEX": "1",
        "PIP_NO_COMPILE": "1",  # seconds, for modules that nobody imports
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def play(commands: List[str], home: Home, folder: Path) -> str:
    """In one shell, as they are, but on a port that is free; which stands for a user's patience
    after what begins a server.
    """
    kept = Port()
    port = str(kept.number)
    patience = f"until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done"
    script = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT"]
    for command in commands:
        script.append(command.replace(PORT, port))
        if command.endswith("&"):
            script.append(patience)
    words = ["timeout", "300", "bash", "-c", "\n".join(script)]
    done = subprocess.run(words, cwd=folder, env=home, capture_output=True, text=True)
    kept.give_back()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_who_runs_it(document: str) -> None:
    found = blocks.read(ROOT / document)
    assert found
    for block in found:
        place = f"{document}:{block.line}"
        assert block.kind in KINDS, f"{place}: {block.kind or 'no mark'}"
        assert (block.kind == "none") == bool(block.why), place


@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.parametrize("document", COMMANDS)
def test_commands_of_an_ordinary_user(document: str, home: Home) -> None:
    commands = blocks.commands(ROOT / document, "scratch")
    said = play(commands, home, Path(home["HOME"]) / "work")
    programs = [command for command in commands if "my_cuda_script.py" in command]
    assert said.count(SAID) == len(programs) >= 2, said


@pytest.mark.slow
def test_commands_of_the_source(home: Home) -> None:
    """With the libraries that `make` built before these tests, and away from this machine."""
    target = Path(home["HOME"]) / "installed"
    commands = blocks.commands(ROOT / "docs/install.md", "source")
    assert commands == ["make", "make install"]
    environment = {**os.environ, "DESTDIR": str(target), "LIBRARIES": str(ROOT / "build/lib")}
    for name in [name for name in environment if name.startswith("MAKE")]:
        del environment[name]
    check(commands[1].split(), cwd=ROOT, env=environment)
    assert (target / "usr/bin/bitfusion").exists()


@pytest.mark.slow
@pytest.mark.timeout(360)  # making the environment is ten seconds of computing
def test_commands_of_pip(wheel: Path, home: Home, tmp_path: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("does not apply: pip would fetch tomli")
    shutil.copy(wheel, tmp_path / "work")
    said = play(blocks.commands(ROOT / "docs/install.md", "wheel"), home, tmp_path / "work")
    assert SAID in said


# ------------------------------------------------------------------ messages


def messages() -> List[str]:
    text = (ROOT / "docs/install.md").read_text().partition("## Troubleshooting")[2]
    return re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)


def known(kind: Type[errors.BitfusionError] = errors.BitfusionError) -> Iterator[type]:
    yield kind
    for below in kind.__subclasses__():
        yield from known(below)


def pattern(template: str) -> str:
    return "".join(f"(?P<{part}>.+)" if i % 2 else re.escape(part)
                   for i, part in enumerate(re.split(r"\{(\w+)\}", template)))  # fmt: skip


def test_every_error_is_explained_as_the_code_says_it() -> None:
    quoted, met = messages(), set()
    templates = {
        kind.template: kind.__name__ for kind in known() if kind.__module__ == errors.__name__
    }
    for template, name in templates.items():
        if name in WITHOUT_TEXT:
            continue
        matches = [match for row in quoted if (match := re.fullmatch(pattern(template), row))]
        assert matches, f"docs/install.md does not explain {name}: {template}"
        met.update(match.string for match in matches)
    # These are of errors whose text is all in a field.
    assert set(quoted) - met == {"/etc/bitfusion/client.toml: permission denied"}


def is_said(text: str, sources: str) -> bool:
    """By the code, names and numbers apart, or by the system."""
    if text == "WHY" or text in {os.strerror(number).lower() for number in range(1, 134)}:
        return True
    parts = re.split(r"'[^']+'|\d+(?: GPUs?)?", text)
    return bool(re.search(".{1,60}".join(map(re.escape, parts)), sources))


def test_every_reason_that_is_explained_is_given_by_the_code() -> None:
    files = sorted((ROOT / "bitfusion").rglob("*.py"))
    sources = "\n".join(path.read_text() for path in files)
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # texts of several lines
    templates = {
        kind.template
        for kind in known()
        if kind.__module__ == errors.__name__ and kind.__name__ not in WITHOUT_TEXT
    }
    for row in messages():
        matches = [match for each in templates if (match := re.fullmatch(pattern(each), row))]
        said = [
            all(is_said(text, sources) for name, text in match.groupdict().items() if name in WHYS)
            for match in matches
        ]
        assert any(said) or not said, f"nothing says {row}"
