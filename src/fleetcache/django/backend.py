"""The cache backend: settings in, Django's ``BaseCache`` face out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache as memoized
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT as DJANGO_DEFAULT
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from fleetcache.cache import Cache
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import SettingsError
from fleetcache.settings import Settings, imported

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


class RedisCache(Cache, BaseCache):
    """``BACKEND = "fleetcache.django.RedisCache"``: a cache on Redis or Valkey.

    It is the client that ``CLIENT_CLASS`` names, and a Django cache, in one object.
    """

    default_marks = (DEFAULT_TIMEOUT, DJANGO_DEFAULT)
    warns = True
    validate_key = BaseCache.validate_key
    broken: Exception | None = None

    def __new__(cls, location: Any = None, params: Mapping[str, Any] | None = None) -> Self:
        options = (params or {}).get("OPTIONS") or {}
        try:
            kind = with_client(cls, options["CLIENT_CLASS"]) if options.get("CLIENT_CLASS") else cls
        except SettingsError as error:
            raise ImproperlyConfigured(str(error)) from error
        return super().__new__(kind)

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        try:
            Cache.__init__(self, location, params, defaults=stand_ins())
            check_embedded(self.settings)
        except SettingsError as error:
            self.broken = ImproperlyConfigured(str(error))
            # Django's own check makes every cache.  With this app installed, a check of ours
            # reports what is wrong, and the error waits for the first use.
            if not (apps.ready and apps.is_installed("fleetcache.django")):
                raise self.broken from error

    def __getattr__(self, name: str) -> Any:
        if self.broken is not None and not name.startswith("__"):
            raise self.broken
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    async def encoded(self, values: Iterable[Any], *, integers: bool = True) -> list[bytes | int]:
        """Return the payloads of *values*; a queryset that must first be read is read in a thread."""
        encode = self.codec.encode
        values = list(values)
        try:
            return [encode(value, integers=integers) for value in values]
        except SynchronousOnlyOperation:
            return await sync_to_async(lambda: [encode(value, integers=integers) for value in values])()

    def added_in_outage(self, key: Any) -> bool:
        """A session counts as added: else Django would try 10,000 other keys, and fail the request."""
        return str(key).startswith(SESSIONS)


def stand_ins() -> dict[str, Any]:
    """Return the project's settings that stand in for absent OPTIONS."""
    return {name: getattr(settings, name) for name in STAND_INS if hasattr(settings, name)}


def check_embedded(found: Settings) -> None:
    """Refuse to start a server of our own in production."""
    if settings.DEBUG or found.options.allow_embedded:
        return
    if any(url.startswith("embedded:") for url in found.location):
        raise SettingsError(
            "embedded:// is for development, and is not started with DEBUG = False. "
            "Name a server in LOCATION, or set OPTIONS['ALLOW_EMBEDDED'] = True"
        )


@memoized
def with_client(backend: Any, client_class: Any) -> Any:
    """Return *backend* with the operations of *client_class*."""
    client = imported(client_class)
    if not (isinstance(client, type) and issubclass(client, Cache)):
        raise SettingsError(
            f"OPTIONS['CLIENT_CLASS']: {client_class!r} is not derived from fleetcache.client.DefaultClient. "
            f"docs/migration.md says how a client written for django-redis is carried over"
        )
    if issubclass(backend, client):
        return backend
    return type(backend.__name__, (backend, client), {"__module__": backend.__module__})
