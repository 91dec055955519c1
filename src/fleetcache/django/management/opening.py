"""Opens a cache of Django's ``CACHES`` for a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import setup
from django.conf import settings
from django.core.cache import caches
from django.utils.module_loading import import_string

from fleetcache.django.backend import RedisCache
from fleetcache.errors import InvalidCacheBackendError, SettingsError

__all__ = ["made", "setup"]


def made(alias: str, change: Callable[[Any], dict[str, Any]] | None = None) -> RedisCache:
    """Return the cache *alias* of Django's ``CACHES``; nothing is sent.

    *change* gets its OPTIONS, and returns those to use.  Without *change* it is the object that the site uses.
    """
    entry = settings.CACHES.get(alias)
    if entry is None:
        raise InvalidCacheBackendError(
            f"There is no cache {alias!r}. CACHES has {', '.join(map(repr, settings.CACHES))}"
        )
    if change is None:
        cache = caches[alias]
    else:
        params = {**entry, "OPTIONS": change(entry.get("OPTIONS"))}
        location = params.pop("LOCATION", "")
        backend = import_string(params.pop("BACKEND"))
        cache = backend(location, params) if issubclass(backend, RedisCache) else caches[alias]
    if not isinstance(cache, RedisCache):
        kind = type(cache)
        raise InvalidCacheBackendError(
            f"CACHES[{alias!r}] is {kind.__module__}.{kind.__qualname__}, not fleetcache.django.RedisCache. Name another by --alias"
        )
    if "wrong" in object.__getattribute__(cache, "__dict__"):
        raise SettingsError(str(object.__getattribute__(cache, "wrong")))
    return cache
