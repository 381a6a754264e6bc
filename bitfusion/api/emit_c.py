# SPDX-License-Identifier: Apache-2.0
"""Spec -> the C that both sides share and that the proxy is made of. Pure."""

from __future__ import annotations

import hashlib
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set

from .emit_header import HEADER_LINE, emit_header, spell_arguments, tags_of
from .spec import Argument, Function, Spec

FIRST_ROW = 64  # BF_FIRST_ROW of wire/wire.h


def opening(*includes: str) -> List[str]:
    lines = ["/* SPDX-License-Identifier: Apache-2.0 */", f"/* {HEADER_LINE} */"]
    return lines + [f"#include {name}" for name in includes] + [""]


def header(spec: Spec) -> str:
    prototypes = []
    for function in spec.functions:
        if function.prototype is None:
            continue
        prototypes.append((function.name, function.prototype))
        for flavour in function.flavours:
            prototypes.append((function.name + flavour.suffix, function.prototype))
    return emit_header(spec.declarations, spec.header, prototypes)


# ---------------------------------------------------------------- rows


def describe_row(function: Function) -> str:
    """All that the two ends must agree on, on one line."""
    parts = [function.name, str(function.row), row_flags(function), str(function.stream)]
    for a in function.arguments:
        parts.append(f"{a.kind} {a.handle} {a.count} {a.less} {a.size} {a.location}")
    return "; ".join(parts)


def spec_hash(spec: Spec) -> int:
    text = "\n".join(describe_row(f) for f in spec.rows)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def row_flags(function: Function) -> str:
    flags = []
    if function.row == "oneway":
        flags.append("BF_ROW_ONEWAY")
    if function.blocks:
        flags.append("BF_ROW_BLOCKS")
    if function.no_context:
        flags.append("BF_ROW_NO_CONTEXT")
    if function.executor:
        flags.append("BF_ROW_CUSTOM_EXECUTOR")
    return " | ".join(flags) or "0"


def calls_module(spec: Spec) -> str:
    return "\n".join(
        [
            "# SPDX-License-Identifier: Apache-2.0",
            f'"""{HEADER_LINE}"""',
            "",
            f'CALLS = "{spec_hash(spec):016x}"  # of the rows that both ends were made from',
            "",
        ]
    )


def calls_header(spec: Spec) -> str:
    lines = opening()
    lines += ["#ifndef BITFUSION_CALLS_H", "#define BITFUSION_CALLS_H", ""]
    lines += ["/* Both ends of a connection must have been made from the same rows. */"]
    lines += [f"#define BF_SPEC_HASH 0x{spec_hash(spec):016x}ull", ""]
    lines += ["enum bf_call {"]
    lines += [f"\tBF_{f.name} = {FIRST_ROW + i}," for i, f in enumerate(spec.rows)]
    lines += [f"\tBF_CALL_END = {FIRST_ROW + len(spec.rows)}", "};", "", "#endif", ""]
    return "\n".join(lines)


def _argument(argument: Argument) -> str:
    parts = [".kind = BF_ARG_" + argument.kind]
    if argument.handle != "BF_NOT_A_HANDLE":
        parts.append(".handle = " + argument.handle)
    count = "BF_NO_ARGUMENT" if argument.count is None else str(argument.count)
    parts.append(".count = " + count)
    if argument.kind in ("VALUE", "DEVICE", "LOCATION", "HANDLE", "FREE_HANDLE"):
        parts.append(".width = " + argument.size)
    else:
        parts.append(".size = " + argument.size)
    if argument.less:
        parts.append(f".less = {argument.less}")
    if argument.location != "0":
        parts.append(".location = " + argument.location)
    return "\t{{{}}},".format(", ".join(parts))


def rows_source(spec: Spec) -> str:
    lines = opening('"row.h"', '"calls.h"', '"cuda.h"', '"wire.h"', "", "<stddef.h>")
    lines = [line for line in lines if line != "#include "]
    for f in spec.rows:
        if f.arguments:
            lines.append(f"static const struct bf_argument {f.name}_arguments[] = {{")
            lines += [_argument(a) for a in f.arguments]
            lines += ["};", ""]
    lines.append("const struct bf_row bf_rows[] = {")
    for f in spec.rows:
        stream = "BF_NO_ARGUMENT" if f.stream is None else str(f.stream)
        arguments = f.name + "_arguments" if f.arguments else "NULL"
        fields = (f'"{f.name}"', str(len(f.arguments)), row_flags(f), stream, "0", arguments)
        lines.append("\t{" + ", ".join(fields) + "},")
    lines += ["};", "", "const unsigned bf_row_count = sizeof(bf_rows) / sizeof(bf_rows[0]);", ""]
    lines.append("_Static_assert(BF_CALL_END - BF_FIRST_ROW ==")
    lines.append('\t\t       sizeof(bf_rows) / sizeof(bf_rows[0]), "calls.h");')
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the proxy


def stubs_header(spec: Spec) -> str:
    lines = opening('"calls.h"', '"cuda.h"', "<stdint.h>")
    lines += [
        "/* What the stubs need of the proxy. One uint64_t per argument, in order. */",
        "CUresult bf_call(unsigned call, const uint64_t *arguments);",
        "/* The same with the calling thread's own stream where the row's stream is NULL. */",
        "CUresult bf_call_per_thread(unsigned call, const uint64_t *arguments);",
        "/* CUDA_ERROR_NOT_SUPPORTED; names the function once in the debug log. */",
        "CUresult bf_absent(const char *name);",
        "",
    ]
    return "\n".join(lines)


def _as_word(argument: Argument) -> str:
    if argument.kind == "LOCATION":
        return f"location_word({argument.name})"
    if (
        argument.type.pointers
        or argument.kind in ("HANDLE", "FREE_HANDLE")
        and argument.handle != "BF_ALLOCATION"
    ):
        return f"(uint64_t)(uintptr_t){argument.name}"
    return f"(uint64_t){argument.name}"


def _signature(function: Function, name: str, tags: Mapping[str, str]) -> str:
    assert function.prototype is not None
    return f"CUresult {name}({spell_arguments(function.prototype.arguments, tags)})"


def _stub(function: Function, name: str, caller: str, tags: Mapping[str, str]) -> List[str]:
    signature = _signature(function, name, tags)
    words = ", ".join(_as_word(a) for a in function.arguments)
    if not words:
        return [signature, "{", f"\treturn {caller}(BF_{function.name}, NULL);", "}", ""]
    return [
        signature,
        "{",
        f"\tuint64_t arguments[] = {{{words}}};",
        f"\treturn {caller}(BF_{function.name}, arguments);",
        "}",
        "",
    ]


def _forward(function: Function, name: str, to: str, tags: Mapping[str, str]) -> List[str]:
    assert function.prototype is not None
    arguments = ", ".join(a.name for a in function.prototype.arguments)
    return [_signature(function, name, tags), "{", f"\treturn {to}({arguments});", "}", ""]


_LOCATION_WORD = [
    "/* A CUmemLocation by value travels as the register that holds it. */",
    "static inline uint64_t location_word(CUmemLocation location)",
    "{",
    "\tuint64_t word = 0;",
    "\tmemcpy(&word, &location, sizeof(location));",
    "\treturn word;",
    "}",
    "",
]


def stubs_source(spec: Spec) -> str:
    """Three lines for each function that is only a row."""
    tags = tags_of(spec.declarations)
    lines: List[str] = []
    for f in spec.functions:
        if f.alias and f.class_ != "absent":
            lines += _forward(f, f.name, f.alias, tags)
            for flavour in f.flavours:
                lines += _forward(f, f.name + flavour.suffix, f.alias + flavour.suffix, tags)
        elif f.class_ in ("oneway", "sync"):
            lines += _stub(f, f.name, "bf_call", tags)
            for flavour in f.flavours:
                lines += _stub(f, f.name + flavour.suffix, "bf_call_per_thread", tags)
    used = any("location_word(" in line for line in lines)
    head = opening('"stubs.h"', "<stddef.h>", "<string.h>") + (_LOCATION_WORD if used else [])
    return "\n".join(head + lines)


_INSTEAD = (
    '#define INSTEAD(name, instead) __attribute__((visibility("default"))) int name(void);\\'
)


def absent_source(
    names: Iterable[str], answer: str, instead: Optional[Mapping[str, str]] = None
) -> str:
    """Exports that only say no. No prototypes: nobody in this file needs their arguments."""
    lines = ["/* SPDX-License-Identifier: Apache-2.0 */", f"/* {HEADER_LINE} */"]
    lines += [f"int {answer}(const char *name);", ""]
    lines += ['#define ABSENT(name) __attribute__((visibility("default"))) int name(void);\\']
    lines += [f"\tint name(void) {{ return {answer}(#name); }}", ""]
    told = instead or {}
    if told:
        lines.append(f"int {answer}_instead(const char *name, const char *instead);")
        lines.append(_INSTEAD)
        lines += [f"\tint name(void) {{ return {answer}_instead(#name, instead); }}", ""]
    for name in names:
        text = told.get(name)
        lines.append(f'INSTEAD({name}, "{text}")' if text else f"ABSENT({name})")
    return "\n".join(lines) + "\n"


def symbols_source(spec: Spec, present: Set[str]) -> str:
    lines = opening('"abi.h"', "<stddef.h>")
    lines.append("const struct abi_symbol abi_symbols[] = {")
    for s in spec.symbols:
        function = f"(void *){s.exported}" if s.exported in present else "NULL"
        flavour = int(s.per_thread)
        lines.append(f'\t{{"{s.base}", "{s.exported}", {s.version}, {flavour}, {function}}},')
    lines += ["};", ""]
    lines.append("const unsigned abi_symbol_count = sizeof(abi_symbols) / sizeof(abi_symbols[0]);")
    return "\n".join(lines) + "\n"


def export_map(names: Sequence[str]) -> str:
    lines = [f"/* {HEADER_LINE} */", "{", "\tglobal:"]
    lines += [f"\t\t{name};" for name in names]
    return "\n".join(lines + ["\tlocal:", "\t\t*;", "};", ""])


def proxy_present(spec: Spec) -> Set[str]:
    return {s.exported for s in spec.symbols if s.function.class_ != "absent"}


def proxy_absent(spec: Spec) -> List[str]:
    return [s for s in spec.exported if s not in proxy_present(spec)]


def _told(spec: Spec) -> Dict[str, str]:
    """What to do instead of functions that are absent."""
    return {s.exported: s.function.instead for s in spec.symbols if s.function.instead}


def proxy_found(spec: Spec) -> Set[str]:
    """What cuGetProcAddress gives: also absent functions that have something to say, which the
    runtime would not call else.
    """
    return proxy_present(spec) | set(_told(spec))


def proxy_absent_source(spec: Spec) -> str:
    return absent_source(proxy_absent(spec), "bf_absent", _told(spec))


# ---------------------------------------------------------------- errors


def errors_source(spec: Spec) -> str:
    results = spec.declarations.enums()["cudaError_enum"]
    lines = opening('"abi.h"', "<stddef.h>")
    lines += [
        "static const struct {",
        "\tint number;",
        "\tconst char *name, *text;",
        "} errors[] = {",
    ]
    for name, value in results.members:
        number = spec.declarations.values.get(name) if value is None else value
        if number is not None:
            lines.append(f'\t{{{number}, "{name}", "{error_text(name, spec.texts)}"}},')
    lines += ["};", ""]
    for function, member in (("abi_error_name", "name"), ("abi_error_string", "text")):
        lines += [
            f"CUresult {function}(CUresult error, const char **{member})",
            "{",
            f"\tif (!{member})",
            "\t\treturn CUDA_ERROR_INVALID_VALUE;",
            f"\t*{member} = NULL;",
            "\tfor (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)",
            "\t\tif (errors[i].number == (int)error)",
            f"\t\t\t*{member} = errors[i].{member};",
            f"\treturn *{member} ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;",
            "}",
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


def error_text(name: str, texts: Mapping[str, str]) -> str:
    """Ours, from cuda.toml; else the name in words."""
    words = name.replace("CUDA_ERROR_", "").replace("CUDA_", "").replace("_", " ").lower()
    return texts.get(name, words)
