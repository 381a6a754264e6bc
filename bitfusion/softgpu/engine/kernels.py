# SPDX-License-Identifier: Apache-2.0
"""A module's kernels as an image describes them: parameters, bounds, memory, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Tuple

from ..ptx.ir import Function, PtxError
from .function import FunctionEncoder, abi_layout

if TYPE_CHECKING:
    from .encode import ModuleEncoder

_DEEP_STACK = 65536
# bytes that a kernel, a thread and a module may have, as the compute capabilities' table has them
_PARAMETERS, _SHARED, LOCAL, _CONSTANTS = 32764, 49152, 524288, 65536


def check_limit(function: Function, what: str, size: int, limit: int) -> None:
    """Raise PtxError where a function has more of something than any GPU gives it."""
    if size > limit:
        raise PtxError(f"'{function.name}' has {size} bytes of {what}, {limit} at most")


def _launch_bounds(function: Function) -> Tuple[int, Tuple[int, int, int], Tuple[int, int, int]]:
    def triple(name: str, missing: int) -> Tuple[int, int, int]:
        given = [*function.directives.get(name, ())][:3]
        padded = given + [1] * (3 - len(given)) if given else [missing] * 3
        if any(not 0 <= value < 1 << 31 for value in padded):
            raise PtxError(f".{name} of kernel '{function.name}' is out of range")
        return (padded[0], padded[1], padded[2])

    required = triple("reqntid", 0)
    x, y, z = required if required[0] else triple("maxntid", 0)
    return (min(x * y * z or 1024, 1024), required, triple("reqnctapercluster", 0))


def _registers(function: Function) -> int:
    """A guess, low enough that no launch looks impossible for it."""
    words = sum(
        2 if kind in ("b64", "u64", "s64", "f64") else 1 for kind in function.registers.values()
    )
    limit = min(function.directives.get("maxnreg", ()), default=64)
    return max(16, min(words // 3, limit, 64))


def _target(name: str) -> int:
    digits = "".join(letter for letter in name.split("_")[-1] if letter.isdigit())
    return int(digits) if digits else 0


def kernel_rows(
    whole: ModuleEncoder, encoded: Dict[str, FunctionEncoder]
) -> Tuple[List[Tuple[int, ...]], List[Tuple[int, ...]]]:
    """Give the rows of all kernels, and those of their parameters."""
    rows: List[Tuple[int, ...]] = []
    parameters: List[Tuple[int, ...]] = []
    const_bytes = sum(v.size for v in whole.placed if v.space == "const")
    if const_bytes > _CONSTANTS:
        raise PtxError(f"the module has {const_bytes} bytes of constants, {_CONSTANTS} at most")
    for function in whole.functions.values():
        if not function.entry or function.body is None:
            continue
        offsets, _ = abi_layout([], function.params)
        sizes = [variable.size for variable in function.params]
        total = offsets[-1] + sizes[-1] if sizes else 0
        stack, deep = _stack(whole, function.name, encoded)
        check_limit(function, "parameters", total, _PARAMETERS)
        check_limit(function, "static shared memory", whole.reach.needed(function.name), _SHARED)
        check_limit(function, "local memory", stack, LOCAL)
        maximum, required, cluster = _launch_bounds(function)
        major, minor = whole.module.version
        rows.append(
            (
                whole.string(function.name),
                whole.function_index(function.name),
                int(deep) | (2 if whole.reserves else 0),
                stack,
                len(parameters),
                len(sizes),
                total,
                _registers(function),
                whole.reach.static_size(function.name),
                encoded[function.name].local_bytes,
                const_bytes,
                maximum,
                *required,
                *cluster,
                major * 10 + minor,
                _target(whole.module.target),
                (function.directives.get("maxclusterrank", ()) or (0,))[0],
                int("explicitcluster" in function.directives),
            )
        )
        parameters += zip(offsets, sizes)
    return rows, parameters


def _stack(
    whole: ModuleEncoder, name: str, encoded: Dict[str, FunctionEncoder]
) -> Tuple[int, bool]:
    """Bytes of local memory a thread needs, and whether that is only a guess."""
    known: Dict[str, int] = {}
    deep = False

    def need(function: str, above: Tuple[str, ...]) -> int:
        nonlocal deep
        if function in above:
            deep = True
            return 0
        if function in known:
            return known[function]
        deep = deep or function in whole.indirect
        callees = whole.direct.get(function, set())
        most = max(
            [need(callee, (*above, function)) for callee in callees]
            + [64 if function in whole.system else 0]
        )
        known[function] = encoded[function].local_bytes + (
            16 + most if callees or function in whole.system else 0
        )
        return known[function]

    bytes_ = need(name, ())
    return (bytes_ + _DEEP_STACK if deep else bytes_), deep
