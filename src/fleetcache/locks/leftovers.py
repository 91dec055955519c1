"""Releases leftover locks: tokens that may still hold a lock on the server although no caller holds it.

If `acquire` raises, its caller has no lock, but the server may have stored the token: an interrupt came before
the reply was read, or the reply was lost.  Without a timeout such a lock would stay for ever; so would a lock whose
release was lost.  Therefore a thread of the process releases the token as soon as the server answers.  The thread
ends when no tokens are left.

A token that is not found is looked for again, because its `SET … NX` was sent on another connection and may arrive
later.  A network repeats lost packets after pauses that double, so the command may be late by the length of the
outage.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from fleetcache.forks import own
from fleetcache.interrupts import let_pass
from fleetcache.locks.chores import Chores
from fleetcache.threads import Bell

MOST = 1000
"""The most tokens that are remembered; the oldest are forgotten first."""

LATE, LONGEST = 5.0, 3600.0
"""The least and the most seconds for which a token is looked for."""

FIRST, LAST = 0.002, 2.0
"""The first and the longest pause between two tries, in seconds; each is twice as long as the one before."""


class Leftover:
    """A token that must hold no lock; *release* asks the server to release it, and returns whether it held one."""

    def __init__(self, token: bytes, release: Callable[[], Any], lifetime: float | None) -> None:
        self.token = token
        self.release = release
        self.since = self.due = monotonic()
        self.until = self.since + min(lifetime or LONGEST, LONGEST)
        self.pause = FIRST
        self.answered = False
        self.busy = threading.Lock()
        self.gone = False
        self.tried = Bell()

    def settle(self) -> None:
        """Release the token if the server answers; otherwise set when to try again."""
        with self.busy:
            if self.gone:
                return
            try:
                settled = bool(self.release())
                if not self.answered:
                    self.answered = True
                    now = monotonic()
                    self.until = min(self.until, now + max(LATE, now - self.since))
            except RedisError:
                settled = False
            except Exception as error:  # noqa: BLE001 - another try would fail too
                let_pass(error)
                settled = True
            self.due = monotonic() + self.pause
            self.pause = min(2 * self.pause, LAST)
            self.gone = settled or self.due > self.until
            self.tried.ring()


class Leftovers(Chores[Leftover]):
    """The leftovers of this process."""

    def add(self, chore: Leftover) -> bool:
        """Have the leftover released."""
        begun = super().add(chore)
        if not begun:  # no thread can be started any more
            chore.settle()
        return begun

    def forget(self, token: bytes) -> None:
        """Do not release *token*: it may hold a lock again."""
        own()
        for leftover in list(self.all):
            if leftover.token == token:
                with leftover.busy:
                    leftover.gone = True


LEFTOVERS = Leftovers("locks", MOST)
atexit.register(LEFTOVERS.end)
