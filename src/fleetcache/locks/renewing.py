"""Renews held locks: a thread of the process extends each at a third of its timeout, for both faces.

One thread serves the locks of one server, so that a server that does not answer delays no other's.  A renewal ends
with the release, with an interrupt that releases the lock, with the thread or the task that holds it, and with the
lock object itself, which nobody can release any more.  A forked child renews nothing.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import RedisError

from fleetcache.interrupts import let_pass
from fleetcache.locks.chores import Chores

log = logging.getLogger("fleetcache.locks")

SHARE = 3
"""A lock is renewed when a third of its timeout has passed, so that two more tries are left."""

SOONEST, LATEST = 0.01, 1.0
"""The least and the most seconds from a renewal that failed until the next try; between them a tenth of the timeout."""


GRAIN = 0.002
"""By how many seconds the server, whose clock counts milliseconds, may end a lock early."""


class Holds(Protocol):
    @property
    def ended(self) -> bool:
        """Whether it can hold nothing any more."""


class Renewal:
    """A held lock that is renewed; *extend* asks the server to, and returns whether the lock was still held.

    *since* is a moment before the server granted the lock, so the server keeps it until `until` at least.
    """

    def __init__(self, extend: Callable[[], Any], lifetime: float, since: float, lock: str) -> None:
        self.extend = extend
        self.lifetime = lifetime
        self.lock = lock
        self.holder: Callable[[], Holds | None] = lambda: None
        self.chores: Chores[Renewal] | None = None
        self.gone = False
        self._released = self._lost = False
        self.granted(since, lifetime)

    def granted(self, since: float, seconds: float) -> None:
        """Note that the server lets the lock live for *seconds* from *since* on."""
        self.until = since + seconds - min(GRAIN, seconds / 10)
        self.due = since + min(seconds, self.lifetime) / SHARE

    def abandon(self, _: object = None) -> None:
        """Renew the lock no more: nobody can release it."""
        self.gone = True
        if self.chores is not None:
            self.chores.drop(self)

    def extended(self, since: float, seconds: float, *, replace: bool) -> None:
        """Note that the holder extended the lock by *seconds*, or with *replace* to *seconds*."""
        self.granted(since, seconds if replace else self.until - since + seconds)
        if self.chores is not None:
            self.chores.look_at(self)

    def release(self) -> None:
        """Renew the lock no more: its holder gives it back."""
        self._released = True
        self.abandon()

    @property
    def lost(self) -> bool:
        """Whether the lock was lost before its holder gave it back.  Once true, it stays so."""
        if not self._lost and not self._released and monotonic() >= self.until:
            self._lost = True
        return self._lost

    def settle(self) -> None:
        """Extend the lock, or set when to try again."""
        holder = self.holder()
        if holder is None:
            self.gone = True
        elif holder.ended:
            self._give_up("is renewed no more: the task that acquired it has ended")
        elif not self.gone and self.lost:
            self._give_up("was lost before its holder released it: it could not be renewed in time")
        elif not self.gone:
            self._renew()

    def _renew(self) -> None:
        began = monotonic()
        try:
            extended = self.extend()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next try may succeed
            if not isinstance(error, RedisError):
                let_pass(error)
            pause = min(max(self.lifetime / 10, SOONEST), LATEST)
            self.due = min(monotonic() + pause, self.until)
            return
        if extended:
            self.granted(began, max(self.lifetime, self.until - began))
        elif not self.gone:
            self._lost = True
            self._give_up("was lost before its holder released it: its key holds another token, or none")

    def _give_up(self, what: str) -> None:
        self.gone = True
        log.warning("%s: the lock %s", self.lock, what, extra={"event": "lost"})


_renewed: dict[str, Chores[Renewal]] = {}
"""The renewals by the address of their server."""


def renew(renewal: Renewal, address: str) -> None:
    """Have *renewal* done; the lock is on the server at *address*."""
    chores = _renewed.get(address)
    if chores is None:
        chores = _renewed.setdefault(address, Chores("renews locks"))
    renewal.chores = chores
    chores.add(renewal)


def _at_exit() -> None:
    for chores in list(_renewed.values()):
        chores.end()


atexit.register(_at_exit)
