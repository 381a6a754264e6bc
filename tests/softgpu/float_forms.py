# SPDX-License-Identifier: Apache-2.0
"""Forms of floating-point instructions with a reference on exact rounding."""

from __future__ import annotations

from typing import Callable, List

from forms import Form
from softfloat import F32, F64, Format, finish

MODES = ("rn", "rz", "rm", "rp")
HALVES = ("f16", "bf16")


def same_number(f: Format) -> Callable[[int, int], bool]:
    """f64 keeps payloads of NaN in a way that is not defined: any NaN will do."""
    if f is F64:
        return lambda got, wanted: got == wanted or (f.is_nan(got) and f.is_nan(wanted))
    return lambda got, wanted: got == wanted


def form(
    text: str, f: Format, count: int, function: Callable[..., int], ftz: bool = False
) -> Form:
    """A form whose inputs and result are of one format; ``ftz`` flushes on both sides."""

    def reference(*values: int) -> int:
        if ftz:
            values = tuple(f.flush(v) for v in values)
        return finish(f, function(*values), ftz=ftz)

    names = ", ".join("{" + name + "}" for name in "abc"[:count])
    return Form(
        f"{text} {{d}}, {names}", f.name, (f.name,) * count, reference, same=same_number(f)
    )


def with_suffixes(
    head: str, tail: str, f: Format, count: int, function: Callable[..., int], sat: bool = True
) -> List[Form]:
    """The form plain, with .ftz, .sat and both, as far as f32 has them."""
    forms = [form(f"{head}{tail}", f, count, function)]
    if f is F32:
        forms.append(form(f"{head}.ftz{tail}", f, count, function, ftz=True))
    if f is F32 and sat:

        def saturated(*values: int) -> int:
            return finish(f, function(*values), sat=True)

        forms.append(form(f"{head}.sat{tail}", f, count, saturated))
        forms.append(form(f"{head}.ftz.sat{tail}", f, count, saturated, ftz=True))
    return forms


def lanes(function: Callable[..., int]) -> Callable[..., int]:
    """Do the same to the low and the high half."""
    return lambda *x: function(*(v & 0xFFFF for v in x)) | function(*(v >> 16 for v in x)) << 16


def each_half(same: Callable[[int, int], bool]) -> Callable[[int, int], bool]:
    """Compare the low and the high half on their own."""
    return lambda got, wanted: all(same(got >> n & 0xFFFF, wanted >> n & 0xFFFF) for n in (0, 16))


def half_forms(text: str, name: str, count: int, function: Callable[..., int]) -> List[Form]:
    """An instruction on one half and on a pair."""
    names = ", ".join("{" + x + "}" for x in "abc"[:count])
    return [
        Form(f"{text}.{name} {{d}}, {names}", name, (name,) * count, function),
        Form(f"{text}.{name}x2 {{d}}, {names}", "b32", (name + "x2",) * count, lanes(function)),
    ]
