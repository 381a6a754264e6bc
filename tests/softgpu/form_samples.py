# SPDX-License-Identifier: Apache-2.0
"""Instructions with operands for every form of the coverage table's rows.

A kernel of them has registers ``h``, ``r``, ``d``, ``q`` of 16 to 128 bits and ``p``, and what
they need: ``d20`` is the address of 4 KiB, ``r20`` of as much shared memory, ``r21`` of an
mbarrier in it that waits for one arrival.
"""

from __future__ import annotations

import itertools
import re
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from bitfusion.softgpu.engine.syntax import Row, is_type

Words = Tuple[str, ...]
_LETTERS = {1: "p", 8: "h", 16: "h", 32: "r", 64: "d", 128: "q"}
_FULL = 600  # more combinations than these are thinned out to all pairs of words
_AXES = {"1d": 1, "2d": 2, "3d": 3, "a1d": 1, "a2d": 2, "cube": 3, "acube": 3}


def samples(row: Row) -> List[Words]:
    """Modifiers: all combinations of the slots' words, or at least every two that go together."""
    slots = [slot.words + (("",) if slot.optional else ()) for slot in row.slots]
    total = 1
    for words in slots:
        total *= len(words)
    found = itertools.product(*slots) if total <= _FULL else pairs(slots)
    return [tuple(word for word in words if word) for words in found]


def pairs(slots: Sequence[Words]) -> Iterator[Words]:
    """Few combinations that have every two words of two slots."""
    wanted = {
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(slots)), 2)
        for a in slots[i]
        for b in slots[j]
    }
    while wanted:
        i, a, j, b = min(wanted)
        chosen = {i: a, j: b}
        for k in range(len(slots)):
            if k not in chosen:
                chosen[k] = max(slots[k], key=lambda word: _gain(wanted, chosen, k, word))
        made = tuple(chosen[k] for k in range(len(slots)))
        wanted -= {
            (i, made[i], j, made[j]) for i, j in itertools.combinations(range(len(slots)), 2)
        }
        yield made


def _gain(
    wanted: set[Tuple[int, str, int, str]], chosen: Dict[int, str], k: int, word: str
) -> int:
    return sum(
        ((i, a, k, word) if i < k else (k, word, i, a)) in wanted for i, a in chosen.items()
    )


def bits(kind: str) -> int:
    if kind == "pred":
        return 1
    if kind in ("tf32", "ue8m0x2"):
        return 32 if kind == "tf32" else 16
    small = re.match(r"e\dm\d(?:x(\d))?$", kind)
    if small:
        return 8 * int(small[1] or 1)
    number, _, twice = kind.lstrip("bfus").partition("x")
    return int(number) * (2 if twice else 1)


def reg(kind: str, n: int) -> str:
    """Register ``n`` of those that hold a type; ptxas wants fp4 pairs in registers of a byte."""
    return f"b{n}" if kind == "e2m1x2" else f"{_LETTERS[bits(kind)]}{n}"


def vector(kind: str, words: Words, first: int) -> str:
    count = next((int(word[1]) for word in words if word in ("v2", "v4", "v8")), 0)
    if not count:
        return reg(kind, first)
    return "{" + ", ".join(reg(kind, first + n) for n in range(count)) + "}"


def place(words: Words) -> str:
    """An address in the space that the words name."""
    if set(words) & {"shared", "shared::cta", "shared::cluster"}:
        return "[r20]"
    if "local" in words:
        return "[d21]"
    if set(words) & {"param", "param::entry"}:
        return "[given]"
    return "[passed]" if "param::func" in words else "[d20]"


def hint(words: Words) -> str:
    return ", d22" if "L2::cache_hint" in words else ""


def instructions(opcode: str, words: Words, note: str) -> List[str]:
    """The instruction with operands, in all the ways that differ by more than registers."""
    found = operands(opcode, words, note)
    name = ".".join((opcode, *words))
    return [f"{name} {text};" if text else f"{name};" for text in found]


def operands(opcode: str, words: Words, note: str) -> List[str]:
    kinds = [word for word in words if is_type(word)]
    maker = _MAKERS.get(opcode)
    if maker is not None:
        return maker(words, kinds)
    if opcode[0] == "v":
        return _video(opcode, words)
    if opcode == "cvt":
        return _cvt(words, kinds, note)
    return _plain(opcode, words, kinds)


def _video(opcode: str, words: Words) -> List[str]:
    if opcode[-1] in "24":
        masks = (".b210", ".b0123", ".b4567") if opcode[-1] == "4" else (".h1", ".h01", ".h23")
        return ["r0, r1, r2, r3", "r0{}, r1{}, r2{}, r3".format(*masks)]
    third = ["r0, r1.b3, r2.h1, r3"]
    if opcode == "vmad":
        return third if "po" in words else [*third, "r0, -r1, r2, r3"]
    second = set(words) & {"add", "min", "max"}
    return third if second else [*third, "r0, r1, r2.b1", "r0.h1, r1, r2, r3"]


def _cvt(words: Words, kinds: List[str], note: str) -> List[str]:
    if "pack" in words:
        return ["r0, r1, r2" + (", r3" if len(kinds) == 3 else "")]
    count = 2 if note.startswith("of two") else 1
    return [", ".join([reg(kinds[0], 0), *(reg(kinds[1], 1 + n) for n in range(count))])]


def _setp(words: Words, kinds: List[str]) -> List[str]:
    kind = kinds[-1]
    sources = f"{reg(kind, 1)}, {reg(kind, 2)}"
    to = (
        ["p0"]
        if kind in ("f16", "bf16")
        else ["p0|p1"]
        if kind.endswith("x2")
        else ["p0|p1", "p0"]
    )
    if set(words) & {"and", "or", "xor"}:
        return [f"{to[0]}, {sources}, p2", f"{to[-1]}, {sources}, !p2"]
    return [f"{one}, {sources}" for one in to]


def _set(words: Words, kinds: List[str]) -> List[str]:
    text = f"{reg(kinds[0], 0)}, {reg(kinds[1], 1)}, {reg(kinds[1], 2)}"
    return [text + (", p2" if set(words) & {"and", "or", "xor"} else "")]


def _mov(words: Words, kinds: List[str]) -> List[str]:
    kind = kinds[0]
    if words[0] in ("v2", "v4"):
        return [f"{vector(kind, words, 0)}, {vector(kind, words, 1)}"]
    found = [f"{reg(kind, 0)}, {reg(kind, 1)}"]
    halves = {"b32": "h", "b64": "r", "b128": "d"}.get(kind)
    if halves:
        found += [f"{reg(kind, 0)}, {{{halves}2, {halves}3}}", f"{{{halves}2, _}}, {reg(kind, 0)}"]
    return found


def _load(words: Words, kinds: List[str]) -> List[str]:
    return [f"{vector(kinds[0], words, 0)}, {place(words)}{hint(words)}"]


def _store(words: Words, kinds: List[str]) -> List[str]:
    if "bulk" in words:
        return ["[r20], 64, 0"] if set(words) & {"shared", "shared::cta"} else ["[d23], 64, 0"]
    value = vector(kinds[0], words, 0)
    if "mbarrier::complete_tx::bytes" in words:
        return [f"{ends(words)[0]}, {value}, {ends(words)[1]}"]
    return [f"{place(words)}, {value}{hint(words)}"]


def ends(words: Words) -> Tuple[str, str]:
    """Shared memory and the mbarrier in it, in the space that the words name or generic."""
    return ("[r20]", "[r21]") if "shared::cluster" in words else ("[d23]", "[d24]")


def _reduce(words: Words, kinds: List[str]) -> List[str]:
    value = vector(kinds[0], words, 0)
    told = "mbarrier::complete_tx::bytes" in words
    if told:
        return [f"{ends(words)[0]}, {value}, {ends(words)[1]}"]
    return [f"{place(words)}, {value}{hint(words)}"]


def _atom(words: Words, kinds: List[str]) -> List[str]:
    (text,) = _reduce(words, kinds)
    if "cas" in words:
        where, value = text.split(", ")[:2]
        return [f"{reg(kinds[0], 2)}, {where}, {value}, {reg(kinds[0], 1)}{hint(words)}"]
    return [f"{vector(kinds[0], words, 0)}, {text}"]


def _barrier(words: Words, kinds: List[str]) -> List[str]:
    if "warp" in words:
        return ["-1"]
    if "cluster" in words:
        return [""]
    if "arrive" in words:
        return ["1, 64"]
    if "red" in words:
        to = "r0" if "popc" in words else "p0"
        return [f"{to}, 2, p1", f"{to}, 2, 32, !p1"]
    return ["0", "3, 32"]


def _mbarrier(words: Words, kinds: List[str]) -> List[str]:
    where = "[r21]" if set(words) & {"shared", "shared::cta", "shared::cluster"} else "[d24]"
    away = "shared::cluster" in words
    if "pending_count" in words:
        return ["r0, d25"]
    if "inval" in words:
        return [where]
    if "init" in words or "expect_tx" in words[:1] or "complete_tx" in words:
        return [f"{where}, {1 if 'init' in words else 0}"]
    if words[0] in ("arrive", "arrive_drop"):
        given = set(words) & {"expect_tx", "noComplete"}
        found = [f"_, {where}, 1" if away else f"d0, {where}, 1"]
        found = [text.replace(", 1", ", 0") for text in found] if "expect_tx" in words else found
        return found if given else [*found, f"_, {where}" if away else f"d0, {where}"]
    state = "1" if "parity" in words else "d25"
    return [f"p0, {where}, {state}"] + (
        [f"p0, {where}, {state}, 9"] if "try_wait" in words else []
    )


def _cp(words: Words, kinds: List[str]) -> List[str]:
    if "wait_group" in words:
        return ["0"]
    if "commit_group" in words or "wait_all" in words:
        return [""]
    if "arrive" in words:
        return ["[r21]" if set(words) & {"shared", "shared::cta"} else "[d24]"]
    if "bulk" not in words:
        text = "[r20], [d20], 16"
        found = [text + hint(words), f"{text}, 8{hint(words)}", f"{text}, p0{hint(words)}"]
        return found + ([f"[r20], [d20], 4{hint(words)}"] if "ca" in words else [])
    if "tensor" in words:
        return _tensor(words)
    if "prefetch" in words:
        return ["[d20], 64" + hint(words)]
    ends = (
        "[d20], [r20], 64" if words[-1] != "global" and _to_global(words) else "[r20], [d20], 64"
    )
    if "shared::cluster" in words and "shared::cta" in words:
        ends = "[r20], [r22], 64"
    text = ends + (", [r21]" if "mbarrier::complete_tx::bytes" in words else "")
    text += ", h15" if "multicast::cluster" in words else ""
    return [text + hint(words) + (", h15" if "cp_mask" in words else "")]


def _to_global(words: Words) -> bool:
    spaces = [word for word in words if word in ("global", "shared::cta", "shared::cluster")]
    return spaces[0] == "global"


def _tensor(words: Words) -> List[str]:
    rank = next(int(word[0]) for word in words if word in ("1d", "2d", "3d", "4d", "5d"))
    many = bool(set(words) & {"tile::gather4", "tile::scatter4"})
    column = "im2col" in words or "im2col_no_offs" in words
    at = ", ".join(f"r{n}" for n in range(5 if many else rank))
    where = f"[m{'c' if column else 'g' if many else 't'}{rank}, {{{at}}}]"
    offsets = (
        ", {" + ", ".join(f"h{n}" for n in range(rank - 2)) + "}" if "im2col" in words else ""
    )
    if "prefetch" in words:
        return [where + offsets + hint(words)]
    if _to_global(words):
        return [f"{where}, [r20]{hint(words)}"]
    mask = ", h15" if "multicast::cluster" in words else ""
    return [f"[r20], {where}, [r21]{offsets}{mask}{hint(words)}"]


def _prefetch(words: Words, kinds: List[str]) -> List[str]:
    if "tensormap" in words:
        return ["[given]" if "param" in words else "[d20]"]
    return [place(words)]


def _policy(words: Words, kinds: List[str]) -> List[str]:
    if "range" in words:
        return ["d0, [d20], 64, 128"]
    return ["d0, d1"] if "cvt" in words else ["d0", "d0, 0.5"]


def _exchange(words: Words, kinds: List[str]) -> List[str]:
    mask = ", -1" if "sync" in words else ""
    if "ballot" in words:
        return [f"r0, !p0{mask}"]
    if "pred" in kinds:
        return [f"p0, p1{mask}"]
    return [f"r0|p0, r1, 1, 31{mask}", f"r0, r1, 1, 31{mask}"]


def _match(words: Words, kinds: List[str]) -> List[str]:
    found = [f"r0, {reg(kinds[0], 1)}, -1"]
    return found + ([f"r0|p0, {reg(kinds[0], 1)}, -1"] if "all" in words else [])


def _launch_control(words: Words, kinds: List[str]) -> List[str]:
    if "try_cancel" in words:
        return ["[r20], [r21]" if "shared::cta" in words else "[d23], [d24]"]
    if "pred" in kinds:
        return ["p0, q0"]
    return ["{r0, r1, r2, _}, q0" if "v4" in words else "r0, q0"]


def _matrices(words: Words, kinds: List[str]) -> List[str]:
    count = int(next(word[1] for word in words if word in ("x1", "x2", "x4")))
    return ["{" + ", ".join(f"r{n}" for n in range(count)) + "}", _own(words)]


def _own(words: Words) -> str:
    return "[r20]" if set(words) & {"shared", "shared::cta"} else "[d23]"


def _cluster_address(words: Words, kinds: List[str]) -> str:
    """Of the width of the type, in the space that is named."""
    if kinds[0] == "u32":
        return "r20"
    return "d26" if "shared::cluster" in words else "d24"


def _where(words: Words) -> Tuple[str, str]:
    name = next(word for word in words if word in _AXES)
    count = _AXES[name] + (name[0] == "a")
    at = [f"r{10 + n}" for n in range(count)]
    at += at[-1:] if count == 3 else []
    return name, f"[t{name}, {{{', '.join(at)}}}]"


def _texture(words: Words, kinds: List[str]) -> List[str]:
    name, where = _where(words)
    half = [f"{'h' if kinds[0] == 'f16' else 'r'}{n}" for n in range(2 if "v2" in words else 4)]
    to, axes = "{" + ", ".join(half) + "}", _AXES[name]
    more = ""
    if "level" in words:
        more = ", r5"
    elif "grad" in words:
        one = "{" + ", ".join(["r5"] * (4 if axes == 3 else axes)) + "}"
        more = f", {one}, {one}"
    found = [f"{to}, {where}{more}", f"{to}|p0, {where}{more}"]
    if "cube" not in name:
        found.append(f"{to}, {where}{more}, {{{', '.join(['1'] * (4 if axes == 3 else axes))}}}")
    return found


def _surface(words: Words, kinds: List[str]) -> List[str]:
    """The value and the place."""
    where = _where(words)[1].replace("[t", "[s")
    if "p" in words and set(words) & {"add", "min", "max", "and", "or"}:  # of one word or two
        where = where.replace("[s", "[v" if kinds[0] == "b64" else "[u")
    return [vector(kinds[0], words, 0), where]


def _ask(words: Words, kinds: List[str]) -> List[str]:
    return ["r0, [t2d], 0" if "level" in words else "r0, [t2d]"]


def _plain(opcode: str, words: Words, kinds: List[str]) -> List[str]:
    """Those whose operands follow from little more than the opcode."""
    fixed = _FIXED.get(opcode)
    if fixed is not None:  # ``%0``: a register of the type
        return [re.sub(r"%(\d)", lambda found: reg(kinds[-1], int(found[1])), fixed)]
    if opcode == "multimem":
        value = vector(kinds[-1], words, 0)
        return [f"{value}, [d20]" if words[0] == "ld_reduce" else f"[d20], {value}"]
    if opcode == "slct":
        return [", ".join([*(reg(kinds[0], n) for n in range(3)), "r3"])]
    if opcode == "lop3":
        return ["r0|p0, r1, r2, r3, 0x1e, p1" if len(words) > 1 else "r0, r1, r2, r3, 0x1e"]
    if opcode == "mapa":
        return [f"{reg(kinds[0], 0)}, {_cluster_address(words, kinds)}, 0"]
    if opcode == "getctarank":
        return [f"r0, {_cluster_address(words, kinds)}"]
    if opcode == "fence":
        return ["[d23], 128" if words[1:3] == ("tensormap::generic", "acquire") else ""]
    if opcode == "ldmatrix":
        return [", ".join(_matrices(words, kinds))]
    if opcode == "stmatrix":
        return [", ".join(reversed(_matrices(words, kinds)))]
    raise AssertionError(f"no operands for {opcode}")


_FIXED = {
    "cvta": "d0, d20", "suq": "r0, [s2d]", "istypep": "p0, t2d", "selp": "%0, %1, %2, p0",
    "testp": "p0, %1", "bfi": "%0, %1, %2, 4, 8", "prefetchu": "[d20]", "isspacep": "p0, d20",
    "applypriority": "[d20], 128", "discard": "[d20], 128", "redux": "r0, r1, -1",
    "elect": "r0|p0, -1", "activemask": "r0", "alloca": "%0, %2, 16", "stacksave": "%0",
    "stackrestore": "%0", "membar": "", "griddepcontrol": "", "pmevent": "1",
    "setmaxnreg": "32", "movmatrix": "r0, r1", "tensormap": "[d20], [r20], 128",
    "min": "r0, r1, r2, r3", "max": "r0, r1, r2, r3",
}  # fmt: skip
Maker = Callable[[Words, List[str]], List[str]]
_MAKERS: Dict[str, Maker] = {
    "setp": _setp, "set": _set, "mov": _mov, "ld": _load, "ldu": _load, "st": _store,
    "red": _reduce, "atom": _atom, "bar": _barrier, "barrier": _barrier,
    "mbarrier": _mbarrier, "cp": _cp, "prefetch": _prefetch, "createpolicy": _policy,
    "shfl": _exchange, "vote": _exchange, "match": _match,
    "clusterlaunchcontrol": _launch_control, "tex": _texture, "tld4": _texture,
    "suld": lambda words, kinds: [", ".join(_surface(words, kinds))],
    "sust": lambda words, kinds: [", ".join(reversed(_surface(words, kinds)))],
    "sured": lambda words, kinds: [", ".join(reversed(_surface(words, kinds)))], "txq": _ask,
}  # fmt: skip
