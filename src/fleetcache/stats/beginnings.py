"""What begins in a process when it connects to a server for the first time, such as the thread that publishes its figures.

Not when a cache is created: a site may create caches while it loads, before its workers are forked.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from fleetcache.forks import in_children

BEGINNINGS: list[Callable[[], object]] = []
"""Functions that are called at each new connection: quick, and they never raise."""


class Process:
    """Whether this process has connected to a server, and when."""

    def __init__(self) -> None:
        self.connects = False
        self.connected = float("-inf")
        """When a connection was made last, or could not be made, by `perf_counter`: an exchange that began before may have
        waited for it."""
        in_children(self.after_fork)

    def after_fork(self) -> None:
        """Forget the parent's connections."""
        self.connects = False


PROCESS = Process()


def connecting() -> None:
    """Call them all: a connection is about to be made."""
    PROCESS.connects = True
    for begin in BEGINNINGS:
        begin()


def connected() -> None:
    """Note that a connection was made, or could not be made."""
    PROCESS.connected = perf_counter()
