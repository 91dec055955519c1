"""How tests examine caches: the findings of one cache, by their ids."""

from __future__ import annotations

from typing import Any

from tests.caches import own_prefix

from fleetcache import Cache
from fleetcache.inspection.doctor import Finding, examine

USUAL = {"memory-unlimited", "version-ended", "database-shared", "evictions", "near-possible"}
"""What servers of tests have, and what a test that is about something else does not look at."""


def cache_at(url: str, prefix: str | None = None, **options: Any) -> Cache:
    """Return a cache with a prefix of its own."""
    settings = {name: options.pop(name) for name in ("TIMEOUT", "VERSION", "KEY_FUNCTION") if name in options}
    return Cache(url, {"KEY_PREFIX": own_prefix() if prefix is None else prefix, **settings, "OPTIONS": options})


def findings(cache: Cache, **given: Any) -> dict[str, Finding]:
    """Return the findings about *cache*, the first of each kind, by id."""
    found: dict[str, Finding] = {}
    for each in examine(cache, **{"probes": False, **given}):
        assert each.found
        assert each.advice
        assert each.subject
        found.setdefault(each.id, each)
    return found
