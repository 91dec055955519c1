"""System checks: what is wrong with ``CACHES`` is said before the site starts.  Nothing connects."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from fleetcache.django.backend import STAND_INS, RedisCache, check_embedded, entries, settings_of, with_client
from fleetcache.errors import SettingsError
from fleetcache.near import announced
from fleetcache.settings import located


def check_caches(**kwargs: Any) -> list[CheckMessage]:
    """Report what fleetcache's caches would refuse at their first use."""
    return [error for found in entries() for error in _check(*found)] + _misspelled()


def _check(alias: str, entry: Mapping[str, Any], backend: type[RedisCache]) -> list[CheckMessage]:
    try:
        read = settings_of(alias, entry)
        check_embedded(read)
        kind = with_client(backend, entry)
        kind.make_codec(read)
        kind.open(read)
        announced(read)
    except SettingsError as error:
        return [Error(str(located(error, f"CACHES[{alias!r}]")), obj=f"CACHES[{alias!r}]", id="fleetcache.E001")]
    return []


def _misspelled() -> list[CheckMessage]:
    """Warn of settings that look like django-redis' and are none."""
    return [
        Warning(f"The setting {name} is unknown.", hint=f"Did you mean {close[0]}?", id="fleetcache.W001")
        for name in dir(settings)
        if name.startswith("DJANGO_REDIS_") and name not in STAND_INS and (close := get_close_matches(name, STAND_INS))
    ]
