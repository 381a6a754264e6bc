# SPDX-License-Identifier: Apache-2.0
"""IR as text for people: what ``python3 -m bitfusion.softgpu.ptx`` prints."""

from __future__ import annotations

from typing import Iterator, List

from . import ir


def show_operand(operand: ir.Operand) -> str:
    if isinstance(operand, (ir.Reg, ir.Label)):
        return operand.name
    if isinstance(operand, ir.Special):
        return f"%{operand.name}"
    if isinstance(operand, ir.Imm):
        prefix = {"int": "", "f32": "0f", "f64": "0d"}[operand.kind]
        digits = {"int": "d", "f32": "08X", "f64": "016X"}[operand.kind]
        return f"{prefix}{operand.value:{digits}}"
    if isinstance(operand, ir.Sym):
        return operand.name + (f"{operand.offset:+d}" if operand.offset else "")
    if isinstance(operand, ir.Address):
        if operand.base is None:
            return f"[{operand.offset}]"
        offset = f"{operand.offset:+d}" if operand.offset else ""
        return f"[{show_operand(operand.base)}{offset}]"
    if isinstance(operand, ir.Vector):
        return "{" + ", ".join(map(show_operand, operand.items)) + "}"
    if isinstance(operand, ir.Group):
        return "(" + ", ".join(map(show_operand, operand.items)) + ")"
    if isinstance(operand, ir.Pair):
        return f"{show_operand(operand.first)}|{show_operand(operand.second)}"
    if isinstance(operand, ir.Negated):
        return f"!{operand.item.name}"
    if isinstance(operand, ir.Minus):
        return f"-{show_operand(operand.item)}"
    if isinstance(operand, ir.Component):
        return f"{show_operand(operand.item)}.{operand.component}"
    return "_"


def show_instruction(instruction: ir.Instruction) -> str:
    guard = ""
    if instruction.predicate:
        guard = f"@{'!' if instruction.predicate_negated else ''}{instruction.predicate.name} "
    opcode = ".".join((instruction.opcode, *instruction.modifiers))
    operands = ", ".join(map(show_operand, instruction.operands))
    return f"{guard}{opcode} {operands}".rstrip()


def show_variable(variable: ir.Variable) -> str:
    words = [variable.linkage, variable.space, *variable.attributes]
    head = " ".join(f".{word}" for word in words if word)
    tail = f" init {len(variable.init)}" if variable.init else ""
    for relocation in variable.relocations:
        tail += f" @{relocation.offset}={relocation.symbol}{relocation.addend:+d}"
    layout = f"size {variable.size} align {variable.align}"
    return f"{head} .{variable.type} {variable.name} {layout}{tail}"


def show_signature(function: ir.Function) -> str:
    kind = ".entry" if function.entry else ".func"
    linkage = f".{function.linkage} " if function.linkage else ""
    returns = ", ".join(f"{p.type}:{p.size}" for p in function.returns)
    params = ", ".join(f"{p.type}:{p.size}" for p in function.params)
    directives = "".join(
        f" .{name} {','.join(map(str, values))}".rstrip()
        for name, values in function.directives.items()
    )
    head = f"{linkage}{kind} " + (f"({returns}) " if returns else "")
    return f"{head}{function.name}({params}){directives}"


def show_body(function: ir.Function) -> Iterator[str]:
    for name, kind in function.registers.items():
        yield f"  .reg .{kind} {name}"
    for variable in function.variables:
        yield f"  {show_variable(variable)}"
    labels: List[List[str]] = [[] for _ in range(len(function.body or ()) + 1)]
    for name, index in function.labels.items():
        labels[index].append(name)
    for i, instruction in enumerate(function.body or ()):
        yield from (f" {name}:" for name in labels[i])
        yield f"  {instruction.line:5d}  {show_instruction(instruction)}"
    yield from (f" {name}:" for name in labels[-1])


def show_module(module: ir.Module, bodies: bool) -> Iterator[str]:
    """Give the lines that describe a module."""
    yield f".version {module.version[0]}.{module.version[1]} .target {module.target}"
    for variable in module.variables.values():
        yield show_variable(variable)
    for function in module.functions.values():
        size = "" if function.body is None else f"  [{len(function.body)} instructions]"
        yield show_signature(function) + size
        if bodies:
            yield from show_body(function)
    for alias, target in module.aliases.items():
        yield f".alias {alias} = {target}"
