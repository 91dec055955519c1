"""A fence before each request: the request reads no value that is older than itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache as memoized
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.cache import caches
from django.core.signals import setting_changed

from fleetcache.django.backend import entries, settings_of
from fleetcache.errors import SettingsError


class FenceMiddleware:
    """``MIDDLEWARE = ["fleetcache.django.FenceMiddleware", …]``: fences every near cache before the view.

    The request sees every write that a server acknowledged before the request came in.  That costs one round trip to
    each server with a near cache; concurrent requests share it.  It costs nothing if no cache has ``NEAR``.  The
    middleware waits no longer for a server that is away than the cache would.  Put it first, so that other middleware
    reads behind the fence as well.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._awaits:
            return self._awaited(request)
        for alias in near_aliases():
            caches[alias].fence()
        return self.get_response(request)

    async def _awaited(self, request: Any) -> Any:
        aliases = near_aliases()
        if len(aliases) == 1:
            await caches[aliases[0]].afence()
        elif aliases:
            await asyncio.gather(*(caches[alias].afence() for alias in aliases))
        return await self.get_response(request)


@memoized
def near_aliases() -> tuple[str, ...]:
    """Return the aliases in ``CACHES`` of fleetcache's caches with a near cache."""
    return tuple(alias for alias, entry, _ in entries() if _is_near(alias, entry))


def _is_near(alias: str, entry: dict[str, Any]) -> bool:
    try:
        return settings_of(alias, entry).options.near is not None
    except SettingsError:
        return False  # the cache reports the error when it is used


setting_changed.connect(lambda **_: near_aliases.cache_clear(), weak=False)
