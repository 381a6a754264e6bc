# SPDX-License-Identifier: Apache-2.0
"""Which kernels use which shared variables, and so where these lie.

A variable that one kernel uses alone lies after those that several use, so kernels do not pay for
each other's. Dynamic shared memory starts where the statics of every kernel that can reach the
function using it have ended.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Set

from ..ptx.ir import Address, Function, Group, Module, Operand, Pair, Reg, Sym, Variable, Vector


class Reach:
    """Shared memory of one module."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._variables: Dict[str, Variable] = {
            v.name: v for v in module.variables.values() if v.space == "shared"
        }
        for function in module.functions.values():
            self._variables.update({v.name: v for v in function.variables if v.space == "shared"})
        self._offsets: Dict[str, int] = {}
        self._sizes: Dict[str, int] = {}
        self._needed: Dict[str, int] = {}
        self._dynamic: Dict[str, int] = {}
        if self._variables:
            self._place()

    def is_shared(self, name: str) -> bool:
        return name in self._variables

    def offset(self, function: str, name: str) -> int:
        """Where a variable lies, seen from a function."""
        if name in self._offsets:
            return self._offsets[name]
        return self._dynamic.get(function, 0)

    def static_size(self, kernel: str) -> int:
        return self._sizes.get(kernel, 0)

    def needed(self, kernel: str) -> int:
        """Bytes of the statics that a kernel can reach: what an assembler counts as its own."""
        return self._needed.get(kernel, 0)

    def _place(self) -> None:
        functions = self._module.functions
        uses = {name: _symbols(function) for name, function in functions.items()}
        addressed = {
            name
            for v in self._module.variables.values()
            for name in (r.symbol for r in v.relocations)
        }
        kernels = {
            name: self._closure(name, uses, addressed)
            for name, one in functions.items()
            if one.entry and one.body is not None
        }
        users: Dict[str, Set[str]] = {}
        for kernel, reached in kernels.items():
            for name in reached:
                users.setdefault(name, set()).add(kernel)
        statics = [v for v in self._variables.values() if not self._is_dynamic(v)]
        common = [v for v in statics if len(users.get(v.name, ())) > 1 or v.name in addressed]
        self._lay(common, 0)
        self._needed = {k: sum(v.size for v in statics if v.name in r) for k, r in kernels.items()}
        base = {
            k: max([self._offsets[v.name] + v.size for v in common if v.name in r] + [0])
            for k, r in kernels.items()
        }
        for kernel, reached in kernels.items():
            alone = [v for v in statics if v.name in reached and v.name not in self._offsets]
            self._sizes[kernel] = self._lay(alone, base[kernel])
        self._place_dynamic(kernels, uses)

    def _is_dynamic(self, variable: Variable) -> bool:
        return variable.size == 0 or variable.linkage == "extern"

    def _lay(self, variables: Iterable[Variable], at: int) -> int:
        for variable in sorted(variables, key=lambda v: -v.align):
            align = max(variable.align, 1)
            at = (at + align - 1) // align * align
            self._offsets[variable.name] = at
            at += variable.size
        return at

    def _place_dynamic(self, kernels: Dict[str, Set[str]], uses: Dict[str, Set[str]]) -> None:
        dynamic = {name for name, v in self._variables.items() if self._is_dynamic(v)}
        with_dynamic = {
            kernel: reached for kernel, reached in kernels.items() if reached & dynamic
        }
        for kernel in with_dynamic:
            align = max(self._variables[name].align for name in with_dynamic[kernel] & dynamic)
            align = max(align, 16)
            self._sizes[kernel] = (self._sizes.get(kernel, 0) + align - 1) // align * align
        changed = True
        while (
            changed
        ):  # a function that several kernels call sees one base, so they all start there
            changed = False
            for name, used in uses.items():
                callers = [
                    k for k, reached in with_dynamic.items() if k == name or name in reached
                ]
                if not used & dynamic or not callers:
                    continue
                most = max(self._sizes[kernel] for kernel in callers)
                self._dynamic[name] = most
                for kernel in callers:
                    changed = changed or self._sizes[kernel] != most
                    self._sizes[kernel] = most

    def _closure(self, kernel: str, uses: Dict[str, Set[str]], addressed: Set[str]) -> Set[str]:
        """Everything a kernel may touch; anybody may call a function that is in a table."""
        reached: Set[str] = set()
        waiting: List[str] = [kernel]
        tables = {name for name in addressed if name in self._module.functions}
        while waiting:
            for name in uses.get(waiting.pop(), set()):
                name = self._module.aliases.get(name, name)
                if name in reached:
                    continue
                reached.add(name)
                if name in self._module.functions:
                    waiting.append(name)
                elif name in self._module.variables and self._module.variables[name].relocations:
                    waiting += tables - reached
                    reached |= tables
        return reached


def _symbols(function: Function) -> Set[str]:
    found: Set[str] = set()
    for instruction in function.body or []:
        for operand in instruction.operands:
            kind = type(operand)
            if kind is Reg:
                continue
            if kind is Sym:
                found.add(operand.name)  # type: ignore[union-attr]
            elif kind in (Address, Group, Vector, Pair):
                found.update(_inside(operand))
    return found


def _inside(operand: Operand) -> Iterator[str]:
    if isinstance(operand, Sym):
        yield operand.name
    elif isinstance(operand, Address):
        if isinstance(operand.base, Sym):
            yield operand.base.name
    elif isinstance(operand, (Group, Vector)):
        for item in operand.items:
            yield from _inside(item)
    elif isinstance(operand, Pair):
        yield from _inside(operand.first)
        yield from _inside(operand.second)
