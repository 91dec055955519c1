"""Seats: the limit MAX_CONNECTIONS.  A connection needs a seat, and no seat is ever lost.

A signal's handler can raise an exception between any two instructions, also between taking a seat and
storing it.  So a seat is an object, which is free again as soon as nothing refers to it, whatever has
happened.  A weak reference's callback frees it; that is C code, which no handler interrupts.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

LOOK = 0.05
"""How often, in seconds, a caller that waits for a connection looks for a free seat: a lost one is not announced."""


class Seat:
    """The right to one connection, for as long as something refers to it."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number


class Seats:
    """The seats of one server: *limit* of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: dict[int, weakref.ref[Seat]] = {}
        self.waiting: deque[Any] = deque()

    def take(self) -> Seat | None:
        """Return a free seat, None if there is none."""
        for number in range(self.limit):
            if number not in self.taken:
                seat = Seat(number)
                mine = weakref.ref(seat, partial(self.taken.pop, number))
                if self.taken.setdefault(number, mine) is mine:  # one step, so that no two threads get the same seat
                    return seat
        return None

    def leave(self, seat: Seat | None) -> None:
        """Free *seat* although something, such as a traceback, may still refer to it."""
        if seat is not None and (mine := self.taken.get(seat.number)) is not None and mine() is seat:
            self.taken.pop(seat.number, None)

    def wait(self, until: float | None) -> None:
        """Wait until a connection may be free: until `ring`, for LOOK seconds, or until *until*, whichever is first."""
        turn = threading.Lock()
        turn.acquire()
        self.waiting.append(turn)
        try:
            turn.acquire(timeout=LOOK if until is None else max(0, min(LOOK, until - monotonic())))
        finally:
            with suppress(ValueError):
                self.waiting.remove(turn)

    def ring(self) -> None:
        """Wake one waiting caller."""
        with suppress(IndexError):
            self.waiting.popleft().release()


def give_back(idle: deque[Any], seats: Seats, conversation: Any) -> None:
    """Put *conversation* among the *idle* ones, and wake a caller who waits for one."""
    idle.append(conversation)
    seats.ring()
