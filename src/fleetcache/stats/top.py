"""The keys with the largest sums, found within bounded memory.

A table has room for a few keys.  A key that is not in the table takes the place of the key with the smallest sum, and
goes on from that sum.  So a sum in the table may be too large, by `over` at most, and never too small; and each key
whose true sum exceeds the total divided by the size of the table is in the table.  (Metwally, Agrawal, El Abbadi:
"Efficient computation of frequent and top-k elements in data streams", ICDT 2005: "Space-Saving".)
"""

from __future__ import annotations

from typing import Final

ROOM: Final = 64
"""How many keys a table holds."""
LONGEST: Final = 200
"""Longer keys are cut to this number of characters, which bounds the memory."""


class Top:
    """The keys with the largest sums of weights."""

    __slots__ = ("over", "room", "sums")

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.sums: dict[str, float] = {}
        self.over: dict[str, float] = {}
        """By how much the sum of a key may be too large: the sum of the key whose place it took."""

    def add(self, key: str, weight: float) -> None:
        """Add *weight* to the sum of *key*."""
        if len(key) > LONGEST:
            key = key[:LONGEST]
        sums = self.sums
        sum_ = sums.get(key)
        if sum_ is not None:
            sums[key] = sum_ + weight
            return
        if len(sums) < self.room:
            sums[key] = weight
            return
        try:
            least = min(sums, key=sums.__getitem__)
        except (KeyError, RuntimeError):  # another thread has changed the table: this one weight is lost
            return
        taken = sums.pop(least, 0.0)
        self.over.pop(least, None)
        sums[key] = taken + weight
        self.over[key] = taken

    def largest(self, count: int) -> list[tuple[str, float]]:
        """Return the *count* keys with the largest sums, the largest first."""
        return sorted(self.sums.copy().items(), key=lambda item: item[1], reverse=True)[:count]

    def clear(self) -> None:
        """Begin anew."""
        self.sums, self.over = {}, {}
