"""The library's own threads: when they may begin, and that they end before their interpreter does.

All are daemons, and named "fleetcache …".

A daemon that goes on while its interpreter ends does no harm to a process, but CPython aborts one whose
sub-interpreter has a thread left.  So what has threads stops them by ``atexit``, and here they are waited for; this module is
imported before, so its turn comes after.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from fleetcache.forks import OURS, in_children, own
from fleetcache.interrupts import let_pass

FAREWELL = 0.3
"""Seconds that the end of an interpreter waits for threads that are just going; one that hangs in a connect is left alone."""

_parents: set[threading.Thread] = set()
"""Threads of a process from which this one was forked, by C code that did not tell Python."""


class Bell:
    """Wakes the one thread that waits for it.

    No ``threading.Event``, whose methods are Python code: an interrupt within them, or a handler that calls them
    again, leaves its lock held, and whoever rings next waits for ever.
    """

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Let the thread go on; at once if it does not wait yet."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, seconds: float) -> None:
        """Return when the bell has been rung, or after *seconds*."""
        with suppress(Empty):
            self._rung.get(timeout=max(seconds, 0))


def start(thread: threading.Thread) -> None:
    """Start *thread*, or raise RuntimeError if there can be none now, or may be none."""
    if loads_for_uwsgi():
        raise RuntimeError("uWSGI loads the site here, and forks its workers; the thread begins in each of them")
    try:
        thread.start()
    except KeyError as error:
        # CPython removes a thread that did not begin from a dict; if an interrupt comes when it has begun, that hides it.
        let_pass(error)
        raise


def begun(name: str, work: Callable[..., object], *arguments: object) -> threading.Thread | None:
    """Return a thread that does *work*; None if there cannot be one now."""
    thread = threading.Thread(target=work, args=arguments, name=f"fleetcache {name}", daemon=True)
    try:
        start(thread)
    except RuntimeError:  # the interpreter is shutting down, or the machine allows no more
        return None
    return thread


def loads_for_uwsgi() -> bool:
    """Whether this is the process of uWSGI that loads a site and is then forked, in C, to make the workers.

    A thread that has the interpreter at that moment, or waits for it, is not in the workers, and CPython would let them wait
    for it for ever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    return uwsgi is not None and hasattr(uwsgi, "worker_id") and not uwsgi.worker_id() and not uwsgi.mule_id()


def ours() -> list[threading.Thread]:
    """Return the library's threads in this process."""
    if not OURS:
        own()
    threads = {thread for thread in threading.enumerate() if thread.daemon and thread.name.startswith("fleetcache")}
    return list(threads - _parents)


def _after_fork() -> None:
    _parents.update(threading.enumerate())


def _at_exit() -> None:
    until = monotonic() + FAREWELL
    for thread in ours():
        with suppress(RuntimeError):  # it is just being started
            thread.join(max(0.0, until - monotonic()))


in_children(_after_fork)
atexit.register(_at_exit)
