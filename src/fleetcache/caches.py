"""``caches["default"]``: the cache of an alias, created on first use, without Django.

Each thread and each task has its own object.  A task that starts after its parent used a cache shares the parent's
object; one that starts earlier makes its own.  The objects are light; connections belong to the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from fleetcache.cache import Cache
from fleetcache.errors import InvalidCacheBackendError, SettingsError
from fleetcache.loading.cached import Caching
from fleetcache.settings import Settings, from_url, located

DEFAULT_ALIAS = "default"
VARIABLE = "FLEETCACHE_URL"


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return URLs by alias: FLEETCACHE_URL is that of ``default``, FLEETCACHE_URL_OTHER that of ``other``."""
    return {
        name.removeprefix(f"{VARIABLE}_").lower() if name != VARIABLE else DEFAULT_ALIAS: url
        for name, url in environment.items()
        if name == VARIABLE or name.startswith(f"{VARIABLE}_")
    }


def _of_django() -> str:
    """Return where the caches of a Django project are; "" in other programs.  Django is not imported."""
    django = sys.modules.get("django.conf")
    if django is None or not django.settings.configured:
        return ""
    return ". Under Django: from fleetcache.django import cached (caches, cache)"


class CacheHandler:
    """Makes and keeps the caches of *settings*: a mapping of aliases to ``CACHES`` entries or URLs.

    A single URL is that of ``default``.  Without settings the environment is read.
    """

    def __init__(self, settings: Mapping[str, Any] | str | None = None) -> None:
        self._made: ContextVar[dict[str, Cache]] = ContextVar("fleetcache")
        self._entries: dict[str, Any] | None = None
        if settings is not None:
            self.configure(settings)

    def configure(self, settings: Mapping[str, Any] | str) -> None:
        """Replace the settings; caches that were returned before stay as they are."""
        entries = dict(settings) if isinstance(settings, Mapping) else {DEFAULT_ALIAS: settings}
        for alias, entry in entries.items():
            if isinstance(entry, (list, tuple, int, float)) or entry is None:
                raise SettingsError(f"CACHES[{alias!r}]: a dict or a URL is expected, not {type(entry).__name__}")
        self._entries = entries
        self._made = ContextVar("fleetcache")

    @property
    def settings(self) -> Mapping[str, Any]:
        """The entry of each alias."""
        if self._entries is None:
            self._entries = dict(from_environment(os.environ))
        return self._entries

    def __getitem__(self, alias: str) -> Cache:
        made = self._mine()
        if alias not in made:
            made[alias] = self._make(alias)
        return made[alias]

    def _mine(self) -> dict[str, Cache]:
        """The caches of this thread or task."""
        made = self._made.get(None)
        if made is None:
            self._made.set(made := {})
        return made

    def _make(self, alias: str) -> Cache:
        if alias not in self.settings:
            nothing = f"none: call configure(), or set {VARIABLE}{_of_django()}"
            known = ", ".join(map(repr, self.settings)) or nothing
            raise InvalidCacheBackendError(f"There is no cache {alias!r}. Configured are {known}")
        try:
            return self._open(alias, self.settings[alias])
        except InvalidCacheBackendError:
            raise
        except SettingsError as error:
            raise located(error, f"CACHES[{alias!r}]") from error

    def _open(self, alias: str, entry: Any) -> Cache:
        location, params = (entry.get("LOCATION"), dict(entry)) if isinstance(entry, Mapping) else from_url(entry)
        params.pop("LOCATION", None)
        backend = params.pop("BACKEND", None)
        if backend is not None and "RedisCache" not in str(backend):
            raise InvalidCacheBackendError(f"CACHES[{alias!r}]: BACKEND {backend!r} is not fleetcache's")
        client_class: type[Cache] = Settings.shared(location, params, alias=alias).options.client_class
        return client_class(location, params, alias=alias)

    def __contains__(self, alias: str) -> bool:
        return alias in self.settings

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def all(self, initialized_only: bool = False) -> list[Cache]:
        """Return the caches of all aliases, or only those that this thread or task has used."""
        if initialized_only:
            return list(self._mine().values())
        return [self[alias] for alias in self.settings]

    def close_all(self) -> None:
        """Close the caches that this thread or task has used; see `Cache.close`."""
        for cache in self.all(initialized_only=True):
            cache.close()


caches = CacheHandler()


class CacheProxy:
    """Stands for the cache of the default alias of the current thread or task."""

    def __getattr__(self, name: str) -> Any:
        return getattr(caches[DEFAULT_ALIAS], name)

    def __dir__(self) -> list[str]:
        return dir(Cache)

    def __contains__(self, key: Any) -> bool:
        return key in caches[DEFAULT_ALIAS]


cache: Cache = CacheProxy()  # type: ignore[assignment]  # what it stands for
configure = caches.configure
cached = Caching(caches.__getitem__).cached
