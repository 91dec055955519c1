"""Watchers of operations: `watch` registers a function that is called around each; while there is none, nothing is wrapped.

An *operation* is what a program calls: ``get``, ``aget_or_set``, the run of a pipeline, the acquisition of a lock.  What
an operation calls by itself is not reported.  A loader is code of the program, so its own operations are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Literal, NamedTuple, TypeAlias

from fleetcache.interrupts import let_pass
from fleetcache.stats.payloads import Said

log = logging.getLogger("fleetcache.stats")

Level: TypeAlias = Literal["near", "server", "stale", "loaded"]


@dataclass(slots=True, eq=False)
class Operation:
    """One call of a public operation."""

    name: str
    """Its name without the "a" of the awaited one, such as "get"; "pipeline"; "lock.acquire", "lock.release" and so on."""
    awaited: bool
    cache: Any
    """The cache on which it was called.  Do not use it to call another operation."""
    keys: tuple[Any, ...]
    """The keys that it was given; empty if it has none, as `clear` and a pipeline."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parts: tuple[str, ...] = ()
    """The names of the operations in a pipeline."""
    iterates: bool = False
    """Whether it yields its results: the program goes on before its end, so nothing may be made current until then."""


class Facts(NamedTuple):
    """What came of an operation."""

    level: Level | None
    """Where the value is from: a copy in this process, a server, an old value in place of a new one, or a loader.

    Of several keys it is "near" if all values that were found are copies.  None if no value was asked for.
    """
    hit: bool | None
    """Whether a read found a value, of several keys at least one, without a loader; a stored None is found.

    None for what is no read of values.
    """
    bytes: int | None
    """The bytes of the payloads that were read or, if a value was stored, written; None if there were none."""


UNKNOWN = Facts(None, None, None)

Finish: TypeAlias = Callable[[Any, BaseException | None, Facts], object]
Watcher: TypeAlias = Callable[[Operation], Finish | None]


class Noted:
    """What is noted while an operation runs, in any thread or task that works for it."""

    __slots__ = ("found", "kept", "loaded", "near", "read", "stale", "value", "written")

    def __init__(self) -> None:
        self.near = False
        """Whether a copy was served, and of several keys nothing but copies."""
        self.found = False
        """Whether a value was found."""
        self.value: Any = self
        """The value that the last read of one key has found; this object if none was."""
        self.stale = False
        """Whether the entry was found to be stale."""
        self.loaded = False
        self.kept: Level | None = None
        """The level of a value that was returned although it is to be renewed."""
        self.read = 0
        self.written = 0


_watching: list[partial[Finish | None]] = []
"""The functions that were registered, each in an object of its own: one may be registered twice."""
_said = Said()
FAILED = "%r failed, so one operation was not reported to it"
_current: ContextVar[Noted | None] = ContextVar("fleetcache operation", default=None)


def watch(watcher: Watcher) -> Callable[[], None]:
    """Call *watcher* with each `Operation` of the caches that are created from now on; return a function that ends this.

    It is called when an operation begins, and may return a function, which is called at the end with the result, the
    error or None, and the `Facts`.  Both run in the caller's thread, or in his task, so they must be quick, and must not
    use a cache.  An exception that they raise is logged once a minute, and ignored.
    """
    if not callable(watcher):
        raise TypeError(f"watch: a function is expected, not {type(watcher).__name__}")
    if iscoroutinefunction(watcher) or iscoroutinefunction(type(watcher).__call__):
        raise TypeError("watch: a plain function is expected; a coroutine function would never be awaited")
    registered = partial(watcher)
    _watching.append(registered)

    def end() -> None:
        with suppress(ValueError):  # it has ended before
            _watching.remove(registered)

    return end


def is_watched() -> bool:
    """Whether there is a watcher."""
    return bool(_watching)


def noted() -> Noted | None:
    """Return what is noted of the operation that this code runs for; None if it is not watched."""
    return _current.get()


# --- code of the program that runs within an operation --------------------------------------------

Away: TypeAlias = Token[Noted | None] | None


def leave() -> Away:
    """Note that a loader runs: until `come_back` gets the result, operations in this context are the program's own."""
    if not _watching or (running := _current.get()) is None:
        return None
    running.loaded = True
    return _current.set(None)


def come_back(away: Away) -> None:
    """Go on with the operation that was left."""
    if away is not None:
        with suppress(ValueError):  # closed by the garbage collector, in another context
            _current.reset(away)


# --- one operation --------------------------------------------------------------------------------


class Span:
    """One operation, from its begin to its end."""

    __slots__ = ("facts", "finishes", "noted", "token")

    def __init__(self, operation: Operation, facts: Callable[[Noted, Operation, Any], Facts]) -> None:
        self.noted = Noted()
        self.facts = partial(facts, self.noted, operation)
        self.token = _current.set(self.noted)
        self.finishes: list[tuple[Any, Finish]] = []
        for watcher in tuple(_watching):  # one of them may end itself
            try:
                if (finish := watcher(operation)) is not None:
                    self.finishes.append((watcher.func, finish))
            except Exception as error:
                let_pass(error)
                if _said.is_new(repr(watcher.func)):
                    log.exception(FAILED, watcher.func)

    def end(self, result: Any, error: BaseException | None) -> None:
        """Tell the watchers what came of it, the first one last: what one has begun within another ends before it."""
        facts = UNKNOWN if error is not None else self.facts(result)
        for watcher, finish in reversed(self.finishes):
            try:
                finish(result, error, facts)
            except Exception as failure:
                let_pass(failure)
                if _said.is_new(repr(watcher)):
                    log.exception(FAILED, watcher)
        self.pause()

    def pause(self) -> None:
        """Leave the context to the program: at the end, and whenever an operation yields a result."""
        with suppress(ValueError, RuntimeError):  # closed by the garbage collector, in another context; or in a pause
            _current.reset(self.token)

    def go_on(self) -> None:
        """Go on after a pause."""
        self.token = _current.set(self.noted)


Begin: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Span, tuple[Any, ...], dict[str, Any]]]
"""Begins the operation of an object with these arguments; returns them too, because an iterator of keys has been read."""


def around(plain: Any, begin: Begin) -> Any:
    """Return *plain*, a method of any kind, as one whose calls are operations."""
    for fits, wrap in (
        (isasyncgenfunction, _yielding_awaited),
        (iscoroutinefunction, _awaited),
        (isgeneratorfunction, _yielding),
    ):
        if fits(plain):
            return wrap(plain, begin)
    return _called(plain, begin)


def _is_reported(of: Any) -> bool:
    """Whether a call on *of* is an operation: there are watchers, it is no part of another one, and not of a pipeline."""
    return bool(_watching) and _current.get() is None and not of._runtime.records


def _called(plain: Any, begin: Begin) -> Any:
    @wraps(plain)
    def operation(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not _is_reported(self):
            return plain(self, *args, **kwargs)
        span, args, kwargs = begin(self, args, kwargs)
        try:
            result = plain(self, *args, **kwargs)
        except BaseException as error:
            span.end(None, error)
            raise
        span.end(result, None)
        return result

    return operation


def _awaited(plain: Any, begin: Begin) -> Any:
    @wraps(plain)
    async def operation(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not _is_reported(self):
            return await plain(self, *args, **kwargs)
        span, args, kwargs = begin(self, args, kwargs)
        try:
            result = await plain(self, *args, **kwargs)
        except BaseException as error:
            span.end(None, error)
            raise
        span.end(result, None)
        return result

    return operation


def _yielding(plain: Any, begin: Begin) -> Any:
    @wraps(plain)
    def operation(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not _is_reported(self):
            yield from plain(self, *args, **kwargs)
            return
        span, args, kwargs = begin(self, args, kwargs)
        error: BaseException | None = None
        try:
            for item in plain(self, *args, **kwargs):
                span.pause()
                yield item
                span.go_on()
        except BaseException as failure:
            error = failure
            raise
        finally:
            span.end(None, None if isinstance(error, GeneratorExit) else error)

    return operation


def _yielding_awaited(plain: Any, begin: Begin) -> Any:
    @wraps(plain)
    async def operation(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not _is_reported(self):
            async for item in plain(self, *args, **kwargs):
                yield item
            return
        span, args, kwargs = begin(self, args, kwargs)
        error: BaseException | None = None
        left = False
        try:
            async with aclosing(plain(self, *args, **kwargs)) as items:
                async for item in items:
                    span.pause()
                    try:
                        yield item
                    except BaseException:  # it is closed: at the end of a loop by a task that is cancelled
                        left = True
                        raise
                    span.go_on()
        except BaseException as failure:
            error = failure
            raise
        finally:
            span.end(None, None if left else error)

    return operation
