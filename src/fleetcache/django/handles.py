"""`cache` and `caches` of ``django.core.cache``, the same objects, typed as fleetcache's.

For type checkers ``django.core.cache.cache`` is a ``BaseCache``, which has no ``ttl``, ``lock`` or ``tags=``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from django.core.cache import cache as _cache
from django.core.cache import caches as _caches

from fleetcache.django.backend import RedisCache

__all__ = ["Caches", "cache", "caches"]


class Caches(Protocol):
    """``django.core.cache.caches`` in a project whose caches are all fleetcache's."""

    def __getitem__(self, alias: str) -> RedisCache: ...
    def __iter__(self) -> Iterator[str]: ...
    def all(self, initialized_only: bool = False) -> list[RedisCache]:
        """Return the caches of all aliases, or only those that this thread or task has used."""
        raise NotImplementedError

    def close_all(self) -> None:
        """Close the caches that this thread or task has used."""


_found: Any = (_cache, _caches)

cache: RedisCache
"""``django.core.cache.cache``, typed: the default cache of the current thread or task."""
caches: Caches
"""``django.core.cache.caches``, typed: the caches of the current thread or task, by their aliases."""
cache, caches = _found
