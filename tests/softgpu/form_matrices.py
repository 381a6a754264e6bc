# SPDX-License-Identifier: Apache-2.0
"""Forms of mma, mma.sp and wmma: all shapes with all types, most of which no assembler takes."""

from __future__ import annotations

import itertools
import random
from typing import Iterator, List, Sequence, Tuple

from bitfusion.softgpu.engine.ops_matrix import FORM_ROWS, ROUNDINGS, numbers_of

_BITS = {
    "f16": 16, "bf16": 16, "tf32": 32, "f64": 64, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1,
    "e4m3": 8, "e5m2": 8, "f32": 32, "s32": 32,
}  # fmt: skip
_FACTORS = ("f16", "bf16", "tf32", "f64", "s8", "u8", "s4", "u4", "b1", "e4m3", "e5m2")
_SUMS = ("f16", "f32", "s32", "f64", "bf16")
_SIZES = ((8, 8), (16, 8), (16, 16), (8, 32), (32, 8))
_DEPTHS = (4, 8, 16, 32, 64, 128, 256)
_LAYOUTS = ("row.col", "row.col", "row.col", "row.row", "col.col", "col.row")
_OPTIONS = ("", "", "", "", "satfinite", "rn", "rz", "xor.popc", "and.popc")
Form = Tuple[str, Tuple[int, int, int], str, str, str, str]  # verb, shape, types of d, a, b, c


def _usual(verb: str, a: str, b: str, d: str, c: str) -> bool:
    """What is likely enough that it is worth asking: types of one size, sums that can be."""
    if _BITS[a] != _BITS[b] or (a != b and (verb == "wmma" or a[1:] in ("16", "f16"))):
        return False
    whole = a[0] in "sub" and a != "bf16"
    return (d == c == "s32") if whole else d[0] != "s" and c[0] != "s"


def _forms() -> List[Form]:
    return [
        (verb, (m, n, k), d, a, b, c)
        for verb in ("mma", "mma.sp", "mma.sp::ordered_metadata", "wmma")
        for (m, n), k in itertools.product(_SIZES, _DEPTHS)
        for a, b, d, c in itertools.product(_FACTORS, _FACTORS, _SUMS, _SUMS)
        if _usual(verb, a, b, d, c) and (verb == "wmma" or n == 8 and m < 32)
    ]


def _count(items: int, kind: str) -> int:
    """Registers of a thread for its part of so many elements."""
    return max(1, items * _BITS[kind] // (32 * (64 if kind == "f64" else 32)))


def _registers(form: Form) -> Sequence[int]:
    """How many d, a, b and c have; of forms that there are not, some number."""
    verb, (m, n, k), d, a, b, c = form
    if verb == "mma" and (m, n, k, a) == (8, 8, 4, "f16"):
        return (4 if d == "f16" else 8, 2, 2, 4 if c == "f16" else 8)
    if verb == "wmma" and a == "f16":
        return (_count(m * n, d), 8, 8, _count(m * n, c))
    kept = 2 if verb.startswith("mma.sp") else 1
    return (_count(m * n, d), _count(m * k // kept, a), _count(n * k, b), _count(m * n, c))


def _line(form: Form, layout: str, option: str) -> str:
    verb, (m, n, k), d, a, b, c = form
    first, operands = 0, []
    for count, kind in zip(_registers(form), (d, a, b, c)):
        letter = "d" if kind == "f64" else "r"
        names = [f"{letter}{(first + at) % 32}" for at in range(min(count, 32))]
        operands.append(f"{{{', '.join(names)}}}")
        first += count
    shape, types = f"m{m}n{n}k{k}", f"{d}.{a}.{b}.{c}"
    rounding = option if option in ROUNDINGS else ""
    popc = option if "popc" in option else ""
    last = option if option == "satfinite" else ""
    if verb == "wmma":
        types = f"{d}.{c}" if a == "f16" else types
        words = ["wmma.mma", popc, "sync.aligned", layout, shape, rounding, types, last]
    else:
        operands += ["r31", "0"] if verb.startswith("mma.sp") else []
        words = [verb, "sync.aligned", shape, layout, rounding or last, types, popc]
    return f"{'.'.join(filter(None, words))} {', '.join(operands)};"


def matrices(seed: int) -> Iterator[str]:
    """Lines in a random order, each once."""
    pick, forms = random.Random(seed), _forms()
    pick.shuffle(forms)
    for form in forms:
        options = ("xor.popc", "and.popc") if form[3] == "b1" else _OPTIONS
        yield _line(form, pick.choice(_LAYOUTS), pick.choice(options))


def of_the_table() -> List[str]:
    """Every form that is carried out, with each of its options."""
    found = []
    for (verb, shape, d, a, b, c), row in FORM_ROWS.items():
        layouts = ["row.col"]
        if "layouts" in row.options:
            layouts += ["row.row", "col.col", "col.row"]
        options = [""]
        for name in row.options:
            options += {"satfinite": ["satfinite"], "rounding": ROUNDINGS}.get(name, [])
        if "popc" in row.options:
            options = ["xor.popc", "and.popc"]
        m, n, k = numbers_of(shape)
        verb = verb.replace(".sp", ".sp::ordered_metadata")
        for layout, option in itertools.product(layouts, options):
            found.append(_line((verb, (m, n, k), d, a, b, c), layout, option))
    return found
