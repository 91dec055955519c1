"""Waiting for what other threads, processes and servers do."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], patience: float = 5.0, *, why: Callable[[], object] | None = None) -> Any:
    """Return what *condition* returns as soon as that is true; after *patience* seconds fail, and say *why*."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, inspect.getsource(condition) if why is None else why()
        time.sleep(0.0005)
    return found


async def eventually(read: Callable[[], Any], expected: Any, patience: float = 5.0) -> None:
    """Return as soon as *read* returns what is *expected*."""
    deadline = time.monotonic() + patience
    while (found := await read()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.0005)
