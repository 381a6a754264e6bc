# SPDX-License-Identifier: Apache-2.0
"""Fat binaries: entries, packing, and which PTX is chosen."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from ptx_fatbins import container, entry, lz4_literals, ptx

from bitfusion.softgpu.engine import kernels
from bitfusion.softgpu.ptx import cubin, fatbin, lz4, zstd
from bitfusion.softgpu.ptx.frontend import Item, read_image, read_images
from bitfusion.softgpu.ptx.ir import PtxError

DATA = Path(__file__).parent / "data"


def chosen(*entries: bytes) -> str:
    return read_image(container(entries)).target


def refusal(data: bytes) -> PtxError:
    with pytest.raises(PtxError) as caught:
        read_image(data)
    return caught.value


# ---------------------------------------------------------------- choice


def test_the_newest_ptx_that_fits_is_chosen() -> None:
    olds = [entry(1, arch, ptx(f"sm_{arch}")) for arch in (75, 120, 90, 130)]
    assert chosen(entry(2, 120, b"\x7fELF"), *olds) == "sm_120"


def test_ptx_for_one_architecture_alone_comes_last() -> None:
    special = entry(1, 120, ptx("sm_120a"))
    family = entry(1, 100, ptx("sm_100f"))
    assert chosen(special, entry(1, 80, ptx("sm_80")), family) == "sm_80"
    assert chosen(family, special) == "sm_120a"


def test_much_that_is_packed_small_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    special = [entry(1, 90, ptx("sm_90a") + b" " * 1000)] * 4
    assert chosen(*special) == "sm_90a"
    monkeypatch.setattr(fatbin, "MAX_TRIED", 3000)
    assert refusal(container(special)).status == 200
    monkeypatch.setattr(fatbin, "MAX_UNPACKED", 3000)
    assert "3001 bytes" in str(refusal(container([entry(1, 90, b"", flags=0x8011, size=3001)])))


def test_machine_code_alone_is_refused_with_the_reason() -> None:
    error = refusal(container([entry(2, 90, b"\x7fELF"), entry(2, 80, b"\x7fELF")]))
    assert error.status == 209
    assert "sm_80, sm_90" in str(error)
    assert "machine code (SASS)" in str(error)
    error = refusal(container([entry(1, 130, ptx("sm_130"))]))
    assert error.status == 209
    assert "compute_130" in str(error)


def tiny_cubin() -> bytes:
    members = fatbin.entries((DATA / "tiny.fatbin").read_bytes())
    return next(e.unpack() for e in members if e.kind == fatbin.KIND_ELF)


def test_a_refusal_names_the_kernels_of_machine_code() -> None:
    names = cubin.kernels(tiny_cubin())
    assert names == ["tiny"]
    error = refusal(
        container([entry(2, 90, tiny_cubin()), entry(2, 80, b"\x7fELF" + bytes(99999))])
    )
    assert f"of '{names[0]}' has only machine code (SASS) for sm_80, sm_90" in str(error)
    error = refusal(tiny_cubin())
    assert f"of '{names[0]}' is machine code (SASS) for sm_90" in str(error)
    assert cubin.say(["a", "b", "c" * 200, "d", "e"]) == f"'a', 'b', '{'c' * 100}...' and 2 more"


def test_damaged_machine_code_has_no_names() -> None:
    whole = tiny_cubin()
    for size in range(0, len(whole), 7):
        cubin.kernels(whole[:size])
    for place in range(40, 64):
        for value in (0, 1, 127, 255):
            cubin.kernels(whole[:place] + bytes([value]) + whole[place + 1 :])
    assert cubin.kernels(whole[:4] + b"\1" + whole[5:]) == []


def test_cubins_are_refused() -> None:
    cubin = bytearray(64)
    cubin[:4] = b"\x7fELF"
    struct.pack_into("<I", cubin, 48, 90 << 8)
    error = refusal(bytes(cubin))
    assert error.status == 209
    assert "sm_90" in str(error)


def test_padding_and_long_entry_headers() -> None:
    assert chosen(entry(1, 90, ptx() + b"\0\0\0\0", header_size=96)) == "sm_90"


def test_real_fat_binaries() -> None:
    members = fatbin.entries((DATA / "tiny.fatbin").read_bytes())
    assert [(e.kind, e.arch) for e in members] == [(1, 75), (2, 90), (1, 90), (1, 120)]
    module = read_image((DATA / "tiny.fatbin").read_bytes())
    assert module.target == "sm_90"
    assert list(module.functions) == ["tiny"]
    lz4_module = read_image((DATA / "tiny-lz4.fatbin").read_bytes())
    assert fatbin.entries((DATA / "tiny-lz4.fatbin").read_bytes())[0].flags & fatbin.FLAG_LZ4
    assert lz4_module.functions == module.functions


# ---------------------------------------------------------------- damage


def test_garbage_is_an_invalid_image() -> None:
    for data in (b"", b"\0\0\0\0", b"\x01\x02garbage", b"   \n"):
        assert refusal(data).status == 200
    assert refusal(b"this is text").status == 218


def test_every_cut_is_noticed() -> None:
    data = container([entry(1, 90, ptx())])
    for length in range(4, len(data)):
        assert refusal(data[:length]).status == 200


def test_sizes_that_lie() -> None:
    good = entry(1, 90, ptx())
    for offset, form, value in (
        (8, "<Q", 1 << 63), (8, "<Q", len(good)), (4, "<I", 8), (4, "<I", 1 << 31),
        (16, "<I", 1 << 30),
    ):  # fmt: skip
        bad = bytearray(good)
        struct.pack_into(form, bad, offset, value)
        assert refusal(container([bytes(bad)])).status == 200
    huge = entry(1, 90, b"x" * 8, flags=0x8011, size=1 << 40, compressed=8)
    assert refusal(container([huge])).status == 200


def test_damaged_packings() -> None:
    text = ptx()
    packed = lz4_literals(text)
    good = entry(1, 90, packed, flags=0x2011, size=len(text), compressed=len(packed))
    assert chosen(good) == "sm_90"
    short = entry(1, 90, packed, flags=0x2011, size=len(text) + 1, compressed=len(packed))
    assert refusal(container([short])).status == 200
    bad = entry(1, 90, b"not a frame", flags=0x8011, size=100, compressed=11)
    assert refusal(container([bad])).status == 200


# ---------------------------------------------------------------- LZ4


@pytest.mark.parametrize(
    ("block", "plain"),
    [
        (b"\x00", b""),
        (b"\x30abc", b"abc"),
        (b"\x11a\x01\x00\x10b", b"aaaaaab"),
        (b"\x32abc\x03\x00\x10d", b"abcabcabcd"),
        (b"\x32abc\x02\x00\x10d", b"abcbcbcbcd"),
        (b"\x1fz\x01\x00\xff\x02\x00", b"z" * (1 + 19 + 255 + 2)),
        (b"\xf0\x01" + b"0123456789abcdef", b"0123456789abcdef"),
        (lz4_literals(bytes(1000)), bytes(1000)),
    ],
)
def test_lz4_vectors(block: bytes, plain: bytes) -> None:
    assert lz4.decompress(block, len(plain)) == plain


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (b"", 1),
        (b"\x30ab", 3),
        (b"\x11a\x02\x00\x10b", 7),
        (b"\x11a\x00\x00\x10b", 7),
        (b"\x11a\x01", 7),
        (b"\x11a\x01\x00\x10b", 6),
        (b"\x30abc", 2),
        (b"\x1fz\x01\x00" + b"\xff" * 1000, 100),
        (b"\xf0", 100),
    ],
)
def test_lz4_damage(block: bytes, size: int) -> None:
    with pytest.raises(lz4.DamagedBlock):
        lz4.decompress(block, size)


# ---------------------------------------------------------------- zstd


def _packed() -> tuple[bytes, int]:
    member = fatbin.entries((DATA / "tiny.fatbin").read_bytes())[0]
    return member.data[: member.compressed_size], member.size


def test_every_zstd_decoder_there_is_agrees() -> None:
    packed, size = _packed()
    decoders = []
    for make in zstd.DECODERS:
        try:
            decoders.append(make())
        except (ImportError, OSError):
            continue
    assert decoders, "no zstd decoder on this machine"
    for decode in decoders:
        assert b".entry tiny" in decode(packed, size)
        for bad, wrong in ((packed[:-4], size), (b"xx" + packed, size), (packed, size - 1)):
            try:
                assert len(decode(bad, wrong)) != wrong
            except zstd.DamagedFrame:
                pass


def test_a_missing_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_decoder", None)
    monkeypatch.setattr(zstd, "DECODERS", [])
    error = refusal((DATA / "tiny.fatbin").read_bytes())
    assert error.status == 209
    assert "zstandard" in str(error)


# ---------------------------------------------------------------- our own container


def test_link_inputs_are_linked_together() -> None:
    caller = b"""\n.version 9.0\n.target sm_90\n.extern .func f();
    .visible .entry k() { call f; ret; }"""
    callee = b".version 8.0\n.target sm_80\n.visible .func f() { ret; }"
    spare = container([entry(1, 90, b".version 8.0\n.target sm_80\n.visible .func g() { ret; }")])
    archive = fatbin.ARCHIVE_MAGIC + b"member/".ljust(60) + spare + b"padding"
    image = container(
        [
            entry(fatbin.KIND_LINK_INPUT, 2, caller, size=len(caller)),
            entry(fatbin.KIND_LINK_INPUT, 10, container([entry(1, 80, callee)])),
            entry(fatbin.KIND_LINK_INPUT, 6, archive, size=len(archive)),
        ]
    )
    module = read_image(image)
    assert sorted(module.functions) == ["f", "k"]
    assert module.functions["f"].body is not None


def test_a_link_limits_registers() -> None:
    declared = [b".reg .b64 %d<99>;"] + [b"mov.b64 %%d%d, 1;" % i for i in range(99)]
    body = b"{ " + b" ".join(declared) + b" ret; }"
    text = b".version 9.0\n.target sm_90\n.visible .entry k() " + body
    text += b"\n.visible .entry own() .maxnreg 40 " + body
    made = entry(fatbin.KIND_LINK_INPUT, 1, text, size=len(text))
    for limit, wanted in ((0, [64, 40]), (38, [38, 40]), (255, [64, 40])):
        limited = made[:24] + struct.pack("<HH", limit, 0) + made[28:]
        module = read_image(container([limited]))
        assert [kernels._registers(module.functions[name]) for name in ("k", "own")] == wanted


def test_members_of_archives_come_when_they_are_missed() -> None:
    caller = b".version 9.0\n.target sm_90\n.extern .func f();\n.visible .entry k() { call f; }"
    member = b".version 8.0\n.target sm_80\n.visible .func f() { ret; }"
    archive = b"!<arch>\n" + container([entry(1, 80, member)]) + container([entry(2, 80, b"x")])
    module = read_images([Item(caller), Item(archive, 4, "libx.a")])
    assert module.functions["f"].body is not None
