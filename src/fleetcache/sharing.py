"""What the cache objects of one configuration have in common, for as long as one of them is there, or was lately.

Django makes its cache objects anew for every thread, or task, and lets them go with it.  So what they share outlives
them for a while; but not for ever, because a program may make caches of ever new configurations.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from fleetcache.forks import Guard
from fleetcache.kinds import is_lazy

T = TypeVar("T")

LATELY = 60.0
"""Seconds for which a configuration is kept after a cache of it was made, though none is left."""

MOST = 32
"""Configurations of which no cache is left that are kept at most."""


def frozen(value: Any) -> Hashable:
    """Return *value* as something that equals another exactly if it means the same."""
    if isinstance(value, Mapping):
        return frozenset((str(name), frozen(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return (frozenset, frozenset(frozen(item) for item in value))
    if isinstance(value, partial):
        return (partial, frozen(value.func), frozen(value.args), frozen(value.keywords))
    if is_lazy(value):
        return (str, str(value))
    try:
        hash(value)
    except TypeError:
        if is_dataclass(value):
            return (type(value), tuple(frozen(getattr(value, each.name)) for each in fields(value)))
        if isinstance(value, bytearray):
            return (bytearray, bytes(value))
        return ("object", id(value))
    # By its own idea of equality, which without one is identity; 1, 1.0 and True are three.
    return (type(value), value)


class Sharing(Generic[T]):
    """Things by configuration, which disappear when nobody has had them lately."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.known: weakref.WeakValueDictionary[Hashable, T] = weakref.WeakValueDictionary()
        self.lately: dict[Hashable, tuple[float, T]] = {}
        """When each was last asked for, the latest last."""
        ALL.add(self)

    def get(self, key: Hashable) -> T | None:
        """Return what caches of *key* share; None if there is nothing yet."""
        found = self.known.get(key)
        return None if found is None else self.put(key, found)

    def put(self, key: Hashable, made: T) -> T:
        """Let caches of *key* share *made*, unless they share something already; return what they share."""
        with self.guard.lock:
            found = self.known.setdefault(key, made)
            self.lately.pop(key, None)
            self.lately[key] = (monotonic(), found)
        self.tidy()
        return found

    def tidy(self) -> None:
        """Let go of what nobody has had lately."""
        gone = []  # let go of when the lock is released: what that calls may be anything
        with self.guard.lock:
            now = monotonic()
            while self.lately:
                key, (asked, _) = next(iter(self.lately.items()))
                if now - asked <= LATELY and len(self.lately) <= MOST:
                    break
                gone.append(self.lately.pop(key))


ALL: weakref.WeakSet[Sharing[Any]] = weakref.WeakSet()


def tidy() -> None:
    """Let go of whatever nobody has had lately."""
    for sharing in list(ALL):
        sharing.tidy()
