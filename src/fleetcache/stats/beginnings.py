"""What begins in a process when it connects to a server for the first time, such as the thread that publishes its figures.

Not when a cache is created: a site may create caches while it loads, before its workers are forked.
"""

from __future__ import annotations

from collections.abc import Callable

BEGINNINGS: list[Callable[[], object]] = []
"""Functions that are called at each new connection: quick, and they never raise."""


def connecting() -> None:
    """Call them all: a connection is about to be made."""
    for begin in BEGINNINGS:
        begin()
