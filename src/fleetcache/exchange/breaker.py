"""A circuit breaker: the hundredth caller of an outage waits microseconds, not a timeout.

After ``failures`` failures in a row, calls are refused at once.  Every ``cooldown`` seconds one
caller may try; when it succeeds, everybody may.  (Nygard, *Release It!*, chapter 5.)
"""

from __future__ import annotations

import logging
from time import monotonic

from fleetcache.errors import CircuitOpen

log = logging.getLogger("fleetcache.server")


class Breaker:
    """What is known about one server's health, and who may bother it."""

    __slots__ = ("address", "away_since", "cooldown", "failed", "failures", "last_error", "next_try")

    def __init__(self, address: str, failures: int = 3, cooldown: float = 1.0) -> None:
        self.address = address
        self.failures = failures
        self.cooldown = cooldown
        self.failed = 0
        self.next_try = 0.0
        self.away_since = 0.0
        self.last_error = ""

    @property
    def open(self) -> bool:
        """Whether calls are refused right now; a look, which takes nobody's turn to try."""
        return self.failed >= self.failures and monotonic() < self.next_try

    def admit(self) -> None:
        """Let the caller try, or raise `CircuitOpen`.  Needed only while ``failed`` is not 0."""
        if self.failed < self.failures:
            return
        now = monotonic()
        if now < self.next_try:
            raise CircuitOpen(
                f"{self.address}: away for {now - self.away_since:.1f} s, "
                f"tried again in {self.next_try - now:.1f} s. Last error: {self.last_error}"
            )
        # This caller tries; the others wait for its news, or for the next turn.
        self.next_try = now + self.cooldown

    def failure(self, error: BaseException) -> None:
        """Note that the server could not be asked; the first of an outage is logged."""
        now = monotonic()
        self.last_error = f"{type(error).__name__}: {error}"  # the text: a traceback would hold its frames
        self.failed += 1
        if self.failed == 1:
            self.away_since = now
            log.warning("%s: lost: %s", self.address, error, extra={"event": "outage"})
        if self.failed >= self.failures:
            self.next_try = now + self.cooldown

    def success(self) -> None:
        """Note that the server answered after a failure; the end of an outage is logged."""
        if self.failed:
            self.failed = 0
            log.warning(
                "%s: back after %.1f s", self.address, monotonic() - self.away_since, extra={"event": "recovery"}
            )
