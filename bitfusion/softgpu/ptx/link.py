# SPDX-License-Identifier: Apache-2.0
"""The PTX linker: several modules become one; names that stay inside are kept apart."""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

from . import device_runtime, ir
from .ir import Function, Module, PtxError, Variable
from .record import dataclass, replace

# Functions that the engine provides. They stay as declarations without a body.
BUILTINS = frozenset({"vprintf", "malloc", "free", "__assertfail"})
# Functions of CUDA's device runtime. They stay too, and fail when they are called.
_DEVICE_RUNTIME = ("cuda", "__cuda", "__nv_", "cnp")

INVALID_PTX = 218
Symbol = Union[Function, Variable]


@dataclass(frozen=True)
class Input:
    """A module to link; ``on_demand`` says to take it only if it defines what others lack."""

    module: Module
    name: str = ""
    on_demand: bool = False


def link(inputs: Sequence[Input]) -> Module:
    """Join modules; raises :class:`PtxError` that names the symbol at fault."""
    wanted = [one for one in inputs if not one.on_demand]
    spare = [one for one in inputs if one.on_demand]
    wanted += _device_runtime(wanted)
    wanted += _demanded(wanted, spare)
    if not wanted:
        raise PtxError("there is nothing to link", INVALID_PTX)
    first = wanted[0].module
    out = first
    if len(wanted) > 1:
        out = Module(max(one.module.version for one in wanted), first.target)
        for number, one in enumerate(wanted):
            _add(out, one, number)
    _check_resolved(out)
    return out


# ---------------------------------------------------------------- archives


def _undefined(module: Module) -> Iterable[str]:
    for function in module.functions.values():
        if function.body is None and function.name not in module.aliases:
            yield function.name
    for variable in module.variables.values():
        if variable.linkage == "extern" and variable.space != "shared":
            yield variable.name


def _defined(module: Module) -> Iterable[str]:
    for function in module.functions.values():
        if function.body is not None and function.linkage:
            yield function.name
    for variable in module.variables.values():
        if variable.linkage in ("visible", "weak", "common"):
            yield variable.name
    yield from module.aliases


def _device_runtime(wanted: Sequence[Input]) -> List[Input]:
    """Our own functions of the device runtime, before any library's, if one is missing."""
    missing = {name for one in wanted for name in _undefined(one.module)}
    if not missing & device_runtime.NAMES:
        return []
    defined = {name for one in wanted for name in _defined(one.module)}
    if not (missing - defined) & device_runtime.NAMES:
        return []
    return [Input(device_runtime.module(), "the device runtime")]


def _demanded(wanted: Sequence[Input], spare: Sequence[Input]) -> List[Input]:
    """Choose members of archives as long as they define something that is missing."""
    if not spare:
        return []
    defined = {name for one in wanted for name in _defined(one.module)}
    missing = {name for one in wanted for name in _undefined(one.module)} - defined
    left, chosen = list(spare), []  # type: Tuple[List[Input], List[Input]]
    while True:
        found = next((one for one in left if missing & set(_defined(one.module))), None)
        if found is None:
            return chosen
        left.remove(found)
        chosen.append(found)
        defined |= set(_defined(found.module))
        missing = (missing | set(_undefined(found.module))) - defined


# ---------------------------------------------------------------- joining


def _add(out: Module, one: Input, number: int) -> None:
    """Add one module to ``out``."""
    module = _keep_apart(out, one.module, number)
    for variable in module.variables.values():
        if variable.name in out.functions:
            raise PtxError(f"'{variable.name}' is a variable and a function", INVALID_PTX)
        known = out.variables.get(variable.name)
        out.variables[variable.name] = (
            variable if known is None else _merge_variable(known, variable, one.name)
        )
    for function in module.functions.values():
        if function.name in out.variables:
            raise PtxError(f"'{function.name}' is a variable and a function", INVALID_PTX)
        known_function = out.functions.get(function.name)
        out.functions[function.name] = (
            function
            if known_function is None
            else _merge_function(known_function, function, one.name)
        )
    for alias, target in module.aliases.items():
        out.aliases.setdefault(alias, target)


def _merge_variable(known: Variable, new: Variable, name: str) -> Variable:
    if known.space != new.space:
        raise PtxError(
            f"'{new.name}' is .{known.space} in one module and .{new.space} in another",
            INVALID_PTX,
        )
    ranks = {"extern": 0, "common": 1, "weak": 2, "visible": 3, "": 3}
    better, other = known, new
    if ranks[new.linkage] > ranks[known.linkage]:
        better, other = new, known
    elif ranks[new.linkage] == ranks[known.linkage] == 3:
        raise PtxError(_twice(new.name, name), INVALID_PTX)
    sizes_differ = better.size != other.size and better.size and other.size
    if sizes_differ and better.linkage not in ("common", "weak") and other.linkage == "extern":
        raise PtxError(f"'{new.name}' has two sizes: {better.size}, {other.size}", INVALID_PTX)
    size = better.size
    if better.linkage == "common" or (better.linkage == "extern" and size == 0):
        size = max(better.size, other.size)
    return replace(better, align=max(known.align, new.align), size=size)


def _twice(symbol: str, name: str) -> str:
    return f"'{symbol}' is defined twice" + (f", the second time in '{name}'" if name else "")


def _merge_function(known: Function, new: Function, name: str) -> Function:
    _check_signature(known, new)
    if new.body is None:
        return known
    if known.body is None:
        return new
    if known.linkage == "weak" and new.linkage != "weak":
        return new
    if new.linkage == "weak":
        return known
    raise PtxError(_twice(new.name, name), INVALID_PTX)


def _check_signature(a: Function, b: Function) -> None:
    shapes = [
        ([p.size for p in one.returns], [p.size for p in one.params], one.entry) for one in (a, b)
    ]
    if shapes[0] != shapes[1]:
        raise PtxError(f"'{a.name}' has different parameters in two modules", INVALID_PTX)


# ---------------------------------------------------------------- names that stay inside


def _keep_apart(out: Module, module: Module, number: int) -> Module:
    """Rename what does not leave its module and would meet another's, on either side."""
    renamed: Dict[str, str] = {}
    for name, symbol in _symbols(module):
        if name in out.functions or name in out.variables:
            if not _leaves(symbol):
                renamed[name] = f"{name}#m{number}"
            elif not _leaves(_find(out, name)):
                _rename_in_place(out, {name: f"{name}#l{number}"})
    return renamed_module(module, renamed) if renamed else module


def _symbols(module: Module) -> List[Tuple[str, Symbol]]:
    return [*module.variables.items(), *module.functions.items()]


def _find(module: Module, name: str) -> Symbol:
    return module.functions.get(name) or module.variables[name]


def _leaves(symbol: Symbol) -> bool:
    """Say whether other modules can mean this symbol by its name."""
    if isinstance(symbol, Function):
        return bool(symbol.linkage) or symbol.body is None
    return bool(symbol.linkage)


def _rename_in_place(module: Module, names: Dict[str, str]) -> None:
    renamed = renamed_module(module, names)
    module.variables, module.functions = renamed.variables, renamed.functions
    module.aliases = renamed.aliases


def renamed_module(module: Module, names: Dict[str, str]) -> Module:
    """Give a copy of a module in which symbols have other names."""
    renamer = _Renamer(names)
    out = Module(module.version, module.target)
    for variable in module.variables.values():
        fresh = renamer.variable(variable)
        out.variables[fresh.name] = fresh
    for function in module.functions.values():
        moved = renamer.function(function)
        out.functions[moved.name] = moved
    out.aliases = {names.get(a, a): names.get(t, t) for a, t in module.aliases.items()}
    return out


class _Renamer:
    """Rewrites the symbols in operands; an operand that stays the same stays the same object."""

    def __init__(self, names: Dict[str, str]) -> None:
        self.names = names
        self.done: Dict[ir.Operand, ir.Operand] = {}

    def variable(self, variable: Variable) -> Variable:
        names = self.names
        relocations = tuple(
            replace(r, symbol=names.get(r.symbol, r.symbol)) for r in variable.relocations
        )
        return replace(
            variable, name=names.get(variable.name, variable.name), relocations=relocations
        )

    def function(self, function: Function) -> Function:
        body = function.body
        if body is not None:
            body = [
                i._replace(operands=tuple([self.operand(o) for o in i.operands])) for i in body
            ]
        tables = {
            name: tuple(self.names.get(t, t) for t in targets)
            for name, targets in function.call_targets.items()
        }
        name = self.names.get(function.name, function.name)
        return replace(function, name=name, body=body, call_targets=tables)

    def operand(self, operand: ir.Operand) -> ir.Operand:
        known = self.done.get(operand)
        if known is None:
            known = self.done[operand] = self._rewrite(operand)
        return known

    def _rewrite(self, operand: ir.Operand) -> ir.Operand:
        if isinstance(operand, ir.Sym):
            return replace(operand, name=self.names.get(operand.name, operand.name))
        if isinstance(operand, ir.Address) and isinstance(operand.base, ir.Sym):
            base = self.operand(operand.base)
            assert isinstance(base, ir.Sym)
            return replace(operand, base=base)
        if isinstance(operand, (ir.Vector, ir.Group)):
            return replace(operand, items=tuple([self.operand(item) for item in operand.items]))
        return operand


# ---------------------------------------------------------------- what must be there


def _check_resolved(module: Module) -> None:
    for name in _undefined(module):
        if name in module.functions and (name in BUILTINS or name.startswith(_DEVICE_RUNTIME)):
            continue
        if not _is_used(module, name):
            continue
        kind = "function" if name in module.functions else "variable"
        raise PtxError(f"unresolved extern {kind} '{name}'", INVALID_PTX)


def _is_used(module: Module, name: str) -> bool:
    """Say whether anything refers to a symbol: an unused declaration does no harm."""
    for variable in module.variables.values():
        if any(r.symbol == name for r in variable.relocations):
            return True
    seen: Dict[int, bool] = {}
    for function in module.functions.values():
        if any(name in targets for targets in function.call_targets.values()):
            return True
        for instruction in function.body or ():
            if any(_mentions(operand, name, seen) for operand in instruction.operands):
                return True
    return False


def _mentions(operand: Optional[ir.Operand], name: str, seen: Dict[int, bool]) -> bool:
    key = id(operand)
    if key in seen:
        return seen[key]
    found = False
    if isinstance(operand, ir.Sym):
        found = operand.name == name
    elif isinstance(operand, ir.Address):
        found = isinstance(operand.base, ir.Sym) and operand.base.name == name
    elif isinstance(operand, (ir.Vector, ir.Group)):
        found = any(_mentions(item, name, seen) for item in operand.items)
    seen[key] = found
    return found
