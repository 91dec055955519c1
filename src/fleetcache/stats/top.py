"""The keys with the largest sums, found within bounded memory.

A table has counters for a few keys.  A key without a counter may have had up to the *floor* before; so what its counter says
is too small by the floor at most, and never too large.  The algorithm is "Space-Saving"
(Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", ICDT 2005), which
replaces the smallest counter by each new key, and ranks keys by what they may have had at most.  Here the table grows to
twice its room, and then gives up the smaller half at once, so that the smallest counter is not searched for each new key.
The guarantee is the same: all counters together are no more than all weights together, since those that are given up hold
at least what new ones were given; and none of those that stay is smaller than the floor, so the floor is at most the sum of
all weights divided by the room.

What is added may be of a sample.  Then the weight of an event is the reciprocal of the probability *p* with which it is in
the sample, and the sum has the variance ``w * (w - 1)`` for each event (Horvitz and Thompson, 1952).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any, Final

ROOM: Final = 256
"""How many keys a table keeps."""
LONGEST: Final = 200
"""Longer keys are cut to this number of characters, which bounds the memory."""


class Top:
    """The keys with the largest sums of weights."""

    __slots__ = ("floor", "room", "sums")

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sums: dict[str, list[float]] = {}
        """By key: the most that it may have had, what was added since it has a counter, and the variance of that."""
        self.floor: float = 0
        """No key without a counter has had more."""

    def add(self, key: str, weight: float, variance: float = 0) -> None:
        """Add *weight* to the sum of *key*, and *variance* to the variance of the sum."""
        if len(key) > LONGEST:
            key = key[:LONGEST]
        sums = self.sums
        known = sums.get(key)
        if known is None:
            sums[key] = [self.floor + weight, weight, variance]
            if len(sums) > 2 * self.room:
                self._shrink()
        else:
            known[0] += weight
            known[1] += weight
            known[2] += variance

    def _shrink(self) -> None:
        kept = sorted(self.sums.copy().items(), key=_most, reverse=True)
        self.sums = dict(kept[: self.room])
        self.floor = max(self.floor, _most(kept[self.room]))

    def known(self) -> dict[str, tuple[float, float]]:
        """Return the sum of each key that has a counter, and its variance."""
        return {key: (total, variance) for key, (_, total, variance) in self.sums.copy().items()}


def sure(keys: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return those of *keys*, as `largest` returns them, of which more is known than that they were met.

    The standard error is at most half of the sum, for which a sample must have four of the key's events.
    """
    return [each for each in keys if 2 * each[2] <= each[1]]


def _most(item: tuple[str, list[float]]) -> float:
    return item[1][0]


def largest(sums: Mapping[str, tuple[float, float]], count: int) -> list[list[Any]]:
    """Return the *count* keys with the largest of *sums*, each with its sum and the standard error of that, for JSON."""
    kept = sorted(sums.items(), key=lambda item: item[1][0], reverse=True)[:count]
    return [[key, total, round(sqrt(variance), 1)] for key, (total, variance) in kept]
