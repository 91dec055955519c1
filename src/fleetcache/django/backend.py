"""The cache backend `RedisCache`: fleetcache's `Cache` and Django's ``BaseCache`` in one class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache as memoized
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT as DJANGO_DEFAULT
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from fleetcache.cache import Cache, Shared
from fleetcache.codec.metadata import Metadata
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import SettingsError
from fleetcache.keys import K, Key, Version
from fleetcache.naming import adopt, named_and_validated
from fleetcache.settings import STAND_INS, Settings, located

SESSIONS = "django.contrib.sessions."


P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:

    def _declared(
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
    ) -> Callable[[Callable[[Any], Any]], Callable[Concatenate[Any, P], T]]:
        """Give a function the type of the blocking face of *method*."""
        raise NotImplementedError


class RedisCache(Cache, BaseCache):
    """``BACKEND = "fleetcache.django.RedisCache"``: a cache on Redis or Valkey.

    One object is both Django's cache and the client that ``CLIENT_CLASS`` names.
    """

    _default_marks = (DEFAULT_TIMEOUT, DJANGO_DEFAULT)
    _warns = True
    validate_key = BaseCache.validate_key

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kind: Any = cls
        if kind.validate_key is not BaseCache.validate_key:
            kind._validates, kind._warn = True, kind._validate
        adopt(cls, "make_and_validate_key", BaseCache.make_and_validate_key, named_and_validated)

    if TYPE_CHECKING:
        # pyright prefers declared types: for it, those of BaseCache hide faces that are assigned, and their arguments.
        @_declared(Cache.aadd)
        def add(self) -> Any: ...

        @_declared(Cache.aclear)
        def clear(self) -> Any: ...

        @_declared(Cache.adecr)
        def decr(self) -> Any: ...

        @_declared(Cache.adecr_version)
        def decr_version(self) -> Any: ...

        @_declared(Cache.adelete)
        def delete(self) -> Any: ...

        @_declared(Cache.adelete_many)
        def delete_many(self) -> Any: ...

        @overload
        def get_many(
            self, keys: Iterable[K], version: Version = None, client: Any = None, *, fresh: bool = False
        ) -> dict[K, Any]: ...
        @overload
        def get_many(  # type: ignore[overload-cannot-match]  # as in Cache
            self, keys: Iterable[Key], version: Version = None, client: Any = None, *, fresh: bool = False
        ) -> dict[Key, Any]: ...
        def get_many(self, *args: Any, **kwargs: Any) -> Any: ...

        @_declared(Cache.ahas_key)
        def has_key(self) -> Any: ...

        @_declared(Cache.aincr)
        def incr(self) -> Any: ...

        @_declared(Cache.aincr_version)
        def incr_version(self) -> Any: ...

        @_declared(Cache.aset_many)
        def set_many(self) -> Any: ...

        @_declared(Cache.atouch)
        def touch(self) -> Any: ...

    # BACKEND names one class, CLIENT_CLASS another, and the object has to be of both: a client that is called by the
    # backend instead would cost each operation a frame.
    def __new__(cls, location: Any = None, params: Mapping[str, Any] | None = None) -> Self:
        kind = cls
        with suppress(SettingsError):  # for __init__ to report
            kind = with_client(cls, Settings.shared(location, params or {}, defaults=stand_ins()))
        return super().__new__(kind)

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        try:
            super().__init__(location, params, defaults=stand_ins())
            self._server, self._params = location, params
            if self.tally is not None and not self.tally.alias:
                self.tally.alias = found_alias(location, params)
        except SettingsError as error:
            wrong = ImproperlyConfigured(str(located(error, alias_of(location, params))))
            # Django's own check makes every cache.  With this app installed our check reports the error, and the
            # cache raises it at its first use.
            if not (apps.ready and apps.is_installed("fleetcache.django")):
                raise wrong from error
            # The class changes here, because a derived backend may correct its settings before it calls this method,
            # and because a `__getattr__` in RedisCache would slow down each hit.
            self.wrong = wrong
            self.__class__ = Misconfigured

    @classmethod
    def _shared(cls, settings: Settings) -> Shared:
        """Return what all caches of *settings* in this process share."""
        check_embedded(settings)
        return super()._shared(settings)

    async def encoded(
        self, values: Collection[Any], *, integers: bool = True, metadata: Collection[Metadata] | None = None
    ) -> list[bytes | int]:
        """Return the payloads of *values*; a queryset that was not read yet is read in a thread."""
        try:
            return self.codec.encode_all(values, integers=integers, metadata=metadata)
        except SynchronousOnlyOperation as error:
            if self._runtime.blocks:
                raise
            encode_all = partial(sync_to_async(self.codec.encode_all), values, integers=integers, metadata=metadata)
            payloads: list[bytes | int] = await self._runtime.produce(encode_all, error)
            return payloads

    def _client_kind(self) -> Any:
        return with_client(RedisCache, self.settings)

    def get_backend_timeout(self, timeout: Any = DJANGO_DEFAULT) -> int | None:
        """Return *timeout* in whole seconds, as Django's Redis backend does; fleetcache itself counts milliseconds."""
        milliseconds = self.milliseconds(timeout)
        return None if milliseconds is None else max(0, milliseconds // 1000)

    def _added_in_outage(self, key: Any) -> bool:
        """Whether an outage counts as success: for sessions, else Django would try 10,000 other keys and fail the request."""
        return str(key).startswith(SESSIONS)

    # --- attributes that code for other backends uses ---------------------------------------------

    def get_master_client(self) -> Any:
        """Return a raw client to the primary; django-rq and django-defender call this method of django-redis-cache."""
        return self.get_client()

    @property
    def _ignore_exceptions(self) -> bool:
        return self._failsafe.ignore

    @_ignore_exceptions.setter
    def _ignore_exceptions(self, ignore: bool) -> None:
        self._failsafe = replace(self._failsafe, ignore=ignore)

    @property
    def _log_ignored_exceptions(self) -> bool:
        return self._failsafe.log is not None

    @property
    def _default_scan_itersize(self) -> int:
        return self.settings.options.scan_itersize

    @property
    def _client_cls(self) -> Any:
        return self.settings.options.client_class

    @_client_cls.setter
    def _client_cls(self, client: Any) -> None:
        raise AttributeError(f"the client is named in the settings: OPTIONS['CLIENT_CLASS'] = {client!r}")


def cache_named(alias: str) -> RedisCache | None:
    """Return the cache *alias*, or None for Django's DummyCache, which keeps nothing; refuse those of other backends."""
    cache = caches[alias]
    if isinstance(cache, DummyCache):
        return None
    if not isinstance(cache, RedisCache):
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is {type(cache).__module__}.{type(cache).__qualname__}, which has no tags and loads nothing once. "
            f"Use fleetcache.django.RedisCache (in tests with LOCATION memory://), or Django's DummyCache"
        )
    return cache


def entries() -> Iterator[tuple[str, dict[str, Any], type[RedisCache]]]:
    """Yield the alias, the entry and the backend of each cache in ``CACHES`` that is fleetcache's."""
    for alias, entry in settings.CACHES.items():
        with suppress(ImportError):  # Django reports it
            backend = import_string(entry.get("BACKEND", ""))
            if isinstance(backend, type) and issubclass(backend, RedisCache):
                yield alias, entry, backend


def settings_of(alias: str, entry: Mapping[str, Any]) -> Settings:
    """Return the settings in an entry of ``CACHES``."""
    return Settings.read(entry.get("LOCATION", ""), entry, alias=alias, defaults=stand_ins())


def alias_of(location: Any, params: Mapping[str, Any]) -> str:
    """Return the place of these settings, such as CACHES['default']."""
    alias = found_alias(location, params)
    return f"CACHES[{alias!r}]" if alias else "cache settings"


def found_alias(location: Any, params: Mapping[str, Any]) -> str:
    """Return the first alias with these settings, "" if there is none: Django does not tell a backend its alias."""
    for alias, entry in settings.CACHES.items():
        if {"LOCATION": "", **entry, "BACKEND": ""} == {**params, "LOCATION": location, "BACKEND": ""}:
            return str(alias)
    return ""


class Misconfigured(RedisCache):
    """A cache whose settings are wrong: every use of it raises the error."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "close":  # Django closes every cache at the end of a request
            return object.__getattribute__(self, name)
        raise object.__getattribute__(self, "wrong")

    def close(self, **kwargs: Any) -> None:
        """Do nothing: no connection was made."""


@memoized
def stand_ins() -> dict[str, Any]:
    """Return the project's settings that stand in for absent OPTIONS.

    They are kept, because each new cache object needs them, and Django takes long to find that a setting is absent.
    """
    return {name: getattr(settings, name) for name in STAND_INS if hasattr(settings, name)}


setting_changed.connect(lambda **_: stand_ins.cache_clear(), weak=False)


def check_embedded(read: Settings) -> None:
    """Refuse ``embedded://`` in production."""
    # Test runners set DEBUG to False, and they set `outbox`.
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
    # A site may name any backend and any client, so no class statement can foresee the pair.
    if issubclass(backend, client):
        return backend
    return type(backend.__name__, (backend, client), {"__module__": backend.__module__})
