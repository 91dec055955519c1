"""What tests of renewed locks need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fleetcache.locks import renewing


def renewals() -> list[renewing.Renewal]:
    """Return what is being renewed now."""
    listed = [renewal for chores in renewing._renewed.values() for renewal in list(chores.all)]
    return [renewal for renewal in listed if not renewal.gone and renewal.holder() is not None]


async def passed(seconds: float) -> None:
    """Let *seconds* pass, in which nobody but the renewing thread does anything."""
    await asyncio.sleep(seconds)


def awaited(read: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    """Return *read* as a coroutine function."""

    async def value() -> Any:
        return read()

    return value
