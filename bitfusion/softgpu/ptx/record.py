# SPDX-License-Identifier: Apache-2.0
"""``dataclass``, ``field``, ``replace`` and ``NamedTuple``, as much of them as is needed here.

The standard modules import ``inspect`` and more, which alone took a quarter of the time that a
helper needs to start. Type checkers see the real one; they also see to what is frozen.
"""

from __future__ import annotations

from _operator import attrgetter  # as `operator` has it
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Tuple

from . import boot

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import NamedTuple
else:
    from _collections import _tuplegetter

    class _Field:
        def __init__(self, default_factory: Callable[[], Any]) -> None:
            self.make = default_factory

    def field(*, default_factory: Callable[[], Any]) -> Any:
        return _Field(default_factory)

    def dataclass(cls: Any = None, *, frozen: bool = False) -> Any:
        """Give a class the methods that its annotated fields imply."""
        if cls is None:
            return lambda decorated: dataclass(decorated, frozen=frozen)
        names = list(cls.__dict__.get("__annotations__", {}))
        space: Dict[str, Any] = {}
        cls.__init__ = _define("__init__", _source(cls, names, space), space)
        values = attrgetter(*names) if names else lambda self: ()
        cls.__eq__ = lambda self, other: (
            values(self) == values(other) if other.__class__ is cls else NotImplemented
        )
        cls.__hash__ = (lambda self: hash(values(self))) if frozen else None
        cls.__repr__ = _show
        cls.__match_args__ = tuple(names)
        return cls

    def _show(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{self.__class__.__name__}({shown})"

    def _define(name: str, source: str, space: Dict[str, Any]) -> Any:
        code = boot.CODE.get(source)
        if code is None:
            code = boot.CODE[source] = compile(source, __file__, "exec")
        exec(code, space)
        return space[name]

    def _source(cls: Any, names: List[str], space: Dict[str, Any]) -> str:
        """Compiling is what takes its time here, so it is done for one method alone."""
        arguments, body = ["self"], []
        for name in names:
            value = name
            if name in cls.__dict__:
                default = cls.__dict__[name]
                if isinstance(default, _Field):
                    space["_make_" + name], default = default.make, None
                    delattr(cls, name)
                    value = f"_make_{name}() if {name} is None else {name}"
                space["_default_" + name] = default
                arguments.append(f"{name}=_default_{name}")
            else:
                arguments.append(name)
            body.append(f" self.{name} = {value}\n")
        return f"def __init__({', '.join(arguments)}):\n{''.join(body) or ' pass'}\n"

    def replace(record: Any, **changes: Any) -> Any:
        values = {name: getattr(record, name) for name in record.__match_args__}
        values.update(changes)
        return record.__class__(**values)

    class _TupleMaker(type):
        """Makes of a class with annotated fields one of tuples."""

        def __new__(maker, name: str, bases: Tuple[type, ...], members: Dict[str, Any]) -> type:
            if not bases:
                return type.__new__(maker, name, bases, members)
            names = tuple(members["__annotations__"])
            space = {"_make": tuple.__new__}
            space.update((f"_default_{n}", members[n]) for n in names if n in members)
            arguments = [f"{n}=_default_{n}" if n in members else n for n in names]
            source = f"def __new__(cls, {', '.join(arguments)}):\n"
            source += f" return _make(cls, ({', '.join(names)},))\n"
            members["__new__"] = _define("__new__", source, space)
            members.update((n, _tuplegetter(i, "")) for i, n in enumerate(names))
            members.update(_fields=names, __match_args__=names, __slots__=())
            members.update(__repr__=_show, _replace=_replace)
            return type(name, (tuple,), members)

    def _replace(record: Any, **changes: Any) -> Any:
        made = tuple.__new__(record.__class__, map(changes.pop, record._fields, record))
        if changes:
            raise ValueError(f"no fields: {', '.join(changes)}")
        return made

    class NamedTuple(metaclass=_TupleMaker):
        pass


__all__ = ["NamedTuple", "dataclass", "field", "replace"]
