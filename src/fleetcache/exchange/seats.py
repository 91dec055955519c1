"""Seats for connections: there are MAX_CONNECTIONS, and none is ever lost.

An exception that a signal's handler raises can come between any two instructions, also between taking
a seat and noting who has it.  So a seat is an object, and is free again as soon as nobody refers to
that object, whatever has happened; what makes it free is C, which no handler interrupts.
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
"""Seconds after which who waits for a connection looks for himself: one that was lost is announced to nobody."""


class Seat:
    """Who refers to it may have one connection."""

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
                if self.taken.setdefault(number, mine) is mine:  # one step, so that no two get the same
                    return seat
        return None

    def leave(self, seat: Seat | None) -> None:
        """Free *seat* although somebody, a traceback for one, may refer to it still."""
        if seat is not None and (mine := self.taken.get(seat.number)) is not None and mine() is seat:
            self.taken.pop(seat.number, None)

    def wait(self, until: float | None) -> None:
        """Return when a connection may have come back; soon in any case, and at *until* at the latest."""
        turn = threading.Lock()
        turn.acquire()
        self.waiting.append(turn)
        try:
            turn.acquire(timeout=LOOK if until is None else max(0, min(LOOK, until - monotonic())))
        finally:
            with suppress(ValueError):
                self.waiting.remove(turn)

    def ring(self) -> None:
        """Let somebody who waits look again."""
        with suppress(IndexError):
            self.waiting.popleft().release()


class Counter:
    """Where connections are given back to that others wait for."""

    def __init__(self, idle: deque[Any], seats: Seats) -> None:
        self.idle = idle
        self.seats = seats

    def append(self, conversation: Any) -> None:
        """Put *conversation* back, and call the next."""
        self.idle.append(conversation)
        self.seats.ring()
