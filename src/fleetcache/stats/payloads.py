"""The count of unreadable payloads, shared by the caches of one configuration, and their log lines of a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from fleetcache.forks import in_children
from fleetcache.stats.figures import Figures

PAYLOADS = Figures("", unreadable="Payloads that no serializer could read, and that were taken as missing.")

LOADS = Figures(
    "loading",
    loads="Loaders that were called.",
    joined="Calls that waited for a load of the same process.",
    waited="Loads that waited for another process to load first.",
    stale_served="Stale values that `get_or_set`, `get_or_set_many` and `@cached` returned.",
    load_errors="Loaders that failed.",
    fills_refused="Values that were not stored, because something gave them up while they were loaded.",
    early="Values that were renewed before the end of their fresh life.",
)

MINUTE = 60.0
MOST = 1000


class Said:
    """The names logged within the last minute: they are not logged again, and at most 1000 of a kind are."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def is_new(self, what: str) -> bool:
        """Whether *what* should be logged now."""
        now, times = monotonic(), self.times
        if now < times.get(what, -MINUTE) + MINUTE:
            return False
        for old, at in list(times.items()):  # in the order of their times; a copy, as other threads come here too
            if now < at + MINUTE:
                break
            times.pop(old, None)
        if len(times) >= MOST:
            return False
        times[what] = now
        return True


@dataclass(eq=False)
class Stats:
    """Counters since the process began."""

    unreadable: int = 0
    """Payloads that could not be read, and counted as missing."""

    loads: int = 0
    joined: int = 0
    waited: int = 0
    stale_served: int = 0
    load_errors: int = 0
    fills_refused: int = 0
    early: int = 0

    said: Said = field(default_factory=Said)
    """Their names, if they were logged lately."""

    denied: float = -MINUTE
    """When the server last said that this user may not touch leases."""

    unscripted: float = -MINUTE
    """When it last said that this user may run no scripts."""

    def __post_init__(self) -> None:
        in_children(self.after_fork)

    def after_fork(self) -> None:
        """Start to count anew, in a child."""
        for each in ("unreadable", *LOADS.names):
            setattr(self, each, 0)
