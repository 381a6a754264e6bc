# SPDX-License-Identifier: Apache-2.0
"""``dataclass``, ``field`` and ``replace`` in the small part that this package needs of them.

The standard module imports ``inspect`` and more, which alone took a quarter of the time that a
helper needs to start. Type checkers see the real one; they also see to what is frozen.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Callable, Dict, List

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:

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
        exec(_source(cls, names, space), space)
        cls.__init__ = space["__init__"]
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


__all__ = ["dataclass", "field", "replace"]
