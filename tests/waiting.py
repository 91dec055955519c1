"""Waiting for what other threads, processes and servers do."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 15.0
"""How long a test waits, in seconds, for what takes milliseconds on an idle machine: others may be busy for long."""

LOOKS = 20
"""How often it looks at least: the process itself may have stood still for all this time."""

PAUSES = (0.0005, 0.01)
"""The shortest and the longest pause between two looks, in seconds: a look may cost as much as what it waits for."""


def until(condition: Callable[[], Any], patience: float = PATIENCE, *, why: Callable[[], object] | None = None) -> Any:
    """Return what *condition* returns as soon as that is true; after *patience* seconds fail, and say *why*."""
    began, looks = time.monotonic(), 0
    while not (found := condition()):
        looks += 1
        waited = time.monotonic() - began
        late = waited > patience and looks > LOOKS
        assert not late, inspect.getsource(condition) if why is None else why()
        time.sleep(min(max(PAUSES[0], waited / 20), PAUSES[1]))
    return found


async def eventually(read: Callable[[], Any], expected: Any, patience: float = PATIENCE) -> None:
    """Return as soon as *read* returns what is *expected*."""
    deadline = time.monotonic() + patience
    while (found := await read()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.0005)
