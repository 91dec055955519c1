"""get_or_set: read a value, or make and store it."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.twin import blocking
from fleetcache.values import Values


class Loading(Values):
    """Operations that make a value where there is none."""

    async def aget_or_set(self, key: Any, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Return the value of *key*; if there is none, store *default*, or what it returns if callable.

        The value that was stored first is what every caller gets.  Awaiting, *default* may be a
        coroutine function, or a coroutine, which runs only if there is no value.
        """
        if self.runtime.records:
            await self.runtime.alone()
        value = await self.aget(key, MISSING, version)
        started = type(default) is CoroutineType  # isinstance() would make a lazy one
        if value is not MISSING:
            if started:
                default.close()  # or Python complains that nobody has awaited it
            return value
        make = (lambda: default) if started else default
        made = await self.runtime.produce(make) if callable(make) else make
        if await self.aadd(key, made, timeout, version):
            return made
        # Somebody else was first, or the server is away, or the timeout says not to store.
        return await self.aget(key, made, version, fresh=True)

    get_or_set = blocking(aget_or_set)
