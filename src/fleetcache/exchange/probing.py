"""Probes: while a server is away, threads of our own ask it, so that no caller waits for it.

One thread starts a probe every cooldown, each in another thread: a probe that hangs, because the network drops
its packets, must not delay the next one, which may find the server back.  All threads end when the server is back.

Sometimes no thread can run: under uWSGI without ``--enable-threads``, in a process that C code forked, or while the
interpreter ends.  Then a due probe does not start, and callers try themselves, one every cooldown.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from fleetcache.forks import own
from fleetcache.threads import Bell, begun, living

if TYPE_CHECKING:
    from fleetcache.exchange.breaker import Breaker

LATE = 1.0
"""If a probe is this many seconds overdue, callers try themselves."""

AT_ONCE = 8
"""How many probes of one server may hang at the same time."""

FAREWELL = 0.2
"""How long, in seconds, the end of the interpreter waits for a thread to end."""

SHORTEST = 0.01
"""The shortest time between two probes, in seconds, whatever BREAKER_COOLDOWN says."""

IDLE = 3600.0
"""After this many seconds without a caller, probes of the server end."""

RARER = 0.1
"""Without callers, the pause before the next probe is this part of the time since the last caller."""


class Prober:
    """Calls *probe*, which reports to the breaker, as long as the breaker is open."""

    def __init__(self, probe: Callable[[], Callable[[], object] | None]) -> None:
        self.probe = probe
        """A weak reference: a server that is no longer used is not probed."""
        self.asked = 0.0
        self.over = False
        self.turn = threading.Lock()  # held while the thread runs
        self.wake = Bell()
        self.thread: threading.Thread | None = None
        self.trying: list[threading.Thread] = []
        PROBERS.add(self)

    def start(self, breaker: Breaker, now: float) -> None:
        """Start the thread; if it runs already, let it read the breaker's ``next_try`` again."""
        self.asked = now
        self.wake.ring()
        if not self.over and self.turn.acquire(blocking=False):
            self.thread = None
            self.thread = begun(f"probe {breaker.address}", self._run, breaker, self.turn)
            if self.thread is None:
                self.turn.release()

    def watches(self, breaker: Breaker, now: float) -> bool:
        """Whether a caller at the time *now* can leave the question to the next probe."""
        self.asked = now
        if self.over:
            return False
        if now > breaker.next_try + LATE:
            if self.thread is None:
                self.turn = threading.Lock()  # an interrupt came while the thread was being started
            return False
        if not self.turn.locked():
            self.start(breaker, now)
        elif breaker.next_try > now + breaker.cooldown:  # postponed, because there were no callers
            breaker.next_try = now
            self.wake.ring()
        return self.turn.locked()

    def _run(self, breaker: Breaker, turn: threading.Lock) -> None:
        try:
            while breaker.open and not self.over:
                now = monotonic()
                if now < breaker.next_try:
                    self.wake.wait(breaker.next_try - now)
                    continue
                if now > self.asked + IDLE or (probe := self.probe()) is None:
                    breaker.forget()
                    return
                breaker.next_try = now + max(breaker.cooldown, SHORTEST, RARER * (now - self.asked))
                self._begin(breaker, probe)
                del probe
        finally:
            turn.release()

    def _begin(self, breaker: Breaker, probe: Callable[[], object]) -> None:
        self.trying = [thread for thread in self.trying if thread.is_alive()]
        if len(self.trying) < AT_ONCE and (thread := begun(f"probe {breaker.address}", probe)):
            self.trying.append(thread)

    def stop(self) -> None:
        """End the thread and wait for its end, but not for probes that hang."""
        self.over = True
        self.wake.ring()
        if self.thread is not None:
            self.thread.join(FAREWELL)


PROBERS: weakref.WeakSet[Prober] = weakref.WeakSet()


def _at_exit() -> None:
    own()
    for prober in living(PROBERS):
        with suppress(RuntimeError):
            prober.stop()


atexit.register(_at_exit)
