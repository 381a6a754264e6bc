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


SUBCOMMANDS = {title: list(entry.below) for title, entry in ENTRIES.items() if entry.below}
# What stands behind a command, in every shell: nothing that it does not take.
WORDS: Dict[str, List[str]] = {
    **{f"bitfusion {title} ": names for title, names in SUBCOMMANDS.items()},
    **{f"bitfusion help {title} ": names for title, names in SUBCOMMANDS.items()},
    "bitfusion token cre": ["create"],
    "bitfusion token create": ["create"],
    "bitfusion server inv": ["invite"],
    "bitfusion help tok": ["token"],
    "bitfusion help token": ["token"],
    "bitfusion help token list ": [],
    "bitfusion completion ": ["bash", "zsh", "fish"],
    "bitfusion enroll m": ["man"],
    "bitfusion server invite m": ["man"],
}
FLAGS_ONLY = ("token list ", "token create alice ", "kill ", "config ", "token --config x ")
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
    "bitfusion server drain ": ["--now", "--config", "--state_dir", "-h", "--help"],
    **WORDS,
}


@pytest.mark.parametrize("line", sorted(BASH))
def test_bash_completes(line: str, share: Path) -> None:
    assert complete(share, line) == BASH[line]


def test_bash_completes_every_option(share: Path) -> None:
    for title, entry in ENTRIES.items():
        offered = set(complete(share, f"bitfusion {title} -"))
        assert offered >= set(manual.flags(entry)), title


def test_bash_offers_options_where_a_command_takes_no_word(share: Path) -> None:
    for line in FLAGS_ONLY:
        offered = complete(share, f"bitfusion {line}")
        assert offered and all(word.startswith("-") for word in offered), line


def test_files_are_offered_where_a_command_takes_one() -> None:
    found = {title for title, entry in ENTRIES.items() if entry.takes_files}
    assert found == {"server invite", "enroll"}


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


# What zsh's own functions would be asked to offer, a line each; "files" for these.
ZSH = """
compadd() { print -l -- "$@" }
_describe() { print -l -- ${${(P)2}%%:*} }
_arguments() {
    for spec; do case $spec in
        (1:file:_files) print files ;;
        (1:word:*) print -l -- ${=${${spec#1:word:\\(}%\\)}} ;;
    esac; done
}
compdef() { : }
source $1; shift
words=("$@") CURRENT=$# PREFIX=$words[-1]
_bitfusion
"""


def test_zsh_offers_what_a_command_takes(share: Path) -> None:
    zsh, file = needs("zsh"), str(share / manual.COMPLETIONS["zsh"])
    expected = {**WORDS, **{f"bitfusion {line}": [] for line in FLAGS_ONLY}}
    for line, offered in expected.items():
        words = line.split(" ")
        done = subprocess.run(
            [zsh, "-f", "-c", ZSH, "zsh", file, *words], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        if offered == ["man"]:
            assert done.stdout.split() == ["files"], line
        else:
            found = [word for word in done.stdout.split() if word.startswith(words[-1])]
            assert found == offered, line


def ask_fish(share: Path, line: str) -> List[str]:
    script = f"source {share}/{manual.COMPLETIONS['fish']}; complete -C '{line}'"
    command = [needs("fish"), "-N", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=share)
    assert done.stderr == ""
    return [answer.partition("\t")[0].rstrip("/") for answer in done.stdout.splitlines()]


def test_fish_completes(share: Path) -> None:
    assert ask_fish(share, "bitfusion run --trans") == ["--transport"]
    for line, offered in WORDS.items():
        assert sorted(ask_fish(share, line)) == sorted(offered), line
    for line in FLAGS_ONLY:
        assert ask_fish(share, f"bitfusion {line}") == [], line
