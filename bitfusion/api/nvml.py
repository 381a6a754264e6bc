# SPDX-License-Identifier: Apache-2.0
"""NVML's declarations -> the generated part of libnvidia-ml.so.1.

What the library implements is what its hand-written C defines; every other name answers
NVML_ERROR_NOT_SUPPORTED. The header that is written holds only the types those definitions need.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Dict, Iterable, List, Set, Tuple, Union

from .declarations import (
    Alias,
    DeclarationError,
    Declarations,
    Enum,
    FunctionType,
    Record,
    parse_functions,
    parse_types,
)
from .emit_c import absent_source, export_map
from .emit_header import HEADER_LINE, TypeWriter, spell_prototype

FOLDER = "bitfusion/nvml/"
_DEFINITION = re.compile(r"^(?:EXPORT )?(?:nvmlReturn_t|const char \*)\s*(nvml[A-Z]\w*)\(", re.M)

# Names that nobody declares any more and that programs still ask for.
OLDER = ("nvmlInit", "nvmlDeviceGetMPSComputeRunningProcesses", "nvmlDeviceGetPciInfo_v2")
_ASKED = re.compile(r"_nvmlGetFunctionPointer\(\"(nvml\w+)\"\)")


def asked_for() -> Set[str]:
    """What pynvml looks up: among them names of older releases that nobody declares."""
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise DeclarationError("pynvml is not installed: python3 -m pip install nvidia-ml-py")
    return set(_ASKED.findall(Path(found.origin).read_text(encoding="utf-8")))


def load(root: Path) -> Declarations:
    """root: the folder above cuda/bindings."""
    bindings = root / "cuda" / "bindings"
    found = Declarations()
    text = (bindings / "cynvml.pxd").read_text(encoding="utf-8")
    found.types = parse_types(text, "cynvml.pxd")
    functions = (bindings / "_internal" / "nvml.pxd").read_text(encoding="utf-8")
    found.functions = parse_functions(functions)
    for enum in found.enums().values():
        found.values.update(_numbers(enum))
    return found


def _numbers(enum: Enum) -> Dict[str, int]:
    numbers: Dict[str, int] = {}
    last = -1
    for name, value in enum.members:
        last = last + 1 if value is None else value
        numbers[name] = last
    return numbers


def find_written(sources: Iterable[str]) -> Set[str]:
    return {name for source in sources for name in _DEFINITION.findall(source)}


def exported(declarations: Declarations, written: Set[str]) -> List[str]:
    return sorted(set(declarations.functions) | asked_for() | set(OLDER) | written)


Named = Union[Alias, Enum, FunctionType, Record]


def _types(declarations: Declarations) -> List[Named]:
    return [t for t in declarations.types if isinstance(t, (Alias, Enum, FunctionType, Record))]


def _mentioned(type_: Named) -> Set[str]:
    if isinstance(type_, Record):
        return {member.type.base for member in type_.fields or ()}
    if isinstance(type_, Enum):
        return set()
    if isinstance(type_, FunctionType):
        return {type_.result.base} | {argument.type.base for argument in type_.arguments}
    return {type_.type.base}


def needed(declarations: Declarations, written: Set[str]) -> Set[str]:
    """The types that the written functions reach, those of older functions included."""
    by_name = {type_.name: type_ for type_ in _types(declarations)}
    todo = {"nvmlReturn_t", "nvmlMemory_t", "nvmlBrandType_t", "nvmlClockType_t"}
    for name in written & set(declarations.functions):
        prototype = declarations.functions[name]
        todo |= {prototype.result.base} | {a.type.base for a in prototype.arguments}
    found: Set[str] = set()
    while todo:
        name = todo.pop()
        if name in by_name and name not in found:
            found.add(name)
            todo |= _mentioned(by_name[name])
    return found


def header(declarations: Declarations, written: Set[str]) -> str:
    used = needed(declarations, written)
    writer = TypeWriter(declarations, {})
    lines = ["/* SPDX-License-Identifier: Apache-2.0 */"]
    lines.append(f"/* {HEADER_LINE.replace('cuda.toml', 'the NVML declarations')} */")
    lines += ["/* The types and prototypes of what this library implements. */"]
    lines += ["#ifndef BITFUSION_NVML_H", "#define BITFUSION_NVML_H", ""]
    records = [r for r in declarations.records().values() if r.name in used and r.plain]
    lines += [f"typedef {r.kind} {r.name} {r.name};" for r in records]
    for type_ in _types(declarations):
        if type_.name in used:
            lines += writer.type(type_)
    lines += ["", "#pragma GCC visibility push(default)"]
    for name in sorted(written & set(declarations.functions)):
        lines.append(spell_prototype(declarations.functions[name], writer.tags) + ";")
    return "\n".join([*lines, "#pragma GCC visibility pop", "", "#endif", ""])


def coverage(declarations: Declarations, written: Set[str]) -> str:
    names = exported(declarations, written)
    lines = [f"<!-- {HEADER_LINE.replace('cuda.toml', 'the NVML declarations')} -->"]
    lines += ["# Coverage of NVML", ""]
    lines.append(
        f"`libnvidia-ml.so.1` exports {len(names)} names. These {len(written)} are implemented, "
        "for remote and for software GPUs; all others answer `NVML_ERROR_NOT_SUPPORTED`."
    )
    lines += ["", *(f"- `{name}`" for name in sorted(written))]
    return "\n".join(lines) + "\n"


def generate(declarations: Declarations, sources: List[str]) -> Dict[str, str]:
    written = find_written(sources)
    names = exported(declarations, written)
    absent = [name for name in names if name not in written]
    source = absent_source(absent, "nvml_absent").replace("cuda.toml", "the NVML declarations")
    exports = export_map(names).replace("cuda.toml", "the NVML declarations")
    files: Tuple[Tuple[str, str], ...] = (
        (FOLDER + "generated/nvml.h", header(declarations, written)),
        (FOLDER + "generated/absent.c", source),
        (FOLDER + "generated/exports.map", exports),
        ("docs/nvml-coverage.md", coverage(declarations, written)),
    )
    return dict(files)
