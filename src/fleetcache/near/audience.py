"""For which near caches names are announced, by the prefixes of the names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetcache.near.reads import Reads

SPARE = 16
"""Prefixes that may be announced for nobody, if no more are announced for somebody."""

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
        """What has to be announced."""

    def of(self, name: str) -> list[Reads]:
        """Return the reads that may have left a copy of *name*."""
        if len(self._lengths) == 1:  # written out: all that is announced comes by here
            return self._by_prefix.get(name[: self._lengths[0]], NOBODY)
        return [reads for length in self._lengths for reads in self._by_prefix.get(name[:length], NOBODY)]

    def outgrows(self, asked: Sequence[str]) -> bool:
        """Whether a connection that announces *asked* announces too little, or far too much, which only a new one can change.

        Servers refuse a prefix that another begins with, or that begins with another, and take none back; and they
        compare each name that is written with all of them.
        """
        if any(each.startswith(self.prefixes) and each not in self.prefixes for each in asked):
            return True
        unused = sum(not any(prefix.startswith(each) for prefix in self.prefixes) for each in asked)
        return unused > max(SPARE, len(asked) - unused)


def shortest(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return those of *prefixes* that begin with no other."""
    found: list[str] = []
    for prefix in sorted(prefixes):  # what begins with another comes after it
        if not (found and prefix.startswith(found[-1])):
            found.append(prefix)
    return tuple(found)
