"""The counters of the near cache: of each primary (`Events`), and of each near cache (`Counts`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleetcache.stats.figures import Figures

READS = Figures(
    "near",
    misses="Reads that found no copy that may be served, and asked a server.",
    filled="Copies that were made.",
    refused="Values that were read and not kept, because a change came between.",
    invalidations="Copies removed by a change: `push`, the server announced it; `own write`; `overtaken`, a read brought another value.",
)

EVENTS = Figures(
    "near",
    pushes="Names that servers announced as changed, copied here or not.",
    epochs="How often every copy was given up at once, by reason, such as `connection`, `flush` or `moved`.",
    connects="Attempts to connect to a server for its announcements.",
    canaries="Canaries whose announcement arrived: each proves that announcements come through.",
    touched="Names whose use was reported to the server, see `TOUCH`.",
    lag="The number of canaries by the time from their writing to their announcement, in microseconds.",
)


LONGEST = 24
"""All longer lags are counted under this power of 2."""


@dataclass
class Events:
    """Counters of the connections to one primary, since the process began."""

    pushes: int = 0
    """Names that were announced, copied here or not."""
    epochs: Counter[str] = field(default_factory=Counter)
    """How often every copy was given up, by reason."""
    connects: int = 0
    """Attempts to connect."""
    canaries: int = 0
    lags: Counter[int] = field(default_factory=Counter)
    """How many announcements of canaries took less than 2 to the power of each key in microseconds."""

    touched: int = 0
    """Names reported by `TOUCH`."""

    @property
    def lag(self) -> dict[str, int]:
        """The counts in ``lags``, by what was the limit of each."""
        return {f"< {2**power} us": self.lags[power] for power in sorted(self.lags)}

    def canary_took(self, seconds: float) -> None:
        """Count a canary's round trip."""
        self.lags[min(max(int(seconds * 1e6), 1).bit_length(), LONGEST)] += 1

    def add(self, other: Events) -> None:
        """Add the counters of another primary."""
        for name, mine in vars(self).items():
            setattr(self, name, mine + getattr(other, name))


@dataclass
class Counts:
    """Counters of the reads and copies of a near cache, since the process began."""

    misses: int = 0
    filled: int = 0
    refused: int = 0
    """Values that were read and not kept, because a change came between."""
    invalidations: dict[str, int] = field(default_factory=lambda: {"push": 0, "own write": 0, "overtaken": 0})
    """Copies dropped, by cause."""
