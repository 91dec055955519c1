"""The keys with the largest sums, found within bounded memory.

A table has counters for a few keys.  A key without a counter begins with the sum that it may have had when it was last
taken out, the *floor*; so a sum is never too small, and too large by the floor at most.  The algorithm is "Space-Saving"
(Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", ICDT 2005), which
replaces the smallest counter by each new key.  Here the table grows to twice its room, and then gives up the smaller
half at once, so that the smallest counter is not searched for each new key.  The guarantee is the same: all counters
together are no more than all weights together, since those that are given up hold at least what new ones were given;
and none of those that stay is smaller than the floor, so the floor is at most the sum of all weights divided by the room.
"""

from __future__ import annotations

from typing import Final

ROOM: Final = 64
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
        self.sums: dict[str, float] = {}
        self.floor = 0.0
        """No key without a counter has a larger sum."""

    def add(self, key: str, weight: float) -> None:
        """Add *weight* to the sum of *key*."""
        if len(key) > LONGEST:
            key = key[:LONGEST]
        sums = self.sums
        sums[key] = sums.get(key, self.floor) + weight
        if len(sums) > 2 * self.room:
            self._shrink()

    def _shrink(self) -> None:
        kept = self.largest(self.room + 1)
        self.sums = dict(kept[: self.room])
        self.floor = max(self.floor, kept[-1][1])

    def largest(self, count: int) -> list[tuple[str, float]]:
        """Return the *count* keys with the largest sums, the largest first."""
        return sorted(self.sums.copy().items(), key=lambda item: item[1], reverse=True)[:count]
