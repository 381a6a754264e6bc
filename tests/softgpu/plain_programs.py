# SPDX-License-Identifier: Apache-2.0
"""Random PTX kernels that end, never divide by zero, and have one right result."""

from __future__ import annotations

import random
from typing import List, Tuple

# name of the class -> register type, how many, type for loads and stores
CLASSES = {
    "h": ("b16", 4, "b16"), "r": ("b32", 8, "b32"), "d": ("b64", 6, "b64"),
    "e": ("f32", 6, "f32"), "g": ("f64", 4, "f64"), "p": ("pred", 4, ""),
}  # fmt: skip
SHARED_WORDS = 32
_INTEGER = (
    ("add sub min max mul.lo", "u16 s16", "h h h"), ("add sub min max", "u32 s32 u64 s64", ""),
    ("mul.lo mul.hi", "u32 s32 u64 s64", ""), ("mul.wide", "u16 s16", "r h h"),
    ("mul.wide", "u32 s32", "d r r"), ("mad.lo mad.hi", "u32 s32 u64 s64", "..."),
    ("mad.wide", "u32 s32", "d r r d"), ("add.sat sub.sat", "s32", ""),
    ("abs neg", "s16 s32 s64", "."), ("sad", "u16 s16 u32 s32 u64 s64", "..."),
    ("and or xor", "b16 b32 b64", ""), ("not cnot", "b16 b32 b64", "."),
    ("shl", "b16", "h h r"), ("shl", "b32", ""), ("shl", "b64", "d d r"),
    ("shr", "u16 s16", "h h r"), ("shr", "u32 s32", ""), ("shr", "u64 s64", "d d r"),
    ("shf.l.wrap shf.r.wrap shf.l.clamp shf.r.clamp", "b32", "..."), ("prmt", "b32", "..."),
    ("bfe", "u32 s32", "..."), ("bfe", "u64 s64", "d d r r"), ("bfi", "b32", "r r r r r"),
    ("bfi", "b64", "d d d r r"), ("brev", "b32 b64", "."), ("popc clz", "b32", "."),
    ("popc clz", "b64", "r d"), ("bfind bfind.shiftamt", "u32 s32", "."),
    ("bfind bfind.shiftamt", "u64 s64", "r d"), ("selp", "b16", "h h h p"),
    ("selp", "b32", "r r r p"), ("selp", "b64", "d d d p"), ("slct.b32", "s32", "r r r r"),
)  # fmt: skip
_FLOAT = (
    ("add.rn add.rz add.rm add.rp add.rn.ftz add.rn.sat add.rm.ftz", "f32", ""),
    ("sub.rn sub.rz sub.rm sub.rp sub.rn.ftz mul.rn mul.rz mul.rm mul.rp mul.rn.ftz", "f32", ""),
    ("mul.rn.ftz.sat div.rn div.rn.ftz min max min.NaN max.NaN min.ftz", "f32", ""),
    ("fma.rn fma.rz fma.rm fma.rp fma.rn.ftz fma.rn.sat", "f32", "..."),
    ("sqrt.rn sqrt.rn.ftz abs neg abs.ftz neg.ftz", "f32", "."), ("copysign", "f32", ""),
    ("add.rn sub.rn mul.rn div.rn min max copysign", "f64", ""), ("fma.rn", "f64", "..."),
    ("sqrt.rn abs neg", "f64", "."), ("add.rn sub.rn mul.rn min max", "f16", "h h h"),
    ("fma.rn", "f16", "h h h h"), ("selp", "f32", "e e e p"), ("selp", "f64", "g g g p"),
)  # fmt: skip
_CONVERSIONS = (
    "u16.u32 h r", "s16.s32 h r", "u32.u16 r h", "s32.s16 r h", "s32.s8 r r", "u32.u8 r r",
    "u64.u32 d r", "s64.s32 d r", "u32.u64 r d", "sat.s32.s64 r d", "sat.u32.s32 r r",
    "sat.s8.s32 r r", "sat.u8.s64 r d", "rn.f32.u32 e r", "rn.f32.s32 e r", "rn.f32.u64 e d",
    "rn.f32.s64 e d", "rn.f64.s32 g r", "rn.f64.u64 g d", "rn.f32.f64 e g", "rz.f32.f64 e g",
    "rm.f32.f64 e g", "rp.ftz.f32.f64 e g", "f64.f32 g e", "rn.f16.f32 h e", "f32.f16 e h",
    "rni.f32.f32 e e", "rzi.f32.f32 e e", "rmi.ftz.f32.f32 e e", "rpi.f64.f64 g g",
    *(f"{way}.{to}.{kind} {'d' if '64' in to else 'r'} {'g' if kind == 'f64' else 'e'}"
      for way in ("rni", "rzi", "rmi", "rpi") for to in ("u32", "s32", "u64", "s64")
      for kind in ("f32", "f64")),
)  # fmt: skip
_OWN = {"16": "h", "32": "r", "64": "d", "f32": "e", "f64": "g"}


def _forms() -> List[Tuple[str, List[str]]]:
    """(mnemonic, classes of the operands, the result's first)"""
    found = []
    for names, kinds, classes in _INTEGER + _FLOAT:
        for kind in kinds.split():
            own = _OWN.get(kind) or _OWN[kind[1:]]
            operands = {"": [own] * 3, ".": [own] * 2, "...": [own] * 4}.get(classes)
            for name in names.split():
                found.append((f"{name}.{kind}", operands or classes.split()))
    for conversion in _CONVERSIONS:
        mnemonic, to, source = conversion.split()
        found.append((f"cvt.{mnemonic}", [to, source]))
    return found


FORMS = _forms()
_COMPARISONS = [
    *((f"{c}.{k}", _OWN[k[1:]]) for c in ("eq", "ne", "lt", "le", "gt", "ge") for k in
      ("u16", "s16", "u32", "s32", "u64", "s64")),
    *((f"{c}.{k}", "e" if k == "f32" else "g") for c in ("eq", "ne", "lt", "leu", "gtu", "ge",
      "equ", "neu", "num", "nan") for k in ("f32", "f64")),
    ("lo.u32", "r"), ("hs.u64", "d"), ("lt.ftz.f32", "e"), ("eq.f16", "h"),
]  # fmt: skip


class Writer:
    """Writes one kernel, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: List[str] = []
        self.labels = 0
        self.form = seed * 53  # forms take turns, so that a few kernels have them all

    def any(self, kind: str) -> str:
        return f"%{kind}{self.random.randrange(CLASSES[kind][1])}"

    def put(self, text: str) -> None:
        self.lines.append(f"\t{text};")

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def guard(self) -> str:
        return self.random.choice(["", "", "", "@", "@!"])

    def arithmetic(self) -> None:
        mnemonic, classes = FORMS[self.form % len(FORMS)]
        self.form += 1
        operands = [self.any(kind) for kind in classes]
        guard = self.guard()
        self.put(f"{guard}{self.any('p')} " * bool(guard) + f"{mnemonic} {', '.join(operands)}")
        if classes[0] == "g":  # whose NaN it is, nobody says
            self.put(f"setp.nan.f64 %nan, {operands[0]}, {operands[0]}")
            self.put(f"@%nan mov.f64 {operands[0]}, 0d7FF8000000000000")

    def other(self) -> None:
        """What has more than one way to be written, or results that no other form has."""
        r, d, p = self.any("r"), self.any("d"), self.any("p")
        a, b, c = (self.any("r") for _ in range(3))
        compare, kind = self.random.choice(_COMPARISONS)
        operands = f"{self.any(kind)}, {self.any(kind)}"
        name, _, type_ = compare.rpartition(".")
        join = self.random.choice(["and", "or", "xor"])
        divide = self.random.choice(["div", "rem"])
        choices: List[List[str]] = [
            [f"setp.{compare} {p}, {operands}"],
            [f"setp.{compare} {p}, {operands}"],
            [f"setp.{name}.{join}.{type_} {p}|%other, {operands}, {self.any('p')}"],
            [f"{join}.pred {p}, {self.any('p')}, {self.any('p')}", f"not.pred %other, {p}"],
            [f"lop3.b32 {r}, {a}, {b}, {c}, {self.random.randrange(256)}"],
            [f"set.{compare.rpartition('.')[0]}.u32.{type_} {r}, {operands}"],
            [f"or.b32 %t, {b}, 1", f"{divide}.u32 {r}, {a}, %t"],
            [f"and.b32 %t, {b}, 0xffff", "or.b32 %t, %t, 1", f"{divide}.s32 {r}, {a}, %t"],
            [f"mov.b64 {d}, {{{a}, {b}}}"],
            [f"mov.b64 {{{r}, %t}}, {d}", f"xor.b32 {r}, {r}, %t"],
            [f"add.cc.u32 {r}, {a}, {b}", f"addc.u32 {self.any('r')}, {b}, {c}"],
            [f"sub.cc.u32 {r}, {a}, {b}", f"subc.u32 {self.any('r')}, {b}, {c}"],
            [f"mov.b32 {r}, {self.any('e')}", f"mov.b32 {self.any('e')}, {a}"],
        ]
        for line in self.random.choice(choices):
            self.put(line)

    def plain(self, count: int) -> None:
        for _ in range(count):
            self.random.choice([self.arithmetic, self.arithmetic, self.other, self.memory])()

    def memory(self) -> None:
        """Each thread has its own words of local and shared memory, at places that it computes."""
        r, d = self.any("r"), self.any("d")
        space = self.random.choice(["local", "shared"])
        self.put(f"and.b32 %t, {self.any('r')}, 3")
        self.put("mul.wide.u32 %at, %t, 8")
        self.put(f"add.u64 %at, %at, %{space}")
        self.put(f"st.{space}.b64 [%at], {d}")
        kind = self.random.choice(["u8", "s8", "u16", "s16", "u32"])
        self.put(f"ld.{space}.{kind} {r}, [%at+{self.random.choice([0, 4])}]")

    def branches(self, depth: int) -> None:
        otherwise, end = self.label(), self.label()
        self.put(f"@{self.any('p')} bra {otherwise}")
        self.statements(self.random.randrange(1, 4), depth + 1)
        self.put(f"bra {end}")
        self.lines.append(f"{otherwise}:")
        self.statements(self.random.randrange(1, 3), depth + 1)
        self.lines.append(f"{end}:")

    def loop(self, depth: int) -> None:
        """Each lane goes round a number of times of its own, at most 7."""
        start, end = self.label(), self.label()
        self.put(f"and.b32 %c{depth}, {self.any('r')}, 7")
        self.lines.append(f"{start}:")
        self.put(f"setp.eq.u32 %stop, %c{depth}, 0")
        self.put(f"@%stop bra {end}")
        self.put(f"sub.u32 %c{depth}, %c{depth}, 1")
        self.statements(self.random.randrange(1, 4), depth + 1)
        self.put(f"bra {start}")
        self.lines.append(f"{end}:")

    def statements(self, count: int, depth: int) -> None:
        for _ in range(count):
            shape = self.random.randrange(10)
            if depth < 3 and shape == 0:
                self.loop(depth)
            elif depth < 3 and shape < 3:
                self.branches(depth)
            else:
                self.plain(self.random.randrange(1, 5))

    def together(self) -> None:
        """What lanes do with each other, where all of them are."""
        r, a, b, p = self.any("r"), self.any("r"), self.any("r"), self.any("p")
        way = self.random.choice(["up", "down", "bfly", "idx"])
        bounds = {"up": "0"}.get(way, "31")
        if self.random.random() < 0.3:
            bounds = {"up": "0x1800"}.get(way, "0x1807")
        vote = self.random.choice(["all", "any", "uni"])
        fold, kind = self.random.choice(["add", "min", "max"]), self.random.choice(["u32", "s32"])
        logic = self.random.choice(["and", "or", "xor"])
        for line in self.random.choice([
            [f"shfl.sync.{way}.b32 {r}|{p}, {a}, {b}, {bounds}, -1"],
            [f"vote.sync.{vote}.pred {p}, {self.any('p')}, -1"],
            [f"vote.sync.ballot.b32 {r}, {self.any('p')}, -1"],
            [f"redux.sync.{fold}.{kind} {r}, {a}, -1"],
            [f"redux.sync.{logic}.b32 {r}, {a}, -1"],
            self._exchange(r, a, b),
        ]):  # fmt: skip
            self.put(line)

    def _exchange(self, r: str, a: str, b: str) -> List[str]:
        """Through shared memory: all add to some words, and read one after a barrier."""
        kind = self.random.choice(
            ["add.u32", "min.s32", "max.u32", "and.b32", "or.b32", "xor.b32"]
        )
        return [
            "bar.sync 0", f"and.b32 %t, {b}, {SHARED_WORDS - 1}", "shl.b32 %t, %t, 2",
            "mov.u32 %word, words", "add.u32 %t, %word, %t", f"red.shared.{kind} [%t], {a}",
            "bar.sync 0", f"ld.shared.u32 {r}, [%t]",
        ]  # fmt: skip


def kernel(seed: int, threads: int, size: int = 6) -> str:
    """PTX of a kernel `random(in, out)`. Of each thread `in` has ROW bytes that fill its
    registers, and `out` gets what they are at the end.
    """
    writer = Writer(seed)
    declared = [f".reg .{kind} %{name}<{count}>;" for name, (kind, count, _) in CLASSES.items()]
    for _ in range(size):
        writer.statements(writer.random.randrange(1, 4), 0)
        writer.together()
    return "\n".join([
        ".version 8.5", ".target sm_80", ".address_size 64",
        ".visible .entry random(.param .u64 in, .param .u64 out) {", *declared,
        ".reg .b32 %t, %word, %c<3>, %id, %n; .reg .pred %nan, %other, %stop;",
        ".reg .b64 %at, %local, %shared, %from, %to, %row;",
        f".shared .align 8 .b8 words[{4 * SHARED_WORDS}];",
        f".shared .align 8 .b8 own[{32 * threads}]; .local .align 8 .b8 mine[32];",
        "\tmov.u32 %id, %tid.x; mul.wide.u32 %shared, %id, 32; mov.u64 %at, own;",
        "\tadd.u64 %shared, %shared, %at; mov.u64 %local, mine;",
        "\tmov.u32 %n, %ntid.x; mov.u32 %t, %ctaid.x; mad.lo.u32 %id, %t, %n, %id;",
        f"\tmul.wide.u32 %row, %id, {ROW};",
        "\tld.param.u64 %from, [in]; add.u64 %from, %from, %row;",
        "\tld.param.u64 %to, [out]; add.u64 %to, %to, %row;",
        *_cleared(), *_moved("ld"), *writer.lines, *_moved("st"), "\tret;", "}", "",
    ])  # fmt: skip


def _cleared() -> List[str]:
    """What registers and memory hold before anybody wrote is not defined."""
    spaces, places = ("local", "shared"), range(0, 32, 8)
    return [
        *(f"\tst.{space}.b64 [%{space}+{at}], 0;" for space in spaces for at in places),
        "\tmov.u32 %t, %tid.x; setp.ge.u32 %stop, %t, 32; shl.b32 %t, %t, 2;",
        "\tmov.u32 %word, words; add.u32 %t, %t, %word;",
        "\t@!%stop st.shared.u32 [%t], 0; mov.u32 %t, 0; setp.ne.u32 %other, %t, 0;",
        "\tsetp.ne.u32 %nan, %t, 0; bar.sync 0;",
    ]


def _moved(way: str) -> List[str]:
    """All registers from the thread's row of `in`, or to that of `out`."""
    lines, at = [], 0
    for name, (_, count, kind) in reversed(CLASSES.items()):
        for i in range(count):
            register = f"%{name}{i}"
            if name == "p" and way == "ld":
                lines.append(f"\tld.global.u32 %t, [%from+{at}]; setp.ne.u32 {register}, %t, 0;")
            elif name == "p":
                lines.append(f"\tselp.u32 %t, 1, 0, {register}; st.global.u32 [%to+{at}], %t;")
            elif way == "ld":
                lines.append(f"\tld.global.{kind} {register}, [%from+{at}];")
            else:
                lines.append(f"\tst.global.{kind} [%to+{at}], {register};")
            at += 8
    return lines


ROW = 8 * sum(count for _, count, _ in CLASSES.values())
