"""The cache backend: settings in, Django's ``BaseCache`` face out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache as memoized
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT as DJANGO_DEFAULT
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from fleetcache.cache import Cache
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import SettingsError
from fleetcache.keys import CacheKey
from fleetcache.settings import imported

STAND_INS = (
    "DJANGO_REDIS_IGNORE_EXCEPTIONS",
    "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS",
    "DJANGO_REDIS_LOGGER",
    "DJANGO_REDIS_SCAN_ITERSIZE",
    "DJANGO_REDIS_CLOSE_CONNECTION",
    "DJANGO_REDIS_CONNECTION_FACTORY",
    "CACHE_HERD_TIMEOUT",
)
"""Settings of the project that stand in for absent OPTIONS."""

SESSIONS = "django.contrib.sessions."

doubtful = re.compile(r"[\x00-\x20\x7f]").search


class RedisCache(Cache, BaseCache):
    """``BACKEND = "fleetcache.django.RedisCache"``: a cache on Redis or Valkey.

    It is the client that ``CLIENT_CLASS`` names, and a Django cache, in one object.
    """

    default_marks = (DEFAULT_TIMEOUT, DJANGO_DEFAULT)

    def __new__(cls, location: Any = None, params: Mapping[str, Any] | None = None) -> Self:
        client_class = (params or {}).get("OPTIONS", {}).get("CLIENT_CLASS")
        return super().__new__(cls if client_class is None else _as_client(cls, client_class))

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        params = {name: value for name, value in params.items() if name != "BACKEND"}
        stand_ins = {name: getattr(settings, name) for name in STAND_INS if hasattr(settings, name)}
        try:
            Cache.__init__(self, location, params, defaults=stand_ins)
            if not settings.DEBUG and not self.settings.options.allow_embedded:
                if any(url.startswith("embedded:") for url in self.settings.location):
                    raise SettingsError(
                        "embedded:// is for development and is not started with DEBUG = False. "
                        "Name a server in LOCATION, or set OPTIONS['ALLOW_EMBEDDED'] = True"
                    )
        except SettingsError as error:
            raise ImproperlyConfigured(str(error)) from error

    def name(self, key: Any, version: Any = None, prefix: str | None = None) -> str:
        """Return what the entry of *key* is called; warn, as Django does, of names memcached refuses."""
        name = super().name(key, version, prefix)
        if (len(name) > 250 or doubtful(name)) and not isinstance(key, CacheKey):
            self.validate_key(name)
        return name

    async def encoded(self, values: Iterable[Any], *, integers: bool = True) -> list[bytes | int]:
        """Return the payloads of *values*; a queryset that must first be read is read in a thread."""
        values = list(values)
        try:
            return await super().encoded(values, integers=integers)
        except SynchronousOnlyOperation:
            return await sync_to_async(self._encoded)(values, integers)

    def _encoded(self, values: list[Any], integers: bool) -> list[bytes | int]:
        return [self.codec.encode(value, integers=integers) for value in values]

    def added_in_outage(self, key: Any) -> bool:
        """A session counts as added: else Django would try 10,000 other keys, and fail the request."""
        return str(key).startswith(SESSIONS)


@memoized
def _as_client(backend: type[RedisCache], client_class: Any) -> type[RedisCache]:
    """Return *backend* with the operations of *client_class*."""
    try:
        client = imported(client_class)
    except SettingsError as error:
        raise ImproperlyConfigured(f"OPTIONS['CLIENT_CLASS']: {error}") from error
    if not (isinstance(client, type) and issubclass(client, Cache)):
        raise ImproperlyConfigured(
            f"OPTIONS['CLIENT_CLASS']: {client!r} is not derived from fleetcache.client.DefaultClient. "
            f"docs/migration.md says how a client written for django-redis is carried over"
        )
    if issubclass(backend, client):
        return backend
    return type(backend.__name__, (backend, client), {"__module__": backend.__module__})
