# SPDX-License-Identifier: Apache-2.0
"""cuda.toml + declarations -> Spec, the checked truth that every emitter reads.

An emitter is a function Spec -> text. What it may use:

    spec.functions      every function, sorted: one Function per ABI (`cuMemAlloc_v2`)
    spec.rows           those that cross the wire as a row, in the order of their numbers
    spec.symbols        what lookup answers: base and exported name, version, per_thread, Function
    spec.exported       every exported name, flavours included, sorted
    spec.declarations   types and prototypes (declarations.py)
    function.prototype  its C arguments; None for an absent ABI that nobody declares any more
    function.flavours   its per-thread twins: suffix `_ptds` or `_ptsz`, version
    function.arguments  how a row carries each argument; () when there is no row
    emit_header.spell_prototype(prototype, tags_of(declarations))   the C text of a prototype

Every mistake in cuda.toml is a SpecError that names file and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from . import toml_lines
from .declarations import DeclarationError, Declarations, Prototype, parse_prototype
from .infer import HANDLES as HANDLES
from .infer import Argument as Argument
from .infer import Inference

CLASSES = ("local", "oneway", "sync", "custom", "absent")
MAX_ARGUMENTS = 16  # BF_MAX_ARGUMENTS of wire/row.h

_SUFFIX = re.compile(r"^(cu\w+?)(_v\d+)?$")


class SpecError(Exception):
    """A mistake in the spec, with the place it was made."""

    def __init__(self, path: str, line: int, why: str) -> None:
        super().__init__(f"{path}:{line}: {why}")


@dataclass(frozen=True)
class Flavour:
    """A twin whose default stream is the calling thread's own."""

    suffix: str
    since: int


@dataclass(frozen=True)
class Function:
    name: str
    base: str
    since: int
    flavours: Tuple[Flavour, ...]
    class_: str
    why: str
    group: str
    line: int
    prototype: Optional[Prototype]
    row: Optional[str] = None  # "oneway" or "sync"
    arguments: Tuple[Argument, ...] = ()
    blocks: bool = False
    no_context: bool = False
    executor: bool = False  # the executor has a function of its own for the row
    alias: Optional[str] = None  # the same signature and meaning as this exported name
    instead: Optional[str] = None  # what to do; who calls an absent one is told on stderr

    @property
    def stream(self) -> Optional[int]:
        """The stream argument that a per-thread flavour replaces."""
        for index, argument in enumerate(self.arguments):
            if argument.handle == "BF_STREAM" and argument.kind == "HANDLE":
                return index
        return None


@dataclass(frozen=True)
class Symbol:
    base: str
    exported: str
    version: int
    per_thread: bool
    function: Function


@dataclass(frozen=True)
class Spec:
    declarations: Declarations
    header: Mapping[str, Any]
    functions: Tuple[Function, ...]
    softgpu: Tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Tuple[Function, ...]:
        return tuple(f for f in self.functions if f.row)

    @property
    def symbols(self) -> Tuple[Symbol, ...]:
        found: List[Symbol] = []
        for f in self.functions:
            found.append(Symbol(f.base, f.name, f.since, False, f))
            found += [Symbol(f.base, f.name + x.suffix, x.since, True, f) for x in f.flavours]
        return tuple(sorted(found, key=lambda s: (s.base, s.per_thread, s.version)))

    @property
    def exported(self) -> Tuple[str, ...]:
        return tuple(sorted(s.exported for s in self.symbols))


# ---------------------------------------------------------------- loading

_GROUP_KEYS = {"class", "why", "no_context", "functions"}
_FUNCTION_KEYS = {
    "since",
    "ptds",
    "ptsz",
    "row",
    "args",
    "blocks",
    "no_context",
    "executor",
    "alias",
    "prototype",
    "why",
    "instead",
}
_TABLES = {"header", "errors", "group"}


class _Loader:
    def __init__(self, path: Path, shown: str, declarations: Declarations) -> None:
        self.path = shown
        self.text = path.read_text(encoding="utf-8")
        self.lines = toml_lines.find_lines(self.text)
        self.declarations = declarations
        self.inference = Inference(declarations)
        self.seen: Dict[str, int] = {}

    def fail(self, where: Sequence[str], why: str) -> SpecError:
        place = tuple(where)
        while place and place not in self.lines:
            place = place[:-1]
        return SpecError(self.path, self.lines.get(place, 1), why)

    def load(self) -> Tuple[Mapping[str, Any], Tuple[Function, ...], Mapping[str, str]]:
        try:
            root = toml_lines.parse(self.text)
        except toml_lines.TomlError as error:
            raise SpecError(self.path, error.line, error.why) from error
        for name in root:
            if name not in _TABLES:
                raise self.fail((name,), f"unknown table '{name}'")
        functions: List[Function] = []
        for name, group in root.get("group", {}).items():
            functions += self.group(name, group)
        self.complete(root.get("header", {}))
        functions.sort(key=lambda f: f.name)
        self.check_aliases(functions)
        header, texts = root.get("header", {}), root.get("errors", {})
        self.check_header(header)
        self.check_texts(texts)
        return header, tuple(functions), texts

    def check_texts(self, texts: Mapping[str, str]) -> None:
        results = self.declarations.enums().get("cudaError_enum")
        known = {name for name, _ in results.members} if results else set()
        for name in texts:
            if name not in known:
                raise self.fail(("errors", name), f"unknown error '{name}'")

    def check_header(self, header: Mapping[str, Any]) -> None:
        if not isinstance(header.get("version"), int):
            raise self.fail(("header",), "the header has no version")
        records = self.declarations.records()
        for table in ("unions", "alignment"):
            for name, value in header.get(table, {}).items():
                where = ("header", table, name)
                if name not in records:
                    raise self.fail(where, f"unknown struct '{name}'")
                members = [m.name for m in records[name].fields or ()]
                for member in value if table == "unions" else ():
                    if member not in members:
                        raise self.fail(where, f"'{name}' has no member '{member}'")

    def complete(self, header: Mapping[str, Any]) -> None:
        newer = header.get("newer", [])
        for name in newer:
            if name not in self.declarations.functions:
                raise self.fail(("header", "newer"), f"unknown function '{name}'")
            if name in self.seen:
                raise self.fail(("header", "newer"), f"'{name}' also has a class")
        missing = sorted(set(self.declarations.functions) - set(self.seen) - set(newer))
        if missing:
            raise self.fail((), "declared but without a class: {}".format(", ".join(missing)))

    def check_aliases(self, functions: Sequence[Function]) -> None:
        named = {f.name: f for f in functions}
        for f in functions:
            where = ("group", f.group, "functions", f.name)
            if f.alias is None:
                continue
            if f.alias not in named:
                raise self.fail(where, f"'{f.name}' is an alias of unknown '{f.alias}'")
            target = named[f.alias]
            suffixes = {x.suffix for x in target.flavours}
            if target.alias or target.class_ == "absent":
                raise self.fail(
                    where, f"'{f.name}' is an alias of '{f.alias}', which does nothing"
                )
            if f.row or not suffixes >= {x.suffix for x in f.flavours}:
                raise self.fail(where, f"'{f.name}' cannot be an alias of '{f.alias}'")

    def group(self, name: str, group: Mapping[str, Any]) -> Iterator[Function]:
        where = ("group", name)
        for key in group:
            if key not in _GROUP_KEYS:
                raise self.fail((*where, key), f"unknown key '{key}'")
        if group.get("class") not in CLASSES:
            raise self.fail((*where, "class"), "unknown class '{}'".format(group.get("class")))
        functions = group.get("functions", {})
        names = list(functions)
        for index, function in enumerate(names):
            place = (*where, "functions", function)
            if index and function < names[index - 1]:
                why = f"not sorted: '{function}' after '{names[index - 1]}'"
                raise self.fail(place, why)
            if function in self.seen:
                first = self.seen[function]
                raise self.fail(place, f"duplicate '{function}', first on line {first}")
            self.seen[function] = self.lines.get(place, 1)
            yield self.function(name, group, function, functions[function])

    def function(
        self, group_name: str, group: Mapping[str, Any], name: str, entry: Mapping[str, Any]
    ) -> Function:
        place = ("group", group_name, "functions", name)
        for key in entry:
            if key not in _FUNCTION_KEYS:
                raise self.fail(place, f"unknown key '{key}' of '{name}'")
        why = entry.get("why", group.get("why"))
        if not why or not isinstance(why, str):
            raise self.fail(place, f"'{name}' has no reason (why)")
        if not isinstance(entry.get("since"), int):
            raise self.fail(place, f"'{name}' does not say since which version")
        match = _SUFFIX.match(name)
        if not match:
            raise self.fail(place, f"'{name}' is not the name of a driver function")
        prototype = self.prototype(place, name, entry, group["class"])
        flavours = tuple(Flavour("_" + s, entry[s]) for s in ("ptds", "ptsz") if s in entry)
        function = Function(
            name=name,
            base=match.group(1),
            since=entry["since"],
            flavours=flavours,
            class_=group["class"],
            why=why,
            group=group_name,
            line=self.lines.get(place, 1),
            prototype=prototype,
            row=self.row(place, name, entry, group["class"]),
            blocks=bool(entry.get("blocks", False)),
            no_context=bool(entry.get("no_context", group.get("no_context", False))),
            executor=bool(entry.get("executor", False)),
            alias=entry.get("alias"),
            instead=entry.get("instead"),
        )
        if not function.row:
            if "args" in entry:
                raise self.fail(place, f"'{name}' has args but no row")
            return function
        return self.with_arguments(place, function, entry.get("args", {}))

    def row(
        self, place: Sequence[str], name: str, entry: Mapping[str, Any], class_: str
    ) -> Optional[str]:
        row = entry.get("row")
        if class_ in ("oneway", "sync") and "alias" not in entry:
            if row is not None:
                raise self.fail(place, f"'{name}': class {class_} already says which row")
            return class_
        if row is not None and (
            class_ not in ("local", "custom") or row not in ("oneway", "sync")
        ):
            raise self.fail(place, f"'{name}': row must be oneway or sync, of a custom function")
        return row

    def prototype(
        self, place: Sequence[str], name: str, entry: Mapping[str, Any], class_: str
    ) -> Optional[Prototype]:
        declared = self.declarations.functions.get(name)
        text = entry.get("prototype")
        if text is not None and declared is not None:
            raise self.fail(place, f"'{name}' is declared already")
        if text is not None:
            try:
                return parse_prototype(f"CUresult {name}({text})")
            except DeclarationError as error:
                raise self.fail(place, f"'{name}': {error}") from error
        if declared is None and "alias" in entry:
            original = self.declarations.functions.get(entry["alias"])
            return None if original is None else replace(original, name=name)
        if declared is None and class_ != "absent":
            raise self.fail(place, f"unknown function '{name}'")
        return declared

    def with_arguments(
        self, place: Sequence[str], function: Function, roles: Mapping[str, str]
    ) -> Function:
        assert function.prototype is not None
        if len(function.prototype.arguments) > MAX_ARGUMENTS:
            why = f"'{function.name}' has more than {MAX_ARGUMENTS} arguments"
            raise self.fail(place, why)
        try:
            found = self.inference.arguments(function.prototype, roles)
        except ValueError as error:
            raise self.fail(place, f"'{function.name}': {error}") from error
        function = replace(function, arguments=found)
        if function.flavours and function.class_ != "custom" and function.stream is None:
            why = f"'{function.name}' has a per-thread twin but no stream argument"
            raise self.fail(place, why)
        return function


def load_softgpu(path: Path, shown: str, exported: Set[str]) -> Tuple[str, ...]:
    """softgpu.toml: `implemented`, one exported name a line, sorted."""
    text = path.read_text(encoding="utf-8")
    try:
        names = toml_lines.parse(text).get("implemented", [])
    except toml_lines.TomlError as error:
        raise SpecError(shown, error.line, error.why) from error
    previous = ""
    for name in names:
        line = toml_lines.line_of_string(text, name)
        if name not in exported:
            raise SpecError(shown, line, f"unknown function '{name}'")
        if name <= previous:
            what = "duplicate '%s'" if name == previous else "not sorted: '%s'"
            raise SpecError(shown, line, what % name)
        previous = name
    return tuple(names)


def load(path: Path, declarations: Declarations, shown: Optional[str] = None) -> Spec:
    """Read cuda.toml, and softgpu.toml beside it where there is one."""
    name = shown or str(path)
    header, functions, texts = _Loader(path, name, declarations).load()
    spec = Spec(declarations, header, functions, texts=texts)
    softgpu = path.parent / "softgpu.toml"
    if not softgpu.is_file():
        return spec
    names = load_softgpu(softgpu, str(Path(name).parent / "softgpu.toml"), set(spec.exported))
    return replace(spec, softgpu=names)
