# SPDX-License-Identifier: Apache-2.0
"""The PTX parser, construct by construct."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import List

import pytest

from bitfusion.softgpu.ptx import ir
from bitfusion.softgpu.ptx.dump import show_instruction, show_module
from bitfusion.softgpu.ptx.parser import parse

DATA = Path(__file__).parent / "data"
HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"


def body_of(text: str, head: str = "") -> ir.Function:
    module = parse(
        f"{HEAD}{head}\n.visible .entry k(.param .u64 p0, .param .u32 p1)\n{{\n{text}\n}}\n"
    )
    return module.functions["k"]


def instructions(text: str, head: str = "") -> List[ir.Instruction]:
    body = body_of(text, head).body
    assert body is not None
    return body


def one(text: str, registers: str = ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<9>;") -> str:
    return show_instruction(instructions(registers + text)[-1])


def variable(text: str) -> ir.Variable:
    return list(parse(HEAD + text).variables.values())[-1]


def error_of(text: str) -> str:
    with pytest.raises(ir.PtxError) as caught:
        parse(text)
    return str(caught.value)


# ---------------------------------------------------------------- instructions


@pytest.mark.parametrize(
    "text",
    [
        "add.rn.ftz.sat.f32 %r1, %r2, %r3",
        "@%p1 bra.uni L#",
        "@!%p1 ret",
        "setp.lt.and.s32 %p1|%p2, %r1, %r2, %p3",
        "setp.ne.or.s32 %p1, %r1, %r2, !%p3",
        "shfl.sync.down.b32 %r1|%p1, %r2, 16, 31, -1",
        "shfl.sync.down.b32 %r1|_, %r2, 16, 31, -1",
        "ld.global.v4.u32 {%r1, _, %r3, %r4}, [%rd1+16]",
        "st.global.v2.b32 [%rd1-8], {%r1, 7}",
        "ld.global.nc.L1::evict_last.L2::cache_hint.v2.b32 {%r1, %r2}, [%rd1], %rd2",
        "mov.b64 {%r1, %r2}, %rd1",
        "mov.u32 %r1, %tid.x",
        "mov.u32 %r1, %envreg1",
        "mov.u32 %r1, %dynamic_smem_size",
        "mov.u64 %rd1, %clock64",
        "vote.sync.ballot.b32 %r1, %p1, -1",
        "vote.ballot.sync.b32 %r1, !%p1, %r2",
        "tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, (%rd1, {%r5, %r6})",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile [%r1], (%rd1, {%r2, %r3}), [%r4]",
        "vadd.s32.u32.s32.sat.add %r1, %r2.b0, %r3.h1, %r4",
        "vabsdiff4.u32.u32.u32.add %r1.b10, %r2.b7654, %r3, %r4",
        "nosuch.op.with::thing.f8x4 %r1, {%r2, %r3}, 5",
        "bar.sync 0",
        "mbarrier.arrive.shared.b64 _, [%r1], 3",
        "ld.global.u32 %r1, [4096]",
    ],
)
def test_instruction_reads_back(text: str) -> None:
    """What the dump shows is what was written (labels need one to exist)."""
    source = text.replace("(%rd1, {", "[%rd1, {").replace("})", "}]").replace("L#", "L")
    assert one(source + ";", "L: .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<9>;") == (
        text.replace("L#", "L")
    )


@pytest.mark.parametrize(
    ("literal", "value", "kind"),
    [
        ("42", 42, "int"),
        ("-1", -1, "int"),
        ("0", 0, "int"),
        ("017", 15, "int"),
        ("0x1F", 31, "int"),
        ("0XffU", 255, "int"),
        ("0b101", 5, "int"),
        ("4294967295U", 0xFFFFFFFF, "int"),
        ("-0x8000000000000000", -(1 << 63), "int"),
        ("0xFFFFFFFFFFFFFFFF", (1 << 64) - 1, "int"),
        ("0f3F800000", 0x3F800000, "f32"),
        ("0F7fc00000", 0x7FC00000, "f32"),
        ("0dBFF0000000000000", 0xBFF0000000000000, "f64"),
        ("1.5", 0x3FF8000000000000, "f64"),
        ("-2.0e0", 0xC000000000000000, "f64"),
        (".5", 0x3FE0000000000000, "f64"),
        ("-.5E1", 0xC014000000000000, "f64"),
        ("1e3", 0x408F400000000000, "f64"),
        ("WARP_SZ", 32, "int"),
        ("(3+4*2)", 11, "int"),
        ("(1<<4)|3", 19, "int"),
        ("-7/2", -3, "int"),
        ("-7 % 3", -1, "int"),
        ("~0", -1, "int"),
        ("!5", 0, "int"),
        ("1 ? 2 : 3", 2, "int"),
        ("(2 > 1) && (1 >= 2)", 0, "int"),
        ("(.u64)-1 >> 60", 15, "int"),
        ("0xFFFFFFFFFFFFFFFF / 2", (1 << 63) - 1, "int"),
        ("WARP_SZ-1", 31, "int"),
    ],
)
def test_literals_and_constant_expressions(literal: str, value: int, kind: str) -> None:
    operand = instructions(f".reg .b64 %rd<2>; mov.b64 %rd1, {literal};")[0].operands[1]
    assert operand == ir.Imm(value, kind)


def test_several_instructions_on_a_line_and_one_over_many() -> None:
    found = instructions(".reg .b32 a, b;\nmov.u32 a, 1; mov.u32 b, 2;\nadd.u32\n a,\n b,\n\ta;")
    assert [i.line for i in found] == [8, 8, 9]
    assert show_instruction(found[2]) == "add.u32 a, b, a"


def test_addresses_with_symbols() -> None:
    found = instructions(
        ".reg .b32 a; .reg .b64 q; .shared .b8 s[64];"
        "ld.shared.u32 a, [s+4]; ld.shared.u32 a, [s]; mov.u64 q, s+12; ld.global.u32 a, [q+0x10];"
        "ld.param.u32 a, [p0+(2*4)]; ld.const.u32 a, [-16];"
    )
    assert found[0].operands[1] == ir.Address(ir.Sym("s"), 4)
    assert found[1].operands[1] == ir.Address(ir.Sym("s"), 0)
    assert found[2].operands[1] == ir.Sym("s", 12)
    assert found[3].operands[1] == ir.Address(ir.Reg("q"), 16)
    assert found[4].operands[1] == ir.Address(ir.Sym("p0"), 8)
    assert found[5].operands[1] == ir.Address(None, -16)


def test_vector_registers_become_scalars() -> None:
    function = body_of(
        ".reg .v4 .f32 %v; .reg .v2 .u16 w; .reg .f32 a; mov.f32 a, %v.y; mov.u16 w.x, w.y;"
        "ld.global.v4.f32 %v, [p0]; mov.f32 a, %v.a;"
    )
    assert function.body is not None
    assert show_instruction(function.body[0]) == "mov.f32 a, %v.y"
    assert show_instruction(function.body[2]) == "ld.global.v4.f32 {%v.x, %v.y, %v.z, %v.w}, [p0]"
    assert show_instruction(function.body[3]) == "mov.f32 a, %v.w"
    assert function.registers["%v.z"] == "f32"
    assert function.registers["w.x"] == "u16"


def test_a_vector_and_a_predicate_are_results_of_one_instruction() -> None:
    """As nvcc has it for tex2D<float>(texture, x, y, &resident)."""
    last = instructions(
        ".reg .f32 %f<9>; .reg .b64 %rd<9>; .reg .pred %p<9>;"
        "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}|%p1, [%rd1, {%f5, %f6}];"
    )[-1]
    items = tuple(ir.Reg(f"%f{i}") for i in range(1, 5))
    assert last.operands[0] == ir.Pair(ir.Vector(items), ir.Reg("%p1"))


def test_register_ranges() -> None:
    function = body_of(".reg .b32 %r<12>, %q, x1<3>; mov.u32 %r11, %q; mov.u32 x10, x12;")
    assert function.registers == {"%r11": "b32", "%q": "b32", "x10": "b32", "x12": "b32"}
    for name in ("%r12", "%r01", "%r", "%s0"):
        text = f"{HEAD}.entry k() {{ .reg .b32 %r<12>;\nmov.u32 %r1, {name}; }}"
        assert error_of(text).startswith("line 5: unknown register")


# ---------------------------------------------------------------- scopes, labels, calls


def test_scopes_rename_registers_and_labels() -> None:
    function = body_of(
        """
        .reg .b32 a; .reg .pred p;
        { .reg .b32 a, t<2>; L: mov.u32 a, 1; mov.u32 t1, a; @p bra L; @p bra OUT; }
        { .reg .b32 a, t<2>; @p bra L; mov.u32 a, 2; { mov.u32 a, t0; L2: } L: bra L; }
        mov.u32 a, 3;
        OUT: ret;
        """
    )
    shown = [show_instruction(i) for i in function.body or ()]
    assert shown == [
        "mov.u32 a#1, 1", "mov.u32 t1#1, a#1", "@p bra L#1", "@p bra OUT",
        "@p bra L#2", "mov.u32 a#2, 2", "mov.u32 a#2, t0#2", "bra L#2", "mov.u32 a, 3", "ret",
    ]  # fmt: skip
    assert function.labels == {"L#1": 0, "L2#3": 7, "L#2": 7, "OUT": 9}


def test_an_inner_name_hides_an_outer_one_only_inside() -> None:
    found = instructions(
        ".reg .b32 a; mov.u32 a, 1; { mov.u32 a, 2; .reg .b32 a; mov.u32 a, 3; } mov.u32 a, 4;"
    )
    assert [i.operands[0] for i in found] == [
        ir.Reg("a"), ir.Reg("a"), ir.Reg("a#1"), ir.Reg("a"),
    ]  # fmt: skip


def test_calls() -> None:
    head = (
        ".extern .func (.param .b32 r) f(.param .b64 x, .param .b32 y);\n.func g();\n"
        ".func g() { ret; }"
    )
    function = body_of(
        """
        .reg .b64 %rd<3>; .reg .b32 %r<3>;
        { .param .b32 retval0; .param .align 8 .b8 param0[24];
          st.param.b64 [param0+8], %rd1;
          call.uni (retval0), f, (param0, %r1);
          ld.param.b32 %r1, [retval0+0]; }
        { .param .b32 retval0;
          proto : .callprototype (.param .b32 _) _ (.param .b64 _, .param .b32 _);
          call (retval0), %rd1, (%rd2, 5), proto; }
        call g;
        call.uni g, ();
        """,
        head,
    )
    body = function.body or []
    assert body[1].operands == (
        ir.Group((ir.Sym("retval0#1"),)),
        ir.Sym("f"),
        ir.Group((ir.Sym("param0#1"), ir.Reg("%r1"))),
    )
    assert body[3].operands == (
        ir.Group((ir.Sym("retval0#2"),)),
        ir.Reg("%rd1"),
        ir.Group((ir.Reg("%rd2"), ir.Imm(5))),
        ir.Label("proto#2"),
    )
    assert body[4].operands == (ir.Group(()), ir.Sym("g"), ir.Group(()))
    assert body[5].operands == body[4].operands
    prototype = function.prototypes["proto#2"]
    assert [p.size for p in prototype.params] == [8, 4]
    assert [p.size for p in prototype.returns] == [4]
    assert "proto#2" not in function.labels
    assert [(v.name, v.size, v.align) for v in function.variables] == [
        ("retval0#1", 4, 4), ("param0#1", 24, 8), ("retval0#2", 4, 4),
    ]  # fmt: skip


def test_branch_tables_before_and_after_their_use() -> None:
    function = body_of(
        """
        .reg .b32 i;
        { brx.idx i, ts; ts: .branchtargets A, B; A: mov.u32 i, 1; }
        us: .branchtargets B, C;
        brx.idx.uni i, us;
        B: ret;
        C: ret;
        """
    )
    assert function.branch_targets == {"ts#1": ("A#1", "B"), "us": ("B", "C")}
    assert (function.body or [])[0].operands == (ir.Reg("i"), ir.Label("ts#1"))
    assert (function.body or [])[2].operands == (ir.Reg("i"), ir.Label("us"))


def test_call_targets() -> None:
    function = body_of(
        ".reg .b64 q; fs: .calltargets f, g; call q, (), fs;", ".func f(){ret;}\n.func g(){ret;}"
    )
    assert function.call_targets == {"fs": ("f", "g")}


def test_a_function_variable_does_not_hide_the_module_elsewhere() -> None:
    module = parse(
        HEAD + ".global .u32 s;\n"
        ".entry a() { .reg .b64 q; .shared .u32 s; mov.u64 q, s; }\n"
        ".entry b() { .reg .b64 q; mov.u64 q, s; }"
    )
    assert (module.functions["a"].body or [])[0].operands[1] == ir.Sym("s#0")
    assert (module.functions["b"].body or [])[0].operands[1] == ir.Sym("s")


# ---------------------------------------------------------------- variables


def test_variable_forms() -> None:
    module = parse(
        HEAD
        + """
        .visible .global .align 16 .b8 bytes[24] = {1, 2, 0xff, -1, 010};
        .global .u32 i = 5, j, k[3] = {1,2};
        .const .f32 f[2] = {0f3F800000, -0.5};
        .global .f64 d = 0d3FF0000000000000;
        .global .v4 .f32 v = {1.0, 2.0, 3.0, 4.0};
        .global .s32 m[2][3] = {{1, 2}, {3}};
        .global .u16 open[] = {1, 2, 3};
        .extern .shared .align 8 .b8 dyn[];
        .common .global .u32 c;
        .weak .const .u64 w = 1 << 40;
        .global .attribute(.managed) .u32 managed;
        .global .texref t;
        .global .texref u = { width = 4, normalized_coords = 1 };
        .global .samplerref s[2] = { { addr_mode_0 = wrap, filter_mode = linear }, {} };
        .global .surfref x = { memory_layout = 0 };
        .global .b8 text[4] = "a\\n";
        .const[2] .u32 old;
        """
    )
    v = module.variables
    assert (v["bytes"].align, v["bytes"].size, v["bytes"].linkage) == (16, 24, "visible")
    assert v["bytes"].init == b"\x01\x02\xff\xff\x08"
    assert v["i"].init == struct.pack("<I", 5)
    assert v["j"].init == b""
    assert (v["k"].size, v["k"].init) == (12, struct.pack("<2I", 1, 2))
    assert v["f"].init == struct.pack("<2f", 1, -0.5)
    assert v["d"].init == struct.pack("<d", 1)
    assert (v["v"].size, v["v"].align, v["v"].init) == (16, 16, struct.pack("<4f", 1, 2, 3, 4))
    assert v["m"].init == struct.pack("<4i", 1, 2, 0, 3)
    assert (v["open"].size, v["open"].init) == (6, struct.pack("<3H", 1, 2, 3))
    assert (v["dyn"].size, v["dyn"].linkage, v["dyn"].space) == (0, "extern", "shared")
    assert v["c"].linkage == "common"
    assert v["w"].init == struct.pack("<Q", 1 << 40)
    assert v["managed"].attributes == ("managed",)
    assert v["t"].size == 8
    assert v["text"].init == b"a\n"
    assert v["old"].space == "const"


def test_initialisers_with_addresses() -> None:
    module = parse(
        HEAD
        + """
        .global .u32 g[4];
        .func f() { ret; }
        .global .u64 a = g;
        .global .u64 b[3] = {generic(g)+8, f, g-4};
        .global .align 8 .b8 c[3] = {0xFF(g), 0xFF00(g+1), 0xFF0000000000(g)};
        .global .u64 later = generic(late);
        .global .u32 late;
        """
    )
    v = module.variables
    assert v["a"].relocations == (ir.Relocation(0, 8, "g"),)
    assert v["b"].relocations == (
        ir.Relocation(0, 8, "g", 8, True), ir.Relocation(8, 8, "f"), ir.Relocation(16, 8, "g", -4),
    )  # fmt: skip
    assert v["c"].relocations == (
        ir.Relocation(0, 1, "g", 0, False, 0), ir.Relocation(1, 1, "g", 1, False, 8),
        ir.Relocation(2, 1, "g", 0, False, 40),
    )  # fmt: skip
    assert v["later"].relocations[0].symbol == "late"


@pytest.mark.parametrize("kind", ["b8", "u16", "s32", "b64"])
def test_the_quick_and_the_careful_initialiser_agree(kind: str) -> None:
    values = [0, 1, 200, 3]
    quick = variable(f".global .{kind} x[6] = {{{', '.join(map(str, values))}}};")
    careful = variable(f".global .{kind} x[6] = {{{', '.join(map(hex, values))}}};")
    assert quick == careful
    assert quick.init == b"".join(n.to_bytes(ir.TYPE_BYTES[kind], "little") for n in values)


# ---------------------------------------------------------------- functions and modules


def test_kernel_directives_and_parameters() -> None:
    function = parse(
        HEAD + ".weak .entry k(.param .align 16 .b8 s[40], .param .u64 .ptr .global .align 4 p,"
        ".param .u8 c)\n.maxntid 256, 1, 1\n.minnctapersm 2\n.reqnctapercluster 2\n"
        '.explicitcluster\n.pragma "x";\n{ ret; }'
    ).functions["k"]
    assert function.linkage == "weak"
    assert [(p.name, p.align, p.size) for p in function.params] == [
        ("s", 16, 40), ("p", 8, 8), ("c", 1, 1),
    ]  # fmt: skip
    assert function.directives["maxntid"] == (256, 1, 1)
    assert function.directives["minnctapersm"] == (2,)
    assert function.directives["reqnctapercluster"] == (2,)
    assert function.directives["explicitcluster"] == ()


def test_prototypes_aliases_and_old_style_functions() -> None:
    module = parse(
        HEAD
        + """
        .visible .func (.param .b32 r) f(.param .b64 x);
        .func (.reg .f32 out) g(.reg .f32 in, .reg .b64 q) { add.f32 out, in, in; ret; }
        .func (.param .b32 r) f(.param .b64 x) .noreturn { ret; }
        .alias h, f;
        """
    )
    assert module.functions["f"].body is not None
    assert module.functions["f"].linkage == "visible"
    assert module.functions["f"].directives == {"noreturn": ()}
    assert module.functions["g"].params[0].space == "reg"
    assert module.functions["g"].registers["out"] == "f32"
    assert module.aliases == {"h": "f"}


def test_things_that_say_nothing_are_passed_over() -> None:
    module = parse(
        """
        // a comment with .version 1.0
        .version 8.5   /* over
        lines */ .target sm_75, debug
        .address_size 64
        .file 1 "/a//b.cu", 12, 34
        @@DWARF .section .x
        .entry k() {
            .reg .b32 a; // ; }
            .loc 1 5 3
            .pragma "nounroll";
            .loc 1 6 3, function_name $L__info_string0, inlined_at 1 12 5
            mov.u32 a, 1; /* } */
        }
        .section .debug_str { $L__info: .b8 99, 0
        .b32 k }
        """
    )
    assert module.version == (8, 5)
    assert module.target == "sm_75"
    assert [i.line for i in module.functions["k"].body or ()] == [13]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: a PTX module starts with .version"),
        ("hello", "line 1: a PTX module starts with .version"),
        (HEAD + "\n.entry k() {\n mov.u32 %r1, 2;\n}", "line 6: unknown register '%r1'"),
        (HEAD + ".entry k() {\n bra NOWHERE;\n}", "line 5: unknown label 'NOWHERE'"),
        (HEAD + ".entry k() {\n ret;\n", "line 6: the body of 'k' has no end"),
        (
            HEAD + ".entry k() {\n ret\n}",
            "line 5: not an instruction: 'ret' (is a ';' missing there?)",
        ),
        (HEAD + ".entry k() {\n L: ret;\n L: ret;\n}", "line 6: label 'L' is defined twice"),
        (HEAD + ".entry k() { .reg .b32 a;\n.reg .b32 a; }", "line 5: 'a' is declared twice"),
        (HEAD + ".entry k() { .reg .b99 a; }", "line 4: unknown type '.b99'"),
        (HEAD + ".entry k() { .reg .b32 a;\n add.s32 a, , a;\n}", "line 5: an operand is missing"),
        (HEAD + ".entry k() { .reg .b64 a;\n mov.u64 a, gone;\n}", "unknown name 'gone'"),
        (HEAD + ".global .u32 x;\n.global .u32 x;", "line 5: 'x' is declared twice"),
        (HEAD + ".entry k() { ret; }\n.entry k() { ret; }", "line 5: 'k' is defined twice"),
        (HEAD + ".tex .u32 t;", "line 4: .tex is no space any more"),
        (HEAD + ".shared .texref t;", "line 4: a .texref is a .global variable"),
        (HEAD + ".global .texref t = {1};", "line 4: expected a name"),
        (HEAD + ".global .texref t = wrap;", "line 4: expected '{'"),
        (HEAD + ".global .samplerref s = {width = 4};", "line 4: a .samplerref has no 'width'"),
        (HEAD + ".global .surfref s = {filter_mode = linear};", "no 'filter_mode'"),
        (HEAD + ".global .texref t = {width = 4", "line 4: expected '}'"),
        (HEAD + ".global .u32 x = 1/0;", "line 4: division by zero"),
        (HEAD + ".global .u8 x[2] = {1, 2, 3};", "too many initialisers"),
        (HEAD + ".global .align 3 .u8 x;", "line 4: bad alignment 3"),
        (HEAD + ".what x;", "line 4: unknown directive '.what'"),
        (HEAD + ".alias a, b;", "alias 'a' of an unknown function 'b'"),
        (".version 7.0 .target sm_50\n.address_size 32", "line 2: only 64-bit"),
        (HEAD + ".global .u32 x = " + "(" * 5000 + "1", "nested too deeply"),
    ],
)
def test_errors_say_where(text: str, expected: str) -> None:
    assert expected in error_of(text)


def test_a_version_to_come_is_named() -> None:
    with pytest.raises(ir.PtxError) as caught:
        parse(".version 99.0\n.target sm_90\n")
    assert caught.value.status == 222


# ---------------------------------------------------------------- what compilers write


@pytest.mark.parametrize("name", ["corpus", "linkable", "library"])
def test_compiler_output_parses(name: str) -> None:
    text = (DATA / f"{name}.ptx").read_bytes()
    module = parse(text + b"\0\0\0")
    source_lines = text.decode().split("\n")
    for function in module.functions.values():
        for instruction in function.body or ():
            assert instruction.opcode in source_lines[instruction.line - 1]
    assert list(show_module(module, True))


def test_compiler_output_details() -> None:
    module = parse((DATA / "corpus.ptx").read_bytes())
    assert module.variables["managed_word"].attributes == ("managed",)
    assert module.variables["middle"].relocations == (ir.Relocation(0, 8, "counters", 8, True),)
    assert [r.symbol for r in module.variables["operations"].relocations] == [
        "_Z6op_addff", "_Z6op_maxff",
    ]  # fmt: skip
    kernel = module.functions["_Z5callsPi5Pointi"]
    assert [(p.size, p.align) for p in kernel.params] == [(8, 8), (24, 8), (4, 4)]
    indirect = module.functions["_Z8indirectPfi"]
    assert len(indirect.prototypes) == 1
