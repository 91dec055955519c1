"""Operations are written once, as coroutines, and offered twice.

``aget`` is the operation; ``get = blocking(aget)`` is the same coroutine, run to its end in one
step over a runtime whose methods block.  It works because such a coroutine never suspends: there
is nobody to resume it.  The price is about half a microsecond a call.

The idea is geldata/gel-python's ``iter_coroutine``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar



P = ParamSpec("P")
S = TypeVar("S", bound="Twinned")
T = TypeVar("T")


class Twinned:
    """An object that waits through ``runtime``, and has a twin, ``still``, that blocks.

    Both share one ``__dict__``: what is set on either is seen by both.  Only the slots differ.
    """

    __slots__ = ("__dict__", "__weakref__", "runtime", "still")

    runtime: Any
    still: Self | None

    def view(self, **slots: Any) -> Self:
        """Return another face of this object: the same state, other *slots*."""
        face = object.__new__(type(self))
        face.__dict__ = self.__dict__
        for cls in type(self).__mro__:
            for name in getattr(cls, "__slots__", ()):
                if not name.startswith("__"):
                    setattr(face, name, getattr(self, name, None))
        for name, value in slots.items():
            setattr(face, name, value)
        return face

    def twin(self, awaiting: Any, still: Any) -> None:
        """Give this object its two runtimes; called once, by the constructor."""
        self.runtime = awaiting
        self.still = self.view(runtime=still, still=None)


def complete(operation: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result."""
    try:
        operation.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    operation.close()
    raise RuntimeError(f"{operation!r} suspended on a blocking runtime")


class blocking(Generic[S, P, T]):  # noqa: N801 - used as a function, a class for the type checkers
    """The blocking face of a coroutine method: ``get = blocking(aget)``."""

    def __init__(self, method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> None:
        self.method = method

    def __set_name__(self, owner: type[S], name: str) -> None:
        method = self.method

        def face(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            # `complete`, written out: this is every blocking call's first microsecond.
            operation = method(self.still or self, *args, **kwargs)
            try:
                operation.send(None)
            except StopIteration as finished:
                result: T = finished.value
                return result
            operation.close()
            raise RuntimeError(f"{name}() suspended on a blocking runtime")

        update_wrapper(face, method)
        face.__name__ = name
        face.__qualname__ = f"{owner.__qualname__}.{name}"
        setattr(owner, name, face)

    def __get__(self, instance: S, owner: type[S] | None = None) -> Callable[P, T]:
        raise AssertionError("replaced by a plain function when the class is made")
