"""get_or_set: read a value, or produce and store it."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.twin import blocking
from fleetcache.values import Values


class Loading(Values):
    """Operations that make and store a value where there is none."""

    async def aget_or_set(self, key: Any, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Return the value of *key*; if there is none, store *default*, or its result if it is callable.

        If several callers store at once, all get the value that was stored first.  For the a-method *default*
        may be a coroutine function, or a coroutine, which runs only if there is no value.
        """
        await self.runtime.alone()
        value = await self.aget(key, MISSING, version)
        started = type(default) is CoroutineType  # isinstance() would evaluate a lazy object
        if value is not MISSING:
            if started:
                default.close()  # or Python warns that it was never awaited
            return value
        make = (lambda: default) if started else default
        made = await self.runtime.produce(make) if callable(make) else make
        if await self.aadd(key, made, timeout, version):
            return made
        # Another caller was first, or the server is away, or the timeout is 0 or less.
        return await self.aget(key, made, version, fresh=True)

    get_or_set = blocking(aget_or_set)
