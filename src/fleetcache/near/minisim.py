"""A small simulation of the near cache's store: which of the sampled names would have a copy in a store of another size?

A store of *size* bytes that sees all names, and one of *rate* times *size* bytes that sees a sample of *rate* of the names,
have about the same miss ratio, whatever the policy. (Waldspurger, Saemundsson, Ahmad, Park: "Cache Modeling and
Optimization using Miniature Simulations", USENIX ATC 2017.  The curve of SHARDS, from reuse distances, is right for LRU only.)

`Mini` is the near cache's own `Store`, so it evicts by the same code; its copies hold no values.  Whatever takes
bytes of the real store besides its copies is scaled as well: the dict, the ghosts, the doorkeeper.  Rates are powers of a
half, so the dict and the tables double at the same moments as those of the real store.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import inf
from typing import Any, Final

from fleetcache.near.door import FIRST, Doorkeeper
from fleetcache.near.store import (
    CELL,
    ENTRY,
    GHOSTS,
    LARGEST,
    NOWHERE,
    NUMBER,
    OWN,
    PACKED,
    PAYLOAD,
    SMALL,
    TABLES,
    Entry,
    Epoch,
    Payload,
    Store,
    weigh,
)

TRUSTED: Final = 50
"""With fewer simulated copies, the sample's part of the real store is chance."""

ALWAYS: Final = Epoch(inf)
"""The epoch of all simulated copies: those of an epoch that ends are dropped."""


def limit_of(shift: int) -> int:
    """Return the limit of the hashes of 2 ** -*shift* of all names."""
    return (1 << 64 - shift) - (1 << 63)


def weight_of(name: str, value: Any, payload: Payload) -> int:
    """Return the bytes that `Store.put` counts for a copy without tags."""
    weight = ENTRY + weigh(name)
    if payload is not None:
        weight += PAYLOAD + len(payload)
    if value is not PACKED:
        weight += weigh(value)
    return weight + NUMBER if weight > 256 else weight


class Sampled:
    """A sampled name that has a simulated copy in at least one size."""

    __slots__ = ("copies", "copy", "count", "ends", "name", "past")

    def __init__(self, name: str, ends: float, sizes: int) -> None:
        self.name = name
        self.copies: list[Simulated | None] = [None] * sizes
        """Its simulated copies, by the number of the size."""
        self.count = 0
        """How many there are."""
        self.copy: Entry | None = None
        """Its real copy, which counts its own hits."""
        self.past = 0
        """The reads that are not counted by the real copy, less the hits that the copy had when it was noted here."""
        self.ends = ends
        """When the entry itself expires, as far as it is known."""

    @property
    def hits(self) -> int:
        """The number of its reads; only differences mean something."""
        copy = self.copy
        return self.past if copy is None else self.past + copy.hits

    def join(self, copy: Entry) -> None:
        """Note its real copy."""
        self.past = self.hits - copy.hits
        self.copy = copy

    def part(self) -> None:
        """Note that its real copy is gone."""
        self.past, self.copy = self.hits, None


class Simulated(Entry):
    """A simulated copy.  The reads of the name since it was made are its hits: nobody has to tell it."""

    __slots__ = ("sampled",)

    def __init__(self, sampled: Sampled, deadline: float, weight: int) -> None:
        self.name = sampled.name
        self.deadline = deadline
        self.epoch = ALWAYS
        self.weight = weight
        self.sampled = sampled
        self.seen = sampled.hits

    @property
    def hits(self) -> int:  # type: ignore[override]  # a slot is read alike
        """The reads of the name: `Sampled.hits`, written out, because evictions ask often."""
        sampled = self.sampled
        copy = sampled.copy
        return sampled.past if copy is None else sampled.past + copy.hits


class Mini(Store):
    """A store of *factor* times *max_bytes* for all names, simulated with 2 ** -*shift* of them; the real store has *max_bytes*.

    *at* is its number in `Sampled.copies`; *gone* is called with a sampled name that it has evicted.
    """

    def __init__(
        self, max_bytes: int, factor: float, shift: int, at: int, gone: Callable[[Sampled], object], *, door: bool
    ) -> None:
        self.size = size = int(max_bytes * factor)
        self.factor = factor
        self.at = at
        self.gone = gone
        self.skew = 1.0
        """How much larger the sample's part is of the hottest copies, of as many bytes as this size, than of all copies."""
        self.has_door = door
        self._sample(shift)
        super().__init__(size >> shift, self._new_door())
        self._scale(self.max_bytes)

    def _sample(self, shift: int) -> None:
        """Take 2 ** -*shift* of the names."""
        self.shift = shift
        self.limit = limit_of(shift)
        """The names are those whose hash is less."""
        self.weight = 1 << shift
        """The number of names that each of them stands for."""
        self.tables = SCALED[shift]
        """The bytes of the dict of the real store, for the names in it that are not sampled too, scaled."""

    def _new_door(self) -> Doorkeeper | None:
        return Doorkeeper(self.size >> self.shift, FIRST >> self.shift or 1) if self.has_door else None

    def _empty(self) -> None:
        super()._empty()
        self._held = OWN >> self.shift
        self._ghosts = array("q", bytes(CELL * max(GHOSTS >> self.shift, 1)))
        self._table = self.tables[0]

    def suit(self, held: int, real: int) -> None:
        """Take the part of *size* that the sampled names would have in a store of this size.

        The real store has *held* bytes, *real* of them for the sampled names.  Their part differs by chance from the rate: the
        more of a large or often evicted entry's kind are in the sample, the more room it needs.  So a simulation of the real
        size keeps as many bytes as the real store keeps of the sampled names, and one of a smaller size as many as the hottest
        copies have of them.  What a larger store holds besides is not known.
        """
        rate = share = 2.0**-self.shift
        if held and len(self.copies) >= TRUSTED:
            known = real / held
            share = known * self.skew if self.factor <= 1 else (known + rate * (self.factor - 1)) / self.factor
            share = min(max(share, rate / 2), rate * 2)
        self._scale(int(self.size * share))

    def _scale(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._room = self.max_bytes - (self.door.max_bytes if self.door is not None else 0)
        self._tenth = self.max_bytes // SMALL
        # What may be kept in the real store is refused here only if it would leave no room for anything else.
        self._largest = min(self.size // LARGEST, self.max_bytes // 2)
        self.least_ghosts = max(GHOSTS >> self.shift, 1)

    def lower(self) -> None:
        """Simulate with half as many names."""
        self._held -= OWN >> self.shift
        self._sample(self.shift + 1)
        self._held += OWN >> self.shift
        self.skew = 1.0
        if self.door is not None:
            self.door = self.door.half(self.size >> self.shift, self.limit)
        self._scale(self.max_bytes // 2)
        for name in list(self.copies):
            if hash(name) >= self.limit:
                self.drop(name)
        self._table = self.tables[(3 * len(self.copies)).bit_length()]

    def keep(self, sampled: Sampled, weight: int, deadline: float) -> None:
        """Keep a copy, as `Store.put` does."""
        name, copies, queue = sampled.name, self.copies, self._small
        if name in copies:
            if copies[name].queue is self._main:
                queue = self._main
            self.drop(name)
        if weight > self._largest or not self._make_room(weight):
            return
        ghosts, hashed = self._ghosts, hash(name)
        cell = hashed & (len(ghosts) - 1)
        if ghosts[cell] == hashed:
            ghosts[cell] = 0
            queue = self._main
        entry = Simulated(sampled, deadline, weight)
        self._held += weight
        self._append(entry, queue)
        copies[name] = entry
        sampled.copies[self.at] = entry
        sampled.count += 1

    def change(self, name: str) -> None:
        """Note that the entry called *name* was changed; the next read leaves a copy, as after `Reads.drop`."""
        if self.drop(name) and self.door is not None:
            self.door.knows(name)

    def _remove(self, entry: Entry) -> None:
        # The lines of `Store._remove` that matter here: nobody watches this store, and its hits are not added up.
        before, after, weight = entry.before, entry.after, entry.weight
        before.after = after
        after.before = before
        if entry is self._hand:
            self._hand = after
        entry.before = entry.after = NOWHERE
        entry.queue.weight -= weight
        self._held -= weight
        sampled: Sampled = entry.sampled  # type: ignore[attr-defined]  # only copies of sampled names come here
        sampled.copies[self.at] = None
        sampled.count -= 1
        self.gone(sampled)

    def sweep(self, now: float, limit: int = 1000) -> bool:
        """Inspect about *limit* copies and remove those that have expired; return False when all have been inspected."""
        more = super().sweep(now, limit)
        self._table = self.tables[(3 * len(self.copies)).bit_length()]
        return more

    def clear(self) -> None:
        """Drop every copy, in order."""
        for name in list(self.copies):
            self.drop(name)


def _scaled(shift: int) -> tuple[int, ...]:
    return tuple(TABLES[min(bits + shift, len(TABLES) - 1)] >> shift for bits in range(len(TABLES)))


SHIFTS: Final = 20
"""The smallest rate is 2 to the power of minus this number."""
SCALED: Final = tuple(map(_scaled, range(SHIFTS + 1)))
