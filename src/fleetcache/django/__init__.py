"""fleetcache for Django; only this package imports Django.

Its modules:

    backend      `RedisCache`, the cache backend
    middleware   a fence before each request
    afterwards   work that waits until the response was sent
    pages        `cache_page`, which keeps the pages of a view
    rules        its arguments
    visits       one request for a page
    loads        what a view says of the load of its page
    responses    which responses may be kept, and how
    visitors     what a view takes from its visitor
    fragments    ``{% cached %}``, which keeps a part of a page
    templatetags ``{% load fleetcache %}``
    checks       system checks of ``CACHES``
    apps         the app for INSTALLED_APPS, which registers the checks, and the pages of the admin
    models       the permissions of the admin's pages
    admin        the admin's pages
    toolbar      a panel for django-debug-toolbar
    handles      `cache` and `caches`, Django's own, with our types
    standin      whether fleetcache-django-redis is installed beside django-redis
"""

from __future__ import annotations

from typing import Any

from fleetcache.django.afterwards import take_part
from fleetcache.django.backend import RedisCache
from fleetcache.django.fragments import fragment_key
from fleetcache.django.handles import cache, caches
from fleetcache.django.middleware import FenceMiddleware
from fleetcache.django.pages import cache_page
from fleetcache.errors import InvalidCacheBackendError
from fleetcache.failsafe import omit_exception
from fleetcache.loading.cached import Caching

__all__ = [
    "FenceMiddleware",
    "RedisCache",
    "cache",
    "cache_page",
    "cached",
    "caches",
    "fragment_key",
    "get_redis_connection",
    "omit_exception",
]


def get_redis_connection(alias: str = "default", write: bool = True) -> Any:
    """Return a raw ``redis.Redis`` to the server of the cache *alias*."""
    from django.core.cache import caches

    cache = caches[alias]
    if not isinstance(cache, RedisCache):
        raise NotImplementedError(f"the cache {alias!r} is not fleetcache's: {type(cache).__qualname__}")
    return cache.client.get_client(write)


def _find(alias: str) -> RedisCache:
    """Return the cache *alias* of Django's ``caches``, for `cached`."""
    from django.core.cache import caches

    cache = caches[alias]
    if not isinstance(cache, RedisCache):
        raise InvalidCacheBackendError(
            f"CACHES[{alias!r}] is of the class {type(cache).__qualname__}, and @cached needs a fleetcache.django.RedisCache; "
            f"for tests its LOCATION may be 'memory://'"
        )
    return cache


cached = Caching(_find).cached

take_part()
