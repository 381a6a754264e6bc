# SPDX-License-Identifier: Apache-2.0
"""PTX text -> :class:`ir.Module`.

Nothing here knows what an instruction does: opcodes and modifiers pass as they are, and one that
the engine lacks fails when it is executed.
"""

from __future__ import annotations

from typing import Dict, Optional, Union

from . import ir
from .body import Body
from .declaration import Declarations
from .fatbin import NEWEST_PTX
from .ir import PtxError
from .lexer import WORD, Tokens, strip_comments
from .regex import ASCII, regex

# The newest minor of each major version; of the last one, also those that are still to come.
VERSIONS = {1: 5, 2: 3, 3: 2, 4: 3, 5: 1, 6: 5, 7: 8, 8: 8, 9: 9}
_VERSION = regex(r"\s*\.version\s+(\d{1,3})\.(\d{1,3})", ASCII)
_ARCHITECTURE = regex(r"sm_(\d{2,6})[af]?$", ASCII)
_TARGET = regex(r"\s*([\w,\s]*)", ASCII)
_NAMES = regex(r"\s*\w+(?:\s*,\s*\w+)*", ASCII)
_LINE = regex(r"[^\n]*")
_SPACES = ("global", "const", "shared", "local", "tex")
_LINE_MARK = regex(r"@@line (\d{1,10})", ASCII)
_IGNORED_LINES = (".file", ".loc", "@")  # "@@DWARF" of old compilers
_UNSUPPORTED_VERSION = 222


def decode(data: bytes) -> str:
    """Give the text of raw PTX: ASCII, up to the first NUL."""
    return data.split(b"\0", 1)[0].decode("ascii", "replace")


def parse(source: Union[str, bytes]) -> ir.Module:
    """Parse one PTX module; raises :class:`PtxError` with the line number."""
    data = source if isinstance(source, bytes) else source.encode("ascii", "replace")
    return _Parser(strip_comments(decode(data))).parse()


def _check_target(name: str) -> None:
    found = _ARCHITECTURE.match(name)
    if not found:
        raise PtxError(f"unknown .target '{name[:60]}'" if name else ".target has no name")
    if int(found[1]) > NEWEST_PTX:
        raise PtxError(f".target {name} is newer than sm_{NEWEST_PTX}, the newest that is known")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.module = ir.Module((0, 0), "")
        self.declare = Declarations(self.module)
        self.unknown: Dict[str, int] = {}  # name -> line of its first use
        self.tokens: Optional[Tokens] = None
        self.body: Optional[Body] = None
        self.counted, self.counted_line = 0, 1  # so that lines are counted once

    def parse(self) -> ir.Module:
        try:
            self._parse()
        except PtxError as error:
            raise PtxError(f"line {self._line()}: {error}", error.status) from None
        except RecursionError:
            raise PtxError(f"line {self._line()}: nested too deeply") from None
        for name, line in self.unknown.items():
            if not self.declare.known(name):
                raise PtxError(f"line {line}: unknown name '{name[:200]}'")
        for alias, target in self.module.aliases.items():
            if target not in self.module.functions:
                raise PtxError(f"alias '{alias[:200]}' of an unknown function '{target[:200]}'")
        return self.module

    def _line(self) -> int:
        if self.body is not None:
            return self.body.line
        start = self.tokens.start if self.tokens else 0
        if start < self.counted:
            return self.text.count("\n", 0, start) + 1
        self.counted_line += self.text.count("\n", self.counted, start)
        self.counted = start
        return self.counted_line

    def _parse(self) -> None:
        position = self._version()
        tokens = self.tokens = Tokens(self.text, position)
        while tokens.kind:
            if tokens.text in _IGNORED_LINES:
                end = self._end_of_line()
                self._renumber(tokens.start, end)
                tokens.move(end)
            elif not tokens.accept(";"):
                self._directive(tokens)

    def _version(self) -> int:
        found = _VERSION.match(self.text)
        if not found:
            raise PtxError("a PTX module starts with .version")
        self.module.version = (int(found.group(1)), int(found.group(2)))
        major, minor = self.module.version
        if minor > VERSIONS.get(major, -1):
            shown = ".".join(found.groups())
            raise PtxError(f"PTX version {shown} is not supported", _UNSUPPORTED_VERSION)
        return found.end()

    def _renumber(self, start: int, end: int) -> None:
        """The driver cuts modules into slices and says which line of the whole comes next."""
        found = _LINE_MARK.match(self.text, start, end)
        if found:
            self.counted, self.counted_line = end, int(found.group(1)) - 1

    def _end_of_line(self) -> int:
        assert self.tokens is not None
        found = _LINE.match(self.text, self.tokens.start)
        return found.end() if found else len(self.text)

    def _directive(self, tokens: Tokens) -> None:
        if tokens.kind != WORD or tokens.text[0] != ".":
            raise PtxError(f"expected a directive, found {tokens.shown()}")
        if tokens.text == ".target":
            found = _TARGET.match(self.text, tokens.end)
            assert found is not None
            self.module.target = found.group(1).split(",")[0].strip().split("\n")[0].strip()
            _check_target(self.module.target)
            tokens.move(self._after_target(tokens.end))
            return
        linkage, word = self.declare.linkage(tokens)
        if word in ("entry", "func"):
            self._function(tokens, linkage, word == "entry")
        elif word in _SPACES:
            self._variables(tokens, linkage, word)
        elif word == "alias":
            name = tokens.name()
            tokens.expect(",")
            self.module.aliases[name] = tokens.name()
            tokens.expect(";")
        elif word == "address_size":
            if tokens.integer() != 64:
                raise PtxError("only 64-bit addresses are supported")
        elif word == "section":
            self._skip_section(tokens)
        elif word in ("pragma", "version"):
            tokens.advance()
            tokens.accept(";")
        else:
            raise PtxError(f"unknown directive '.{word}'")

    def _after_target(self, position: int) -> int:
        """Find the end of ``sm_90, debug``: words, each but the first behind a comma."""
        found = _NAMES.match(self.text, position)
        if not found:
            raise PtxError(".target has no name")
        return found.end()

    def _skip_section(self, tokens: Tokens) -> None:
        """Pass over a DWARF section, whose words are not PTX's."""
        start = self.text.find("{", tokens.start)
        end = self.text.find("}", start)
        if start < 0 or end < 0:
            raise PtxError("the section has no end")
        tokens.move(end + 1)

    # -------------------------------------------------------- variables

    def _resolve(self, name: str) -> str:
        if not self.declare.known(name):
            self.unknown.setdefault(name, self._line())
        return name

    def _variables(self, tokens: Tokens, linkage: str, space: str) -> None:
        if space == "tex":
            if self.module.version >= (1, 5):
                raise PtxError(".tex is no space any more: .global .texref")
            space = "global"
        for variable in self.declare.variables(space, tokens, linkage, self._resolve):
            known = self.module.variables.get(variable.name)
            if variable.name in self.module.functions:
                raise PtxError(f"'{variable.name[:200]}' is a function already")
            if known is not None and known.linkage != "extern":
                if linkage == "extern":
                    continue
                raise PtxError(f"'{variable.name[:200]}' is declared twice")
            self.module.variables[variable.name] = variable
        tokens.expect(";")

    # -------------------------------------------------------- functions

    def _function(self, tokens: Tokens, linkage: str, entry: bool) -> None:
        declare = self.declare
        function = ir.Function("", entry, linkage, [], [])
        declare.function_directives(tokens, function)
        if not entry:
            function.returns = declare.parameters(tokens)
        declare.function_directives(tokens, function)
        function.name = tokens.name()
        function.params = declare.parameters(tokens)
        declare.function_directives(tokens, function)
        if function.name in self.module.variables or function.name in self.module.aliases:
            raise PtxError(f"'{function.name[:200]}' is a variable or an alias already")
        known = self.module.functions.get(function.name)
        if known is not None and known.body is not None:
            if tokens.text != ";":
                raise PtxError(f"'{function.name[:200]}' is defined twice")
            tokens.advance()
            return
        self.module.functions[function.name] = function
        if tokens.text == "{":
            self._body(tokens, function)
            if known is not None and not linkage:
                function.linkage = "" if known.linkage == "extern" else known.linkage
        else:
            tokens.expect(";")

    def _body(self, tokens: Tokens, function: ir.Function) -> None:
        line = self._line()
        body = Body(self.text, function, self.declare)
        body.line, self.body = line, body
        end = body.parse(tokens.end, line)
        self.body = None
        for name, first in body.names.unknown.items():
            self.unknown.setdefault(name, first)
        tokens.move(end)
