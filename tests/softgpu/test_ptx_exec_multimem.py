# SPDX-License-Identifier: Apache-2.0
"""multimem on an object of one member, and fma with what lies outside, against NumPy."""

from __future__ import annotations

from typing import Callable, List

import numpy
import pytest
import softfloat
from float_forms import half_forms
from forms import HEAD, Form, check
from machine import array, machine, zeros
from softfloat import FORMATS

RANDOM = numpy.random.default_rng(5)
# type, count, registers, their type, NumPy's of the elements in memory
MOVED = [
    ("f16", 8, "h", "u2"), ("bf16", 2, "h", "u2"), ("f16x2", 1, "r", "u4"),
    ("bf16x2", 4, "r", "u4"), ("f32", 4, "r", "u4"), ("f64", 1, "d", "u8"),
    ("e5m2", 8, "h", "u1"), ("e4m3x2", 4, "h", "u2"), ("e4m3x4", 2, "r", "u4"),
    ("u32", 1, "r", "u4"), ("u64", 1, "d", "u8"),
]  # fmt: skip


def kernel(body: str) -> str:
    return f"""{HEAD}.visible .entry k(.param .u64 from, .param .u64 to) {{
    .reg .b64 x, y, d<4>; .reg .b32 r<8>; .reg .b16 h<8>;
    ld.param.u64 x, [from]; ld.param.u64 y, [to]; {body} ret; }}"""


def registers(letter: str, count: int) -> str:
    names = ", ".join(f"{letter}{n}" for n in range(count))
    return "{" + names + "}" if count > 1 else names


@pytest.mark.parametrize(("kind", "count", "letter", "dtype"), MOVED)
@pytest.mark.parametrize("how", ["weak.global", "relaxed.sys", "acquire.gpu.global"])
def test_one_member_is_its_own_sum(
    kind: str, count: int, letter: str, dtype: str, how: str
) -> None:
    """The reduction of one value is the value, whatever its bits."""
    vector = f".v{count}" if count > 1 else ""
    named = registers(letter, count)
    back = how.replace("acquire", "release")
    body = f"""multimem.ld_reduce.{how}.add{vector}.{kind} {named}, [x];
    multimem.st.{back}{vector}.{kind} [y], {named};"""
    given = array(RANDOM.integers(0, 1 << 63, 4, dtype="u8"), "u8").view(dtype)
    out = zeros(4, "u8").view(dtype)
    machine().compile(kernel(body)).launch("k", 1, 1, given, out)
    assert out[:count].tolist() == given[:count].tolist() and not out[count:].any()


REDUCED: List[tuple[str, str, str, Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]]] = [
    ("add.v4.f32", "r", "f4", numpy.add),
    ("add.f64", "d", "f8", numpy.add),
    ("add.v8.f16", "h", "f2", numpy.add),
    ("min.v4.f16", "h", "f2", numpy.minimum),
    ("max.u32", "r", "u4", numpy.maximum),
    ("min.s64", "d", "i8", numpy.minimum),
    ("xor.b64", "d", "u8", numpy.bitwise_xor),
    ("and.b32", "r", "u4", numpy.bitwise_and),
    ("add.u64", "d", "u8", numpy.add),
]


@pytest.mark.parametrize(("form", "letter", "dtype", "function"), REDUCED)
def test_reductions_into_the_member(
    form: str, letter: str, dtype: str, function: Callable[..., numpy.ndarray]
) -> None:
    count = int(form.split(".v")[1][0]) if ".v" in form else 1
    size = 8 * numpy.dtype(dtype).itemsize
    vector = f".v{count}" if count > 1 else ""
    named = registers(letter, count)
    body = (
        f"""ld.global{vector}.b{size} {named}, [x];"""
        if count < 8
        else "".join(f"ld.global.b{size} {letter}{n}, [x+{n * size // 8}];" for n in range(count))
    )
    body += f"multimem.red.relaxed.gpu.global.{form} [y], {named};"
    made = [array(RANDOM.integers(-99, 99, 8) / 4 if dtype[0] == "f" else
                  RANDOM.integers(0, 99, 8), dtype) for _ in range(2)]  # fmt: skip
    wanted = made[1].copy()
    wanted[:count] = function(made[1], made[0])[:count]
    machine().compile(kernel(body)).launch("k", 1, 1, *made)
    assert made[1].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("f16", ""), ("f16", "relu"), ("f16", "sat"), ("bf16", ""), ("bf16", "relu")],
)
def test_fma_of_what_lies_outside_is_zero(name: str, suffix: str) -> None:
    f, outside = FORMATS[name], 0xFFFF

    def wanted(a: int, b: int, c: int) -> int:
        if outside in (a, b, c):
            return 0
        found = softfloat.fma(f, a, b, c)
        return softfloat.finish(f, found, relu=suffix == "relu", sat=suffix == "sat")

    forms = half_forms(f"fma.rn.oob{'.' if suffix else ''}{suffix}", name, 3, wanted)
    values = [0, 0x3C00, 0x3F80, 0xBC00, 0x7FFF, outside, 0x7C00, 0x8000, 0x1234]
    for form in forms:
        if "x2" in form.text:
            pairs = [low | high << 16 for low in values for high in (outside, 0x3C00, 0xBF80)]
            form.values = [pairs] * 3
        else:
            form.values = [values] * 3
    check(forms)


def test_the_words_of_minima_in_another_order() -> None:
    def halves(a: int, b: int) -> int:
        pairs = [(x - (x >> 15 << 16), y - (y >> 15 << 16)) for x, y in
                 ((a & 0xFFFF, b & 0xFFFF), (a >> 16, b >> 16))]  # fmt: skip
        low, high = (max(min(x, y), 0) for x, y in pairs)
        return low | high << 16

    check([Form("min.s16x2.relu {d}, {a}, {b}", "b32", ("b32", "b32"), halves)])
