"""Operations are written once, as coroutines, and offered twice.

``aget`` is the operation; ``get = blocking(aget)`` is the same coroutine, run to its end in one
step over a runtime whose methods block.  This works because a coroutine that awaits only such
methods never suspends.  The price is about half a microsecond a call.

The idea is geldata/gel-python's ``iter_coroutine``.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from functools import cache, update_wrapper
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar

P = ParamSpec("P")
S = TypeVar("S", bound="Twinned")
T = TypeVar("T")


class Twinned:
    """An object that waits through ``runtime``, and has a twin, ``still``, that blocks.

    The two faces of an object have the same attributes: setting one sets it on both.  Only ``runtime``
    and ``still`` differ, and methods that a test or a tool replaced on the object: one face must not run
    the replacement of the other's method.  (One ``__dict__`` for both faces would be simpler, but CPython
    finds attributes and methods faster in an instance that has its own.)
    """

    _own: ClassVar[frozenset[str]] = frozenset(("_still", "_runtime", "_faces"))
    """The attributes by which faces of one object differ."""

    _runtime: Any
    _still: Self | None
    _faces: list[Self]
    """Empty if there is one only: a reference to itself would keep it, and a client that it leads to, for the collector."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self: Self = join(object.__new__(cls), object.__new__(cls))
        return self

    def _wait_by(self, awaiting: Any, still: Any) -> None:
        """Give this object and its twin their runtimes; called once, by the constructor."""
        object.__setattr__(self, "_runtime", awaiting)
        object.__setattr__(self._still, "_runtime", still)

    def _begin_with(self, **attributes: Any) -> None:
        """Give a new object these attributes, on both faces: faster than one after another."""
        vars(self).update(attributes)
        if self._still is not None:
            vars(self._still).update(attributes)

    def _face(self, kind: Any = None, **own: Any) -> Self:
        """Return another face of this object as it is now: without a twin, and with the attributes in *own*."""
        face: Self = join(object.__new__(kind or type(self)))
        vars(face).update({"_runtime": self._runtime} | self._attributes() | own)
        return face

    def __copy__(self) -> Self:
        """Return a separate object, with faces of its own."""
        copy = type(self).__new__(type(self))
        for name, value in self._attributes().items():
            setattr(copy, name, value)
        copy._wait_by(self._runtime, self._runtime if self._still is None else self._still._runtime)
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled."""
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled: its connections belong to this process. Pass what it is made of, "
            f"such as a cache's URL or alias and a lock's key, and make it anew there"
        )

    def _attributes(self) -> dict[str, Any]:
        """Return the attributes that a copy or a new face of this object gets."""
        kind: Any = type(self)
        hidden, own = methods(kind), kind._own
        return {name: value for name, value in vars(self).items() if name not in hidden and name not in own}

    def _is_method(self, name: str) -> bool:
        kind: Any = type(self)
        return name in methods(kind)

    def _sharers(self, name: str) -> list[Self]:
        """Return the faces on which the attribute *name* is the same."""
        return [self] if self._is_method(name) else self._faces or [self]

    def __setattr__(self, name: str, value: Any) -> None:
        for face in self._sharers(name):
            object.__setattr__(face, name, value)

    def __delattr__(self, name: str) -> None:
        for face in self._sharers(name):
            object.__delattr__(face, name)


@cache
def methods(kind: type) -> frozenset[str]:
    """Return the names of the methods of *kind*."""
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))


def join(face: Any, *twin: Any) -> Any:
    """Make *face* and its twin, if it has one, the faces of one object; return *face*."""
    faces = [face, *twin]
    for each, still in zip(faces, (*twin, None), strict=True):
        object.__setattr__(each, "_faces", faces if twin else [])
        object.__setattr__(each, "_still", still)
    return face


@types.coroutine
def _running() -> Generator[Any, Coroutine[Any, Any, Any], Any]:
    """Run one coroutine after another: take each by ``send``, and yield its result."""
    operation = yield
    while True:
        operation = yield (yield from operation)  # the result has no name here: a runner at rest must not keep it alive


_runners: list[Any] = []
"""Runners at rest.  A nested call, or one in another thread, takes another runner; a runner that raised is thrown away."""


class Stopped(Exception):
    """Carries a StopIteration that a user's function has raised through coroutines, where Python makes a RuntimeError of it."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


def carried(error: Exception) -> Exception:
    """Return the error that *error* carries, or *error* itself."""
    return error.error if type(error) is Stopped else error


def passable(error: Exception) -> Exception:
    """Return *error* as a coroutine of the blocking face can raise it."""
    return Stopped(error) if isinstance(error, StopIteration) else error


def complete(operation: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result.

    ``operation.send(None)`` would do, but ends in a StopIteration, which takes twice as long.
    """
    try:
        runner = _runners.pop()
    except IndexError:
        runner = _running()
        next(runner)
    try:
        result: T = runner.send(operation)
    except Stopped as stopped:
        error = stopped.error
    else:
        if runner.gi_yieldfrom is not None:
            operation.close()
            raise RuntimeError(f"{operation!r} suspended on a blocking runtime")
        _runners.append(runner)
        return result
    try:
        raise error
    finally:
        del error  # it would keep this frame in a cycle


class _Face(Generic[S, P, T]):
    """A placeholder in a class body.  When the class is created, it replaces itself by a function of its name."""

    def __init__(self, method: Callable[Concatenate[S, P], T]) -> None:
        self.method = method

    def face(self, method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Any]:
        """Return the blocking face of *method*."""
        raise NotImplementedError

    def __set_name__(self, owner: type[S], name: str) -> None:
        face: Any = update_wrapper(self.face(self.method), self.method)
        face.__name__ = name
        face.__qualname__ = f"{owner.__qualname__}.{name}"
        setattr(owner, name, face)


class Blocking(_Face[S, P, Coroutine[Any, Any, T]]):
    """The blocking face of a coroutine method: ``get = blocking(aget)``."""

    def face(self, method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[S, P], T]:
        def face(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                coroutine = method(self._still or self, *args, **kwargs)
            except TypeError as error:  # wrong arguments: the error names the coroutine
                text = str(error).replace(f"{method.__qualname__}()", f"{face.__qualname__}()")
                if type(error) is not TypeError or text == str(error):
                    raise
                raise TypeError(text) from None
            return complete(coroutine)

        return face


class Iterating(_Face[S, P, AsyncIterator[T]]):
    """The blocking face of an asynchronous generator method: ``iter_keys = iterating(aiter_keys)``."""

    def face(self, method: Callable[Concatenate[S, P], AsyncIterator[T]]) -> Callable[Concatenate[S, P], Iterator[T]]:
        def face(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            items = method(self._still or self, *args, **kwargs)
            with suppress(StopAsyncIteration):
                while True:
                    yield complete(anext(items))  # type: ignore[arg-type]  # as good as a coroutine

        return face


if TYPE_CHECKING:
    # For type checkers these are functions: both keep overloads and type variables of a method then, as no descriptor does.

    def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
        """Return the blocking face of *method*, a coroutine method."""
        raise NotImplementedError

    def iterating(
        method: Callable[Concatenate[Any, P], AsyncIterator[T]],
    ) -> Callable[Concatenate[Any, P], Iterator[T]]:
        """Return the blocking face of *method*, an asynchronous generator method."""
        raise NotImplementedError
else:
    blocking, iterating = Blocking, Iterating
