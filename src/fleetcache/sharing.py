"""The parts that the caches of one configuration share, kept as long as such a cache exists, and for a while after.

Django makes new cache objects for every thread, or task, and drops them with it.  So the shared parts outlive the caches
for a while; but not for ever, because a program may make caches of ever new configurations.
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
"""How many seconds the parts are kept after a cache of their configuration was made, if no such cache is left."""

MOST = 32
"""How many configurations are kept at most of which no cache is left."""


def frozen(value: Any) -> Hashable:
    """Return a hashable object for *value*; two of them are equal exactly if their values mean the same."""
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
    # By the equality of its class; 1, 1.0 and True are three different values.
    return (type(value), value)


class Sharing(Generic[T]):
    """Objects by configuration; an object disappears when no cache uses it and none was made lately."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.known: weakref.WeakValueDictionary[Hashable, T] = weakref.WeakValueDictionary()
        self.lately: dict[Hashable, tuple[float, T]] = {}
        """The moment at which each object was last asked for, in this order."""
        ALL.add(self)

    def get(self, key: Hashable) -> T | None:
        """Return the object of *key*; None if there is none yet."""
        found = self.known.get(key)
        return None if found is None else self.put(key, found)

    def put(self, key: Hashable, made: T) -> T:
        """Make *made* the object of *key*, unless there is one already; return the object of *key*."""
        with self.guard.lock:
            found = self.known.setdefault(key, made)
            self.lately.pop(key, None)
            self.lately[key] = (monotonic(), found)
        self.tidy()
        return found

    def tidy(self) -> None:
        """Forget the objects that no cache has asked for lately."""
        gone = []  # they are freed after the lock, because their finalizers may do anything
        with self.guard.lock:
            now = monotonic()
            while self.lately:
                key, (asked, _) = next(iter(self.lately.items()))
                if now - asked <= LATELY and len(self.lately) <= MOST:
                    break
                gone.append(self.lately.pop(key))


ALL: weakref.WeakSet[Sharing[Any]] = weakref.WeakSet()


def tidy() -> None:
    """Forget every shared object that no cache has asked for lately."""
    for sharing in list(ALL):
        sharing.tidy()
