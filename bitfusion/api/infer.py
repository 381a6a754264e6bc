# SPDX-License-Identifier: Apache-2.0
"""How a row carries each argument: inferred from its type, and from the role in cuda.toml.

Raises ValueError with the reason; the caller knows the place. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Mapping, Optional, Tuple

from .declarations import NATIVE, CType, Declarations, Member, Prototype, Record

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
}
_SHAPED = {
    "CUlaunchConfig": "CONFIG",
    "CUDA_KERNEL_NODE_PARAMS": "KERNEL_NODE",
    "CUDA_RESOURCE_DESC": "RESOURCE",
}
_TRANSLATED = {"CUdevice": "DEVICE", "CUmemLocation": "LOCATION"}
_FREES = re.compile(r"(Destroy|Unload|Release)(_v\d+)?$")
_CREATES = re.compile(r"Create|Instantiate|Add\w*Node|Clone")


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


class Inference:
    """Looks behind the names of types, and gives each argument of a row its kind."""

    def __init__(self, declarations: Declarations) -> None:
        self.aliases = declarations.aliases()
        self.enums = declarations.enums()
        self.records = declarations.records()

    def scalar(self, base: str) -> Optional[str]:
        """The native type behind a name; None for structs and pointers."""
        while base in self.aliases:
            if self.aliases[base].type.pointers:
                return None
            base = self.aliases[base].type.base
        if base in self.enums:
            return "int"
        known = base in ("size_t", "uint32_t", "uint64_t") or base.split()[-1] in NATIVE
        return base if known else None

    def record(self, base: str) -> Optional[Record]:
        while base in self.aliases and not self.aliases[base].type.pointers:
            base = self.aliases[base].type.base
        return self.records.get(base)

    def location(self, base: str) -> str:
        """1 + the offset of a CUmemLocation in the struct, inner ones too, as C; 0 for none."""
        record = self.record(base)
        if record is not None and record.name == "CUmemLocation_st":
            return "1"
        path = self._location_in(base)
        return f"1 + offsetof({base}, {path})" if path else "0"

    def _location_in(self, base: str) -> str:
        record = self.record(base)
        for member in (record and record.fields) or ():
            if member.type.pointers:
                continue
            if member.type.base == "CUmemLocation":
                return member.name
            inner = self._location_in(member.type.base)
            if inner:
                return f"{member.name}.{inner}"
        return ""

    def arguments(self, prototype: Prototype, roles: Mapping[str, str]) -> Tuple[Argument, ...]:
        names = [m.name for m in prototype.arguments]
        for name in roles:
            if name not in names:
                raise ValueError(f"there is no argument '{name}'")
        found = [self.argument(prototype, m, roles.get(m.name, "")) for m in prototype.arguments]
        for argument in found:
            if argument.count is not None and not self.is_counter(found[argument.count]):
                counter = names[argument.count]
                raise ValueError(
                    f"'{argument.name}' is counted by '{counter}', which is not an integer"
                )
        return tuple(found)

    def is_counter(self, argument: Argument) -> bool:
        integer = self.scalar(argument.type.base) not in ("float", "double", None)
        plain = argument.handle == "BF_NOT_A_HANDLE"
        return integer and plain and argument.kind in ("VALUE", "INOUT")

    def argument(self, prototype: Prototype, member: Member, text: str) -> Argument:
        role, counter, less, fixed = _parse_role(text)
        argument = Argument(member.name, member.type, "VALUE", less=less)
        if counter:
            names = [m.name for m in prototype.arguments]
            if counter not in names:
                raise ValueError(f"'{member.name}' is counted by unknown argument '{counter}'")
            argument = replace(argument, count=names.index(counter))
        base, pointers = member.type.base, member.type.pointers
        if pointers == 0 or role == "value":
            return self._by_value(prototype, argument, role)
        if base == "CUdevice":
            raise ValueError(f"'{member.name}' is a device number, which a row cannot return")
        if base in HANDLES and not fixed:
            return self._handles(prototype, argument, role)
        if pointers == 1 and base == "char" and member.type.const and not role:
            return replace(argument, kind="STRING")
        if pointers == 1 and base in _SHAPED and not role:
            return replace(argument, kind=_SHAPED[base], size=f"sizeof({base})")
        if not role and (base == "void" or pointers > 1):
            raise ValueError(f"'{member.name}' needs a direction")
        return self._pointer(argument, role or ("in" if member.type.const else "out"), fixed)

    def _pointer(self, argument: Argument, role: str, fixed: str) -> Argument:
        kind = {"in": "IN", "out": "OUT", "inout": "INOUT"}.get(role)
        if kind is None:
            raise ValueError(f"'{argument.name}' cannot be '{role}'")
        if argument.count is not None:
            if kind == "INOUT":
                raise ValueError(f"'{argument.name}': an array goes one way")
            kind += "_ARRAY"
        base, pointers = argument.type.base, argument.type.pointers
        if base == "void" and pointers == 1 and not fixed:
            if argument.count is None:
                raise ValueError(f"'{argument.name}' needs a length")
            return replace(argument, kind=kind, size="1")
        own = pointers == 2 and argument.type.const and role == "out"  # the driver's own array
        size = fixed or "sizeof({})".format(base if pointers == 1 or own else "void *")
        location = self.location(base) if pointers == 1 else "0"
        return replace(argument, kind=kind, size=size, location=location)

    def _by_value(self, prototype: Prototype, argument: Argument, role: str) -> Argument:
        base, pointers = argument.type.base, argument.type.pointers
        argument = replace(argument, size=f"sizeof({base} {'*' * pointers}".rstrip() + ")")
        if pointers == 0 and base in HANDLES:
            if role not in ("", "free"):
                raise ValueError(f"'{argument.name}' is a handle, not '{role}'")
            first = prototype.arguments[0].name == argument.name
            frees = role == "free" or (not role and first and _FREES.search(prototype.name))
            kind = "FREE_HANDLE" if frees else "HANDLE"
            return replace(argument, kind=kind, handle=HANDLES[base])
        if role not in ("", "value"):
            raise ValueError(f"'{argument.name}' is a value, not '{role}'")
        if pointers == 0 and base in _TRANSLATED:
            return replace(argument, kind=_TRANSLATED[base])
        if pointers == 0 and self.scalar(base) in (None, "float", "double"):
            raise ValueError(f"'{argument.name}' cannot be passed by value")
        return argument

    def _handles(self, prototype: Prototype, argument: Argument, role: str) -> Argument:
        handle, pointers = HANDLES[argument.type.base], argument.type.pointers
        if argument.count is not None or (pointers == 2 and role == "out"):
            given = role == "in" or (not role and argument.type.const)
            kind = "IN_HANDLES" if given else "OUT_HANDLES"
            return replace(argument, kind=kind, handle=handle, size="8")
        if pointers > 1 or argument.type.const or role in ("in", "inout"):
            raise ValueError(f"'{argument.name}' needs a length")
        if role not in ("", "new", "found", "out"):
            raise ValueError(f"'{argument.name}' cannot be '{role}'")
        if argument.type.base == "CUgraphNode":
            # nobody destroys nodes, their graph does: the executor numbers them
            return replace(argument, kind="OUT_HANDLES", handle=handle, size="8")
        created = role == "new" or (not role and _CREATES.search(prototype.name))
        kind = "NEW_HANDLE" if created else "FOUND_HANDLE"
        return replace(argument, kind=kind, handle=handle, size="8")


_ROLE = re.compile(r"^(in|out|inout|value|new|found|free)?(?:\[(\w+)(?:-(\d+))?\]|\((\d+)\))?$")


def _parse_role(text: str) -> Tuple[str, str, int, str]:
    """`out[count-1]` or `in(8)` -> role, counting argument, elements fewer, bytes."""
    match = _ROLE.match(text)
    if not match:
        raise ValueError(f"'{text}' is not a role such as in, out, in[count], out(8)")
    role, counter, less, fixed = match.groups()
    return role or "", counter or "", int(less or 0), fixed or ""
