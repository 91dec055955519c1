"""A circuit breaker: the hundredth caller of an outage waits microseconds, not a timeout.

After ``failures`` failures in a row, calls are refused at once.  Every ``cooldown`` seconds one
caller may try; when it succeeds, everybody may.  (Nygard, *Release It!*, chapter 5.)

Calls overlap, so some bring old news: a call that waited through a whole outage fails after others
have found the server well again, and a reply may be read after others have found it gone.  An
*era* ends whenever the server goes away or comes back; a call notes it as it begins, and is
believed about the change that it could have seen.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic

from fleetcache.errors import CircuitOpen, ConnectionLost

log = logging.getLogger("fleetcache.server")


@dataclass(slots=True, eq=False)
class Breaker:
    """What is known about one server's health, and who may bother it."""

    address: str
    failures: int = 3
    cooldown: float = 1.0
    failed: bool = False
    era: int = 0
    strikes: int = 0
    next_try: float = 0.0
    away_since: float = 0.0
    last_error: str = ""

    @property
    def open(self) -> bool:
        """Whether calls are refused right now; a look, which takes nobody's turn to try."""
        return self.failed and self.strikes >= self.failures and monotonic() < self.next_try

    def admit(self) -> None:
        """Let the caller try, or raise `CircuitOpen`.  Needed only while ``failed``."""
        if self.strikes < self.failures:
            return
        now = monotonic()
        if now < self.next_try:
            raise CircuitOpen(
                f"{self.address}: away for {now - self.away_since:.1f} s, "
                f"tried again in {self.next_try - now:.1f} s. Last error: {self.last_error}"
            )
        # This caller tries; the others wait for its news, or for the next turn.
        self.next_try = now + self.cooldown

    def failure(self, error: BaseException, era: int) -> None:
        """Note that the server could not be asked, by a call of *era*; the first of an outage is logged."""
        if not self.failed:
            if era != self.era:
                return
            self.failed = True
            self.era += 1
            self.strikes = 0
            self.away_since = monotonic()
            log.warning("%s: lost: %s", self.address, error, extra={"event": "outage"})
        self.last_error = f"{type(error).__name__}: {error}"  # the text: a traceback would hold its frames
        # A connection that broke says nothing about the next one, and a whole crowd can be on it.
        if isinstance(error, ConnectionLost):
            return
        self.strikes += 1
        now = monotonic()
        # A try that took long earns a rest, unless somebody else has had a turn meanwhile: many that
        # hang, and fail one after another, must not put off the next for ever.
        if self.strikes >= self.failures and now >= self.next_try:
            self.next_try = now + self.cooldown

    def success(self, era: int) -> None:
        """Note that the server answered a call of *era*; the end of an outage is logged."""
        if self.failed and era == self.era:
            self.failed = False
            self.era += 1
            self.strikes = 0
            log.warning(
                "%s: back after %.1f s", self.address, monotonic() - self.away_since, extra={"event": "recovery"}
            )
