"""A circuit breaker: in an outage, the hundredth caller waits microseconds instead of a timeout.

One time-out, or ``failures`` other failures in a row, open the breaker: calls are refused.  Then probes
beside the callers ask the server until it answers, which closes the breaker.  (Nygard, *Release It!*,
chapter 5.)  Where no probe can run, one caller may try every ``cooldown`` seconds.

Calls overlap, so an outcome can arrive late: a call that began before an outage may fail after the server is
back, and a reply may be read after others have found the server gone.
An *era* ends whenever the server goes away or comes back.  A call remembers the era in which it began;
its outcome can open or close the breaker only in that era.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic

from redis.exceptions import TimeoutError

from fleetcache.errors import CircuitOpen, ConnectionLost, NotPrimary, advice_of, advised, fault_of
from fleetcache.exchange.probing import Prober

log = logging.getLogger("fleetcache.server")


@dataclass(slots=True, eq=False)
class Breaker:
    """The health of one server, as far as it is known, and whether a call may be sent to it."""

    address: str
    failures: int = 3
    cooldown: float = 1.0
    failed: bool = False
    era: int = 0
    strikes: int = 0
    next_try: float = 0.0
    away_since: float = 0.0
    last_error: str = ""
    advice: str = ""
    prober: Prober | None = None
    """Probes the server while the breaker is open."""

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
            fault = (
                f"{self.address}: away for {now - self.away_since:.1f} s, "
                f"tried again in {max(self.next_try - now, 0):.1f} s. Last error: {self.last_error}"
            )
            raise CircuitOpen(advised(fault, self.advice))
        # This caller tries; the others are refused until it has an outcome, or for one more cooldown.
        self.next_try = now + self.cooldown

    def failure(self, error: BaseException, era: int) -> None:
        """Note that a call of *era* failed; the first failure of an outage is logged."""
        text = str(error).removeprefix(f"{self.address}: ")
        if not self.failed:
            if era != self.era:
                return
            self.strikes = 0
            self.failed = True
            self.era += 1
            self.away_since = monotonic()
            log.warning("%s: lost: %s", self.address, text, extra={"event": "outage"})
        # Only the texts: the error's traceback would keep its frames.
        self.last_error = f"{type(error).__name__}: {fault_of(error).removeprefix(f'{self.address}: ')}"
        self.advice = advice_of(error, "{}")
        # A broken connection says nothing about the next one, and many tasks can be on it.  And a server
        # that has become a replica is well: the next call may find the primary.
        if isinstance(error, (ConnectionLost, NotPrimary)):
            return
        was_open, slow = self.open, isinstance(error, TimeoutError)
        # One time-out is enough: each costs a caller the whole SOCKET_TIMEOUT.
        self.strikes = max(self.strikes + 1, self.failures * slow)
        now = monotonic()
        if self.prober is not None:
            if self.open and not was_open:
                # After a time-out the first probe is sent at once: perhaps a firewall dropped only this connection,
                # or a single command was slow.
                self.next_try = now if slow else now + self.cooldown
                self.prober.start(self, now)
        # After a try that took long there is a pause, unless another caller has tried meanwhile: many tries that
        # hang, and fail one after another, must not postpone the next for ever.
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
        """Let the next caller try, because there has been no call for long."""
        self.strikes = 0
