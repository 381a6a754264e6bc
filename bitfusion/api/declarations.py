# SPDX-License-Identifier: Apache-2.0
"""Reads CUDA's types and prototypes from the declarations of the cuda-bindings package.

Knows the small part of Cython that those files use; knows nothing of classes, rows or C output.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import operator
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

PACKAGE = "cuda-bindings==13.5.0"
TYPES = "cydriver.pxd"
FUNCTIONS = os.path.join("_internal", "driver.pxd")


class DeclarationError(Exception):
    """A declaration file that is missing or that this reader does not understand."""


@dataclass(frozen=True)
class CType:
    """`const base **name[array]`; pointers counts the stars, const is that of the base."""

    base: str
    pointers: int = 0
    const: bool = False
    array: Optional[int] = None


@dataclass(frozen=True)
class Member:
    name: str
    type: CType


@dataclass(frozen=True)
class Prototype:
    name: str
    result: CType
    arguments: Tuple[Member, ...]


@dataclass(frozen=True)
class Record:
    """A struct or a union; fields is None for an opaque one."""

    kind: str
    name: str
    fields: Optional[Tuple[Member, ...]]
    plain: bool  # usable by its bare name, without `struct`
    inline: bool  # stands for a nameless record inside another


@dataclass(frozen=True)
class Enum:
    name: str
    members: Tuple[Tuple[str, Optional[int]], ...]
    plain: bool


@dataclass(frozen=True)
class Alias:
    name: str
    type: CType


@dataclass(frozen=True)
class FunctionType:
    name: str
    result: CType
    arguments: Tuple[Member, ...]


@dataclass
class Declarations:
    """Everything read. types keeps the order of the file, in which C can be written."""

    types: List[object] = field(default_factory=list)
    functions: Dict[str, Prototype] = field(default_factory=dict)
    values: Dict[str, int] = field(default_factory=dict)
    constants: Dict[str, int] = field(default_factory=dict)

    def records(self) -> Dict[str, Record]:
        return {t.name: t for t in self.types if isinstance(t, Record)}

    def enums(self) -> Dict[str, Enum]:
        return {t.name: t for t in self.types if isinstance(t, Enum)}

    def aliases(self) -> Dict[str, Alias]:
        return {t.name: t for t in self.types if isinstance(t, Alias)}


# ---------------------------------------------------------------- reading

_TYPE = re.compile(
    r"^(const\s+)?((?:(?:unsigned|signed|long|short)\s+)*\w+)\s*((?:\*\s*(?:const\s*)?)*)"
)


def parse_member(text: str) -> Member:
    """Split `const T* name[4]` into a type and a name; the name may be empty."""
    text = text.strip()
    match = _TYPE.match(text)
    if not match:
        raise DeclarationError(f"not a type: '{text}'")
    base = " ".join(match.group(2).split())
    rest = text[match.end() :].strip()
    words = base.split()
    if not match.group(3) and len(words) > 1 and words[-1] not in NATIVE:
        base, rest = " ".join(words[:-1]), words[-1] + rest
    named = re.match(r"^(\w*)(?:\[(\w+)\])?$", rest)
    if not named:
        raise DeclarationError(f"not a name: '{rest}' in '{text}'")
    array = int(named.group(2), 0) if named.group(2) else None
    stars = match.group(3).count("*")
    return Member(named.group(1), CType(base, stars, bool(match.group(1)), array))


NATIVE = {"char", "short", "int", "long", "unsigned", "float", "double"}


def parse_arguments(text: str) -> Tuple[Member, ...]:
    text = text.strip()
    if not text or text == "void":
        return ()
    return tuple(parse_member(part) for part in text.split(","))


def parse_prototype(text: str) -> Prototype:
    """`CUresult cuX(int a, const char* b)`."""
    match = re.match(r"^\s*(.+?)(\w+)\s*\(([^()]*)\)\s*;?\s*$", text)
    if not match:
        raise DeclarationError(f"not a prototype: '{text}'")
    result = parse_member(match.group(1)).type
    return Prototype(match.group(2), result, parse_arguments(match.group(3)))


_FUNCTION = re.compile(r"^cdef ((?:const )?\w+\*?) _(\w+)\((.*?)\) except")
_BLOCK = re.compile(r"^(ctypedef|cdef) (enum|struct|union) (\w+)(?:\s+[\"'](.*)[\"'])?:$")
_CALLBACK = re.compile(r"^ctypedef (.+?) ?\(\*(\w+)(?:\s+'\w+')?\)\((.*)\)$")
_ALIAS = re.compile(r"^ctypedef (.+?)(\w+)(?:\s+['\"]\w+['\"])?$")
_ENUMERATOR = re.compile(r"^(\w+)(?:\s+\"\w+\")?(?:\s*=\s*(.+?))?,?$")


def _logical_lines(text: str) -> List[Tuple[int, int, str]]:
    """(line number, indentation, text) without comments, with parentheses joined."""
    lines: List[Tuple[int, int, str]] = []
    pending = ""
    start = indent = 0
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.split("#")[0].rstrip()
        if not stripped.strip():
            continue
        if not pending:
            start, indent = number, len(stripped) - len(stripped.lstrip())
        pending += " " + stripped.strip() if pending else stripped.strip()
        if pending.count("(") > pending.count(")"):
            continue
        lines.append((start, indent, pending))
        pending = ""
    return lines


def parse_functions(text: str) -> Dict[str, Prototype]:
    functions: Dict[str, Prototype] = {}
    for _, _, line in _logical_lines(text):
        match = _FUNCTION.match(line)
        if match:
            arguments = parse_arguments(match.group(3))
            result = parse_member(match.group(1)).type
            functions[match.group(2)] = Prototype(match.group(2), result, arguments)
    return functions


def parse_types(text: str, where: str = TYPES) -> List[object]:
    types: List[object] = []
    lines = _logical_lines(text)
    position = 0
    while position < len(lines):
        number, indent, line = lines[position]
        position += 1
        block = _BLOCK.match(line)
        if block:
            body: List[str] = []
            while position < len(lines) and lines[position][1] > indent:
                body.append(lines[position][2])
                position += 1
            try:
                types.append(_parse_block(block, body))
            except DeclarationError as error:
                raise DeclarationError(f"{where}:{number}: {error}") from error
        elif line.startswith("ctypedef"):
            types.append(_parse_alias(line))
    return types


def _parse_block(block: re.Match[str], body: List[str]) -> object:
    plain = block.group(1) == "ctypedef"
    kind, name, cname = block.group(2), block.group(3), block.group(4) or ""
    if kind == "enum":
        return Enum(name, _parse_enumerators(body), plain)
    inline = "::" in cname and "__anon_" in name or name.startswith("anon_")
    fields = None if body == ["pass"] else tuple(parse_member(line) for line in body)
    return Record(kind, name, fields, plain, inline)


def _parse_enumerators(body: List[str]) -> Tuple[Tuple[str, Optional[int]], ...]:
    """A value may be the name of an earlier enumerator; None where there is none."""
    found: Dict[str, Optional[int]] = {}
    numbers: Dict[str, int] = {}
    number = -1
    for line in body:
        match = _ENUMERATOR.match(line)
        if not match:
            raise DeclarationError(f"not an enumerator: '{line}'")
        text = match.group(2)
        number = number + 1 if text is None else _value(text, numbers)
        numbers[match.group(1)] = number
        found[match.group(1)] = None if text is None else number
    return tuple(found.items())


_OPERATORS = {ast.BitOr: operator.or_, ast.LShift: operator.lshift, ast.Add: operator.add}


def _value(text: str, names: Mapping[str, int]) -> int:
    """What `-(1)`, `(1 << 2)` or `(FIRST | SECOND)` is; names are those of earlier enumerators."""

    def of(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -of(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return int(_OPERATORS[type(node.op)](of(node.left), of(node.right)))
        raise DeclarationError(f"not a value: '{text}'")

    try:
        return of(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise DeclarationError(f"not a value: '{text}'") from None


def _parse_alias(line: str) -> object:
    callback = _CALLBACK.match(line)
    if callback:
        result = parse_member(callback.group(1)).type
        return FunctionType(callback.group(2), result, parse_arguments(callback.group(3)))
    match = _ALIAS.match(line)
    if not match:
        raise DeclarationError(f"not a typedef: '{line}'")
    return Alias(match.group(2), parse_member(match.group(1)).type)


# ---------------------------------------------------------------- finding

_DUMP_VALUES = """
import json, sys
from cuda.bindings import driver
values, constants = {}, {}
for name in dir(driver):
    thing = getattr(driver, name)
    for member, value in getattr(thing, "__members__", {}).items():
        values[member] = int(value)
    if name.startswith(("CU_", "CUDA_")) and type(thing) is int:
        constants[name] = thing
json.dump([values, constants], sys.stdout)
"""


def find_package(folder: Optional[str] = None) -> Path:
    """The folder above cuda/bindings: `folder`, or where the package is installed."""
    if folder is not None:
        if not (Path(folder) / "cuda" / "bindings" / TYPES).is_file():
            raise DeclarationError(f"no cuda/bindings/{TYPES} in '{folder}'")
        return Path(folder)
    try:
        found = importlib.util.find_spec("cuda.bindings")
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise DeclarationError(
            f"the declarations are not installed: python3 -m pip install {PACKAGE}"
        )
    return Path(found.submodule_search_locations[0]).parent.parent


def check_version(bindings: Path) -> None:
    """Another release declares other things; the generated files would differ for no reason."""
    path = bindings / "_version.py"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"^__version__ = .*['\"](\S+)['\"]$", text, re.MULTILINE)
    version = found.group(1) if found else "of an unknown version"
    if version != PACKAGE.split("==")[1]:
        why = f"'{bindings}' is {version}: python3 -m pip install {PACKAGE}"
        raise DeclarationError(why)


def load(folder: Optional[str] = None) -> Declarations:
    root = find_package(folder)
    bindings = root / "cuda" / "bindings"
    check_version(bindings)
    found = Declarations()
    found.types = parse_types((bindings / TYPES).read_text(encoding="utf-8"))
    found.functions = parse_functions((bindings / FUNCTIONS).read_text(encoding="utf-8"))
    found.values, found.constants = _load_values(root)
    return found


def _load_values(root: Path) -> Tuple[Dict[str, int], Dict[str, int]]:
    """The numbers of enumerators are only in the compiled module: ask it, in a process."""
    environment = dict(os.environ, PYTHONPATH=str(root))
    command = [sys.executable, "-c", _DUMP_VALUES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[-1:] or ["it failed"]
        raise DeclarationError(f"cannot import cuda.bindings.driver from '{root}': {why[0]}")
    values, constants = json.loads(done.stdout)
    return values, constants
