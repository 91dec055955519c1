"""How much CPU time the advice may take: a hundredth of what its process takes, and a grant for the first seconds.

A process that has just begun knows nothing yet, so it is granted `GRANTED` seconds, of which what is left lapses evenly during its
first `FIRST` seconds of CPU time.  `SHARE` of its CPU time is added, and what the advice takes is subtracted.  Up to `SAVED`
seconds can be saved.  When the credit is used up, the rate of the advice must be halved at once.  The new rate is judged by what it takes
itself, so it gets a loan of `LOAN` seconds, and when that is used up, the rate is halved again.  When the loans have been paid
back, others may be taken.

So after *t* seconds of CPU time the advice has taken at most SHARE * *t* + GRANTED + LOAN * *n* seconds, where *n* is how often
the rate can be halved, at most 19 times: 1.3 seconds more than its share, in the whole life of the process.
"""

from __future__ import annotations

from time import process_time
from typing import Final

SHARE: Final = 0.01
"""The part of the CPU time of the process that may be taken in the long run."""

GRANTED: Final = 0.8
"""The seconds that are granted to a process: what 150,000 reads of a small store take where an event takes 25 µs."""

FIRST: Final = 15.0
"""The seconds of CPU time during which the grant lapses."""

SAVED: Final = 0.2
"""The seconds that can be saved for later."""

LOAN: Final = 0.025
"""The seconds by which a new rate is judged: some 1,000 events."""


class Credit:
    """The CPU seconds that may be taken."""

    def __init__(self) -> None:
        self.began = self.used = process_time()
        """The seconds of the process at the beginning, and when its share was last added."""
        self.seconds = GRANTED
        self.lent = 0.0
        """How far below zero they may fall."""
        self.taken = 0.0
        """All that was taken."""

    @property
    def most(self) -> float:
        """The most seconds that there may be now."""
        return max(GRANTED * (1 - (self.used - self.began) / FIRST), SAVED)

    def take(self, seconds: float) -> None:
        """Take *seconds*."""
        self.taken += seconds
        self.seconds -= seconds

    def earn(self) -> None:
        """Add the process's share."""
        before, self.used = self.used, process_time()
        self.seconds = min(self.seconds + SHARE * (self.used - before), self.most)
        if self.seconds > 0:
            self.lent = 0.0

    def is_used_up(self) -> bool:
        """Whether the rate must be halved now; if so, there is a loan for the new rate."""
        self.earn()
        if self.seconds > -self.lent:
            return False
        self.lent += LOAN
        return True
