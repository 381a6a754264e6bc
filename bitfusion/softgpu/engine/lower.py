# SPDX-License-Identifier: Apache-2.0
"""Instructions to records: those that are one handler; the other modules do more."""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

from ..ptx import boot
from ..ptx.ir import TYPE_BYTES, Imm, Instruction, Operand, Pair, Reg, Sink, Special, Vector
from .encoding import FORMS, Kinds
from .function import NOWHERE, Broken, FunctionEncoder, Unsupported
from .operands import broken
from .syntax import KNOWN_VERSION, match, refusal, sorted_words, vocabulary

Rule = Callable[[FunctionEncoder, Instruction], None]
RULES: Dict[str, Rule] = {}
# Their rules take the modifiers apart by a table of their own (ops_matrix.py).
WITHOUT_ROWS = ("mma", "wmma")
WORDS = set(WITHOUT_ROWS)  # of forms without rows: the modules of their rules add theirs
NO_FORM = "no form of the instruction that is known"
_Key = Tuple[str, Tuple[str, ...]]
_MATCHED: Dict[_Key, Optional[Tuple[str, ...]]] = boot.MATCHED
_ANY_ORDER: Dict[_Key, Tuple[str, Kinds]] = {}

_WIDTH = {"16": 2, "32": 4, "64": 8, "128": 16}


def rule(*opcodes: str) -> Callable[[Rule], Rule]:
    """The decorated function lowers these opcodes."""

    def add(function: Rule) -> Rule:
        for opcode in opcodes:
            RULES[opcode] = function
        return function

    return add


def lower(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Emit the records of one instruction.

    One that is not carried out faults when it runs; one that is broken is refused at once.
    """
    mark = (len(encoder.records), len(encoder.branches), len(encoder.tables))
    encoder.start(instruction)
    try:
        words = _row_words(instruction)
        if words is None:
            plain(encoder, instruction)
        elif words == instruction.modifiers:
            RULES[instruction.opcode](encoder, instruction)
        else:
            RULES[instruction.opcode](encoder, instruction._replace(modifiers=words))
    except Broken as error:
        _absent(encoder, instruction, mark, "", str(error))
    except Unsupported as error:
        why = "" if _unheard(encoder, instruction) else str(error)
        _absent(encoder, instruction, mark, why, str(error))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        _absent(encoder, instruction, mark, "", _OPERANDS)


_OPERANDS = "the operands are not those of a form that is known"


def _absent(
    encoder: FunctionEncoder,
    instruction: Instruction,
    mark: Tuple[int, int, int],
    why: str,
    wrong: str,
) -> None:
    """A record that faults and says why, if there is a reason beyond what is wrong with it."""
    why = refusal(*instruction[:2]) or why
    if not why:
        raise broken(instruction, wrong)
    encoder.emit_unknown(instruction, mark, why)


def _unheard(encoder: FunctionEncoder, instruction: Instruction) -> bool:
    """Whether it has a word of no instruction that the text may have.

    Single architectures and later versions of PTX have words of their own.
    """
    module = encoder.module.module
    if module.target.endswith(("a", "f")) or module.version > KNOWN_VERSION:
        return False
    return not vocabulary(FORMS, WORDS).issuperset((instruction.opcode, *instruction.modifiers))


def _row_words(instruction: Instruction) -> Optional[Tuple[str, ...]]:
    """The modifiers in the order of a row that the opcode's rule carries out; None: no such."""
    key = (instruction.opcode, instruction.modifiers)
    if key in _MATCHED:
        return _MATCHED[key]
    found = None
    if key[0] in RULES:
        found = key[1] if key[0] in WITHOUT_ROWS else match(*key)
    _MATCHED[key] = found
    return found


def _form(opcode: str, words: Tuple[str, ...]) -> Tuple[str, Kinds]:
    """The table's form of a mnemonic, whose words may stand in another order."""
    form = FORMS.get(".".join((opcode, *words)))
    if form is not None:
        return form
    if not _ANY_ORDER:
        for mnemonic, known in FORMS.items():
            name, *parts = mnemonic.split(".")
            _ANY_ORDER[name, sorted_words(parts)] = known
    form = _ANY_ORDER.get((opcode, sorted_words(words)))
    if form is None:
        raise Unsupported(NO_FORM)
    return form


def plain(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """An instruction whose operands are the handler's, one by one."""
    handler, kinds = _form(instruction.opcode, instruction.modifiers)
    operands = instruction.operands
    made = [0, 0, 0, 0]
    used = 0
    for place, kind in enumerate(kinds):
        if not kind:
            continue
        if kind == "same":
            made[place] = made[1]
            continue
        made[place] = operand(encoder, operands[used], kind)
        used += 1
    if used != len(operands):
        raise Broken("another number of operands")
    encoder.emit(handler, *made)


def operand(encoder: FunctionEncoder, item: Operand, kind: str) -> int:
    if kind == "to_pred":
        return encoder.predicate_slot(item)
    if kind == "from_pred":
        return encoder.truth(item)
    if kind.startswith("to"):
        return encoder.destination(item, _WIDTH[kind[2:]])
    return encoder.source(item, _WIDTH[kind[4:]])


def two_destinations(encoder: FunctionEncoder, item: Operand) -> Tuple[Operand, Operand]:
    """``p|q`` or ``p``."""
    return (item.first, item.second) if isinstance(item, Pair) else (item, Sink())


def predicate_or_nowhere(encoder: FunctionEncoder, item: Operand) -> int:
    return NOWHERE if isinstance(item, Sink) else encoder.predicate_slot(item)


# ------------------------------------------------------------------ mov


@rule("mov")
def _mov(encoder: FunctionEncoder, instruction: Instruction) -> None:
    kind = instruction.modifiers[-1]
    to, source = instruction.operands
    if instruction.modifiers[0] in ("v2", "v4"):
        _mov_vector(encoder, int(instruction.modifiers[0][1]), TYPE_BYTES[kind], to, source)
    elif kind == "pred":
        encoder.emit("mov_pred", encoder.predicate_slot(to), encoder.truth(source))
    elif isinstance(source, Vector):
        pack(encoder, to, source.items)
    elif isinstance(to, Vector):
        unpack(encoder, to.items, source)
    else:
        width = encoder.width(to)
        if (
            isinstance(source, (Special, Imm))
            or (isinstance(source, Reg) and width == encoder.width(source))
            or not isinstance(source, Reg)
        ):
            encoder.emit(
                f"mov_{8 * width}", encoder.destination(to, width), encoder.source(source, width)
            )
        else:
            raise Broken("mov between widths")


def _mov_vector(
    encoder: FunctionEncoder, count: int, width: int, to: Operand, source: Operand
) -> None:
    """``{a, b}, {c, d}``, where a source may be a destination too; ``{a, b, c, d}, %tid``."""
    if isinstance(source, Special):
        parts: Tuple[Operand, ...] = tuple(Special(f"{source.name}.{axis}") for axis in "xyzw")
    else:
        parts = source.items if isinstance(source, Vector) else ()
    if not isinstance(to, Vector) or len(to.items) != count or len(parts) != count:
        raise Broken("vectors of other sizes")
    held = [encoder.temporary(width) for _ in parts]
    for slot, part in zip(held, parts):
        encoder.emit(f"mov_{8 * width}", slot, encoder.source(part, width))
    for slot, item in zip(held, to.items):
        encoder.emit(f"mov_{8 * width}", encoder.destination(item, width), slot)


def pack(encoder: FunctionEncoder, to: Operand, items: Tuple[Operand, ...]) -> None:
    width = encoder.width(to)
    part = width // len(items)
    if part == 1:
        _pack_bytes(encoder, to, items)
        return
    parts = [encoder.source(item, part) for item in items]
    while len(parts) > 2:
        made = []
        for low, high in zip(parts[::2], parts[1::2]):
            joined = encoder.temporary(2 * part)
            encoder.emit(f"pack_{8 * part}_{8 * part}", joined, low, high)
            made.append(joined)
        parts, part = made, 2 * part
    encoder.emit(f"pack_{8 * part}_{8 * part}", encoder.destination(to, width), *parts)


def _pack_bytes(encoder: FunctionEncoder, to: Operand, items: Tuple[Operand, ...]) -> None:
    """Bytes lie in 16-bit registers."""
    value = encoder.constant(0, 4)
    for k, item in enumerate(items):
        byte = encoder.resize(encoder.source(item, 2), 2, 4, "u8")
        made = encoder.temporary(4)
        encoder.emit(
            "bfi_32", made, byte, value, encoder.constant(8 * k, 4), x=encoder.constant(8, 4)
        )
        value = made
    width = encoder.width(to)
    encoder.emit(
        "mov_32" if width == 4 else "ext_32_u16_16", encoder.destination(to, width), value
    )


def unpack(encoder: FunctionEncoder, items: Tuple[Operand, ...], source: Operand) -> None:
    width = encoder.width(source)
    if not width:
        part = max(encoder.width(item) for item in items)
        width = part * len(items)
    part = width // len(items)
    value = encoder.source(source, width)
    for k, item in enumerate(items):
        if isinstance(item, Sink):
            continue
        if part == 1:
            shifted = encoder.temporary(4)
            wide = encoder.resize(value, width, 4)
            encoder.emit("shr_u32", shifted, wide, encoder.constant(8 * k, 4))
            encoder.emit("ext_32_u8_16", encoder.destination(item, 2), shifted)
        elif width == 8 and part == 2:
            encoder.emit(f"part_64_16_{k}", encoder.destination(item, 2), value)
        else:
            encoder.emit(f"part_{8 * width}_{k}", encoder.destination(item, part), value)


@rule("lop3")
def _lop3(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """With ``.or`` or ``.and``, whether the result is not zero is joined with a predicate."""
    verbs, (to, a, b, c, table, *rest) = instruction.modifiers[:-1], instruction.operands
    if instruction.modifiers[-1] != "b32" or not isinstance(table, Imm) or len(verbs) > 1:
        raise Unsupported("an unknown form of lop3")
    to, predicate = two_destinations(encoder, to)
    result = encoder.destination(to, 4)
    sources = [encoder.source(item, 4) for item in (a, b, c)]
    encoder.emit_all("lop3", [result, *sources], x=table.value)
    if not verbs:
        return
    x = {"and": 1, "or": 2}[verbs[0]] | encoder.truth(rest[0]) << 2
    zero = encoder.constant(0, 4)
    encoder.emit("setp_ne_u32", encoder.predicate_slot(predicate), result, zero, NOWHERE, x=x)


@rule("bfi")
def _bfi(encoder: FunctionEncoder, instruction: Instruction) -> None:
    bits = instruction.modifiers[-1][1:]
    width = int(bits) // 8
    to, a, b, position, length = instruction.operands
    encoder.emit(
        f"bfi_{bits}",
        encoder.destination(to, width),
        encoder.source(a, width),
        encoder.source(b, width),
        encoder.source(position, 4),
        x=encoder.source(length, 4),
    )


@rule("selp")
def _selp(encoder: FunctionEncoder, instruction: Instruction) -> None:
    to, a, b, p = instruction.operands
    width = encoder.width(to)
    encoder.emit(
        f"selp_{8 * width}",
        encoder.destination(to, width),
        encoder.source(a, width),
        encoder.source(b, width),
        encoder.truth(p),
    )


@rule("prefetch", "prefetchu", "applypriority", "discard", "pmevent")
def _nothing(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Changes nothing that can be seen here."""
    encoder.emit("nop")


@rule("griddepcontrol")
def _griddepcontrol(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """Kernels of a stream follow each other; there is nothing to wait for."""
    encoder.emit("nop")


@rule("setmaxnreg")
def _setmaxnreg(encoder: FunctionEncoder, instruction: Instruction) -> None:
    """For `a` targets; without effect, since registers are not shared out."""
    encoder.emit("nop")


@rule("createpolicy")
def _createpolicy(encoder: FunctionEncoder, instruction: Instruction) -> None:
    encoder.emit("mov_64", encoder.destination(instruction.operands[0], 8), encoder.constant(0, 8))
