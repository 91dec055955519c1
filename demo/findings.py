"""What a scene found: a question, a number, and what else is worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OLD, NEW, THIRD = "old", "new", "third"
"""Classes of the report's style sheet: the colours of django-redis, of fleetcache, and of fleetcache with an option."""


@dataclass(frozen=True)
class Claim:
    """A sentence with figures, and whether the figures bear it out."""

    text: str
    holds: bool | None
    """None: too few rounds agree to judge it."""


@dataclass
class Outcome:
    """What a scene found.  Everything in it is computed from what was measured in this run."""

    scene: str
    question: str
    number: str
    """The one figure to remember, such as ``1.3×``."""
    meaning: str
    """What the number is, as a phrase that follows it."""
    claims: list[Claim]
    table: list[Sequence[str]]
    """Rows of cells; the first row has the names of the columns."""
    plot: str
    """SVG."""
    caption: str
    """A sentence below the plot; empty if the plot explains itself."""
    chart: list[str]
    """The same for a terminal: lines."""
    setup: str
    """Settings, as code."""
    notes: list[str] = field(default_factory=list)
    """How it was measured; what else was seen."""
    faults: list[str] = field(default_factory=list)
    """What must not happen, however slow the machine is: wrong pages, lost values."""

    @property
    def holds(self) -> bool:
        """Whether every claim holds that can be judged, and nothing happened that must not happen."""
        return not self.faults and not any(claim.holds is False for claim in self.claims)

    @property
    def doubt(self) -> str:
        """What has to stand beside the number; empty if every claim holds."""
        if not self.holds:
            return "does not hold"
        return "not all judged" if any(claim.holds is None for claim in self.claims) else ""


def many(count: int, what: str) -> str:
    """Return a number of things: ``1 page``, ``2 pages``, ``2 misses``, ``2 expiries``."""
    if count == 1:
        return f"1 {what}"
    if what.endswith("y"):
        return f"{count:,} {what[:-1]}ies"
    return f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def claimed(text: str, instead: str, holds: bool) -> Claim:
    """Return the claim *text*, or the sentence *instead*, which says plainly that it does not hold."""
    return Claim(text if holds else instead, holds)
