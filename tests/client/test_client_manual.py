# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completions: made of the commands' tables, taken by the tools they are for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest

from bitfusion import manual
from bitfusion.cli import VERBS

PAGES = manual.manual_pages()
ENTRIES = {entry.title: entry for entry in manual.entries()}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    manual.write(str(folder))
    return folder


def needs(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"does not apply: {tool} is not installed")
    return path


def test_every_command_has_its_page() -> None:
    for verb in VERBS:
        assert verb == "help" or f"bitfusion-{verb}.1" in PAGES
    for entry in ENTRIES.values():
        page = PAGES[f"{manual.page_name(entry.names)}.1"]
        for option in entry.options:
            for name in option.names:
                assert manual.roff(name) in page


@pytest.mark.parametrize("name", sorted(PAGES))
def test_groff_takes_the_pages(name: str, share: Path) -> None:
    done = subprocess.run(
        [needs("groff"), "-man", "-Tascii", "-ww", "-z", str(share / "man/man1" / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def complete(share: Path, line: str) -> List[str]:
    """What bash offers behind this line."""
    words = line.split(" ")
    script = f"""
source {share}/{manual.COMPLETIONS["bash"]}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_bitfusion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, cwd=share
    )
    assert done.stderr == ""
    return done.stdout.split()


BASH: Dict[str, List[str]] = {
    "bitfusion ru": ["run"],
    "bitfusion run --trans": ["--transport"],
    "bitfusion run --transport t": ["tcp"],
    "bitfusion run --transport u": ["unix"],
    "bitfusion run -n 1 --num": ["--num_gpus"],
    "bitfusion list_gpus --js": ["--json"],
    "bitfusion server --config ma": ["man"],
    "bitfusion help ver": ["version"],
    "bitfusion run -n ": [],
}


@pytest.mark.parametrize("line", sorted(BASH))
def test_bash_completes(line: str, share: Path) -> None:
    assert complete(share, line) == BASH[line]


def test_bash_completes_every_option(share: Path) -> None:
    for title, entry in ENTRIES.items():
        offered = set(complete(share, f"bitfusion {title} -"))
        assert offered >= set(manual.flags(entry)), title


def test_bash_completes_subcommands(share: Path) -> None:
    for title, entry in ENTRIES.items():
        if entry.below:
            assert set(complete(share, f"bitfusion {title} ")) >= set(entry.below)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(shell: str, share: Path) -> None:
    file = share / manual.COMPLETIONS[shell]
    subprocess.run([needs(shell), "-n", str(file)], check=True)


def test_zsh_completes_when_it_is_sourced(share: Path, tmp_path: Path) -> None:
    """As a file of $fpath it is found by its first line."""
    zsh = needs("zsh")
    script = "autoload -U compinit; compinit -u -D; source $1; print $_comps[bitfusion]"
    file = str(share / manual.COMPLETIONS["zsh"])
    command = [zsh, "-f", "-c", script, "zsh", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("_bitfusion\n", "")


def test_fish_completes(share: Path) -> None:
    fish = needs("fish")
    script = f"source {share}/{manual.COMPLETIONS['fish']}; complete -C 'bitfusion run --trans'"
    done = subprocess.run([fish, "-N", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\t")[0] == "--transport"
