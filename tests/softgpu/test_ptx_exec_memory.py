# SPDX-License-Identifier: Apache-2.0
"""Loads, stores and address spaces, and what happens outside of them."""

from __future__ import annotations

from typing import List, Tuple

import numpy
import pytest
from forms import HEAD, bits_of, signed
from machine import DeviceFault, Program, array, machine, zeros

DATA = bytes(range(1, 128)) + bytes(range(255, 126, -1))


def compiled(text: str) -> Program:
    return machine().compile(HEAD + text)


def kernel(
    body: str, parameters: str = ".param .u64 out, .param .u64 in", head: str = ""
) -> Program:
    """A kernel with addresses of its own element in ``o`` and of the input in ``i``."""
    return compiled(
        f"{head}\n.visible .entry k({parameters}) {{\n"
        ".reg .b64 o, i, x, y, z; .reg .b32 t, r<8>; .reg .b16 h<8>; .reg .pred p<4>;\n"
        "ld.param.u64 o, [out]; mov.u32 t, %tid.x; mul.wide.u32 x, t, 8; add.u64 o, o, x;\n"
        f"{'ld.param.u64 i, [in];' if 'in' in parameters.split() else ''}\n"
        f"{body}\nret; }}"
    )


def run(body: str, head: str = "", block: int = 1, shared: int = 0) -> numpy.ndarray:
    """Run a kernel that fills one u64 per thread."""
    out, data = zeros(block, "u8"), array(list(DATA), "u1")
    kernel(body, head=head).launch("k", 1, block, out, data, shared=shared)
    return out


def fault(body: str, head: str = "", block: int = 1) -> DeviceFault:
    with pytest.raises(DeviceFault) as caught:
        run(body, head, block)
    return caught.value


# ---------------------------------------------------------------- widths


@pytest.mark.parametrize("kind", ["u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32"])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_loads_extend_into_wider_registers(kind: str, width: int) -> None:
    size = bits_of(kind)
    if size > width:
        pytest.skip("does not apply: a register is never narrower than what is loaded")
    register = {16: "h0", 32: "r0", 64: "y"}[width]
    for offset in (0, 160):
        body = f"ld.global.{kind} {register}, [i+{offset}];\n"
        body += f"cvt.u64.u{width} y, {register};" if width < 64 else ""
        got = int(run(body + "st.global.u64 [o], y;")[0])
        value = int.from_bytes(DATA[offset : offset + size // 8], "little")
        wanted = signed(value, size) if kind[0] == "s" else value
        assert got == wanted & ((1 << width) - 1)


@pytest.mark.parametrize("kind", ["u8", "b8", "s8", "u16", "b32", "u64"])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_stores_cut(kind: str, width: int) -> None:
    size = bits_of(kind)
    if size > width:
        pytest.skip("does not apply: a register is never narrower than what is stored")
    register = {16: "h0", 32: "r0", 64: "y"}[width]
    value = 0xFEDCBA9876543210 & ((1 << width) - 1)
    body = "mov.u64 z, -1; st.global.u64 [o], z;"
    body += f"mov.b{width} {register}, {value:#x}; st.global.{kind} [o], {register};"
    mask = (1 << size) - 1
    assert int(run(body)[0]) == (0xFFFFFFFFFFFFFFFF & ~mask) | (value & mask)


@pytest.mark.parametrize("space", ["global", "shared", "local", ""])
@pytest.mark.parametrize("suffix", ["", ".volatile", ".relaxed.gpu", ".weak", ".cg", ".wt"])
def test_spaces_hold_what_is_stored(space: str, suffix: str) -> None:
    if suffix in (".cg", ".wt") and space != "global":
        pytest.skip("does not apply: cache operators are for global memory")
    dot = f".{space}" if space else ""
    order = suffix if suffix not in (".cg", ".wt") else ""
    cache_load = ".cg" if suffix == ".cg" else ""
    head = ".shared .align 8 .b8 s[2048];" if space == "shared" else ""
    at = {
        "global": "mov.u64 z, o;",
        "": "mov.u64 z, o;",
        "shared": "mov.u64 y, s; mul.wide.u32 x, t, 8; add.u64 z, y, x;",
        "local": ".local .align 8 .b8 l[16]; mov.u64 y, l; add.u64 z, y, 8;",
    }[space]
    body = (
        f"{at} cvt.u64.u32 x, t; add.u64 x, x, 5; st{order}{dot}"
        f"{suffix if suffix in ('.cg', '.wt') else ''}.u64 [z], x;"
        f"bar.sync 0; ld{order}{dot}{cache_load}.u64 y, [z]; add.u64 y, y, 1;"
        "st.global.u64 [o], y;"
    )
    assert run(body, head, block=96).tolist() == [6 + n for n in range(96)]


VECTORS = [("v2", "u8"), ("v4", "u8"), ("v2", "s16"), ("v4", "b16"), ("v2", "b32"), ("v4", "u32"),
           ("v2", "b64"), ("v4", "f32"), ("v2", "f64"), ("v8", "b32"), ("v4", "b64")]  # fmt: skip


@pytest.mark.parametrize(("lanes", "kind"), VECTORS)
def test_vectors(lanes: str, kind: str) -> None:
    count, size = int(lanes[1:]), bits_of(kind) // 8
    register = kind if kind[0] == "f" else f"b{max(16, 8 * size)}"
    names = ", ".join(f"v{n}" for n in range(count))
    back = ", ".join(f"v{n}" for n in reversed(range(count)))
    program = compiled(
        f".visible .entry k(.param .u64 a, .param .u64 b) {{ .reg .b64 x, y; "
        f".reg .{register} v<8>;"
        f"ld.param.u64 x, [a]; ld.param.u64 y, [b]; ld.global.{lanes}.{kind} {{{names}}}, [x];"
        f"st.global.{lanes}.{kind} [y], {{{back}}}; ret; }}"
    )
    values, out = array(list(DATA[: count * size]), "u1"), zeros(count * size, "u1")
    program.launch("k", 1, 1, values, out)
    pieces = [DATA[n * size : (n + 1) * size] for n in range(count)]
    assert out.tobytes() == b"".join(reversed(pieces))


def test_elements_nobody_wants() -> None:
    body = "ld.global.v4.u32 {_, r1, _, r3}, [i]; cvt.u64.u32 x, r1; cvt.u64.u32 y, r3;"
    wanted = int.from_bytes(DATA[4:8], "little") + int.from_bytes(DATA[12:16], "little")
    assert int(run(body + "add.u64 x, x, y; st.global.u64 [o], x;")[0]) == wanted


def test_hints_change_nothing() -> None:
    loads = [
        "ld.global.nc.u32 r0, [i+4];",
        "ld.global.nc.L1::evict_last.L2::128B.u32 r0, [i+4];",
        "ld.global.ca.u32 r0, [i+4];",
        "ldu.global.u32 r0, [i+4];",
        "mov.u64 z, 0; ld.global.L2::cache_hint.u32 r0, [i+4], z;",
        "createpolicy.fractional.L2::evict_last.b64 z, 1.0; ld.global.u32 r0, [i+4];",
        "prefetch.global.L2 [i]; prefetchu.L1 [i]; ld.acquire.sys.global.u32 r0, [i+4];",
        "fence.proxy.alias; membar.gl; fence.acq_rel.gpu; ld.relaxed.gpu.global.u32 r0, [i+4];",
        "fence.sc.sys; membar.sys; membar.cta; ld.mmio.relaxed.sys.global.u32 r0, [i+4];",
    ]
    for load in loads:
        got = run(load + "cvt.u64.u32 x, r0; st.global.u64 [o], x;")
        assert int(got[0]) == int.from_bytes(DATA[4:8], "little"), load


# ---------------------------------------------------------------- address spaces


def test_generic_addresses_of_every_space() -> None:
    """One generic load each from global, shared, local and constant memory, told apart."""
    head = ".shared .align 8 .u64 s; .const .align 8 .u64 c = 77; .global .align 8 .u64 g = 55;"
    body = """
    .local .align 8 .b8 l[24];
    mov.u64 x, s; st.shared.u64 [s], 11; cvta.shared.u64 x, x; ld.u64 y, [x];
    mov.u64 x, l; mov.u64 z, 22; st.local.u64 [l+16], z; cvta.local.u64 x, x; ld.u64 z, [x+16];
    mad.lo.u64 y, z, 100, y;
    mov.u64 x, c; cvta.const.u64 x, x; ld.u64 z, [x]; mad.lo.u64 y, z, 10000, y;
    mov.u64 x, g; cvta.global.u64 x, x; ld.u64 z, [x]; mad.lo.u64 y, z, 1000000, y;
    st.u64 [x], y; ld.global.u64 z, [g]; st.global.u64 [o], z;
    """
    assert int(run(body, head)[0]) == 55772211


def test_isspacep_of_32_bits() -> None:
    """They are generic addresses below 4 GiB, where no window is."""
    head = ".shared .align 8 .u64 s;"
    body = "mov.u32 r0, s; isspacep.shared p0, r0; isspacep.global p1, r0; isspacep.local p2, 7;"
    body += "selp.u64 x, 1, 0, p0; selp.u64 y, 2, 0, p1; or.b64 x, x, y; selp.u64 y, 4, 0, p2;"
    assert int(run(body + "or.b64 x, x, y; st.global.u64 [o], x;", head)[0]) == 2


def test_isspacep_and_cvta_to() -> None:
    head = ".shared .align 8 .u64 s; .const .u64 c = 1; .global .u64 g;"
    checks = [("shared", "s"), ("local", "l"), ("const", "c"), ("global", "g")]
    body = ".local .align 8 .u64 l; mov.u64 z, 0;\n"
    bit = 0
    for _, name in checks:
        space = {"s": "shared", "l": "local", "c": "const", "g": "global"}[name]
        body += f"mov.u64 x, {name}; cvta.{space}.u64 x, x;"
        for asked, _ in checks:
            body += f"isspacep.{asked} p0, x; selp.u64 y, {1 << bit}, 0, p0; or.b64 z, z, y;"
            bit += 1
        body += f"mov.u64 y, {name}; cvta.to.{space}.u64 x, x; setp.eq.u64 p0, x, y;"
        body += f"selp.u64 y, {1 << 32 << bit // 4}, 0, p0; or.b64 z, z, y;\n"
    got = int(run(body + "st.global.u64 [o], z;", head)[0])
    for n, (space, _) in enumerate(checks):
        row = got >> (4 * n) & 15
        # constant memory may lie in global memory
        assert row >> n & 1 or (space == "const" and row >> 3 & 1), f"{space} is not in .{space}"
        for m, (other, _) in enumerate(checks):
            if m != n and {space, other} != {"const", "global"}:
                assert not row >> m & 1, f"{space} memory is in .{other}"
        assert got >> (32 + n + 1) & 1, f"cvta.to.{space} does not undo cvta.{space}"


def test_shared_addresses_are_small_and_zero_is_one() -> None:
    head = ".shared .align 4 .b8 first[16];"
    body = """
    mov.u32 r0, first; mov.u32 r1, 9; st.shared.u32 [r0], r1;
    mov.u32 r2, 0; @p0 st.shared.u32 [r2], r1; ld.shared.u32 r3, [first];
    setp.lt.u32 p1, r0, 65536; selp.u32 r3, r3, 0, p1; cvt.u64.u32 x, r3; st.global.u64 [o], x;
    """
    assert int(run("setp.ne.u32 p0, 1, 1;" + body, head)[0]) == 9


def test_each_block_has_its_own_shared_memory() -> None:
    program = compiled(
        """.visible .entry k(.param .u64 out) { .shared .u32 s; .reg .b32 r<4>; .reg .b64 x, y;
        .reg .pred p; mov.u32 r0, %ctaid.x; mov.u32 r1, %tid.x; setp.eq.u32 p, r1, 0;
        @p st.shared.u32 [s], r0; bar.sync 0; ld.shared.u32 r2, [s];
        mad.lo.u32 r3, r0, 64, r1; mul.wide.u32 y, r3, 4; ld.param.u64 x, [out]; add.u64 x, x, y;
        st.global.u32 [x], r2; ret; }"""
    )
    out = zeros(64 * 40, "u4")
    program.launch("k", 40, 64, out)
    assert out.tolist() == [n // 64 for n in range(64 * 40)]


def test_dynamic_shared_memory() -> None:
    """All .extern .shared arrays start at one place behind the static ones."""
    head = (
        ".shared .align 4 .b8 fixed[20]; .extern .shared .align 16 .b8 da[];"
        ".extern .shared .align 4 .b8 db[];"
    )
    body = """
    mov.u32 r0, fixed; mov.u32 r1, da; mov.u32 r2, db; mov.u32 r3, %dynamic_smem_size;
    setp.ne.u32 p0, r1, r2; @p0 trap; sub.u32 r1, r1, r0; setp.lt.u32 p0, r1, 20; @p0 trap;
    and.b32 r1, r2, 15; setp.ne.u32 p0, r1, 0; @p0 trap;
    shl.b32 r4, t, 2; add.u32 r4, r4, r2; st.shared.u32 [r4], t; bar.sync 0;
    ld.shared.u32 r5, [da+28]; mad.lo.u32 r5, r5, 1000, r3; cvt.u64.u32 x, r5;
    st.global.u64 [o], x;
    """
    assert run(body, head, block=32, shared=128).tolist() == [7128] * 32


def test_the_last_16_bytes_of_shared_memory_are_whole() -> None:
    """libNVVM reads four words where a program needs three."""
    head = ".extern .shared .align 16 .b8 d[];"
    body = """
    mov.u32 r4, 7; st.shared.u32 [d+24], r4; ld.shared.v4.u32 {r0, r1, r2, r3}, [d+16];
    mov.u32 r5, %dynamic_smem_size; mad.lo.u32 r5, r5, 1000, r2; cvt.u64.u32 x, r5;
    st.global.u64 [o], x;
    """
    assert run(body, head, shared=28).tolist() == [28007]
    beyond = body.replace("[d+16]", "[d+32]")
    with pytest.raises(DeviceFault, match="no shared memory"):
        run(beyond, head, shared=28)


def test_local_memory_belongs_to_a_thread() -> None:
    body = """
    .local .align 4 .b8 l[40]; mov.u64 x, l; mul.lo.u32 r0, t, 3; st.local.u32 [l], r0;
    and.b32 r1, t, 7; mul.wide.u32 y, r1, 4; add.u64 y, y, x; st.local.u32 [y+4], t; bar.sync 0;
    cvta.local.u64 y, y; ld.u32 r2, [y+4]; ld.local.u32 r3, [l]; add.u32 r3, r3, r2;
    cvt.u64.u32 x, r3; st.global.u64 [o], x;
    """
    assert run(body, block=96).tolist() == [4 * n for n in range(96)]


def test_pointers_to_local_memory_differ_between_threads() -> None:
    body = ".local .align 8 .b8 l[8]; mov.u64 x, l; cvta.local.u64 x, x; st.global.u64 [o], x;"
    body += "mov.u64 y, 41; st.u64 [x], y; bar.sync 0; ld.u64 y, [x];"
    program = kernel(body + "setp.ne.u64 p0, y, 41; @p0 trap;")
    program.launch("k", 1, 64, zeros(64, "u8"), zeros(8, "u1"))


# ---------------------------------------------------------------- variables and parameters


def test_variables_have_their_values() -> None:
    program = compiled(
        """
        .visible .global .align 8 .b8 g[16] = {1, 2, 3};
        .visible .const .f32 c[2] = {0f3F800000, 2.5};
        .visible .global .u64 p[3] = {generic(g)+2, g, 7};
        .visible .global .align 1 .b8 bytes[8] = {0xFF(g), 0xFF00(g), 0xFF0000(g), 0xFF000000(g),
            0xFF00000000(g), 0xFF0000000000(g), 0xFF000000000000(g), 0xFF00000000000000(g)};
        .visible .global .u32 late[2];
        .visible .entry k(.param .u64 out) { .reg .b64 x, y, z; .reg .b16 h; .reg .b32 r;
        ld.param.u64 x, [out]; ld.global.u64 y, [p]; ld.u8 h, [y]; cvt.u64.u16 z, h;
        st.global.u64 [x], z; ld.global.u64 y, [p+8]; ld.global.u8 h, [y]; cvt.u64.u16 z, h;
        st.global.u64 [x+8], z; ld.const.u32 r, [c+4]; st.global.u32 [late+4], r;
        mov.u64 z, g; mov.u64 y, bytes; ld.global.u8 h, [y+5];
        st.global.u64 [x+16], z; ret; }
        """
    )
    variables = program.variables
    assert bytes(variables["g"]) == b"\x01\x02\x03" + bytes(13)
    address = int(variables["g"].ctypes.data)
    assert variables["p"].view("u8").tolist() == [address + 2, address, 7]
    assert int(variables["bytes"].view("u8")[0]) == address
    out = zeros(3, "u8")
    program.launch("k", 1, 1, out)
    assert out.tolist() == [3, 1, address]
    assert variables["late"].view("f4").tolist() == [0.0, 2.5]
    assert variables["c"].view("f4").tolist() == [1.0, 2.5]


def test_parameters_of_every_shape() -> None:
    program = compiled(
        """.visible .entry k(.param .u8 a, .param .s16 b, .param .align 8 .b8 s[24], .param .f64 d,
        .param .u32 n, .param .u64 out) { .reg .b64 x, y, z; .reg .b32 r<4>; .reg .f64 f;
        .reg .b16 h<4>; ld.param.u64 x, [out]; ld.param.u8 h0, [a]; cvt.u64.u16 y, h0;
        st.global.u64 [x], y; ld.param.s16 r0, [b]; cvt.s64.s32 y, r0; st.global.u64 [x+8], y;
        ld.param.v2.u32 {r1, r2}, [s+8]; mov.b64 y, {r2, r1}; st.global.u64 [x+16], y;
        ld.param.v4.u8 {h0, h1, h2, h3}, [s+20]; cvt.u64.u16 y, h3; st.global.u64 [x+24], y;
        ld.param.f64 f, [d]; st.global.f64 [x+32], f; ld.param.u32 r3, [n]; cvt.u64.u32 y, r3;
        st.global.u64 [x+40], y; mov.b64 z, s; cvta.param.u64 z, z; ld.u32 r3, [z+16];
        cvt.u64.u32 y, r3; st.global.u64 [x+48], y; ret; }"""
    )
    out = zeros(7, "u8")
    block = bytes(range(10, 34))
    program.launch("k", 1, 1, 200, -5, block, 0.1, 0xFFFFFFFF, out)
    high, low = int.from_bytes(block[8:12], "little"), int.from_bytes(block[12:16], "little")
    assert out.tolist() == [
        200, (1 << 64) - 5, high << 32 | low, 33,
        int(numpy.float64(0.1).view("u8")), 0xFFFFFFFF, int.from_bytes(block[16:20], "little"),
    ]  # fmt: skip


# ---------------------------------------------------------------- faults


BAD_ADDRESSES: List[Tuple[str, int]] = [
    ("mov.u64 x, 0; ld.global.u32 r0, [x];", 700),
    ("mov.u64 x, 0; st.u32 [x], r0;", 700),
    ("ld.global.u8 h0, [i+256];", 700),
    ("ld.global.u8 h0, [i-1];", 700),
    ("ld.global.u64 x, [i+252];", 716),
    ("ld.global.v2.u64 {x, y}, [i+248];", 716),
    ("ld.global.v4.u32 {r0, r1, r2, r3}, [i+256];", 700),
    ("mov.u64 x, -8; ld.u64 y, [x];", 700),
    ("ld.global.u32 r0, [i+2];", 716),
    ("st.global.u16 [i+1], h0;", 716),
    ("ld.global.v2.u32 {r0, r1}, [i+4];", 716),
    ("atom.global.add.u32 r0, [i+6], 1;", 716),
    ("atom.global.add.u32 r0, [i+4096], 1;", 700),
    ("red.global.add.u64 [i+252], 1;", 716),
    ("mov.u32 r0, 49152; st.shared.u32 [r0], r1;", 700),
    ("ld.shared.u32 r1, [s+2];", 716),
    ("ld.shared.u32 r1, [s+131072];", 700),
    (".local .align 4 .b8 l[8]; ld.local.u32 r1, [l+16777216];", 700),
    (".local .align 4 .b8 l[8]; ld.local.u32 r1, [l+1];", 716),
]


@pytest.mark.parametrize(("body", "error"), BAD_ADDRESSES, ids=[b[0] for b in BAD_ADDRESSES])
def test_bad_addresses_are_faults(body: str, error: int) -> None:
    caught = fault(body, ".shared .align 4 .b8 s[64];")
    assert caught.error == error
    assert "'k'" in caught.text


def test_a_fault_in_one_lane_names_its_thread() -> None:
    caught = fault("setp.eq.u32 p0, t, 37; @p0 ld.global.u32 r0, [i+1000];", block=64)
    assert caught.error == 700
    assert "(37,0,0)" in caught.text


def test_inactive_lanes_do_not_fault() -> None:
    run("setp.gt.u32 p0, t, 100; mov.u64 x, 3; @p0 ld.global.u32 r0, [x];", block=64)


def test_the_machine_works_after_a_fault() -> None:
    fault("mov.u64 x, 0; ld.global.u32 r0, [x];")
    assert int(run("mov.u64 x, 4; st.global.u64 [o], x;")[0]) == 4


def test_forms_that_are_not_carried_out_fail_when_executed() -> None:
    skipped = "setp.ne.u32 p0, 1, 1; @p0 tensormap.replace.b1024 [i], 1;"
    assert int(run(skipped + "mov.u64 x, 4; st.global.u64 [o], x;")[0]) == 4
    caught = fault("tensormap.replace.b1024 [i], 1;")
    assert "tensormap" in caught.text
    assert "'k'" in caught.text


def test_braces_around_one_register_are_no_vector() -> None:
    got = run(
        "ld.global.b32 {r0}, [i]; st.global.b32 [o], {r0};"
        "mov.b32 r1, 1; atom.global.add.u32 {r2}, [o], {r1}; st.global.b32 [o+4], {r2};"
    )
    word = int.from_bytes(DATA[:4], "little")
    assert int(got[0]) == (word + 1) | word << 32


# ---------------------------------------------------------------- cp.async


def copied(copy: str) -> bytes:
    """What is in the first 8 of 16 bytes of shared memory that were all ones."""
    got = run(
        f"""mov.u64 y, -1; st.shared.u64 [s], y; st.shared.u64 [s+8], y; mov.u32 r1, s;
        {copy}
        cp.async.wait_all; ld.shared.u64 y, [s]; st.global.u64 [o], y;""",
        head=".shared .align 16 .b8 s[16];",
    )
    return int(got[0]).to_bytes(8, "little")


def test_cp_async_reads_no_more_than_it_is_told() -> None:
    """With fewer bytes than it writes the rest is zero, and what is not read need not be there."""
    assert copied("cp.async.ca.shared.global [r1], [i], 8;") == DATA[:8]
    assert copied("cp.async.ca.shared.global [r1], [i], 8, 3;") == DATA[:3] + bytes(5)
    assert copied("mov.u64 x, 64; cp.async.ca.shared.global [r1], [x], 8, 0;") == bytes(8)
    last = f"add.u64 x, i, {len(DATA) - 4}; mov.u32 r2, 4;"
    last += "sub.u64 y, x, i; and.b64 z, x, 7; sub.u64 x, x, z;"  # aligned, with the end in reach
    assert copied(last + "cp.async.ca.shared.global [r1], [x], 8, r2;")[4:] == bytes(4)


def test_a_fault_of_cp_async_is_told() -> None:
    """It resolves two addresses by turns: the message names the instruction in the text."""
    copy = "mov.u64 x, 64; cp.async.ca.shared.global [s], [x], 4;"
    got = fault(copy, ".shared .align 16 .b8 s[16];")
    assert str(got).startswith("700") and "cp.async.ca.shared.global" in str(got)


# ---------------------------------------------------------------- one address, several times

SQUARES = [3 * n + n * n for n in range(64)]
SHARE = """
    mad.lo.u32 r1, t, t, 0; mad.lo.u32 r1, t, 3, r1; shl.b32 r0, t, 2; mov.u32 r2, s;
    add.u32 r0, r0, r2; st.shared.u32 [r0], r1; bar.sync 0;
"""
# Each leaves s[element of the thread] in r1, by an address register that was looked at before.
CHANGES = {
    "written between": (
        "ld.shared.u32 r1, [r0]; add.u32 r0, r0, 8; ld.shared.u32 r1, [r0];"
        "mov.u32 r3, 28; min.u32 r3, r3, t; shl.b32 r3, r3, 2; mov.u32 r0, s; add.u32 r0, r0, r3;"
        "ld.shared.u32 r1, [r0];",
        lambda t: min(t, 28),
    ),
    "the same again": ("ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r0];", lambda t: t),
    "with an offset": ("ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r0+4];", lambda t: t + 1),
    "into itself": (
        "sub.u32 r3, 252, r0; add.u32 r3, r3, r2; add.u32 r3, r3, r2; bar.sync 0;"
        "st.shared.u32 [r0+256], r3; ld.shared.u32 r0, [r0+256]; ld.shared.u32 r1, [r0];",
        lambda t: 63 - t,
    ),
    "equal, then not": (
        "mov.u32 r0, s; ld.shared.u32 r1, [r0]; shl.b32 r3, t, 2; add.u32 r0, r0, r3;"
        "ld.shared.u32 r1, [r0];",
        lambda t: t,
    ),
    "by one side of a branch": (
        "ld.shared.u32 r1, [r0]; setp.lt.u32 p0, t, 9; @p0 bra L; mov.u32 r0, s;\n"
        "L: ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r0];",
        lambda t: t if t < 9 else 0,
    ),
    "in a loop": (
        "mov.u32 r4, 0;\nL: ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r0];"
        "mov.u32 r0, s; shl.b32 r3, t, 3; and.b32 r3, r3, 120; add.u32 r0, r0, r3;"
        "add.u32 r4, r4, 1; setp.lt.u32 p0, r4, 3; @p0 bra L;",
        lambda t: 2 * t % 32,
    ),
    "first under a guard": (
        "mov.u32 r3, s; ld.shared.u32 r1, [r3];" * 7
        + "setp.gt.u32 p0, t, 99; @p0 ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r0];",
        lambda t: t,
    ),
    "guard of some": (
        "ld.shared.u32 r1, [r0]; setp.lt.u32 p0, t, 5; mov.u32 r1, 0; @p0 ld.shared.u32 r1, [r0];",
        lambda t: t if t < 5 else 0,
    ),
    "of many": (
        "".join(
            f"add.u32 r{k}, r0, {4 * k}; ld.shared.u32 r1, [r{k}];" for k in (2, 3, 4, 5, 6, 7)
        )
        + "mov.u32 r3, s; ld.shared.u32 r1, [r3]; mov.u32 r2, r3; ld.shared.u32 r1, [r2];"
        + "ld.shared.u32 r1, [r0]; ld.shared.u32 r1, [r4];",
        lambda t: t + 4,
    ),
    "across a call": (
        "ld.shared.u32 r1, [r0]; call f, (r0); ld.shared.u32 r1, [r0];",
        lambda t: t,
    ),
}
CALLEE = """.shared .align 4 .b8 s[512];
.func f(.reg .b32 a) { .reg .b32 b, c; mov.u32 b, s; ld.shared.u32 c, [b]; ret; }
"""


@pytest.mark.parametrize("how", CHANGES)
def test_an_address_is_looked_at_anew_where_it_may_have_changed(how: str) -> None:
    body, element = CHANGES[how]
    got = run(SHARE + body + "cvt.u64.u32 x, r1; st.global.u64 [o], x;", CALLEE, block=64)
    values = [*SQUARES, *[0] * 64]
    assert got.tolist() == [values[element(t)] for t in range(64)]
