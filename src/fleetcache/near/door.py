"""The doorkeeper: the names that were read lately, so that only a name's second read leaves a copy.

Most names are read once and never again.  A read that leaves a copy costs a PTTL, an entry in the journal and
one in the store; the first read of a name costs only a look into a small table.  Some bits of the name's hash
select a cell, which keeps the hash until another name takes the cell.  So a name is forgotten when another one
takes its cell, typically after about as many other names as there are cells.

(Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS 2017, has one in
front of its counters.  benchmarks/eviction.py: what it does to the hit ratio.)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

SHARE: Final = 512
"""The bytes of the store for each cell: one or two copies."""

CELL: Final = 4
"""The bytes of a cell: enough bits of a hash to tell two names of one cell apart."""

TAG: Final = 33
"""How far a hash is shifted so that it fits a cell."""


class Doorkeeper:
    """Knows which names were read lately, for a store of *max_bytes*.  No lock: a wrong answer does no harm."""

    def __init__(self, max_bytes: int) -> None:
        cells = 1 << (max_bytes // SHARE).bit_length() - 1
        self._mask = cells - 1
        self._cells = array("i", bytes(CELL * cells))
        self.bytes = CELL * cells

    def knows(self, name: str) -> bool:
        """Return whether *name* was read lately, and note this read."""
        hashed = hash(name)
        at, tag = hashed & self._mask, hashed >> TAG
        if self._cells[at] == tag:
            return True
        self._cells[at] = tag
        return False

    def known(self, names: Iterable[str]) -> set[str]:
        """Return those of *names* that were read lately, and note all these reads."""
        cells, mask = self._cells, self._mask
        found = set()
        for name in names:  # `knows`, written out
            hashed = hash(name)
            at, tag = hashed & mask, hashed >> TAG
            if cells[at] == tag:
                found.add(name)
            else:
                cells[at] = tag
        return found
