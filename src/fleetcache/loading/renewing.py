"""Who renews an old value while its callers go on: threads of the library, the end of a response, or a site's own code.

Under Django the end of a response is known: `fleetcache.django` sets `after_response`.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from fleetcache.forks import Guard, in_children
from fleetcache.interrupts import let_pass
from fleetcache.threads import begun

log = logging.getLogger("fleetcache.loading")

Work = Callable[[], Any]

after_response: Callable[[Work], bool] | None = None
"""Runs a function after the response that this thread or task is making; returns False if it makes none."""

carriers: list[Callable[[Work], Work]] = []
"""Each returns a piece of work as it has to run in another thread; Django's language, for example, stays behind in its thread."""

after_work: list[Work] = []
"""Called in a thread of the library after each piece of work, for example to close database connections."""

MOST_THREADS = 4
IDLE = 5.0
"""After how many seconds without work a thread ends."""


class Pool:
    """A few daemon threads, which start when there is work and end when there is none for a while."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.after_fork()
        in_children(self.after_fork)
        atexit.register(self.stop)

    def after_fork(self) -> None:
        """In a child, start empty: the work is the parent's."""
        self.work: SimpleQueue[Work | None] = SimpleQueue()
        self.threads = 0
        self.idle = 0

    def submit(self, work: Work) -> bool:
        """Have *work* done soon, in the caller's context; return False if no thread can start."""
        self.work.put(partial(contextvars.copy_context().run, work))
        with self.guard.lock:
            if self.threads < MOST_THREADS and self.idle < self.work.qsize():
                if begun("renewals", self._run, self.work) is None:
                    return self.threads > 0
                self.threads += 1
        return True

    def _run(self, queue: SimpleQueue[Work | None]) -> None:
        while True:
            self.idle += 1
            try:
                work = queue.get(timeout=IDLE)
            except Empty:
                with self.guard.lock:
                    self.idle -= 1
                    if queue.empty():
                        self.threads -= 1
                        return
                continue
            self.idle -= 1
            if work is None:
                return
            do(work)
            del work

    def stop(self) -> None:
        """Let the threads end, at the end of the interpreter."""
        for _ in range(self.threads):
            self.work.put(None)


POOL = Pool()


def do(work: Work) -> None:
    """Do *work* in a thread of the library, and what has to follow."""
    for each in (work, *after_work):
        try:
            each()
        except Exception:
            log.exception("a renewal failed")


def submit(work: Work, how: str | Callable[[Work], Any]) -> bool:
    """Have *work* done *how* a policy's ``renew`` says; return False if the caller has to do it himself.

    Where there is no response to wait for, a thread does it.
    """
    if how == "caller":
        return False
    if how == "response" and after_response is not None and after_response(work):
        return True
    for carry in carriers:
        work = carry(work)
    if callable(how):
        try:
            how(work)
        except Exception as error:
            let_pass(error)
            log.exception("a renewal was refused")  # an executor that was shut down, a queue that is away
            return False
        return True
    return POOL.submit(work)


def quietly(work: Work) -> None:
    """Do *work* in a thread if one can start; what comes of it does not matter."""
    with suppress(RuntimeError):
        POOL.submit(work)
