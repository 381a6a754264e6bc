# SPDX-License-Identifier: Apache-2.0
"""cuda.toml + declarations -> Spec, the checked truth that every emitter reads. Pure but for reading files.

An emitter is a function Spec -> text. What it may use:

    spec.functions      every exported function, sorted by name: one Function per ABI (`cuMemAlloc_v2`)
    spec.rows           those that cross the wire as a row, in the order of their call numbers
    spec.symbols        (base name, exported name, version, per_thread, Function): what lookup answers
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from . import toml_lines
from .declarations import CType, DeclarationError, Declarations, Member, Prototype, Record
from .declarations import parse_prototype

CLASSES = ("local", "oneway", "sync", "custom", "absent")
MAX_ARGUMENTS = 16  # BF_MAX_ARGUMENTS of wire/row.h

HANDLES = {
    "CUcontext": "BF_CONTEXT",
    "CUmodule": "BF_MODULE",
    "CUfunction": "BF_FUNCTION",
    "CUlibrary": "BF_LIBRARY",
    "CUkernel": "BF_KERNEL",
    "CUstream": "BF_STREAM",
    "CUevent": "BF_EVENT",
    "CUmemoryPool": "BF_MEMPOOL",
    "CUgraph": "BF_GRAPH",
    "CUgraphExec": "BF_GRAPHEXEC",
    "CUgraphNode": "BF_GRAPHNODE",
    "CUlinkState": "BF_LINKSTATE",
    "CUmemGenericAllocationHandle": "BF_ALLOCATION",
    "CUarray": "BF_ARRAY",
    "CUmipmappedArray": "BF_MIPMAPPEDARRAY",
    "CUtexObject": "BF_TEXOBJECT",
    "CUsurfObject": "BF_SURFOBJECT",
}
_FREES = re.compile(r"(Destroy|Unload|Release)(_v\d+)?$")
_CREATES = re.compile(r"Create|Instantiate|Add\w*Node|Clone")
_SUFFIX = re.compile(r"^(cu\w+?)(_v\d+)?$")


class SpecError(Exception):
    """A mistake in the spec, with the place it was made."""

    def __init__(self, path: str, line: int, why: str) -> None:
        super().__init__("%s:%d: %s" % (path, line, why))


@dataclass(frozen=True)
class Flavour:
    """A twin whose default stream is the calling thread's own."""

    suffix: str
    since: int


@dataclass(frozen=True)
class Argument:
    name: str
    type: CType
    kind: str  # enum bf_argument_kind, without BF_ARG_
    handle: str = "BF_NOT_A_HANDLE"
    count: Optional[int] = None  # index of the argument that counts the elements
    less: int = 0  # elements fewer than it says
    size: str = "0"  # C expression: bytes of T
    location: str = "0"  # C expression: 1 + offset of a CUmemLocation in T


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
    texts: Mapping[str, str] = None  # type: ignore[assignment]

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

    def by_name(self) -> Dict[str, Function]:
        return {f.name: f for f in self.functions}


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
}
_TABLES = {"header", "errors", "group"}


class _Loader:
    def __init__(self, path: Path, shown: str, declarations: Declarations) -> None:
        self.path = shown
        self.text = path.read_text(encoding="utf-8")
        self.lines = toml_lines.find_lines(self.text)
        self.declarations = declarations
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
                raise self.fail((name,), "unknown table '%s'" % name)
        functions: List[Function] = []
        for name, group in root.get("group", {}).items():
            functions += self.group(name, group)
        self.complete(root.get("header", {}))
        functions.sort(key=lambda f: f.name)
        self.check_aliases(functions)
        header = root.get("header", {})
        self.check_header(header)
        return header, tuple(functions), root.get("errors", {})

    def check_header(self, header: Mapping[str, Any]) -> None:
        if not isinstance(header.get("version"), int):
            raise self.fail(("header",), "the header has no version")
        records = self.declarations.records()
        for table in ("unions", "alignment"):
            for name, value in header.get(table, {}).items():
                where = ("header", table, name)
                if name not in records:
                    raise self.fail(where, "unknown struct '%s'" % name)
                members = [m.name for m in records[name].fields or ()]
                for member in value if table == "unions" else ():
                    if member not in members:
                        raise self.fail(where, "'%s' has no member '%s'" % (name, member))

    def complete(self, header: Mapping[str, Any]) -> None:
        newer = header.get("newer", [])
        for name in newer:
            if name not in self.declarations.functions:
                raise self.fail(("header", "newer"), "unknown function '%s'" % name)
            if name in self.seen:
                raise self.fail(("header", "newer"), "'%s' also has a class" % name)
        missing = sorted(set(self.declarations.functions) - set(self.seen) - set(newer))
        if missing:
            raise self.fail((), "declared but without a class: %s" % ", ".join(missing))

    def check_aliases(self, functions: Sequence[Function]) -> None:
        named = {f.name: f for f in functions}
        for f in functions:
            where = ("group", f.group, "functions", f.name)
            if f.alias is not None and f.alias not in named:
                raise self.fail(where, "'%s' is an alias of unknown '%s'" % (f.name, f.alias))
            if f.alias and named[f.alias].alias:
                raise self.fail(where, "'%s' is an alias of an alias" % f.name)

    def group(self, name: str, group: Mapping[str, Any]) -> Iterator[Function]:
        where = ("group", name)
        for key in group:
            if key not in _GROUP_KEYS:
                raise self.fail((*where, key), "unknown key '%s'" % key)
        if group.get("class") not in CLASSES:
            raise self.fail((*where, "class"), "unknown class '%s'" % group.get("class"))
        functions = group.get("functions", {})
        names = list(functions)
        for index, function in enumerate(names):
            place = (*where, "functions", function)
            if index and function < names[index - 1]:
                why = "not sorted: '%s' after '%s'" % (function, names[index - 1])
                raise self.fail(place, why)
            if function in self.seen:
                first = self.seen[function]
                raise self.fail(place, "duplicate '%s', first on line %d" % (function, first))
            self.seen[function] = self.lines.get(place, 1)
            yield self.function(name, group, function, functions[function])

    def function(
        self, group_name: str, group: Mapping[str, Any], name: str, entry: Mapping[str, Any]
    ) -> Function:
        place = ("group", group_name, "functions", name)
        for key in entry:
            if key not in _FUNCTION_KEYS:
                raise self.fail(place, "unknown key '%s' of '%s'" % (key, name))
        why = entry.get("why", group.get("why"))
        if not why or not isinstance(why, str):
            raise self.fail(place, "'%s' has no reason (why)" % name)
        if not isinstance(entry.get("since"), int):
            raise self.fail(place, "'%s' does not say since which version" % name)
        match = _SUFFIX.match(name)
        if not match:
            raise self.fail(place, "'%s' is not the name of a driver function" % name)
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
        )
        if not function.row:
            if "args" in entry:
                raise self.fail(place, "'%s' has args but no row" % name)
            return function
        return self.with_arguments(place, function, entry.get("args", {}))

    def row(
        self, place: Sequence[str], name: str, entry: Mapping[str, Any], class_: str
    ) -> Optional[str]:
        row = entry.get("row")
        if class_ in ("oneway", "sync") and "alias" not in entry:
            if row is not None:
                raise self.fail(place, "'%s': class %s already says which row" % (name, class_))
            return class_
        if row is not None and (class_ not in ("local", "custom") or row not in ("oneway", "sync")):
            raise self.fail(place, "'%s': row must be oneway or sync, of a custom function" % name)
        return row

    def prototype(
        self, place: Sequence[str], name: str, entry: Mapping[str, Any], class_: str
    ) -> Optional[Prototype]:
        declared = self.declarations.functions.get(name)
        text = entry.get("prototype")
        if text is not None and declared is not None:
            raise self.fail(place, "'%s' is declared already" % name)
        if text is not None:
            try:
                return parse_prototype("CUresult %s(%s)" % (name, text))
            except DeclarationError as error:
                raise self.fail(place, "'%s': %s" % (name, error)) from error
        if declared is None and "alias" in entry:
            original = self.declarations.functions.get(entry["alias"])
            return None if original is None else replace(original, name=name)
        if declared is None and class_ != "absent":
            raise self.fail(place, "unknown function '%s'" % name)
        return declared

    def with_arguments(
        self, place: Sequence[str], function: Function, roles: Mapping[str, str]
    ) -> Function:
        assert function.prototype is not None
        members = function.prototype.arguments
        names = [m.name for m in members]
        for name in roles:
            if name not in names:
                raise self.fail(place, "'%s' has no argument '%s'" % (function.name, name))
        if len(members) > MAX_ARGUMENTS:
            raise self.fail(place, "'%s' has more than %d arguments" % (function.name, MAX_ARGUMENTS))
        try:
            found = [self.argument(function, m, roles.get(m.name), names) for m in members]
        except ValueError as error:
            raise self.fail(place, "'%s': %s" % (function.name, error)) from error
        for argument in found:
            if argument.count is not None and not self.counts(members[argument.count], found):
                why = "'%s': '%s' is counted by '%s', which is not an integer"
                counter = names[argument.count]
                raise self.fail(place, why % (function.name, argument.name, counter))
        return replace(function, arguments=tuple(found))

    def counts(self, member: Member, found: Sequence[Argument]) -> bool:
        argument = next(a for a in found if a.name == member.name)
        integer = self.scalar(member.type.base) not in ("float", "double", None)
        return integer and argument.kind in ("VALUE", "INOUT") and argument.handle.endswith("HANDLE")

    def scalar(self, base: str) -> Optional[str]:
        """The native type behind a name; None for structs and pointers."""
        aliases = self.declarations.aliases()
        while base in aliases:
            if aliases[base].type.pointers:
                return None
            base = aliases[base].type.base
        if base in self.declarations.enums():
            return "int"
        native = {"char", "short", "int", "long", "unsigned", "signed", "float", "double"}
        if base in ("size_t", "uint32_t", "uint64_t") or base.split()[-1] in native:
            return base
        return None

    def record(self, base: str) -> Optional[Record]:
        aliases, records = self.declarations.aliases(), self.declarations.records()
        while base in aliases and not aliases[base].type.pointers:
            base = aliases[base].type.base
        return records.get(base)

    def location(self, base: str) -> str:
        record = self.record(base)
        if record is None:
            return "0"
        if record.name == "CUmemLocation_st":
            return "1"
        for member in record.fields or ():
            if member.type.base == "CUmemLocation" and not member.type.pointers:
                return "1 + offsetof(%s, %s)" % (base, member.name)
        return "0"

    # ------------------------------------------------------------ one argument

    def argument(
        self, function: Function, member: Member, text: Optional[str], names: Sequence[str]
    ) -> Argument:
        role, counter, less, fixed = _parse_role(text) if text else ("", "", 0, "")
        count = None
        if counter:
            if counter not in names:
                raise ValueError("'%s' is counted by unknown argument '%s'" % (member.name, counter))
            count = names.index(counter)
        base, pointers = member.type.base, member.type.pointers
        argument = Argument(member.name, member.type, "VALUE", count=count, less=less)
        if pointers == 0 or role == "value":
            return self.by_value(function, argument, role)
        if pointers == 1 and base in HANDLES and not fixed:
            return self.handles(function, argument, role)
        if base == "CUdevice":
            raise ValueError("'%s' returns a device number, which a row cannot" % member.name)
        if pointers == 1 and base == "char" and member.type.const and not role:
            return replace(argument, kind="STRING")
        if not role and (base == "void" or pointers > 1):
            raise ValueError("'%s' needs a direction" % member.name)
        role = role or ("in" if member.type.const else "out")
        if pointers > 1 and base in HANDLES and role == "out":
            return replace(argument, kind="OUT_HANDLES", handle=HANDLES[base], size="8")
        kind = {"in": "IN", "out": "OUT", "inout": "INOUT"}.get(role)
        if kind is None:
            raise ValueError("'%s' cannot be '%s'" % (member.name, role))
        if count is not None:
            if kind == "INOUT":
                raise ValueError("'%s': an array goes one way" % member.name)
            kind += "_ARRAY"
        elif kind == "IN" and less:
            raise ValueError("'%s' counts nothing" % member.name)
        if base == "void" and pointers == 1 and not fixed:
            size = "1"
            if count is None:
                raise ValueError("'%s' needs a length" % member.name)
        else:
            size = fixed or "sizeof(%s)" % (base if pointers == 1 else "void *")
        location = self.location(base) if pointers == 1 else "0"
        return replace(argument, kind=kind, size=size, location=location)

    def by_value(self, function: Function, argument: Argument, role: str) -> Argument:
        base, pointers = argument.type.base, argument.type.pointers
        size = "sizeof(%s)" % (base + " " + "*" * pointers).strip()
        if base in HANDLES and not pointers:
            first = function.prototype is not None and function.prototype.arguments[0]
            frees = role == "free" or (
                not role and _FREES.search(function.name) and first and first.name == argument.name
            )
            kind = "FREE_HANDLE" if frees else "HANDLE"
            return replace(argument, kind=kind, handle=HANDLES[base], size=size)
        if base == "CUdevice" and not pointers:
            return replace(argument, kind="DEVICE", size=size)
        if base == "CUmemLocation" and not pointers:
            return replace(argument, kind="LOCATION", size=size)
        if role not in ("", "value"):
            raise ValueError("'%s' is a value, not '%s'" % (argument.name, role))
        if not pointers and self.scalar(base) in (None, "float", "double"):
            raise ValueError("'%s' cannot be passed by value" % argument.name)
        return replace(argument, size=size)

    def handles(self, function: Function, argument: Argument, role: str) -> Argument:
        handle = HANDLES[argument.type.base]
        if argument.count is not None:
            given = role == "in" or (not role and argument.type.const)
            kind = "IN_HANDLES" if given else "OUT_HANDLES"
            return replace(argument, kind=kind, handle=handle, size="8")
        if argument.type.const or role in ("in", "inout"):
            raise ValueError("'%s' needs a length" % argument.name)
        created = role == "new" or (not role and _CREATES.search(function.name))
        if role not in ("", "new", "found", "out"):
            raise ValueError("'%s' cannot be '%s'" % (argument.name, role))
        kind = "NEW_HANDLE" if created else "FOUND_HANDLE"
        return replace(argument, kind=kind, handle=handle, size="8")


_ROLE = re.compile(r"^(in|out|inout|value|new|found|free)?(?:\[(\w+)(?:-(\d+))?\]|\((\d+)\))?$")


def _parse_role(text: str) -> Tuple[str, str, int, str]:
    match = _ROLE.match(text)
    if not match:
        raise ValueError("'%s' is not a role such as in, out, in[count], out(8)" % text)
    return match.group(1) or "", match.group(2) or "", int(match.group(3) or 0), match.group(4) or ""


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
            raise SpecError(shown, line, "unknown function '%s'" % name)
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
