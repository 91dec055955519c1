"""Invalidations of tags that a server has not received: they are sent as soon as it answers.

Until then the tags count as invalid in this process.  A thread sends each invalidation again and again, after pauses
that double, and ends when none is left.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from redis import exceptions as redis

from fleetcache.forks import Guard, in_children, keep
from fleetcache.interrupts import let_pass
from fleetcache.keys import TAG
from fleetcache.stats.figures import Figures
from fleetcache.threads import Bell, begun

log = logging.getLogger("fleetcache.tags")

MOST = 10_000
"""The most tags that are remembered; further invalidations raise their errors."""

SHOWN = 10
"""The most tags that a line of the log names."""

FIRST, LAST = 0.01, 2.0
"""The first and the longest pause between two tries, in seconds; each is twice as long as the one before."""

PASSING = (
    *(redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError),
    *(redis.ClusterDownError, redis.TryAgainError, redis.MasterDownError),
)
"""Errors that another try may not meet."""

OWING = Figures(
    "loading",
    owed_tags="Tags whose invalidation, with `later=True`, no server has received yet, of all caches of the process.",
)

Send = Callable[[Collection[str]], object]
"""Deletes the versions of tags, by their names, or raises."""


class Owed:
    """The names of tags whose invalidation a server has not received, and the thread that sends it."""

    def __init__(self) -> None:
        self.names: dict[str, Send] = {}
        """Each name with the function that sends its last invalidation."""
        self.guard = Guard()
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        """Begin without a thread; a forked child sends what its parent owes as well, for the tags are invalid in both."""
        keep(getattr(self, "thread", None))
        self.names = dict(self.names)
        self.thread: Any = None
        self.wake = Bell()
        self.ended = False

    def add(self, names: Iterable[str], send: Send) -> bool:
        """Have *send* called with *names* until it succeeds; return False, and do nothing, if there are too many."""
        with self.guard.lock:
            wanted = dict.fromkeys(names, send)
            if self.ended or len(self.names.keys() | wanted.keys()) > MOST:
                return False
            self.names = {**self.names, **wanted}  # a new dict: `among` takes no lock
        self.among(())
        return True

    def among(self, names: Iterable[str]) -> set[str]:
        """Return those of *names* whose invalidation is owed; see to the thread that sends them."""
        if self.names and self.thread is None and not self.ended:
            with self.guard.lock:
                if self.thread is None:
                    self.thread = begun("tags", self._send_all)
        return self.names.keys() & set(names)

    @property
    def owed_tags(self) -> int:
        """How many tags have invalidations that are owed."""
        return len(self.names)

    def settle(self, names: Iterable[str]) -> None:
        """Forget *names*: an invalidation of them has just arrived."""
        with self.guard.lock:
            gone = set(names)
            self.names = {name: send for name, send in self.names.items() if name not in gone}

    def _send_all(self) -> None:
        pause, said = FIRST, False
        while True:
            for send in {id(send): send for send in self.names.values()}.values():
                owed = self.names
                names = [name for name, each in owed.items() if each is send]
                try:
                    send(names)
                except Exception as error:  # noqa: BLE001 - whatever it is, the tags stay invalid, and it is tried again
                    let_pass(error)
                    if not said and not isinstance(error, PASSING):
                        said = True
                        log.error("%d tags could not be invalidated: %s", len(names), error, extra={"event": "owed"})  # noqa: TRY400 - the message says it
                    continue
                pause = FIRST
                with self.guard.lock:
                    # Not those that were invalidated anew meanwhile, by another function.
                    self.names = {name: each for name, each in self.names.items() if each is not send}
            with self.guard.lock:
                if not self.names or self.ended:
                    self.thread = None
                    return
            self.wake.wait(pause)
            pause = min(2 * pause, LAST)

    def end(self) -> None:
        """End the thread, because the process ends; say what was not sent."""
        self.ended = True
        self.wake.ring()
        if self.names:
            shown = [name.partition(TAG)[2] or name for name in self.names][:SHOWN]
            more = len(self.names) - len(shown)
            log.error(
                "%d tags were not invalidated before the process ended: %s%s",
                len(self.names),
                ", ".join(shown),
                f", and {more} more" if more else "",
                extra={"event": "owed"},
            )


OWED = Owed()
atexit.register(OWED.end)
