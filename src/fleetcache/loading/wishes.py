"""What one caller of a loading operation wants, and what he has seen of the entry so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

from fleetcache.judging import MOST_DRAWN, drawn, mark
from fleetcache.marks import MISSING
from fleetcache.policy import Decision, Policy, decide, early_by
from fleetcache.reading import Found

Mark = tuple[str, bytes]
"""How a script can tell whether an entry still is the one that was judged: see `judging.mark`."""

MISSING_ENTRY: Mark = ("", b"")


@dataclass(slots=True, eq=False)
class Wish:
    """What one caller wants, and what he has seen."""

    key: Any
    name: str
    make: Callable[[], Any]
    policy: Policy
    version: Any
    tags: tuple[str, ...]
    began: float
    """When he began: a value that he is given has to be as new."""
    refresh: bool = False
    """Whether he wants a value that is loaded from now on, whatever there is."""
    impatient: bool = False
    """Whether he has waited long enough for others."""
    judged: Mark = MISSING_ENTRY
    """The entry that he has seen, which is to be replaced."""
    old: Any = MISSING
    """Its value."""
    early: bool = False
    """Whether he found it fresh, and renews it before its end."""
    spare_until: float = -inf
    """Until when, on the clock of this process, he takes the old value if no new one can be loaded."""
    counted: str = ""
    """At which level his read has been counted, which what comes of it may change; "" if it has not been counted."""

    def see(self, payload: bytes | None, old: Any = MISSING) -> None:
        """Note that the entry is *payload* now, whose value *old* is to be replaced."""
        self.judged, self.old, self.spare_until, self.early = mark(payload), old, -inf, False

    def weigh(self, found: Found) -> Decision:
        """Return what to do with the entry as it was *found*, and note it if it is to be replaced."""
        left, metadata = found.left, found.metadata
        cost = draw = 0.0
        if metadata is not None:
            cost, early = metadata.cost / 1000, self.policy.early
            if early and left is not None and left <= early_by(cost, early, MOST_DRAWN):
                draw = drawn(metadata.stamp)
        decision = Decision.LOAD if self.refresh else decide(left, cost, self.policy, draw)
        if decision is not Decision.SERVE:
            self.see(found.payload, found.value)
            self.early = decision is Decision.RENEW and left is not None and left > 0
            if left is not None:
                self.spare_until = monotonic() + left + self.policy.stale_if_error
        return decision

    @property
    def spare(self) -> Any:
        """The old value, if he takes it where no new one can be loaded; else MISSING."""
        return self.old if monotonic() < self.spare_until else MISSING

    @property
    def soft_until(self) -> float:
        """Until when he waits if there is an old value for him."""
        soft = self.policy.soft_timeout
        return inf if soft is None or self.spare is MISSING else self.began + soft

    @property
    def hard_until(self) -> float:
        """Until when he waits in any case."""
        return inf if self.policy.hard_timeout is None else self.began + self.policy.hard_timeout
