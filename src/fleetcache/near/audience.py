"""Which near caches an announced name concerns, found by the prefixes of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetcache.near.reads import Reads

SPARE = 16
"""How many unused prefixes a connection may announce, if no more are in use."""

NOBODY: list[Reads] = []


class Audience:
    """The reads of several near caches, found by the names that are announced."""

    def __init__(self, readers: Iterable[Reads]) -> None:
        found: dict[str, list[Reads]] = {}
        for reads in readers:
            for prefix in reads.prefixes:
                found.setdefault(prefix, []).append(reads)
        self._by_prefix = found
        self._lengths = sorted({len(prefix) for prefix in found})
        self.prefixes = shortest(found)
        """The prefixes that must be announced."""

    def of(self, name: str) -> list[Reads]:
        """Return the reads that may have left a copy of *name*."""
        if len(self._lengths) == 1:  # the common case, written out: every announcement passes here
            return self._by_prefix.get(name[: self._lengths[0]], NOBODY)
        return [reads for length in self._lengths for reads in self._by_prefix.get(name[:length], NOBODY)]

    def outgrows(self, asked: Sequence[str]) -> bool:
        """Whether a connection with the prefixes *asked* must be replaced: it announces too little, or far too much.

        Servers refuse two prefixes of which one is the beginning of the other, and cannot remove a single one; and they
        compare each written name with all of them.
        """
        if any(each.startswith(self.prefixes) and each not in self.prefixes for each in asked):
            return True
        unused = sum(not any(prefix.startswith(each) for prefix in self.prefixes) for each in asked)
        return unused > max(SPARE, len(asked) - unused)


def shortest(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return those of *prefixes* that begin with no other."""
    found: list[str] = []
    for prefix in sorted(prefixes):  # a longer prefix comes after its own beginning
        if not (found and prefix.startswith(found[-1])):
            found.append(prefix)
    return tuple(found)
