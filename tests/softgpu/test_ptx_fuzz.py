# SPDX-License-Identifier: Apache-2.0
"""Damaged input: only our own error may come out of the front end, and soon."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Callable, List

import pytest
from ptx_fatbins import container, entry, lz4_literals, ptx

from bitfusion.softgpu.engine import encode
from bitfusion.softgpu.ptx import declaration, lz4
from bitfusion.softgpu.ptx.frontend import read_image
from bitfusion.softgpu.ptx.ir import PtxError

DATA = Path(__file__).parent / "data"
SECONDS = 1.5
LONGEST = 2.0
LEAST = 20  # mutants, however slow the machine is

SEED_TEXT = """.version 9.0
.target sm_90, debug
.address_size 64
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.global .align 8 .b8 t[12] = {1, 2, 0xff, -1}; .const .f32 f[2][2] = {{1.0, 0f3F800000}, {-2e3}};
.global .u64 p[2] = {generic(t)+8, 0xFF00(t)}; .extern .shared .b8 dyn[];
.visible .entry k(.param .u64 a, .param .align 4 .b8 s[8]) .maxntid 32, 1, 1
{
 .reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<4>; .reg .v4 .f32 %v; .local .align 8 .b8 d[16];
 ld.param.u64 %rd1, [a+0]; .reg .b32 late;
 @!%p1 bra L; setp.lt.and.s32 %p1|%p2, %r1, -5, !%p3;
 { .param .b32 param0; st.param.b32 [param0+0], %r1; .reg .b32 t;
   P: .callprototype (.param .b32 _) _ (.param .b32 _);
   call (t), %rd1, (param0), P; }
 ts: .branchtargets L, L; brx.idx %r1, ts;
 ld.global.nc.L2::128B.v4.f32 {%v.x, _, %v.z, %v.w}, [%rd1+(4*(2+1))];
 L: mov.u32 %r2, %tid.x; ret;
}
"""


def _mutations(random_: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        kind, at = random_.randrange(6), random_.randrange(len(data) + 1)
        size = random_.choice((1, 1, 2, 8, 60))
        if kind == 0:
            del data[at : at + size]
        elif kind == 1 and at < len(data):
            data[at] = random_.randrange(256)
        elif kind == 2:
            data[at:at] = random_.choice(WORDS) * random_.choice((1, 1, 2, 300))
        elif kind == 3:
            start = random_.randrange(len(data) + 1)
            data[at:at] = data[start : start + size]
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << random_.randrange(8)
        else:
            data[at : at + size] = random_.choice(WORDS)
    return bytes(data)


WORDS = [
    b"{", b"}", b"(", b")", b"[", b"]", b",", b";", b":", b"::", b".", b"@", b"!", b"|", b"-",
    b"+", b"_", b"<", b">", b"=", b'"', b"\\", b"//", b"/*", b"*/", b"\n", b"\0", b" ", b"%",
    b"0x", b"0f", b"99999999999999999999999", b"0b1", b"1e999", b"1.5", b"generic(", b"0xFF(",
    b".reg", b".param", b".v4", b".align", b"a", b"%r1", b"%tid.x", b"bra", b"call", b".b32",
    b"WARP_SZ", b"?", b"<<", b"\xff\xff\xff\xff", b"\x80", b"\x00\x00\x00\x80", b"((((",
    b"{{{{", b"- ", b"\xb2",
]  # fmt: skip


def _images() -> List[bytes]:
    text = SEED_TEXT.encode()
    packed = lz4_literals(text)
    return [
        container([entry(1, 90, ptx()), entry(2, 80, b"\x7fELF"), entry(1, 120, text)]),
        container([entry(1, 90, packed, 0x2011, len(text), len(packed))]),
        container([entry(0x4246, 2, text, size=len(text)), entry(0x4246, 6, b"!<arch>\n")]),
        (DATA / "tiny.fatbin").read_bytes(),
        (DATA / "tiny-lz4.fatbin").read_bytes(),
    ]


def _run(seeds: List[bytes], target: Callable[[bytes], object], errors: type, number: int) -> None:
    """Feed mutants for a while; a failing one is shown by its seed and turn."""
    random_ = random.Random(number)
    end, turn = time.monotonic() + SECONDS, 0
    while turn < LEAST or (time.monotonic() < end and turn < 20000):
        mutant = _mutations(random_, random_.choice(seeds))
        began = time.process_time()
        try:
            target(mutant)
        except errors:
            pass
        except Exception as error:
            raise AssertionError(f"turn {turn}: {error!r} from {mutant!r}") from error
        assert time.process_time() - began < LONGEST, f"turn {turn}: slow on {mutant!r}"
        turn += 1


def test_the_seeds_are_good() -> None:
    read_image(SEED_TEXT.encode())
    for image in _images():
        read_image(image)


def test_damaged_text() -> None:
    _run([SEED_TEXT.encode()], read_image, PtxError, 1)


def test_damaged_compiler_output() -> None:
    _run([(DATA / "linkable.ptx").read_bytes()], read_image, PtxError, 2)


def test_damaged_fat_binaries() -> None:
    _run(_images(), read_image, PtxError, 3)


def test_damaged_lz4() -> None:
    block = b"\x32abc\x03\x00\x1fz\x01\x00\xff\x02\x52hello\x05\x00\x10d"
    _run([block], lambda data: lz4.decompress(data, 300), lz4.DamagedBlock, 4)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100000,
        "add" + " " * 200000,
        "add.u32 " + "[" * 100000 + ";",
        "add.u32 " + "{" * 100000 + "}" * 100000 + ";",
        "add.u32 " + "(" * 100000 + ")" * 100000 + ";",
        "add.u32 " + "-" * 100000 + "1;",
        "mov.u32 a, " + "1+" * 100000 + "1;",
        "mov.u32 a, " + "1?" * 50000 + "1;",
        "mov.u32 a, " + "9" * 100000 + ";",
        "mov.u32 a, " + "a|" * 50000 + "a;",
        "mov.u32 a, 1 " + "<< 62 " * 20000 + ";",
        ".loc" + " " * 200000,
        "@ " * 100000,
        "a" * 1000000,
        "L:" * 100000,
        ".reg .b32 x<999999999>; mov.u32 x99999999, x0;",
        ".local .b8 x[99999999999999999];",
        ".reg .b32 a; " + "{ .reg .b32 a; " * 20000,
        "@" + " " * 100000 + "+",
        "/* " * 100000,
    ],
    ids=lambda text: text[:16],
)
def test_pathological_text_ends_soon(text: str) -> None:
    head = ".version 8.0\n.target sm_80\n.entry k() {\n"
    began = time.process_time()
    for source in (head + text, head + text + "}", head[:28] + text):
        try:
            read_image(source.encode())
        except PtxError:
            pass
    assert time.process_time() - began < 8


@pytest.mark.parametrize(
    "text",
    [
        ".global .u32 x[2][268435455] = {{1}, {2}};",
        ".global .u32 x" + "[2]" * 1000 + ";",
        ".global .u32 x" + "[]" * 1000 + " = " + "{" * 1000 + "1" + "}" * 1000 + ";",
        ".global .u8 x[] = {" + "1," * 200000 + "1};",
        ".global .u8 x[] = {" + "0x1," * 50000 + "1};",
        ".func f(" + ".param .b32 a," * 20000 + ".param .b32 a) { ret; }",
        ".global .attribute(" + "(" * 100000,
        ".pragma " + '"x",' * 10000,
        ".target " + "a," * 100000,
        "/*" * 100000,
        "/* " * 100000,
        '"' * 100000,
        "//\n" + '\\"' * 100000,
        ".section .x " + "{" * 100000,
    ],
    ids=lambda text: text[:32],
)
def test_pathological_declarations_end_soon(text: str) -> None:
    began = time.process_time()
    try:
        read_image((".version 8.0\n.target sm_80\n" + text).encode())
    except PtxError:
        pass
    assert time.process_time() - began < 8


def test_what_is_small_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB of text that ask for GiB, here a thousandth of each, are refused."""
    monkeypatch.setattr(declaration, "MAX_INITIALISER", declaration.MAX_INITIALISER >> 10)
    monkeypatch.setattr(encode, "_MAX_TARGETS", encode._MAX_TARGETS >> 10)
    arrays = "".join(f".global .u8 x{n}[2][99999] = {{{{1}},{{1}}}};\n" for n in range(5))
    labels = "".join(f"L{n}: " for n in range(100))
    table = "T: .branchtargets " + ", ".join(f"L{n}" for n in range(100)) + ";\n"
    kernel = ".entry k() { .reg .u32 i;\n" + table + "brx.idx i, T;\n" * 50 + labels + "ret; }"
    for text, why in ((arrays, "MiB of initialisers"), (kernel, "targets")):
        with pytest.raises(PtxError, match=why):
            encode.encode_module(read_image((".version 8.0\n.target sm_80\n" + text).encode()))
