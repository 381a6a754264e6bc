# SPDX-License-Identifier: Apache-2.0
"""Command lines: options as a table, parsed and explained. Pure; flags end at the first word that
is not one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional, TypeVar

from bitfusion.errors import UsageError

Value = TypeVar("Value")


class Option(NamedTuple):
    names: tuple[str, ...]  # ("-n", "--num_gpus"); the last one names the value
    value: str  # what help calls the value; "" for a flag without one
    help: str
    repeat: bool = False  # may be given several times

    @property
    def key(self) -> str:
        return canonical(self.names[-1])


class Parsed:
    """What a command line said: options by key, and the words after them."""

    def __init__(self, verb: str, table: Sequence[Option] = ()) -> None:
        self.verb = verb
        self.table = tuple(table)
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}  # of those that may be repeated
        self.words: list[str] = []

    def has(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str) -> Optional[str]:
        return self.values.get(key)

    def all(self, key: str) -> list[str]:
        """Of an option that may be repeated."""
        return self.lists.get(key, [])


class Command(NamedTuple):
    """A command or a subcommand: what help says about it, its options, and what it does."""

    usage: str
    about: str
    options: Sequence[Option]
    examples: str
    run: Callable[[Parsed], int]
    mixed: bool = False  # options may stand between the words


HELP = Option(("-h", "--help"), "", "show this help")


def canonical(name: str) -> str:
    """--server-list and --server_list are the same option."""
    return name.lstrip("-").replace("-", "_")


def _find(table: Sequence[Option], word: str, verb: str) -> Option:
    for option in table:
        for name in option.names:
            same_long = word.startswith("--") and name.startswith("--")
            if word == name or (same_long and canonical(word) == canonical(name)):
                return option
    raise UsageError(verb=verb, why=f"unknown option '{word}'")


def _unbundle(table: Sequence[Option], word: str, rest: list[str]) -> str:
    """-vn1 is -v -n1: a flag without a value leaves what is stuck to it in `rest`."""
    if word.startswith("--") or len(word) == 2:
        return word
    flag = next((o for o in table if word[:2] in o.names and not o.value), None)
    if flag is None:
        return word
    rest.insert(0, f"-{word[2:]}")
    return word[:2]


def _split(table: Sequence[Option], word: str, verb: str) -> tuple[Option, Optional[str]]:
    """An option and the value stuck to it: --name=value, -nVALUE, or neither."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return _find(table, name, verb), value if equals else None
    option = _find(table, word[:2], verb)
    return option, word[2:].removeprefix("=") if len(word) > 2 else None


def parse(verb: str, table: Sequence[Option], words: Sequence[str], mixed: bool = False) -> Parsed:
    """mixed: words and options in any order, until '--'."""
    parsed = Parsed(verb, table)
    rest = list(words)
    while rest and (mixed or (rest[0].startswith("-") and rest[0] != "-")):
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            parsed.words.append(word)
            continue
        word = _unbundle((*table, HELP), word, rest)
        option, value = _split((*table, HELP), word, verb)
        if option.value and value is None:
            if not rest:
                raise UsageError(verb=verb, why=f"option '{word}' needs a value, {option.value}")
            value = rest.pop(0)
        if option.value and not value:  # of a variable of the shell that is not set, say
            raise UsageError(verb=verb, why=f"option '{option.names[-1]}' has an empty value")
        if not option.value and value is not None:
            raise UsageError(verb=verb, why=f"option '{option.names[-1]}' takes no value")
        if option.repeat:
            parsed.lists.setdefault(option.key, []).append(value or "")
        elif option.key in parsed.values and option.value:
            raise UsageError(verb=verb, why=f"option '{option.names[-1]}' is given twice")
        parsed.values[option.key] = value if value is not None else ""
    parsed.words += rest
    return parsed


def describe(table: Sequence[Option], line_width: int) -> str:
    """The lines of help about options."""
    import textwrap

    heads = [", ".join(o.names) + (f" {o.value}" if o.value else "") for o in table]
    width = min(30, max((len(head) for head in heads), default=0))
    lines = []
    for option, head in zip(table, heads):
        texts = textwrap.wrap(option.help, line_width - width - 4)
        if len(head) > width:
            lines.append(f"  {head}")
            head = ""
        for text in texts:
            lines.append(f"  {head:{width}}  {text}")
            head = ""
    return "\n".join(lines)


def refuse_words(parsed: Parsed, most: int = 0) -> None:
    """More than so many."""
    if len(parsed.words) > most:
        raise UsageError(verb=parsed.verb, why=f"unexpected word '{parsed.words[most]}'")


def take_words(parsed: Parsed, *names: str) -> list[str]:
    """The words of a command that has exactly these."""
    for number, name in enumerate(names):
        if len(parsed.words) <= number:
            raise UsageError(verb=parsed.verb, why=f"which {name}? it is missing")
    refuse_words(parsed, len(names))
    return parsed.words


def parse_value(parsed: Parsed, name: str, parse: Callable[[str], Value], text: str) -> Value:
    """The value that an option's text stands for; a wrong one is told in the option's name."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(verb=parsed.verb, why=f"{name}: {error}") from None


def positive(verb: str, name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1 or len(text) > 9:
        raise UsageError(verb=verb, why=f"{name} must be a whole number above 0, not '{text}'")
    return int(text)
