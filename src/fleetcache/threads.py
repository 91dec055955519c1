"""The library's own threads: when they may start, and that they end before their interpreter does.

All are daemons, and named "fleetcache …".

A daemon thread that goes on while its interpreter ends does no harm, but CPython aborts a process that ends a
sub-interpreter with a thread left.  So each module with threads stops them by ``atexit``, and this module waits for
their end; it is imported first, so its own ``atexit`` function runs last.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from fleetcache.forks import in_children, own
from fleetcache.interrupts import let_pass

T = TypeVar("T")

FAREWELL = 0.3
"""How long, in seconds, the end of an interpreter waits for its threads; one may hang while it connects."""

_parents: set[threading.Thread] = set()
"""Threads of the process from which C code forked this one, without Python's hooks."""


class Bell:
    """Wakes the one thread that waits for it.

    This is no ``threading.Event``, whose methods are Python code: an interrupt within them, or a signal's handler that
    calls them again, leaves the event's lock held, and the next caller waits for ever.
    """

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Let the waiting thread go on, or the next call of `wait` return at once."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until the bell is rung, for *seconds* at most; return whether it was rung."""
        with suppress(Empty):
            self._rung.get(timeout=max(seconds, 0))
            return True
        return False


def start(thread: threading.Thread) -> None:
    """Start *thread*, or raise RuntimeError if no thread can start now, or none may."""
    if loads_for_uwsgi():
        raise RuntimeError("uWSGI loads the site here, and forks its workers; the thread begins in each of them")
    try:
        thread.start()
    except KeyError as error:
        # CPython removes a thread that did not begin from a dict; if an interrupt comes when it has begun, that
        # hides it.
        let_pass(error)
        raise


def begun(name: str, work: Callable[..., object], *arguments: object) -> threading.Thread | None:
    """Return a running thread that does *work*; None if no thread can start now."""
    thread = threading.Thread(target=work, args=arguments, name=f"fleetcache {name}", daemon=True)
    try:
        start(thread)
    except RuntimeError:  # the interpreter is shutting down, or the machine allows no more
        return None
    return thread


def living(known: Iterable[T]) -> list[T]:
    """Return what is in *known*, a weak set, or the keys of a weak dict; other threads may add to it meanwhile.

    Before Python 3.14 an iteration over it raises then, so it is begun anew.
    """
    while True:
        try:
            return list(known)
        except RuntimeError as error:
            let_pass(error)


def loads_for_uwsgi() -> bool:
    """Whether this is uWSGI's process that loads a site and then forks its workers in C.

    A thread that holds the GIL at that moment, or waits for it, does not exist in the workers, and CPython would let
    them wait for the GIL for ever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    return uwsgi is not None and hasattr(uwsgi, "worker_id") and not uwsgi.worker_id() and not uwsgi.mule_id()


def ours() -> list[threading.Thread]:
    """Return the library's threads in this process."""
    own()
    threads = {thread for thread in threading.enumerate() if thread.daemon and thread.name.startswith("fleetcache")}
    return list(threads - _parents)


def _after_fork() -> None:
    _parents.update(threading.enumerate())


def _at_exit() -> None:
    until = monotonic() + FAREWELL
    for thread in ours():
        with suppress(RuntimeError):  # the thread is just being started
            thread.join(max(0.0, until - monotonic()))


in_children(_after_fork)
atexit.register(_at_exit)
