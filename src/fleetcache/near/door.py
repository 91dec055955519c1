"""The doorkeeper: the names that were read lately, so that only a name's second read leaves a copy.

Most names are read once and never again.  A read that leaves a copy costs a PTTL, an entry in the journal and
one in the store; the first read of a name costs only a look into a small table.  The bits of the name's hash
select a cell on the left of the table and a cell on the right, and one of the two keeps some of these bits, the
name's *trace*.  A new trace takes an empty cell.  If both cells are taken, chance decides which of the two older
traces the new one displaces.

Let *m* names that share a cell with a name leave traces between two of its reads.  Then the second of the two reads
finds the name's trace with a probability of at least 2 ** -m, whatever happened before.  So a name that is read again
and again in a fixed order gets its copy, after at most 1 + 2 ** m reads on average.  A name that has a copy displaces
no trace, so *m* falls from round to round if all copies fit into the store.  (With one cell for each name, or without
chance, names that share cells could displace each other's traces in the same way for ever.)

`known` draws once for all of its names, so each crowded cell keeps the trace of the last name.  The next call draws
the other side with a probability of a half; then it finds these traces, unless other reads came between the calls.

The table begins small.  It doubles after about a quarter as many first reads as it has cells, until it has a cell for
each 256 to 512 bytes of the store, which takes 0.8 to 1.6 % of the store.

(Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS 2017, has one in
front of its counters.  benchmarks/eviction.py: what it does to the hit ratio.)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import zip_longest
from random import Random
from typing import Final, TypeAlias

SHARE: Final = 512
"""The bytes of the store for each cell of the largest table, at most: one or two copies."""

FIRST: Final = 512
"""The cells on each side of a new table."""

GROWTH: Final = 2
"""How many times a table doubles, on average, during as many first reads as it has cells on one side."""

CELL: Final = 4
"""The bytes of a cell: enough bits of a hash to tell apart two names that share a cell."""

TAG: Final = 34
"""How far a hash is shifted so that it fits a cell."""

chance = Random().random  # the sequence of random.random() belongs to the program

Table: TypeAlias = "tuple[array[int], array[int], int, float]"
"""The left and the right cells, the mask of their numbers, and the probability that a first read doubles the table."""


class Doorkeeper:
    """Knows which names were read lately, for a store of *max_bytes*.  No lock: a wrong answer does no harm.

    The table begins with *first* cells on each side.
    """

    def __init__(self, max_bytes: int, first: int = FIRST) -> None:
        self._most = 1 << (max_bytes // (2 * SHARE)).bit_length()
        self.max_bytes = 2 * CELL * self._most
        """The bytes of the table when it has its full size."""
        cells = array("i", bytes(CELL * min(first, self._most)))
        self._table = self._of(cells, cells[:])

    @property
    def bytes(self) -> int:
        """The bytes of the table now."""
        return 2 * CELL * len(self._table[0])

    def knows(self, name: str) -> bool:
        """Return whether *name* was read lately, and note this read."""
        lefts, rights, mask, growth = self._table
        hashed = hash(name)
        at, tag = hashed & mask, hashed >> TAG
        beside = (at ^ tag) & mask
        left, right = lefts[at], rights[beside]
        if left == tag or right == tag:  # noqa: PLR1714 - a tuple is slower
            return True
        drawn = chance()
        if left and (drawn < 0.5 or not right):
            rights[beside] = tag
        else:
            lefts[at] = tag
        if drawn < growth:
            self._table = self._of(lefts + lefts, rights + rights)
        return False

    def known(self, names: Sequence[str]) -> set[str]:
        """Return those of *names* that were read lately, and note all these reads."""
        drawn = chance()
        lefts, rights, mask, growth = self._table
        while drawn < growth * len(names):
            lefts, rights, mask, growth = self._table = self._of(lefts + lefts, rights + rights)
        found = set()
        for name in names:  # `knows`, written out
            hashed = hash(name)
            at, tag = hashed & mask, hashed >> TAG
            beside = (at ^ tag) & mask
            left, right = lefts[at], rights[beside]
            if left == tag or right == tag:  # noqa: PLR1714 - a tuple is slower
                found.add(name)
            elif left and (drawn < 0.5 or not right):
                rights[beside] = tag
            else:
                lefts[at] = tag
        return found

    def half(self, max_bytes: int, limit: int) -> Doorkeeper:
        """Return a doorkeeper for *max_bytes*, half as many, that knows the names whose hash is less than *limit*."""
        made, most = Doorkeeper(max_bytes, 1), limit >> TAG

        def kept(cells: array[int]) -> array[int]:
            traces = [trace if trace < most else 0 for trace in cells]
            middle = len(traces) // 2 or 1
            return array(
                "i", [one or other for one, other in zip_longest(traces[:middle], traces[middle:], fillvalue=0)]
            )

        lefts, rights, _, _ = self._table
        made._table = made._of(kept(lefts), kept(rights))
        return made

    def _of(self, lefts: array[int], rights: array[int]) -> Table:
        """Return the table of these cells."""
        # When a table doubles, the number of a cell gains a bit, which is not known here: each trace is in both cells.
        size = len(lefts)
        return lefts, rights, size - 1, GROWTH / size if size < self._most else 0.0
