"""What a load takes, by group: a mean of the whole fleet, which outlives its processes.

A process that finds a warm cache loads nothing, so it could not say what its hits save.  Therefore a hash on the server has
a field for each group, with a number of loads and their mean time in microseconds.  A process that publishes its figures
reads those of its groups before its first entry, with every sixth, and when it has a new group; and adds the loads that it has run since.  Two that
do this at the same moment may lose the loads of one of them, which changes a mean little.  A mean stands for
`MOST` loads at most, so that it follows when loads become faster or slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetcache.exchange.contract import Command
from fleetcache.fleet import places

MOST = 1000
"""How many loads a mean stands for at most."""

LIVES = 30 * places.DAY
"""How many seconds the means are kept after a process has used them."""

FIELDS = 2000
"""A hash of this many groups gets no more."""

LONGEST = 3600e6
"""No load takes more microseconds than this; a longer mean was written by something else."""

Ask = Callable[[list[Command]], Sequence[Any]]
"""Sends commands about the hash, and returns the replies."""


class Means:
    """The means as a process knows them."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, float]] = {}
        """The loads, and their seconds, that the hash has of this process, by group."""
        self.asked: set[str] = set()
        """The groups whose means were asked for."""

    def exchanged(self, groups: Mapping[str, Any], name: str, ask: Ask) -> dict[str, float]:
        """Add the loads of *groups* to the hash called *name*; return the mean time of a load in seconds, by group."""
        if not (asked := list(groups)):
            return {}
        known: list[Any] = places.fits((replies := ask([(places.MEANS, name, *asked), (places.SIZE, name)]))[0], list)
        full = places.fits(replies[1], int) >= FIELDS
        means, new, told = dict[str, float](), list[str](), dict(self.told)
        for group, value in zip(asked, known, strict=True):
            count, mean = _read(value)
            each = groups[group]
            loads, seconds = each.loads, each.load_seconds
            before, earlier = self.told.get(group, (0, 0.0))
            if loads > before:
                more = loads - before
                mean = (mean * count + (seconds - earlier) * 1e6) / (count + more)
                count = min(count + more, MOST)
                if value is not None or not full:
                    new += [group, f"{count} {round(mean)}"]
                told[group] = loads, seconds
            if count:
                means[group] = mean / 1e6
        if means:
            writing: list[Command] = [(places.TELL, name, *new)] if new else []
            places.all_fit(ask([*writing, (places.LIVE_ON, name, LIVES * 1000)]))
        self.told = told
        self.asked = set(asked)
        return means


def _read(value: Any) -> tuple[int, float]:
    """Return the number of loads and their mean in microseconds that a field has; 0 of each if it has none."""
    count, _, mean = value.partition(b" ") if isinstance(value, bytes) else (b"", b"", b"")
    if not (count.isdigit() and mean.isdigit() and len(value) < 2 * len(str(LONGEST))):
        return 0, 0.0
    return min(int(count), MOST), min(float(mean), LONGEST)
