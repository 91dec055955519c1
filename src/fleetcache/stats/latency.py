"""Distributions of times: counts in buckets whose limits grow by a fourth of an octave.

A bucket reaches from a limit to about 1.19 times that limit, so a percentile is off by a tenth at most.  All
distributions have the same limits, so those of several processes are added up bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any, Final

SHORTEST: Final = 1e-6
"""Shorter times are counted in the first bucket."""
PARTS: Final = 4
"""Buckets for each doubling of the time."""
BUCKETS: Final = 27 * PARTS
"""The last bucket holds all times above two minutes."""
LIMITS: Final = tuple(SHORTEST * 2 ** ((place + 1) / PARTS) for place in range(BUCKETS))
"""The upper limit of each bucket, in seconds."""
PERCENTILES: Final = (50, 95, 99)
ENOUGH: Final = {50: 10, 95: 20, 99: 100}
"""How many times must have been measured to say this percentile of them."""


class Latency:
    """How often times of each length were measured."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sum = 0.0
        """All times together, in seconds."""

    @property
    def count(self) -> int:
        """How many times were measured."""
        return sum(self.counts)

    def note(self, seconds: float) -> None:
        """Count one time."""
        self.sum += seconds
        place = int(log2(seconds / SHORTEST) * PARTS) if seconds > SHORTEST else 0
        self.counts[min(place, BUCKETS - 1)] += 1

    def add(self, other: Latency) -> None:
        """Add what another distribution has counted."""
        self.sum += other.sum
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def percentile(self, percent: float) -> float:
        """Return the seconds that *percent* of the measured times did not exceed; 0 if none was measured.

        `figures` says this only of `ENOUGH` times.
        """
        return _percentile(self._known(), percent)

    def figures(self) -> dict[str, Any]:
        """Return the distribution in a form for JSON: `count`, `sum`, percentiles in seconds, and the buckets that are not empty.

        A percentile of too few times is None, see `ENOUGH`.
        """
        return written(self.sum, self._known())

    def _known(self) -> list[tuple[int, int]]:
        return [(place, count) for place, count in enumerate(self.counts) if count]

    @classmethod
    def read(cls, figures: Mapping[str, Any]) -> Latency:
        """Return the distribution that `figures` of this or another process returned; raise ValueError if it is none."""
        found = cls()
        found.sum, buckets = parsed(figures)
        for place, count in buckets:
            found.counts[place] += count
        return found


def brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Latency.figures` returned in fewer and shorter words, which `parsed` reads."""
    seconds, buckets = parsed(figures)
    counts = dict(buckets)
    first = min(counts, default=0)
    listed = [counts.get(place, 0) for place in range(first, max(counts, default=-1) + 1)]
    return {"sum": round(seconds, 6), "first": first, "counts": listed}


def parsed(figures: Mapping[str, Any]) -> tuple[float, list[tuple[int, int]]]:
    """Return the seconds, and the counts with the numbers of their buckets, in what `Latency.figures` or `brief` returned.

    Raise ValueError if it is no distribution.
    """
    try:
        if "counts" in figures:
            first, counts = max(int(figures["first"]), 0), figures["counts"]
            found = [(place, int(count)) for place, count in enumerate(counts, first) if count]
            if first + len(counts) > BUCKETS:  # of another version
                found = [(min(place, BUCKETS - 1), count) for place, count in found]
            return float(figures.get("sum", 0.0)), found
        buckets = [
            (PLACES[limit] if limit in PLACES else _place(limit), int(count)) for limit, count in figures["buckets"]
        ]
        return float(figures.get("sum", 0.0)), buckets
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no distribution of times: {error!r}") from error


def written(seconds: float, buckets: list[tuple[int, int]]) -> dict[str, Any]:
    """Return what `Latency.figures` returns for times of so many *seconds* together; *buckets* are in order, and none is empty."""
    measured = sum(count for _, count in buckets)
    return {
        "count": measured,
        "sum": seconds,
        **{f"p{each}": _percentile(buckets, each) if measured >= ENOUGH[each] else None for each in PERCENTILES},
        "buckets": [[LIMITS[place], count] for place, count in buckets],
    }


def _percentile(buckets: list[tuple[int, int]], percent: float) -> float:
    wanted = sum([count for _, count in buckets]) * percent / 100
    for place, count in buckets:
        if count >= wanted:
            # As if the times within a bucket were spread evenly, on the scale of the buckets.
            return float(SHORTEST * 2 ** ((place + max(wanted, 0) / count) / PARTS))
        wanted -= count
    return 0.0


def _place(limit: float) -> int:
    """Return the number of the bucket with this upper *limit*, or of one near it: another version may have other limits."""
    return min(max(round(log2(limit / SHORTEST) * PARTS) - 1, 0), BUCKETS - 1)


PLACES: Final = {limit: place for place, limit in enumerate(LIMITS)}
"""The numbers of the buckets by their limits."""
