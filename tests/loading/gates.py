"""Loaders that wait at a gate until the test opens it, and callers of either face, each in a task or thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.caches import own_prefix
from tests.faces import AWAITING, Face

THREADS = ThreadPoolExecutor(100, "caller")

SOON = 5.0
"""Seconds within which whatever a test waits for has happened."""


class Clock:
    """The time of a server in memory, which the test turns."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Gated:
    """A loader that makes one value after another, each call when its gate is open."""

    def __init__(self, *values: Any, opened: bool = False) -> None:
        self.values = list(values)
        self.calls = 0
        self.gate = threading.Event()
        self.during: Callable[[], Any] = lambda: None
        """Called within the loader, after its gate."""
        if opened:
            self.gate.set()

    def _next(self) -> Any:
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]

    def _made(self, value: Any) -> Any:
        self.during()
        if isinstance(value, BaseException):
            raise value
        return value

    def __call__(self) -> Any:
        value = self._next()
        assert self.gate.wait(SOON)
        return self._made(value)

    async def aload(self) -> Any:
        value = self._next()
        until = time.monotonic() + SOON
        while not self.gate.is_set():
            assert time.monotonic() < until
            await asyncio.sleep(0.001)
        return self._made(value)

    def of(self, cache: Face) -> Callable[[], Any]:
        """Return the loader for the face of *cache*."""
        return self.aload if cache.face == AWAITING else self

    async def entered(self, calls: int = 1) -> None:
        """Wait until the loader was called *calls* times."""
        await until(lambda: self.calls >= calls)


async def until(holds: Callable[[], Any]) -> None:
    """Wait until *holds* returns something true."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.001)


def calling(cache: Face, name: str, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """Call the operation *name* in a task, or through a blocking face in a thread."""
    if cache.face == AWAITING:
        return asyncio.create_task(getattr(cache.whole, f"a{name}")(*args, **kwargs))
    return asyncio.create_task(_threaded(partial(getattr(cache.whole, name), *args, **kwargs)))


async def _threaded(call: Callable[[], Any]) -> Any:
    """Run *call* in a thread of its own, in the caller's context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(THREADS, context.run, call)


async def joined(cache: Face, count: int) -> None:
    """Wait until *count* callers of *cache* have joined flights."""
    await until(lambda: cache.whole.stats.joined >= count)


def two_processes(make: Callable[..., Face], **options: Any) -> tuple[Face, Face]:
    """Return two caches on the same entries that share nothing in memory, as if they were in two processes."""
    prefix = own_prefix()
    return make(KEY_PREFIX=prefix, **options), make(KEY_PREFIX=prefix, HERD_TIMEOUT=61, **options)
