# SPDX-License-Identifier: Apache-2.0
"""Manual pages and shell completion, made of the same tables as the commands and their help.

    python3 -m bitfusion.manual FOLDER

writes man1/ (bitfusion.1 and one page for each command) and the completions of bash, zsh and fish
in the folders below FOLDER that distributions install them to.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bitfusion import __version__
from bitfusion.cli import VERBS
from bitfusion.options import HELP, Command, Option

COMPLETIONS = {
    "bash": "bash-completion/completions/bitfusion",
    "zsh": "zsh/site-functions/_bitfusion",
    "fish": "fish/vendor_completions.d/bitfusion.fish",
}
FILE_VALUES = ("FILE", "PATH", "FOLDER", "BUNDLE")
PROGRAMS = ("run", "softgpu", "client")  # after whose options any command line follows


class Entry(NamedTuple):
    """A command with its whole name, such as ("server", "drain")."""

    names: tuple[str, ...]
    command: Command
    below: tuple[str, ...]  # subcommands

    @property
    def title(self) -> str:
        return " ".join(self.names)

    @property
    def options(self) -> tuple[Option, ...]:
        return (*self.command.options, HELP)


def entries() -> Iterator[Entry]:
    for verb in VERBS:
        if verb == "help":
            continue
        module = importlib.import_module(f"bitfusion.commands.{verb}")
        below: Mapping[str, Command] = getattr(module, "SUBCOMMANDS", {})
        own = Command(module.USAGE, module.ABOUT, module.OPTIONS, module.EXAMPLES, module.run)
        yield Entry((verb,), own, tuple(below))
        for name, command in below.items():
            yield Entry((verb, name), command, ())


# ------------------------------------------------------------------ manual pages


def roff(text: str) -> str:
    """Text that troff shows as it is."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)


def head(name: str, about: str) -> list[str]:
    return [
        f'.TH {name.upper()} 1 "" "Bitfusion {__version__}" "User Commands"',
        ".SH NAME",
        f"{roff(name)} \\- {roff(about)}",
    ]


def page_name(names: tuple[str, ...]) -> str:
    return "-".join(("bitfusion", *names))


def manual_page(entry: Entry) -> str:
    about = " ".join(entry.command.about.split())
    first = about.partition(". ")[0].rstrip(".")
    lines = head(page_name(entry.names), first[:1].lower() + first[1:])
    lines += [".SH SYNOPSIS", f"\\fBbitfusion {roff(entry.title)}\\fR {roff(entry.command.usage)}"]
    lines += [".SH DESCRIPTION", roff(about), ".SH OPTIONS"]
    for option in entry.options:
        names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
        value = f" \\fI{roff(option.value)}\\fR" if option.value else ""
        lines += [".TP", names + value, roff(option.help)]
    if entry.below:
        lines += [".SH SUBCOMMANDS"]
        pages = [f"\\fB{roff(page_name((*entry.names, name)))}\\fR(1)" for name in entry.below]
        lines += [",\n".join(pages)]
    examples = entry.command.examples.strip().partition("\n")[2]
    if examples:
        lines += [".SH EXAMPLES", ".nf", roff(examples), ".fi"]
    lines += [".SH SEE ALSO", "\\fBbitfusion\\fR(1)"]
    return "\n".join(lines) + "\n"


def overview_page() -> str:
    lines = head("bitfusion", "run CUDA programs on GPUs of other machines")
    lines += [".SH SYNOPSIS", "\\fBbitfusion\\fR \\fICOMMAND\\fR [options] [\\-\\-] [words]"]
    lines += [".SH COMMANDS"]
    for verb, text in VERBS.items():
        lines += [".TP", f"\\fB{roff(verb)}\\fR", roff(text)]
    lines += [".SH FILES"]
    files = {
        "/etc/bitfusion/client.toml": "settings of all users",
        "~/.bitfusion/client.toml": "settings of one user, which go first",
        "/etc/bitfusion/server.toml": "settings of this machine's server",
    }
    for path, text in files.items():
        lines += [".TP", f"\\fI{roff(path)}\\fR", roff(text)]
    lines += [".SH SEE ALSO"]
    pages = [f"\\fB{roff(page_name((verb,)))}\\fR(1)" for verb in VERBS if verb != "help"]
    lines += [",\n".join(pages)]
    return "\n".join(lines) + "\n"


def manual_pages() -> dict[str, str]:
    """By file name."""
    pages = {f"{page_name(entry.names)}.1": manual_page(entry) for entry in entries()}
    return {"bitfusion.1": overview_page(), **pages}


# ------------------------------------------------------------------ completion


def flags(entry: Entry) -> list[str]:
    return [name for option in entry.options for name in option.names]


def takes_file(option: Option) -> bool:
    return option.value in FILE_VALUES


def choices(option: Option) -> list[str]:
    """Of a value such as auto|tcp|unix."""
    return option.value.split("|") if "|" in option.value and option.value.islower() else []


def bash_completion() -> str:
    lines = [
        "# bash completion of bitfusion; made from its tables of commands",
        "_bitfusion() {",
        "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}",
        '\tlocal command="${COMP_WORDS[1]} ${COMP_WORDS[2]}" i',
        "\tif ((COMP_CWORD == 1)); then",
        f'\t\tCOMPREPLY=($(compgen -W "{" ".join(VERBS)}" -- "$word"))',
        "\t\treturn",
        "\tfi",
        *_bash_programs(),
        '\tcase "$command" in',
    ]
    ordered = sorted(entries(), key=lambda entry: -len(entry.names))
    for entry in ordered:
        pattern = f'"{entry.title}"' if len(entry.names) == 2 else f'"{entry.title} "*'
        lines += [f"\t{pattern})", *_bash_case(entry), "\t\t;;"]
    lines += [
        '\t"help "*)',
        f'\t\tCOMPREPLY=($(compgen -W "{" ".join(VERBS)}" -- "$word"))',
        "\t\t;;",
        "\tesac",
        "}",
        "complete -F _bitfusion bitfusion",
    ]
    return "\n".join(lines) + "\n"


def _bash_programs() -> list[str]:
    """After -- another program's command line goes on."""
    return [
        f'\tcase "${{COMP_WORDS[1]}}" in {"|".join(PROGRAMS)})',
        "\t\tfor ((i = 2; i < COMP_CWORD; i++)); do",
        "\t\t\tif [[ ${COMP_WORDS[i]} == -- ]]; then",
        "\t\t\t\tif declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); fi",
        "\t\t\t\treturn",
        "\t\t\tfi",
        "\t\tdone",
        "\t\t;;",
        "\tesac",
    ]


def _bash_case(entry: Entry) -> list[str]:
    lines = ['\t\tcase "$before" in']
    for option in entry.options:
        if not option.value:
            continue
        found = choices(option)
        reply = "COMPREPLY=()"
        if takes_file(option):
            reply = 'COMPREPLY=($(compgen -f -- "$word"))'
        elif found:
            reply = f'COMPREPLY=($(compgen -W "{" ".join(found)}" -- "$word"))'
        lines.append(f"\t\t{'|'.join(option.names)}) {reply}; return ;;")
    words = " ".join([*flags(entry), *entry.below])
    files = "" if entry.names[0] in PROGRAMS else ' $(compgen -f -- "$word")'
    command = ' $(compgen -c -- "$word")' if entry.names[0] in PROGRAMS else files
    return [
        *lines,
        "\t\tesac",
        f'\t\tCOMPREPLY=($(compgen -W "{words}" -- "$word"))',
        f"\t\t[[ $word == -* ]] || COMPREPLY+=({command.strip()})",
    ]


def zsh_text(text: str) -> str:
    for mark in "\\'[]:":
        text = text.replace(mark, {"'": "'\\''"}.get(mark, "\\" + mark))
    return text


# As a function of $fpath it is called; sourced, it makes itself known.
ZSH_END = (
    'if [[ $funcstack[1] == _bitfusion ]]; then _bitfusion "$@"; '
    "else compdef _bitfusion bitfusion; fi"
)


def zsh_completion() -> str:
    lines = ["#compdef bitfusion", "# made from bitfusion's tables of commands", ""]
    lines += ["_bitfusion() {", "\tlocal -a commands=("]
    lines += [f"\t\t'{verb}:{zsh_text(text)}'" for verb, text in VERBS.items()]
    lines += [
        "\t)",
        "\tif ((CURRENT == 2)); then _describe command commands; return; fi",
        '\tlocal name="$words[2]" below="$words[3]"',
        "\tshift words; ((CURRENT--))",
        '\tcase "$name $below" in',
    ]
    for entry in sorted(entries(), key=lambda entry: -len(entry.names)):
        pattern = f"'{entry.title}'" if len(entry.names) == 2 else f"'{entry.title} '*"
        shift = "shift words; ((CURRENT--)); " if len(entry.names) == 2 else ""
        lines += [f"\t{pattern})", f"\t\t{shift}_arguments \\"]
        lines += [f"\t\t\t{spec} \\" for option in entry.options for spec in _zsh_option(option)]
        lines += [f"\t\t\t{_zsh_words(entry)}", "\t\t;;"]
    lines += ["\thelp*) _describe command commands ;;", "\tesac", "}", "", ZSH_END]
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option) -> list[str]:
    action = ""
    if option.value:
        found = choices(option)
        complete = "_files" if takes_file(option) else f"({' '.join(found)})" if found else " "
        action = f":{zsh_text(option.value)}:{complete}"
    return [f"'{name}[{zsh_text(option.help)}]{action}'" for name in option.names]


def _zsh_words(entry: Entry) -> str:
    if entry.names[0] in PROGRAMS:
        return "'*:: : _normal'"
    if entry.below:
        return f"'*:word:({' '.join(entry.below)})'"
    return "'*:word:_files'"


def fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def fish_completion() -> str:
    lines = ["# made from bitfusion's tables of commands", "complete -c bitfusion -f"]
    lines += [
        f"complete -c bitfusion -n __fish_use_subcommand -a {verb} -d '{fish_text(text)}'"
        for verb, text in VERBS.items()
    ]
    for entry in entries():
        verb = entry.names[0]
        seen = f"__fish_seen_subcommand_from {entry.names[-1]}"
        if len(entry.names) == 2:
            seen = f"__fish_seen_subcommand_from {verb}; and {seen}"
        lines += [f"complete -c bitfusion -n '{seen}' -a {name}" for name in entry.below]
        if verb in PROGRAMS:
            lines.append(f"complete -c bitfusion -n '{seen}' -x -a '(__fish_complete_subcommand)'")
        lines += [_fish_option(seen, option) for option in entry.options]
    return "\n".join(lines) + "\n"


def _fish_option(seen: str, option: Option) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    value = ""
    if takes_file(option):
        value = " -r -F"
    elif option.value:
        found = choices(option)
        value = f" -x -a '{' '.join(found)}'" if found else " -x"
    return f"complete -c bitfusion -n '{seen}' {names}{value} -d '{fish_text(option.help)}'"


MAKERS = {"bash": bash_completion, "zsh": zsh_completion, "fish": fish_completion}


def write(folder: str) -> None:
    files = {f"man/man1/{name}": text for name, text in manual_pages().items()}
    files.update({COMPLETIONS[shell]: make() for shell, make in MAKERS.items()})
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


if __name__ == "__main__":
    write(sys.argv[1])
