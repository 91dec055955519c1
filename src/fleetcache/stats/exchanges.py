"""Who hears of each exchange with a server: nobody, and at no cost, unless the program asks with `listen`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fleetcache.interrupts import let_pass
from fleetcache.stats.payloads import Said

log = logging.getLogger("fleetcache.stats")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Commands that were sent to one server together, and their outcome."""

    server: str
    """Its address, without a password."""
    commands: Sequence[tuple[Any, ...]]
    """Each begins with its name, such as ``b"GET"``.  Keys and values follow: do not log them whole."""
    replies: Sequence[Any] | None
    """One for each command, a refusal as a ``redis.exceptions.ResponseError``; None if there are none."""
    seconds: float
    """From the moment it was sent, or had to wait for a connection, until its replies were read."""
    error: BaseException | None
    """The reason why there are no replies."""


Hearing: TypeAlias = Callable[[Exchange], object]

_hearing: list[Hearing] = []
_said = Said()


def listen(hearing: Hearing) -> Callable[[], None]:
    """Call *hearing* with each `Exchange` of the caches that are made from now on; return a function that ends this.

    It is called where the replies are read: in the caller's thread, or on the event loop.  So it must be quick, and
    must not use a cache.  An exception that it raises is logged, and ignored.
    """
    _hearing.append(hearing)

    def end() -> None:
        if hearing in _hearing:
            _hearing.remove(hearing)

    return end


def is_heard() -> bool:
    """Whether anybody listens."""
    return bool(_hearing)


def tell(exchange: Exchange) -> None:
    """Tell everybody who listens of *exchange*."""
    for hearing in _hearing:
        try:
            hearing(exchange)
        except Exception as error:
            let_pass(error)
            if _said.is_new(repr(hearing)):
                log.exception("%r failed, and heard nothing of an exchange", hearing)
