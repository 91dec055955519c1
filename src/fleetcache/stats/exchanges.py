"""Listeners to exchanges: `listen` registers a function that is called after each; without one there is no cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from fleetcache.interrupts import let_pass
from fleetcache.stats.payloads import Said

log = logging.getLogger("fleetcache.stats")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Commands that were sent together to one server, and their outcome."""

    server: str
    """Its address, without a password."""
    commands: Sequence[tuple[Any, ...]]
    """Each begins with its name, such as ``b"GET"``.  Keys and values follow: do not log them whole."""
    replies: Sequence[Any] | None
    """One for each command, a refusal as a ``redis.exceptions.ResponseError``; None if there are none."""
    seconds: float
    """The time from sending, or from waiting for a connection, until the replies were read."""
    error: BaseException | None
    """The reason why there are no replies."""
    in_cluster: bool = False
    """Whether the server is a node of a cluster."""


Hearing: TypeAlias = Callable[[Exchange], object]

_hearing: list[partial[object]] = []
"""The functions that were registered, each in an object of its own: one may be registered twice."""
_expecting: set[object] = set()
"""One object for each caller of `expect`."""
_said = Said()
_is_own: ContextVar[bool] = ContextVar("fleetcache.own", default=False)


def listen(hearing: Hearing) -> Callable[[], None]:
    """Call *hearing* with each `Exchange` of the caches that are created from now on; return a function that ends this.

    It is called where the replies are read: in the caller's thread, or on the event loop.  So it must be quick, and
    must not use a cache.  An exception that it raises is logged, and ignored.
    """
    if not callable(hearing):
        raise TypeError(f"listen: a function is expected, not {type(hearing).__name__}")
    if iscoroutinefunction(hearing) or iscoroutinefunction(type(hearing).__call__):
        raise TypeError("listen: a plain function is expected; a coroutine function would never be awaited")
    registered = partial(hearing)
    _hearing.append(registered)

    def end() -> None:
        with suppress(ValueError):  # it has ended before
            _hearing.remove(registered)

    return end


def expect() -> Callable[[], None]:
    """From now on create caches that can be listened to, though nobody listens yet; return a function that ends this."""
    expected = object()
    _expecting.add(expected)
    return lambda: _expecting.discard(expected)


def is_heard() -> bool:
    """Whether there is a listener, or one is expected."""
    return bool(_hearing or _expecting)


@contextmanager
def unheard() -> Iterator[None]:
    """Report no exchange of this thread, or task, meanwhile: it is the library's own, and no caller waits for it."""
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)


def hears() -> bool:
    """Whether anybody listens at the moment."""
    return bool(_hearing)


def tell(exchange: Exchange) -> None:
    """Call every listener with *exchange*."""
    if _is_own.get():
        return
    for hearing in tuple(_hearing):  # one of them may end itself
        try:
            hearing(exchange)
        except Exception as error:
            let_pass(error)
            if _said.is_new(repr(hearing.func)):
                log.exception("%r failed, so one exchange was not reported to it", hearing.func)
