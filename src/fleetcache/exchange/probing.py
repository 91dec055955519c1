"""Probes: a server that is away is asked by threads of its own, so that no caller waits for it.

One thread begins a probe every cooldown, in a thread of its own: a probe that hangs, because its packets
are dropped, must not delay the next one, which may find the server back.  All end when it is.

A thread may not run: under uWSGI without ``--enable-threads``, in a process that C code forked, or while the
interpreter ends.  Then a probe that was due has not begun, and callers try themselves, one every cooldown.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from fleetcache.forks import OURS, own
from fleetcache.threads import Bell, begun

LATE = 1.0
"""Seconds after which a probe that was due, and has not begun, is no longer waited for."""

AT_ONCE = 8
"""Probes of one server that may hang at the same time."""

FAREWELL = 0.2
"""Seconds that the end of the interpreter waits for a thread that is just going."""

SHORTEST = 0.01
"""Seconds between two probes at least, whatever BREAKER_COOLDOWN says."""

IDLE = 3600.0
"""Seconds without a caller after which a server is not probed any more."""

RARER = 0.1
"""While nobody asks, the next probe is put off by this part of the time since the last caller."""


class Watched(Protocol):
    """What a `Prober` must know of a breaker, and tell it."""

    address: str
    cooldown: float
    next_try: float

    @property
    def open(self) -> bool:
        """Whether callers are refused."""

    def forget(self) -> None:
        """Let the next caller try."""


class Prober:
    """Calls *probe*, which tells the breaker what it finds, as long as the breaker is open."""

    def __init__(self, probe: Callable[[], Callable[[], object] | None]) -> None:
        self.probe = probe
        """A weak reference: a server that is no longer used is not asked."""
        self.asked = 0.0
        self.over = False
        self.turn = threading.Lock()  # held by the thread
        self.wake = Bell()
        self.thread: threading.Thread | None = None
        self.trying: list[threading.Thread] = []
        PROBERS.add(self)

    def start(self, breaker: Watched, now: float) -> None:
        """Begin to probe; if that has begun, look at the breaker's ``next_try`` again."""
        self.asked = now
        self.wake.ring()
        if not self.over and self.turn.acquire(blocking=False):
            self.thread = None
            self.thread = self._started(breaker, self._run, breaker, self.turn)
            if self.thread is None:
                self.turn.release()

    def watches(self, breaker: Watched, now: float) -> bool:
        """Whether a caller of *now* can rely on a probe that is due."""
        self.asked = now
        if self.over:
            return False
        if now > breaker.next_try + LATE:
            if self.thread is None:
                self.turn = threading.Lock()  # an interrupt came as the thread was started
            return False
        if not self.turn.locked():
            self.start(breaker, now)
        elif breaker.next_try > now + breaker.cooldown:  # it was put off, for want of callers
            breaker.next_try = now
            self.wake.ring()
        return self.turn.locked()

    @staticmethod
    def _started(breaker: Watched, work: Callable[..., object], *arguments: object) -> threading.Thread | None:
        """Return a thread that does *work*, None if there cannot be one now."""
        return begun(f"probe {breaker.address}", work, *arguments)

    def _run(self, breaker: Watched, turn: threading.Lock) -> None:
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

    def _begin(self, breaker: Watched, probe: Callable[[], object]) -> None:
        self.trying = [thread for thread in self.trying if thread.is_alive()]
        if len(self.trying) < AT_ONCE and (thread := self._started(breaker, probe)):
            self.trying.append(thread)

    def stop(self) -> None:
        """End the thread, and wait for it; a probe that hangs is left alone."""
        self.over = True
        self.wake.ring()
        if self.thread is not None:
            self.thread.join(FAREWELL)


PROBERS: weakref.WeakSet[Prober] = weakref.WeakSet()


def _at_exit() -> None:
    if not OURS:
        own()
    for prober in list(PROBERS):
        with suppress(RuntimeError):
            prober.stop()


atexit.register(_at_exit)
