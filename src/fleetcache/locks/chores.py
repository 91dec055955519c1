"""Chores: what a thread of the process does when it is due, again and again until it is done."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Generic, Protocol, TypeVar

from fleetcache.forks import in_children, keep, own
from fleetcache.threads import Bell, begun

LINGER, LONGEST_REST = 1.0, 60.0
"""For how many seconds the thread waits for new chores before it ends; and after how many it looks whether any are left."""

FAREWELL = 0.1
"""How long, in seconds, the end of the process waits for a chore that is being done."""


class Chore(Protocol):
    due: float
    """When to do it next, by the monotonic clock."""
    gone: bool
    """Whether there is nothing left to do."""

    def settle(self) -> None:
        """Do it, and set when it is due again, or that it is gone."""


C = TypeVar("C", bound=Chore)


class Chores(Generic[C]):
    """The chores of one kind in this process, oldest first, and the thread that does them, which ends with them.

    Of more than *most* the oldest are forgotten.
    A forked child begins with none: the parent does its own.
    """

    def __init__(self, name: str, most: int | None = None) -> None:
        self.name = name
        self.most = most
        self.thread: threading.Thread | None = None
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        keep(self.thread)
        self.all: dict[C, None] = {}
        self.changing = threading.RLock()
        self.wake = Bell()
        self.wakes = 0.0
        """When the thread will look at its chores again."""
        self.thread = None
        self.ending = False

    def add(self, chore: C) -> bool:
        """Have *chore* done; return whether there is a thread to do it."""
        own()
        with self.changing:
            self.all[chore] = None
            if self.most is not None and len(self.all) > self.most:
                self.all.pop(next(iter(self.all)), None)
            if self.thread is None:
                self.wakes = 0.0
                self.thread = begun(self.name, self._see_to_all)
            found = self.thread is not None
        self.look_at(chore)
        return found

    def look_at(self, chore: C) -> None:
        """Have *chore* done in time, although it is due earlier than before."""
        if chore.due < self.wakes:
            self.wake.ring()

    def drop(self, chore: C) -> None:
        """Do *chore* no more."""
        chore.gone = True
        self.all.pop(chore, None)

    def _see_to_all(self) -> None:
        idle = False
        while True:
            for chore in list(self.all):
                if chore.due <= monotonic():
                    chore.settle()
            with self.changing:
                for chore in list(self.all):
                    if chore.gone:
                        self.all.pop(chore, None)
                dues = [chore.due for chore in list(self.all)]
                if not dues and (idle or self.ending):
                    self.thread = None
                    return
                idle, now = not dues, monotonic()
                self.wakes = min([now + (LINGER if idle else LONGEST_REST), *dues])
            self.wake.wait(max(0, self.wakes - now))

    def end(self) -> None:
        """Forget all chores and end the thread: the process ends."""
        own()
        with self.changing:
            for chore in list(self.all):
                chore.gone = True
            thread = self.thread
        self.ending = True
        self.wake.ring()
        if thread is not None:
            thread.join(FAREWELL)
