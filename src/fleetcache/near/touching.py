"""`TOUCH`: reports to a primary which of its entries are in use here, so that it evicts others.

The primary does not see reads that copies answer.  ``TOUCH`` itself is not announced.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, MovedError, ResponseError

from fleetcache.near.refusals import PASSING
from fleetcache.near.stages import Stage
from fleetcache.near.store import Entry, bound_of

if TYPE_CHECKING:
    from fleetcache.near.tracking import Tracking

PAID = 10
"""A copy is reported once for this many hits; a report costs the server a tenth of a read."""

TOUCHES = 5000
"""How many copies are reported at a time, at most."""


class Touching:
    """The reports to the server of *tracking*, over one connection, of the copies in use."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking
        self.unanswered = 0
        """The number of commands without a reply yet."""
        self.takes = True
        """Whether the server permits `TOUCH`."""
        self.due = float("-inf")
        """When the next report is due."""

    @property
    def wanted(self) -> bool:
        """Whether reports are to be sent."""
        tracking = self.tracking
        return (
            tracking.options.touch is not None
            and self.takes
            and tracking.stage is Stage.LIVE
            and any(reads.store.copies for reads in tracking.readers)
        )

    def warm(self) -> list[Entry]:
        """Return the copies to report.  Needs no lock."""
        told = (reads.store for reads in self.tracking.readers if reads.options.touch)
        return [entry for store in told for entry in store.warm(self.tracking.epoch, PAID)][:TOUCHES]

    def tell(self, entries: Sequence[Entry], now: float) -> None:
        """Report to the server that *entries* are in use."""
        for entry in entries:
            entry.told = entry.hits
        for entry in entries:
            if (bound := bound_of(entry)) is not None:
                bound.touch(PAID)
        names = [entry.name for entry in entries]
        size = 1 if self.tracking.can_move else len(names)  # on a cluster each name is in another slot
        for first in range(0, len(names), size or 1):
            self.unanswered += 1
            self.tracking.send((b"TOUCH", *names[first : first + size]), self._told, now)
        self.tracking.counts.touched += len(names)

    def _told(self, reply: Any, sent: float, now: float) -> None:
        self.unanswered -= 1
        if isinstance(reply, ResponseError) and not isinstance(reply, (MovedError, AskError)) and self.takes:
            self.takes = str(reply).startswith(PASSING)
            if not self.takes:
                tracking = self.tracking
                why = f"its server cannot be told what is in use: {reply}"
                tracking.news.append((logging.DEBUG, tracking.state, why))
