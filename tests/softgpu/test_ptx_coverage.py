# SPDX-License-Identifier: Apache-2.0
"""Each form that docs/ptx-coverage.md has is run, or refused with the page's reason.

What the forms compute is tested elsewhere; here it is that the page says what the engine does, and
that no exact form lacks such a test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import numpy
import pytest
from form_samples import Words, instructions, reg, samples
from forms import HEAD
from machine import DeviceFault, machine, zeros
from test_ptx_exec_tensor import tensor_map
from test_ptx_exec_texture import SURFACE, TEXTURE, Object

from bitfusion.softgpu.engine import coverage, syntax
from bitfusion.softgpu.engine.lower import RULES, WITHOUT_ROWS
from bitfusion.softgpu.engine.table import FORMS, OPS

HERE = Path(__file__).resolve().parent
ILLEGAL_INSTRUCTION = 715
GEOMETRIES = ("1d", "2d", "3d", "a1d", "a2d", "cube", "acube")
MAPS = ("mt1", "mt2", "mt3", "mt4", "mt5", "mc3", "mc4", "mc5", "mg2")
# One thread runs what counts on a barrier, and all others would disturb it.
ALONE = ("mbarrier", "cp", "clusterlaunchcontrol", "tensormap")
BARRIER = "mbarrier.init.shared.b64 [r21], 9;"


def around(opcode: str, words: Words, text: str) -> str:
    """What an instruction needs before or behind it."""
    if opcode == "barrier" and "cluster" in words:
        return (
            f"{text} barrier.cluster.wait;"
            if "arrive" in words
            else f"barrier.cluster.arrive; {text}"
        )
    if opcode == "stackrestore":
        return f"stacksave.{words[0]} {reg(words[0], 0)}; {text}"
    if opcode in ALONE or words[:1] in (("async",), ("bulk",)):
        return f"@one {BARRIER} @one {text}"
    return text


def lines_of(opcode: str) -> Iterator[str]:
    for row in syntax.rows_of(opcode):
        for words in samples(row):
            for text in instructions(opcode, words, row.note):
                yield around(opcode, words, text)


def kernel(lines: List[str], tail: str = "ret;") -> str:
    objects = [f"{kind}{name}" for kind in "tsuv" for name in GEOMETRIES]
    parameters = [f".param .b64 o{name}" for name in objects]
    parameters += [f".param .align 64 .b8 {name}map[128]" for name in MAPS]
    loads = [f"ld.param.b64 {name}, [o{name}];" for name in objects]
    loads += [f"mov.b64 {name}, {name}map; cvta.param.u64 {name}, {name};" for name in MAPS]
    return (
        f"""{HEAD}.visible .entry k(.param .align 16 .b8 given[256], .param .b64 buffer,
    {", ".join(parameters)}) {{
    .reg .b8 b<8>; .reg .b16 h<16>; .reg .b32 r<32>; .reg .b64 d<32>; .reg .b128 q<8>;
    .reg .pred p<8>; .reg .pred one; .reg .b64 {", ".join((*objects, *MAPS))};
    .shared .align 128 .b8 sm[4096]; .local .align 16 .b8 lo[256];
    .param .align 16 .b8 passed[256];
    {" ".join(loads)}
    mov.u32 r0, %tid.x; setp.eq.u32 one, r0, 0; ld.param.b64 d20, [buffer]; mov.u32 r20, sm;
    add.u32 r21, r20, 2048; add.u32 r22, r20, 1024; mov.u64 d21, lo; mov.u64 d22, 0;
    cvt.u64.u32 d26, r20; cvta.shared.u64 d23, d26; add.u64 d24, d23, 2048; mov.u64 d25, 0;
    mov.b16 h15, 1; bar.sync 0;
    """
        + "\n".join(lines)
        + f"\n{tail}\n}}\n"
    )


class Surroundings:
    """Memory, textures, surfaces and tensor maps for every form."""

    def __init__(self) -> None:
        self.buffer = zeros(4096, "u4")
        self.objects = [
            self._object(kind, name, channels)
            for kind, channels in ((TEXTURE, 4), (SURFACE, 4), (SURFACE, 1), (SURFACE, 2))
            for name in GEOMETRIES
        ]
        self.maps = [self._map(name) for name in MAPS]

    @staticmethod
    def _object(kind: int, name: str, channels: int) -> Object:
        layered = name[0] == "a"
        slices = {"3d": 4, "cube": 6, "acube": 6, "a1d": 3, "a2d": 3}.get(name, 1)
        rows = 1 if "1d" in name else 8
        texels = numpy.zeros((slices, rows, 8, channels), "u4" if kind == SURFACE else "f4")
        return Object(texels, kind, layered or "cube" in name)

    def _map(self, name: str) -> bytes:
        rank = int(name[2])
        dims, strides = [8, 4, 4, 4, 4][:rank], [32 * 4**n for n in range(rank - 1)]
        if name[1] == "c":
            edge = [0] * (rank - 2)
            return tensor_map(
                self.buffer, "u32", dims, strides, [1] * rank, im2col=(edge, edge, 8, 4)
            )
        box = [4, 1] if name[1] == "g" else [4, *[1] * (rank - 1)]
        return tensor_map(self.buffer, "u32", dims, strides, box)

    def run(self, text: str) -> None:
        numbers = [one.number for one in self.objects]
        memory = [one.memory for one in self.objects]
        machine().compile(text).launch(
            "k", 1, 32, bytes(256), self.buffer, *numbers, *self.maps, visible=memory
        )


@pytest.fixture(scope="module")
def surroundings() -> Surroundings:
    return Surroundings()


CONTROL = {
    "bra": "bra.uni L; L: bra M; M: ret;",
    "brx": "mov.u32 r0, 0; T: .branchtargets L; brx.idx r0, T; L: brx.idx.uni r0, T2; "
    "T2: .branchtargets M; M: ret;",
    "call": "",
    "ret": "@one ret; ret.uni;",
}


@pytest.mark.parametrize("opcode", sorted(set(syntax.opcodes()) - {"call"}))
def test_forms_of_rules(opcode: str, surroundings: Surroundings) -> None:
    if opcode in CONTROL:
        surroundings.run(kernel([], CONTROL[opcode]))
        return
    lines = list(lines_of(opcode))
    assert lines
    surroundings.run(kernel(lines))


def test_forms_of_call() -> None:
    text = f"""{HEAD}.func f() {{ ret; }} .visible .entry k() {{ call f; call.uni f; ret; }}"""
    machine().compile(text).launch("k", 1, 32)


# Their forms follow rules; what they compute takes long to make up.
OF_RULES = (
    "atomic", "bulk", "cancel", "cluster", "convert", "mbarrier", "memory", "mma", "tensor",
    "texture", "video", "wmma",
)  # fmt: skip


def test_every_exact_form_is_compared_with_a_reference(tmp_path: Path) -> None:
    """A test of ``test_ptx_exec_*.py`` has it. They are only asked which forms they have."""
    tests = [
        str(path)
        for path in sorted(HERE.glob("test_ptx_exec_*.py"))
        if path.stem.rpartition("_")[2] not in OF_RULES
    ]
    command = [sys.executable, "-m", "pytest", "-p", "form_record"]
    command += ["-p", "no:xdist", "-k", "baseline", *tests]
    environment = {
        **os.environ, "PYTHONPATH": str(HERE), "FORMS_FOUND": str(tmp_path / "forms"),
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    missing = set(FORMS) - set((tmp_path / "forms").read_text().split())
    assert not missing, sorted(missing)


STOP = {"exit": 0, "trap": 719, "brkpt": 719}


def test_exact_forms(surroundings: Surroundings) -> None:
    lines = []
    letters = {"16": "h", "32": "r", "64": "d", "128": "q", "_pred": "p"}
    for mnemonic, form in FORMS.items():
        kinds = [kind for kind in OPS[form.op].operands if kind not in ("", "same")]
        named = [f"{letters[kind.lstrip('tofrm')]}{n}" for n, kind in enumerate(kinds)]
        if mnemonic not in STOP:
            lines.append(f"{mnemonic} {', '.join(named)};")
    assert len(lines) > 600
    surroundings.run(kernel(lines))


@pytest.mark.parametrize("mnemonic", STOP)
def test_forms_that_stop(mnemonic: str, surroundings: Surroundings) -> None:
    if not STOP[mnemonic]:
        surroundings.run(kernel([mnemonic + ";"], "trap; ret;"))
        return
    with pytest.raises(DeviceFault) as fault:
        surroundings.run(kernel([mnemonic + ";"]))
    assert fault.value.error == STOP[mnemonic]


def refused() -> List[tuple[str, str]]:
    found = []
    for opcode, refusals in syntax.REFUSED.items():
        for one in refusals:
            longest = max((len(choice) for choice in one.words), default=1)
            for n in range(longest):
                words = [choice[n % len(choice)] for choice in one.words]
                found.append((".".join((opcode, *words)), one.why))
    return found


@pytest.mark.parametrize(("mnemonic", "why"), refused())
def test_refused_forms(mnemonic: str, why: str) -> None:
    text = f"{HEAD}.visible .entry k() {{ .reg .b32 a, b; {mnemonic} a, b; ret; }}"
    with pytest.raises(DeviceFault) as fault:
        machine().compile(text).launch("k", 1, 1)
    assert fault.value.error == ILLEGAL_INSTRUCTION
    assert mnemonic in fault.value.text and why in fault.value.text


def test_an_unknown_form_says_so() -> None:
    text = f"{HEAD}.visible .entry k() {{ .reg .b32 a, b; add.sat.u32 a, a, b; ret; }}"
    with pytest.raises(DeviceFault, match=r"add\.sat\.u32.*no form of the instruction"):
        machine().compile(text).launch("k", 1, 1)


def test_the_page_has_every_row() -> None:
    page = coverage.document()
    assert set(RULES) == set(syntax.opcodes()) | set(WITHOUT_ROWS)
    for opcode in syntax.opcodes():
        for row in syntax.rows_of(opcode):
            shown = coverage.row_of(opcode, row)
            assert f"| {' | '.join(shown)} |" in page


def test_the_words_of_a_form_may_stand_in_any_order() -> None:
    for given, wanted in (
        ("atom.global.v4.f32.add", "global add v4 f32"),
        ("atom.add.noftz.f16x2.global", None),
        ("atom.global.v2.f16x2.add.noftz", "global add noftz v2 f16x2"),
        ("red.global.v4.bf16x2.max.noftz", None),
        ("vote.ballot.sync.b32", "sync ballot b32"),
    ):
        opcode, *words = given.split(".")
        if wanted:
            assert syntax.match(opcode, tuple(words)) == tuple(wanted.split())


def test_types_keep_their_order() -> None:
    assert syntax.match("cvt", ("rn", "f16", "f32")) == ("rn", "f16", "f32")
    assert syntax.match("cvt", ("rn", "f32", "f16")) is None
    assert syntax.match("cvt", ("f32", "f16")) == ("f32", "f16")


def test_no_form_is_another_in_another_order() -> None:
    keys: dict[tuple[str, ...], str] = {}
    for mnemonic, form in FORMS.items():
        opcode, *words = mnemonic.split(".")
        key = (opcode, *syntax.sorted_words(words))
        assert keys.setdefault(key, form.op) == form.op, mnemonic
