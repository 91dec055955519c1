"""A circuit breaker: the hundredth caller of an outage waits microseconds, not a timeout.

A time-out, or ``failures`` other failures in a row, shuts everybody out.  Then the server is probed
beside the callers until it answers, which lets everybody in.  (Nygard, *Release It!*, chapter 5.)
Where nobody probes, one caller may try every ``cooldown`` seconds.

Calls overlap, so some bring old news: a call that waited through a whole outage fails after others
have found the server well again, and a reply may be read after others have found it gone.  An
*era* ends whenever the server goes away or comes back; a call notes it as it begins, and is
believed about the change that it could have seen.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic

from redis.exceptions import TimeoutError

from fleetcache.errors import CircuitOpen, ConnectionLost, NotPrimary
from fleetcache.exchange.probing import Prober

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
    prober: Prober | None = None
    """Asks the server while it is away."""

    @property
    def open(self) -> bool:
        """Whether calls are refused."""
        return self.failed and self.strikes >= self.failures

    def admit(self) -> None:
        """Let the caller try, or raise `CircuitOpen`.  Needed only while ``failed``."""
        if not self.open:
            return
        now = monotonic()
        if (self.prober is not None and self.prober.watches(self, now)) or now < self.next_try:
            raise CircuitOpen(
                f"{self.address}: away for {now - self.away_since:.1f} s, "
                f"tried again in {max(self.next_try - now, 0):.1f} s. Last error: {self.last_error}"
            )
        # This caller tries; the others wait for its news, or for the next turn.
        self.next_try = now + self.cooldown

    def failure(self, error: BaseException, era: int) -> None:
        """Note that the server could not be asked, by a call of *era*; the first of an outage is logged."""
        if not self.failed:
            if era != self.era:
                return
            self.strikes = 0
            self.failed = True
            self.era += 1
            self.away_since = monotonic()
            log.warning("%s: lost: %s", self.address, error, extra={"event": "outage"})
        self.last_error = f"{type(error).__name__}: {error}"  # the text: a traceback would hold its frames
        # A connection that broke says nothing about the next one, and a whole crowd can be on it.  And a server
        # that has become a replica is well: the next question may find the primary.
        if isinstance(error, (ConnectionLost, NotPrimary)):
            return
        was_open, slow = self.open, isinstance(error, TimeoutError)
        # Time-outs are not counted: each costs a caller all the time there is.
        self.strikes = max(self.strikes + 1, self.failures * slow)
        now = monotonic()
        if self.prober is not None:
            if self.open and not was_open:
                # It may be a single connection that was forgotten on the way, or a single slow command.
                self.next_try = now if slow else now + self.cooldown
                self.prober.start(self, now)
        # A try that took long earns a rest, unless somebody else has had a turn meanwhile: many that
        # hang, and fail one after another, must not put off the next for ever.
        elif self.open and now >= self.next_try:
            self.next_try = now + self.cooldown

    def success(self, era: int) -> None:
        """Note that the server answered a call of *era*; the end of an outage is logged."""
        if self.failed and era == self.era:
            self.failed = False
            self.era += 1
            self.strikes = 0
            if self.prober is not None:
                self.prober.wake.ring()
            log.warning(
                "%s: back after %.1f s", self.address, monotonic() - self.away_since, extra={"event": "recovery"}
            )

    def forget(self) -> None:
        """Nobody has asked for long: let the next caller find out."""
        self.strikes = 0
