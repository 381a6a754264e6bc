# SPDX-License-Identifier: Apache-2.0
"""The PTX linker."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfusion.softgpu.ptx.dump import show_instruction
from bitfusion.softgpu.ptx.ir import Module, PtxError
from bitfusion.softgpu.ptx.link import BUILTINS, Input, link
from bitfusion.softgpu.ptx.parser import parse

DATA = Path(__file__).parent / "data"
HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def linked(*texts: str) -> Module:
    return link([Input(parse(HEAD + text), f"module{i}") for i, text in enumerate(texts)])


def refusal(*texts: str) -> str:
    with pytest.raises(PtxError) as caught:
        linked(*texts)
    return str(caught.value)


def shown(module: Module, name: str) -> list[str]:
    return [show_instruction(i) for i in module.functions[name].body or ()]


def test_externs_find_their_definitions_in_any_order() -> None:
    use = ".extern .func f(); .extern .global .u32 g; .visible .entry k() { .reg .b64 q; call f; "
    use += "mov.u64 q, g; }"
    define = ".visible .func f() { ret; } .visible .global .align 16 .u32 g = 7;"
    for texts in ((use, define), (define, use)):
        module = linked(*texts)
        assert module.functions["f"].body is not None
        assert module.variables["g"].linkage == "visible"
        assert module.variables["g"].init == b"\x07\0\0\0"
        assert module.variables["g"].align == 16


def test_names_that_stay_inside_are_kept_apart() -> None:
    text = (
        ".global .u32 g = {n}; .func f() {{ .reg .b64 q; mov.u64 q, g; }}\n"
        ".global .u64 table[2] = {{f, g}};"
        ".visible .entry k{n}() {{ .reg .b64 q; call f; mov.u64 q, g+4;"
        " ld.global.u32 q, [g+8]; st.global.v2.u64 [q], {{table, g}}; }}"
    )
    module = linked(*(text.format(n=n) for n in range(3)))
    assert len(module.functions) == 6
    assert len(module.variables) == 6
    for n in range(3):
        call, move, load, store = shown(module, f"k{n}")
        f = call.split(", ")[1]
        g = move.split(", ")[1][:-2]
        assert shown(module, f) == [f"mov.u64 q, {g}"]
        assert module.variables[g].init[0] == n
        assert load == f"ld.global.u32 q, [{g}+8]"
        table = store.split("{")[1].split(",")[0]
        assert store.endswith(f", {g}}}")
        assert [r.symbol for r in module.variables[table].relocations] == [f, g]


def test_a_local_name_gives_way_to_a_visible_one() -> None:
    local = ".global .u32 g = 1; .visible .entry a() { .reg .b64 q; mov.u64 q, g; }"
    visible = ".visible .global .u32 g = 2; .visible .entry b() { .reg .b64 q; mov.u64 q, g; }"
    for texts in ((local, visible), (visible, local)):
        module = linked(*texts)
        assert module.variables["g"].init[0] == 2
        assert shown(module, "b") == ["mov.u64 q, g"]
        other = shown(module, "a")[0].split(", ")[1]
        assert module.variables[other].init[0] == 1


def test_the_name_that_gives_way_is_not_someone_elses() -> None:
    first = ".extern .func f(); .visible .entry a() { call f; }"
    second = ".func f() { ret; } .visible .entry b() { call f; }"
    third = ".visible .func f() { trap; }"
    module = linked(first, second, third)
    assert shown(module, "f") == ["trap"]
    assert shown(module, "a") == ["call (), f, ()"]
    own = shown(module, "b")[0].split(", ")[1]
    assert shown(module, own) == ["ret"]


def test_weak_and_common() -> None:
    weak, strong = ".weak .func f() {{ {} }}", ".visible .func f() { exit; }"
    assert shown(linked(weak.format("ret;"), weak.format("trap;")), "f") == ["ret"]
    for texts in ((weak.format("ret;"), strong), (strong, weak.format("ret;"))):
        assert shown(linked(*texts), "f") == ["exit"]
    small = ".common .global .align 4 .b8 c[4];"
    large = ".common .global .align 16 .b8 c[64];"
    module = linked(small, large, small)
    assert (module.variables["c"].size, module.variables["c"].align) == (64, 16)
    module = linked(small, ".visible .global .b8 c[4] = {1};")
    assert module.variables["c"].init == b"\x01"
    module = linked(".weak .global .u32 w = 1;", ".weak .global .u32 w = 2;")
    assert module.variables["w"].init[0] == 1


def test_dynamic_shared_memory_is_one() -> None:
    text = ".extern .shared .align {} .b8 dyn[]; .visible .entry k{}() {{ ret; }}"
    module = linked(text.format(4, 1), text.format(16, 2))
    assert module.variables["dyn"].align == 16
    assert module.variables["dyn"].linkage == "extern"


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ((".extern .func f(); .entry k() { call f; }",), "unresolved extern function 'f'"),
        ((".extern .global .u32 g; .global .u64 p = g;",), "unresolved extern variable 'g'"),
        (
            (".visible .func f() { ret; }", ".visible .func f() { ret; }"),
            "'f' is defined twice, the second time in 'module1'",
        ),
        ((".visible .global .u32 g;", ".visible .global .u32 g;"), "'g' is defined twice"),
        (
            (".extern .func f(.param .b64 x);", ".visible .func f(.param .b32 x) { ret; }"),
            "'f' has different parameters",
        ),
        ((".extern .global .u32 g;", ".visible .const .u32 g;"), "'g' is .global in one module"),
        ((".extern .global .u32 g;", ".visible .global .u64 g;"), "'g' has two sizes: 8, 4"),
        ((".extern .func g();", ".visible .global .u64 g;"), "a variable and a function"),
    ],
)
def test_what_does_not_fit_is_named(texts: tuple[str, ...], why: str) -> None:
    assert why in refusal(*texts)


def test_nothing_to_link() -> None:
    with pytest.raises(PtxError):
        link([])


def test_runtime_functions_and_unused_declarations_need_no_definition() -> None:
    text = "".join(f".extern .func {name}();" for name in sorted(BUILTINS))
    text += ".extern .func cudaNotHere(); .extern .func unused(); .extern .global .u32 idle;"
    text += ".visible .entry k() { call vprintf; call cudaNotHere; ret; }"
    module = linked(text)
    assert module.functions["vprintf"].body is None
    assert module.functions["cudaNotHere"].body is None


def test_compiled_modules() -> None:
    modules = [
        Input(parse((DATA / f"{name}.ptx").read_bytes())) for name in ("linkable", "library")
    ]
    for inputs in (modules, modules[::-1]):
        module = link(inputs)
        assert [n for n, f in module.functions.items() if f.entry] == ["_Z5entryPi"]
        assert module.functions["_Z6helperiPKi"].body is not None
        assert module.functions["_Z10weak_twiceIiET_S0_"].linkage == "weak"
        assert module.variables["shared_state"].init == b"\x64\0\0\0"
    with pytest.raises(PtxError, match="_Z6helperiPKi"):
        link(modules[:1])


GRID = (
    ".extern .func (.param .b64 r) cudaCGGetIntrinsicHandle(.param .b32 a);"
    ".extern .func (.param .b32 r) cudaCGSynchronize(.param .b64 a, .param .b32 b);"
    ".visible .entry k() { .param .b64 x; .param .b32 y; call (x), cudaCGGetIntrinsicHandle, (y);"
    " call (y), cudaCGSynchronize, (x, y); }"
)


def test_the_grids_barrier_is_ours_and_before_a_librarys() -> None:
    theirs = "".join(
        f".visible .func (.param .b{result} r) {name}(.param .b{size} a{more}) {{ trap; }}"
        for result, name, size, more in (
            (64, "cudaCGGetIntrinsicHandle", 32, ""),
            (32, "cudaCGSynchronize", 64, ", .param .b32 b"),
        )
    )
    inputs = [Input(parse(HEAD + GRID)), Input(parse(HEAD + theirs), "lib", on_demand=True)]
    for module in (link(inputs[:1]), link(inputs)):
        assert "barrier.sync 0" in shown(module, "cudaCGSynchronize")
        assert not any("trap" in line for line in shown(module, "cudaCGGetIntrinsicHandle"))
