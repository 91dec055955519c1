"""One change of the near cache at a time, and none in the middle of another.

Not even in one thread: a signal's handler, or a finaliser that the garbage collector runs, can use the
cache while its thread is in here.  Such a change is not made; instead every copy is given up.
So it is when a change is cut short, by Ctrl-C or by a time limit's exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fleetcache.forks import OURS, Guard, own

TRIES = 3
"""So often it tries at most: a busy reader gives the interpreter away only where it waits for the kernel, in a change."""

PAUSE = 0.0005
"""Seconds between two tries of one that must not hold the lock while it waits for the interpreter."""


class Changes(Guard):
    """Guards the store, and what is known of the primaries."""

    def __init__(self, void: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._void = void
        """Ends every epoch, at any moment whatever."""
        self._give_up = give_up
        """Puts everything in order, with no copies."""
        super().__init__()

    def _renew(self) -> None:
        super()._renew()
        self.busy = False
        """Whether a change is being made."""
        self._torn = False

    def make(self, action: Callable[..., Any], *args: Any, must: bool = True) -> Any:
        """Return what *action* returns; None in the middle of another change.  Without *must* it may be left out."""
        if not OURS:
            own()
        # No acquire() in front of a try: an exception that a signal's handler raises could come in between.
        with self._lock:
            if self.busy:
                if must:
                    self._torn = True
                    self._void()
                return None
            self.busy = True
            try:
                if self._torn:
                    self._mend()
                return action(*args)
            except BaseException:
                self._torn = True
                raise
            finally:
                try:
                    if self._torn:
                        self._mend()
                finally:
                    self.busy = False

    def _mend(self) -> None:
        self._void()
        self._give_up()
        self._torn = False  # not before: this can be cut short as well

    def make_patiently(self, action: Callable[..., Any], *args: Any) -> Any:
        """`make`, for a thread that is not urgent: one that waits for a lock has it before it has the interpreter back."""
        for _ in range(TRIES):
            if not self.busy:
                break
            time.sleep(PAUSE)
        return self.make(action, *args)
