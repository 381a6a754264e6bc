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
from collections.abc import Iterable, Iterator, Mapping
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

    @property
    def word(self) -> str:
        """What its usage calls its first word that is no option, nor the value of one; or ''."""
        with_values = {name for option in self.options if option.value for name in option.names}
        after_option = False
        for word in self.command.usage.replace("[", " ").replace("]", " ").split():
            if not after_option and word[0] not in "-|" and word != "options":
                return word
            after_option = word in with_values
        return ""

    @property
    def takes_files(self) -> bool:
        return self.word in FILE_VALUES

    @property
    def choices(self) -> tuple[str, ...]:
        """Of a word such as bash|zsh|fish."""
        return tuple(self.word.split("|")) if self.word.islower() and "|" in self.word else ()


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
        '\tlocal command="${COMP_WORDS[1]} " i',
        "\tif ((COMP_CWORD == 1)); then",
        f"\t\t{_bash_reply(VERBS)}",
        "\t\treturn",
        "\tfi",
        '\t((COMP_CWORD == 2)) || command+="${COMP_WORDS[2]}"',
        *_bash_programs(),
        '\tcase "$command" in',
        f'\t"help ") {_bash_reply(VERBS)} ;;',
    ]
    ordered = sorted(entries(), key=lambda entry: -len(entry.names))
    for entry in ordered:
        pattern = f'"{entry.title}"' if len(entry.names) == 2 else f'"{entry.title} "*'
        lines += [f"\t{pattern})", *_bash_case(entry), "\t\t;;"]
        if entry.below:
            lines += [
                f'\t"help {entry.title}") ((COMP_CWORD > 3)) || {_bash_reply(entry.below)} ;;'
            ]
    lines += ["\tesac", "}", "complete -F _bitfusion bitfusion"]
    return "\n".join(lines) + "\n"


def _bash_reply(words: Iterable[str]) -> str:
    return f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word"))'


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
            reply = _bash_reply(found)
        lines.append(f"\t\t{'|'.join(option.names)}) {reply}; return ;;")
    lines.append("\t\tesac")
    where = "[[ $word != -* ]]"
    if entry.below:  # before any other word
        words, where = _bash_reply(entry.below), f"{where} && ((COMP_CWORD == 2))"
    elif entry.choices:
        words = _bash_reply(entry.choices)
    elif entry.names[0] in PROGRAMS or entry.takes_files:
        kind = "-f" if entry.takes_files else "-c"
        words = f'COMPREPLY=($(compgen {kind} -- "$word"))'
    else:
        return [*lines, f"\t\t{_bash_reply(flags(entry))}"]
    last = f"\t\tif {where}; then {words}; else {_bash_reply(flags(entry))}; fi"
    return [*lines, last]


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
        '\tlocal name="$words[2]" below=""',
        '\t((CURRENT > 3)) && below="$words[3]"',
        "\tshift words; ((CURRENT--))",
        '\tcase "$name $below" in',
        "\t'help ') _describe command commands ;;",
    ]
    for entry in sorted(entries(), key=lambda entry: -len(entry.names)):
        pattern = f"'{entry.title}'" if len(entry.names) == 2 else f"'{entry.title} '*"
        lines += [f"\t{pattern})"]
        if entry.below:
            offered = f"compadd {' '.join(entry.below)}"
            lines += [
                f"\t\tif ((CURRENT == 2)) && [[ $PREFIX != -* ]]; then {offered}; return; fi"
            ]
        shift = "shift words; ((CURRENT--)); " if len(entry.names) == 2 else ""
        specs = [spec for option in entry.options for spec in _zsh_option(option)]
        lines += [f"\t\t{shift}_arguments \\"]
        lines += [" \\\n".join(f"\t\t\t{spec}" for spec in specs + _zsh_words(entry)), "\t\t;;"]
        if entry.below:
            lines += [f"\t'help {entry.title}') ((CURRENT > 3)) || {offered} ;;"]
    lines += ["\tesac", "}", "", ZSH_END]
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option) -> list[str]:
    action = ""
    if option.value:
        found = choices(option)
        complete = "_files" if takes_file(option) else f"({' '.join(found)})" if found else " "
        action = f":{zsh_text(option.value)}:{complete}"
    return [f"'{name}[{zsh_text(option.help)}]{action}'" for name in option.names]


def _zsh_words(entry: Entry) -> list[str]:
    if entry.names[0] in PROGRAMS:
        return ["'*:: : _normal'"]
    if entry.choices and not entry.below:
        return [f"'1:word:({' '.join(entry.choices)})'"]
    return ["'1:file:_files'"] if entry.takes_files else []


def fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


FISH_HEAD = """\
# made from bitfusion's tables of commands
function __bitfusion_at -d 'Whether the word of this number is one of these'
\tset -l words (commandline -opc)
\tcontains -- "$words[$argv[1]]" $argv[2..-1]
end
function __bitfusion_has -d 'Whether there are so many words before this one'
\ttest (count (commandline -opc)) -eq $argv[1]
end
complete -c bitfusion -f"""


def fish_completion() -> str:
    lines = [FISH_HEAD]
    for condition in ("__bitfusion_has 1", "__bitfusion_at 2 help; and __bitfusion_has 2"):
        lines += [
            f"complete -c bitfusion -n '{condition}' -a {verb} -d '{fish_text(text)}'"
            for verb, text in VERBS.items()
        ]
    for entry in entries():
        lines += _fish_command(entry)
    return "\n".join(lines) + "\n"


def _fish_command(entry: Entry) -> list[str]:
    verb, below = entry.names[0], " ".join(entry.below)
    here = f"__bitfusion_at 2 {verb}"
    if len(entry.names) == 2:
        here += f"; and __bitfusion_at 3 {entry.names[1]}"
    lines = []
    if below:
        help_of = f"__bitfusion_at 2 help; and __bitfusion_at 3 {verb}; and __bitfusion_has 3"
        for condition in (f"{here}; and __bitfusion_has 2", help_of):
            lines.append(f"complete -c bitfusion -n '{condition}' -a '{below}'")
        here += f"; and not __bitfusion_at 3 {below}"
    elif verb in PROGRAMS:
        lines.append(f"complete -c bitfusion -n '{here}' -x -a '(__fish_complete_subcommand)'")
    elif entry.choices:
        lines.append(f"complete -c bitfusion -n '{here}' -a '{' '.join(entry.choices)}'")
    elif entry.takes_files:
        lines.append(f"complete -c bitfusion -n '{here}' -F")
    return lines + [_fish_option(here, option) for option in entry.options]


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
