"""System checks: they report errors in ``CACHES`` before the site starts.  They connect to no server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from fleetcache.django.backend import RedisCache, check_embedded, entries, settings_of, with_client
from fleetcache.django.standin import BOTH, both_installed
from fleetcache.errors import SettingsError
from fleetcache.keys import default_key_function
from fleetcache.near.near import announced
from fleetcache.settings import STAND_INS, Settings, located, stand_in_meant


def check_caches(**kwargs: Any) -> list[CheckMessage]:
    """Report the settings that fleetcache's caches would refuse at their first use."""
    places: dict[str, tuple[Settings, set[str]]] = {}
    wrong = [error for found in entries() for error in _check(*found, places)]
    both = [Error(BOTH, id="fleetcache.E002")] if both_installed() else []
    return wrong + _nested(places) + _misspelled() + both


def _check(
    alias: str, entry: Mapping[str, Any], backend: type[RedisCache], places: dict[str, tuple[Settings, set[str]]]
) -> list[CheckMessage]:
    try:
        read = settings_of(alias, entry)
        check_embedded(read)
        kind = with_client(backend, read)
        kind.make_codec(read)
        addresses = {server.address for server in kind.make_topology(read).servers}
        if kind._namer_of(read) is default_key_function:
            places[alias] = read, addresses
        announced(read, kind._namer_of(read))
    except SettingsError as error:
        return [Error(str(located(error, f"CACHES[{alias!r}]")), obj=f"CACHES[{alias!r}]", id="fleetcache.E001")]
    return []


def _nested(places: Mapping[str, tuple[Settings, set[str]]]) -> list[CheckMessage]:
    """Warn of caches in one database, whose names begin with their prefixes, if one prefix lies within another."""
    return [
        Warning(
            f"CACHES[{inner!r}]: the KEY_PREFIX {within.key_prefix!r} lies within that of CACHES[{outer!r}], {around.key_prefix!r}, "
            f"in the same database: {outer!r} can read entries of {inner!r}, lists them, and clear() removes them.",
            hint="Give one of the two another prefix, such as one without a colon, or another database.",
            obj=f"CACHES[{inner!r}]",
            id="fleetcache.W002",
        )
        for outer, (around, here) in places.items()
        for inner, (within, there) in places.items()
        if around.key_prefix and within.key_prefix.startswith(f"{around.key_prefix}:") and here & there
    ]


def _misspelled() -> list[CheckMessage]:
    """Warn of settings that look like django-redis' settings, and are unknown."""
    return [
        Warning(f"The setting {name} is unknown.", hint=question, id="fleetcache.W001")
        for name in dir(settings)
        if name.startswith("DJANGO_REDIS_") and name not in STAND_INS and (question := stand_in_meant(name))
    ]
