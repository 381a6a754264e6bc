# SPDX-License-Identifier: Apache-2.0
"""Function bodies: one regular expression reads a whole instruction."""

from __future__ import annotations

from typing import List, Optional, Tuple

from . import ir
from .declaration import Declarations
from .ir import Instruction, PtxError
from .lexer import PUNCTUATION, Tokens, split_list
from .operand import Names, Scope
from .regex import ASCII, regex

# Groups: 1 negation and 2 name of the guard, 3 opcode, 4 operands; 5 label; 6 brace or lone
# semicolon; 7 directive.
_STATEMENT = regex(
    r"\s*(?:(?:@\s*(?:(!)\s*)?([\w$%.]+)\s+)?([a-z][\w.]*(?:::[\w.]+)*)(?![\w.]|\s*:)\s*((?:[^\s;][^;]*)?);"
    r"|([A-Za-z_$%][\w$]*)\s*:(?!:)"
    r"|([{};])"
    r"|(\.[a-z_]\w*))",
    ASCII,
)
_REGISTERS = regex(r"\s+\.(\w+)\s+([%A-Za-z_$]+)(?:<(\d{1,9})>)?\s*;", ASCII)
_END_OF_LINE = regex(r"[^\n]*")
_SPACE = regex(r"\s*", ASCII)
MAX_SCOPES = 256
_TABLES = ("branchtargets", "calltargets", "callprototype")
_LABELLED = ("bra", "brx", "call")


class Body:
    """Parses one function body; ``parse`` returns where it ends."""

    def __init__(self, source: str, function: ir.Function, declare: Declarations) -> None:
        self.source = source
        self.function = function
        self.declare = declare
        self.names = Names(function, declare.known, declare.seen, lambda: self.line)
        self.instructions: List[Instruction] = []
        self.opcodes = declare.opcodes
        # By scope depth: the instructions and tables whose labels are not resolved yet.
        self.pending: List[List[int]] = [[]]
        self.tables: List[List[str]] = [[]]
        self.table_name: Optional[str] = None
        self.line = 0
        self.counted = 0
        for variable in function.returns + function.params:
            self._parameter(variable)

    def _parameter(self, variable: ir.Variable) -> None:
        if variable.space == "reg":
            self.names.declare_register(variable.name, variable.type, None)
            self.function.registers[variable.name] = variable.type
        else:
            variable.name = self.names.declare_symbol(variable.name)

    def parse(self, position: int, line: int) -> int:
        """Parse from behind the opening brace to behind the closing one."""
        self.counted, self.line = position, line
        match = _STATEMENT.match
        source, append, opcodes = self.source, self.instructions.append, self.opcodes
        names, count = self.names, self.source.count
        while True:
            found = match(source, position)
            if found is None:
                self._locate(position)
                raise PtxError(self._why(position))
            negation, guard, opcode, text, label, brace, directive = found.groups()
            start = found.start(found.lastindex or 0)
            position = found.end()
            if opcode:
                start = found.start(3)
                self.line += count("\n", self.counted, start)
                self.counted = start
                name, modifiers = opcodes.get(opcode) or self._opcode(opcode)
                predicate = names.register(guard) if guard else None
                cache = names.scope.cache
                if name in _LABELLED:
                    operands = self._labelled(name, text)
                elif "{" in text or "(" in text:
                    operands = tuple([cache[part.strip()] for part in split_list(text)])
                elif text:
                    operands = tuple(map(cache.__getitem__, text.replace(", ", ",").split(",")))
                else:
                    operands = ()
                append(
                    Instruction(name, modifiers, operands, predicate, negation == "!", self.line)
                )
                continue
            self.line += count("\n", self.counted, start)
            self.counted = start
            position = self._between(label, brace, directive, position)
            if not self.pending:
                return self._finish(position)

    def _between(
        self, label: Optional[str], brace: Optional[str], directive: Optional[str], position: int
    ) -> int:
        """Take what stands between instructions; no scope is left at the body's end."""
        if label:
            self._label(label)
        elif directive:
            return self._directive(directive[1:], position)
        elif brace == "{":
            if len(self.pending) > MAX_SCOPES:
                raise PtxError("scopes nested too deeply")
            self.names.enter()
            self.pending.append([])
            self.tables.append([])
        elif brace == "}":
            self._close(self.names.scope, len(self.pending) - 1)
            if self.pending:
                self.names.leave()
        return position

    def _locate(self, position: int) -> None:
        space = _SPACE.match(self.source, position)
        start = space.end() if space else position
        self.line += self.source.count("\n", self.counted, start)
        self.counted = start

    def _why(self, position: int) -> str:
        rest = self.source[position : position + 200].lstrip()[:40].split("\n")[0]
        if not rest:
            return f"the body of '{self.function.name}' has no end"
        missing = " (is a ';' missing there?)" if rest[0].isalpha() or rest[0] == "@" else ""
        return f"not an instruction: '{rest}'{missing}"

    def _opcode(self, text: str) -> Tuple[str, Tuple[str, ...]]:
        name, *modifiers = text.split(".")
        if not all(modifiers) or not name:
            raise PtxError(f"bad opcode '{text[:60]}'")
        entry = self.opcodes[text] = (name, tuple(modifiers))
        return entry

    # -------------------------------------------------------- labels

    def _label(self, name: str) -> None:
        unique = self.names.declare_label(name)
        self.function.labels[unique] = len(self.instructions)
        self.table_name = unique

    def _labelled(self, name: str, text: str) -> Tuple[ir.Operand, ...]:
        """Read the operands of a branch or call: names in them may be labels to come."""
        operand = self.names.scope.cache
        if name == "call":
            return self._call([part.strip() for part in split_list(text)])
        self.pending[-1].append(len(self.instructions))
        if name == "bra":
            return (ir.Label(text.strip()),)
        parts = text.split(",")
        if len(parts) != 2:
            raise PtxError("brx takes an index and a target list")
        return operand[parts[0]], ir.Label(parts[1].strip())

    def _call(self, parts: List[str]) -> Tuple[ir.Operand, ...]:
        names = self.names
        returns = names.group(parts.pop(0)) if parts[0][:1] == "(" else ir.Group(())
        if not parts or not parts[0]:
            raise PtxError("the call has no target")
        target = names.scope.cache[parts.pop(0)]
        if not isinstance(target, (ir.Reg, ir.Sym)):
            raise PtxError("a call goes to a function or a register")
        arguments = names.group(parts.pop(0)) if parts and parts[0][:1] == "(" else ir.Group(())
        if not parts:
            return returns, target, arguments
        if len(parts) > 1:
            raise PtxError("the call has too many operands")
        self.pending[-1].append(len(self.instructions))
        return returns, target, arguments, ir.Label(parts[0])

    def _close(self, scope: Scope, depth: int) -> None:
        """Resolve what this scope's labels can; hand the rest to the scope around it."""
        labels, instructions = scope.labels, self.instructions
        left = []
        for index in self.pending.pop():
            instruction = instructions[index]
            label = instruction.operands[-1]
            assert isinstance(label, ir.Label)
            unique = labels.get(label.name)
            if unique is None:
                if depth == 0:
                    self.line = instruction.line
                    raise PtxError(f"unknown label '{label.name[:60]}'")
                left.append(index)
            elif unique != label.name:
                operands = (*instruction.operands[:-1], ir.Label(unique))
                instructions[index] = instruction._replace(operands=operands)
        tables = self.tables.pop()
        for name in tables:
            targets = self.function.branch_targets[name]
            self.function.branch_targets[name] = tuple(
                labels.get(target, target) for target in targets
            )
        if depth:
            self.pending[-1] += left
            self.tables[-1] += tables

    def _finish(self, position: int) -> int:
        function = self.function
        function.body = self.instructions
        for table in (function.branch_targets, function.call_targets, function.prototypes):
            for name in table:
                function.labels.pop(name, None)
        for name, targets in function.branch_targets.items():
            for target in targets:
                if target not in function.labels:
                    raise PtxError(f"'{name}' has an unknown label '{target}'")
        for instruction in self.instructions:
            label = instruction.operands[-1] if instruction.operands else None
            if instruction.opcode == "bra" and isinstance(label, ir.Label):
                if label.name not in function.labels:
                    self.line = instruction.line
                    raise PtxError(f"'{label.name}' is not a label")
            elif instruction.opcode == "brx" and isinstance(label, ir.Label):  # noqa: SIM102
                if label.name not in function.branch_targets:
                    self.line = instruction.line
                    raise PtxError(f"'{label.name}' is not a target list")
        return position

    # -------------------------------------------------------- directives

    def _directive(self, word: str, position: int) -> int:
        """Take one directive; returns the position behind it."""
        if word in ("loc", "file"):
            end = _END_OF_LINE.match(self.source, position)
            return end.end() if end else position
        if word == "reg":
            found = _REGISTERS.match(self.source, position)
            if found and found.group(1)[0] != "v":
                kind, name, count = found.groups()
                self._known_type(kind)
                self.names.declare_register(name, kind, int(count) if count else None)
                return found.end()
        tokens = Tokens(self.source, position)
        if word == "reg":
            self._registers(tokens)
        elif word in _TABLES:
            self._table(word, tokens)
        elif word in ("local", "shared", "param", "global", "const"):
            self._variables(word, tokens)
        else:
            _skip(tokens)
        if tokens.text != ";" or tokens.kind != PUNCTUATION:
            raise PtxError(f"expected ';', found {tokens.shown()}")
        return tokens.end

    def _known_type(self, kind: str) -> None:
        if kind not in ir.TYPE_BYTES:
            raise PtxError(f"unknown type '.{kind}'")

    def _registers(self, tokens: Tokens) -> None:
        """Read ``.reg`` in its general form: vectors, several names."""
        kind, lanes = "", ""
        while True:
            word = tokens.directive()
            if word is None:
                break
            if word in ("v2", "v4", "v8"):
                lanes = word + "."
            elif word != "align":
                kind = word
        self._known_type(kind)
        while True:
            name, count = tokens.name(), None
            if tokens.accept("<"):
                count = tokens.integer()
                tokens.expect(">")
            self.names.declare_register(name, lanes + kind, count)
            if not tokens.accept(","):
                return

    def _variables(self, space: str, tokens: Tokens) -> None:
        for variable in self.declare.variables(space, tokens, "", self.names.symbol):
            name = variable.name
            variable.name = self.names.declare_symbol(name)
            if space in ("global", "const"):
                unique = f"{variable.name}#{self.function.name}"
                self.names.scope.symbols[name] = variable.name = unique
                self.declare.module.variables[unique] = variable
            else:
                self.function.variables.append(variable)

    def _table(self, word: str, tokens: Tokens) -> None:
        name = self.table_name
        if name is None:
            raise PtxError(f".{word} needs a label")
        if word == "callprototype":
            self.function.prototypes[name] = self.declare.prototype(tokens)
            return
        targets = [tokens.name()]
        while tokens.accept(","):
            targets.append(tokens.name())
        if word == "branchtargets":
            self.function.branch_targets[name] = tuple(targets)
            self.tables[-1].append(name)
        else:
            self.function.call_targets[name] = tuple(map(self.names.symbol, targets))


def _skip(tokens: Tokens) -> None:
    """Pass over a directive that says nothing about what a program does."""
    while tokens.kind and not (tokens.kind == PUNCTUATION and tokens.text in ";{}"):
        tokens.advance()
