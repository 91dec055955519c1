"""Wakers: a caller waits on one, in its own way, until any thread or task rings it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

from fleetcache.threads import Bell


class Waker(Protocol):
    """One caller who waits."""

    loop: Any
    """The event loop that the caller must not block; None if it blocks its thread."""

    def ring(self) -> None:
        """Let the caller go on; from any thread, and at any time."""

    async def wait(self, seconds: float) -> bool:
        """Wait until somebody rings, for *seconds* at most; return whether somebody did."""


class ThreadWaker(Waker):
    """Wakes a thread."""

    loop = None

    def __init__(self) -> None:
        self._bell = Bell()

    def ring(self) -> None:
        self._bell.ring()

    async def wait(self, seconds: float) -> bool:
        return self._bell.wait(seconds)


class TaskWaker(Waker):
    """Wakes a task, on its own loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._rung: asyncio.Future[None] = self.loop.create_future()

    def ring(self) -> None:
        if running_loop() is self.loop:
            self._set()
            return
        with suppress(RuntimeError):  # the loop is closed, and with it the task
            self.loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._rung.done():
            self._rung.set_result(None)

    async def wait(self, seconds: float) -> bool:
        await asyncio.wait((self._rung,), timeout=max(seconds, 0))  # a cancelled caller leaves the future as it is
        rung = self._rung.done()
        if rung:
            self._rung = self.loop.create_future()
        return rung


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    return asyncio._get_running_loop()
