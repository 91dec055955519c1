"""One change of the near cache at a time, and none in the middle of another.

This holds within one thread too: a signal's handler, or a finaliser that the garbage collector runs, can use the
cache while its thread is in the middle of a change.  Such a nested change is not made; instead every copy is given
up.  The same happens when a change is interrupted, by Ctrl-C or by the exception of a time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fleetcache.forks import OURS, Guard, own

TRIES = 3
"""How often `run_patiently` checks whether the gate is free before it waits for the lock."""

PAUSE = 0.0005
"""The seconds between two such checks."""


class Gate(Guard):
    """Lets through one change at a time, of the stores and of what is known of the primaries."""

    def __init__(self, void: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._void = void
        """Ends every epoch; it may be called at any moment."""
        self._give_up = give_up
        """Restores an orderly state, without copies."""
        super().__init__()

    def _renew(self) -> None:
        super()._renew()
        self.busy = False
        """Whether a change is being made."""
        self._torn = False

    def run(self, action: Callable[..., Any], *args: Any, must: bool = True) -> Any:
        """Return the result of *action*; in the middle of another change return None, and give up every copy instead.

        Without *must* the action may be left out, and no copy is given up.
        """
        if not OURS:
            own()
        # `with`, not acquire() before a try: a signal's handler could raise an exception between the two.
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
        self._torn = False  # only now: this method can be interrupted as well

    def run_patiently(self, action: Callable[..., Any], *args: Any) -> Any:
        """`run` for the background thread: it polls before it takes the lock.

        A thread that is given the lock while it still waits for the interpreter would block every reader meanwhile.
        """
        for _ in range(TRIES):
            if not self.busy:
                break
            time.sleep(PAUSE)
        return self.run(action, *args)
