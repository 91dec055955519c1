"""A small simulation of the near cache's store: which of the sampled names would have a copy in a store of another size?

A store of *size* bytes that sees all names, and one of *rate* times *size* bytes that sees a sample of *rate* of the names,
have about the same miss ratio, whatever the policy. (Waldspurger, Saemundsson, Ahmad, Park: "Cache Modeling and
Optimization using Miniature Simulations", USENIX ATC 2017.  The curve of SHARDS, from reuse distances, is right for LRU only.)

`Mini` evicts what `Store` would evict, see there, with less work: there are no readers whose copies must not change, and no values,
epochs and counters.  The two queues are deques, from whose front copies are evicted.  A copy that was dropped or has moved stays where
it was, and is passed over later, as it is no longer the one that its name has.  `tests/near/test_minisim.py` holds a `Mini` against a `Store`,
after any reads, changes and expiries.

Whatever takes bytes of the real store besides its copies is scaled as well: the dict, the ghosts, the doorkeeper.  Rates are
powers of a half, so the dict and the tables double at the same moments as those of the real store.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from fleetcache.near.door import FIRST, Doorkeeper
from fleetcache.near.store import (
    CELL,
    CREDIT,
    ENTRY,
    GHOSTS,
    LARGEST,
    LOOKS,
    NUMBER,
    OWN,
    PACKED,
    PAYLOAD,
    SMALL,
    TABLES,
    Entry,
    Payload,
    weigh,
)

SHIFTS: Final = 20
"""The smallest rate is 2 to the power of minus this number."""

TRUSTED: Final = 50
"""With fewer simulated copies, the sample's part of the real store is chance."""

VOID: Final = 64
"""So many more void copies may be in the queues than copies."""


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


Simulated = tuple["Sampled", int, int, float, bool]
"""A simulated copy: its name, its bytes, the hits that evictions have counted, its deadline, and whether it is in the main queue.

A tuple, because it is made and replaced often; the copy of a name in a size is that in `Sampled.copies`, and others are void.
"""


class Sampled:
    """A sampled name that has a simulated copy in at least one size."""

    __slots__ = ("copies", "copy", "count", "ends", "hashed", "name", "past")

    def __init__(self, name: str, ends: float, sizes: int) -> None:
        self.name = name
        self.hashed = hash(name)
        self.copies: list[Simulated | None] = [None] * sizes
        """Its simulated copies, by the number of the size, for the sizes that simulate this name."""
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


class Mini:
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
        self.small, self.main = deque[Simulated](), deque[Simulated]()
        """The queues, their fronts first.  They may have void copies, which were dropped or moved."""
        self.entries = 0
        """The number of copies."""
        self._sample(shift)
        self.door = Doorkeeper(size >> shift, FIRST >> shift or 1) if door else None
        self.held = 0
        """The bytes of the copies."""
        self._waiting = 0
        """The bytes of the small queue."""
        self._ghosts = array("q", bytes(CELL * self._least_ghosts))
        self._fit_dict()
        self._scale(size >> shift)

    def _sample(self, shift: int) -> None:
        """Take 2 ** -*shift* of the names."""
        self.shift = shift
        self.limit = limit_of(shift)
        """The names are those whose hash is less."""
        self._least_ghosts = max(GHOSTS >> shift, 1)

    def suit(self, part: float) -> None:
        """Take the part of *size* that the sampled names would have in a store of this size.

        Of the hottest copies of the real store, as many as fill this size or all of them, the sampled names have this *part* of the bytes.
        It differs by chance from the rate: the more of a large or often evicted entry's kind are in the sample, the more room it needs.
        What a larger store holds besides is not known.
        """
        rate = share = 2.0**-self.shift
        if part and self.entries >= TRUSTED:
            share = (part + rate * (self.factor - 1)) / self.factor if self.factor > 1 else part
            share = min(max(share, rate / 2), rate * 2)
        self._scale(int(self.size * share))

    def _scale(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._fit()
        self._tenth = max_bytes // SMALL
        # What may be kept in the real store is refused here only if it would leave no room for anything else.
        self._largest = min(self.size // LARGEST, max_bytes // 2)

    def lower(self) -> None:
        """Simulate with half as many names."""
        self._sample(self.shift + 1)
        if self.door is not None:
            self.door = self.door.half(self.size >> self.shift, self.limit)
        self._scale(self.max_bytes // 2)
        self.drop_all(lambda copy: copy[0].hashed >= self.limit)
        self._tidy()
        self._fit_dict()
        self._fit()

    def _fit_dict(self) -> None:
        """Let the dict of the real store, with the names that are not sampled too, have the size for its entries."""
        bits = (3 * self.entries).bit_length()
        self._table = TABLES[min(bits + self.shift, len(TABLES) - 1)] >> self.shift
        self._full = ((1 << bits) - 1) // 3
        """With more entries it grows."""

    def _fit(self) -> None:
        """Find out how much room there is for copies besides tables."""
        door = self.door.max_bytes if self.door is not None else 0
        self._room = self.max_bytes - door - (OWN >> self.shift) - self._table - CELL * len(self._ghosts)

    # --- as in `Store` ----------------------------------------------------------------------------

    def keep(self, sampled: Sampled, weight: int, deadline: float) -> None:
        """Keep a copy, as `Store.put` does."""
        at, in_main = self.at, False
        old = sampled.copies[at]
        if old is not None:
            in_main = old[-1]
            self.drop(sampled)
        if weight > self._largest or not self._make_room(weight):
            return
        ghosts, hashed = self._ghosts, sampled.hashed
        cell = hashed & (len(ghosts) - 1)
        if ghosts[cell] == hashed:
            ghosts[cell] = 0
            in_main = True
        copy = sampled, weight, sampled.hits, deadline, in_main
        if in_main:
            self.main.append(copy)
        else:
            self.small.append(copy)
            self._waiting += weight
        self.held += weight
        self.entries += 1
        sampled.copies[at] = copy
        sampled.count += 1

    def drop(self, sampled: Sampled) -> bool:
        """Remove the copy of a name; return whether there was one."""
        copy = sampled.copies[self.at]
        if copy is None:
            return False
        _, weight, _, _, in_main = copy
        if not in_main:
            self._waiting -= weight
        self._remove(sampled, weight)
        if len(self.small) + len(self.main) > 2 * self.entries + VOID:
            self._tidy()
        return True

    def _tidy(self) -> None:
        """Take the void copies out of the queues."""
        self.small, self.main = deque(filter(self._is_there, self.small)), deque(filter(self._is_there, self.main))

    def _is_there(self, copy: Simulated) -> bool:
        return copy[0].copies[self.at] is copy

    def drop_all(self, useless: Callable[[Simulated], bool]) -> None:
        """Remove the copies that are *useless*."""
        for copy in [*self.main, *self.small]:
            if self._is_there(copy) and useless(copy):
                self.drop(copy[0])

    def change(self, sampled: Sampled) -> None:
        """Note that the entry of a name was changed; the next read leaves a copy, as after `Reads.drop`."""
        if self.drop(sampled) and self.door is not None:
            self.door.knows(sampled.name)

    def sweep(self, now: float) -> None:
        """Remove the copies that have expired."""
        self.drop_all(lambda copy: copy[3] <= now)
        self._fit_dict()
        self._fit()

    def _make_room(self, weight: int) -> bool:
        if self.entries > self._full:
            self._fit_dict()
            self._fit()
        while self.held + weight > self._room:
            if not self.entries:
                return False
            self._evict_one()
        return True

    def _evict_one(self) -> None:
        at, small, main, looks = self.at, self.small, self.main, LOOKS
        while True:
            waiting = self._waiting > self._tenth or not main
            copy = small.popleft() if waiting else main.popleft()
            sampled, weight, seen, deadline, _ = copy
            if sampled.copies[at] is not copy:
                continue
            real = sampled.copy
            hits = sampled.past if real is None else sampled.past + real.hits  # `Sampled.hits`
            if waiting:
                self._waiting -= weight
                if not looks or hits <= seen:
                    self._remember(sampled.hashed)
                    break
                seen = hits
            else:
                credit = min(hits - seen, CREDIT)
                if not looks or credit <= 0:
                    break
                seen = hits - credit + 1
            sampled.copies[at] = copy = sampled, weight, seen, deadline, True
            main.append(copy)
            looks -= 1
        self._remove(sampled, weight)

    def _remember(self, hashed: int) -> None:
        ghosts, entries = self._ghosts, self.entries
        cells = len(ghosts)
        if cells < entries:
            self._ghosts = ghosts = ghosts + ghosts
            self._fit()
        elif cells > 4 * entries and cells > self._least_ghosts:
            self._ghosts = ghosts = ghosts[: cells // 2]
            self._fit()
        ghosts[hashed & (len(ghosts) - 1)] = hashed

    def _remove(self, sampled: Sampled, weight: int) -> None:
        """Note that a copy is no more."""
        self.held -= weight
        self.entries -= 1
        sampled.copies[self.at] = None
        sampled.count -= 1
        self.gone(sampled)
