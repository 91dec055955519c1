"""The cache backend: settings in, Django's ``BaseCache`` face out."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache as memoized
from functools import partial
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT as DJANGO_DEFAULT
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from fleetcache.cache import Cache, Shared
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import SettingsError
from fleetcache.settings import Options, Settings, located, table

STAND_INS = [setting for described in table(Options).values() if (setting := described.metadata["setting"])]
"""Settings of the project that stand in for absent OPTIONS."""

SESSIONS = "django.contrib.sessions."


class RedisCache(Cache, BaseCache):
    """``BACKEND = "fleetcache.django.RedisCache"``: a cache on Redis or Valkey.

    It is the client that ``CLIENT_CLASS`` names, and a Django cache, in one object.
    """

    default_marks = (DEFAULT_TIMEOUT, DJANGO_DEFAULT)
    warns = True
    validate_key = BaseCache.validate_key

    # BACKEND is one class, and CLIENT_CLASS another, which overrides its operations: the object is of both.  A
    # client that is called would cost each hit a frame.
    def __new__(cls, location: Any = None, params: Mapping[str, Any] | None = None) -> Self:
        kind = cls
        with suppress(SettingsError):  # for __init__ to report
            kind = with_client(cls, Settings.shared(location, params or {}, defaults=stand_ins()))
        return super().__new__(kind)

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        try:
            super().__init__(location, params, defaults=stand_ins())
            self._server, self._params = location, params
        except SettingsError as error:
            wrong = ImproperlyConfigured(str(located(error, alias_of(location, params))))
            # Django's own check makes every cache.  With this app installed, a check of ours
            # reports what is wrong, and the error waits for the first use.
            if not (apps.ready and apps.is_installed("fleetcache.django")):
                raise wrong from error
            self.wrong = wrong
            self.__class__ = Misconfigured

    @classmethod
    def shared(cls, settings: Settings) -> Shared:
        """Return what all caches of *settings* in this process share."""
        check_embedded(settings)
        return super().shared(settings)

    async def encoded(self, values: Collection[Any], *, integers: bool = True) -> list[bytes | int]:
        """Return the payloads of *values*; a queryset that must first be read is read in a thread."""
        try:
            return self.codec.encode_all(values, integers=integers)
        except SynchronousOnlyOperation as error:
            if self.runtime.blocks:
                raise
            encode_all = partial(sync_to_async(self.codec.encode_all), values, integers=integers)
            payloads: list[bytes | int] = await self.runtime.produce(encode_all, error)
            return payloads

    def _client_kind(self) -> Any:
        return with_client(RedisCache, self.settings)

    def get_backend_timeout(self, timeout: Any = DJANGO_DEFAULT) -> int | None:
        """Return *timeout* in whole seconds, as Django's Redis backend does; times here are kept to the millisecond."""
        milliseconds = self.milliseconds(timeout)
        return None if milliseconds is None else max(0, milliseconds // 1000)

    def added_in_outage(self, key: Any) -> bool:
        """A session counts as added: else Django would try 10,000 other keys, and fail the request."""
        return str(key).startswith(SESSIONS)

    # --- what code that was written for other backends looks for ----------------------------------

    def get_master_client(self) -> Any:
        """Return a raw client to the primary, for django-rq and django-defender, as django-redis-cache's."""
        return self.get_client()

    @property
    def _ignore_exceptions(self) -> bool:
        return self.failsafe.ignore

    @_ignore_exceptions.setter
    def _ignore_exceptions(self, ignore: bool) -> None:
        self.failsafe = replace(self.failsafe, ignore=ignore)

    @property
    def _log_ignored_exceptions(self) -> bool:
        return self.failsafe.log is not None

    @property
    def _default_scan_itersize(self) -> int:
        return self.settings.options.scan_itersize

    @property
    def _client_cls(self) -> Any:
        return self.settings.options.client_class

    @_client_cls.setter
    def _client_cls(self, client: Any) -> None:
        raise AttributeError(f"the client is named in the settings: OPTIONS['CLIENT_CLASS'] = {client!r}")


def entries() -> Iterator[tuple[str, dict[str, Any], type[RedisCache]]]:
    """Yield the alias, the entry and the backend of each cache in ``CACHES`` that is fleetcache's."""
    for alias, entry in settings.CACHES.items():
        with suppress(ImportError):  # Django says so
            backend = import_string(entry.get("BACKEND", ""))
            if isinstance(backend, type) and issubclass(backend, RedisCache):
                yield alias, entry, backend


def settings_of(alias: str, entry: Mapping[str, Any]) -> Settings:
    """Return what an entry of ``CACHES`` says."""
    return Settings.read(entry.get("LOCATION", ""), entry, alias=alias, defaults=stand_ins())


def alias_of(location: Any, params: Mapping[str, Any]) -> str:
    """Return where in CACHES these settings stand, which Django does not tell a backend."""
    for alias, entry in settings.CACHES.items():
        if {"LOCATION": "", **entry, "BACKEND": ""} == {**params, "LOCATION": location, "BACKEND": ""}:
            return f"CACHES[{alias!r}]"
    return "cache settings"


class Misconfigured(RedisCache):
    """A cache whose settings are wrong: whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "close":  # Django closes every cache at the end of a request
            return object.__getattribute__(self, name)
        raise object.__getattribute__(self, "wrong")

    def close(self, **kwargs: Any) -> None:
        """There is nothing to close."""


@memoized
def stand_ins() -> dict[str, Any]:
    """Return the project's settings that stand in for absent OPTIONS.

    They are asked for with every cache object, and a setting that is not there takes long to miss.
    """
    return {name: getattr(settings, name) for name in STAND_INS if hasattr(settings, name)}


setting_changed.connect(lambda **_: stand_ins.cache_clear(), weak=False)


def check_embedded(read: Settings) -> None:
    """Refuse to start a server of our own in production."""
    # Test runners set DEBUG to False, and this.
    in_tests = hasattr(sys.modules.get("django.core.mail"), "outbox")
    if settings.DEBUG or in_tests or read.options.allow_embedded:
        return
    if any(location.kind == "embedded" for location in read.location):
        raise SettingsError(
            "embedded:// is for development, and is not started with DEBUG = False. "
            "Name a server in LOCATION, or set OPTIONS['ALLOW_EMBEDDED'] = True"
        )


def with_client(backend: Any, read: Settings) -> Any:
    """Return *backend* with the operations of the client class that the settings name."""
    return _with_client(backend, read.options.client_class)


@memoized
def _with_client(backend: Any, client: Any) -> Any:
    if issubclass(backend, client):
        return backend
    return type(backend.__name__, (backend, client), {"__module__": backend.__module__})
