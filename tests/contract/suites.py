"""Which of Django's tests are run, which are left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

BASE = "cache.tests.RedisCacheTests"

PRIVATE = "reads what only Django's own Redis backend has: "

EXCLUDED = {
    f"{BASE}.test_incr_write_connection": PRIVATE + "RedisCacheClient.get_client",
    f"{BASE}.test_cache_client_class": PRIVATE + "cache._class",
    f"{BASE}.test_get_connection_pool": PRIVATE + "cache._cache._get_connection_pool",
    f"{BASE}.test_get_connection_pool_index": PRIVATE + "cache._cache._servers",
    f"{BASE}.test_get_client": PRIVATE + "cache._cache.get_client",
    f"{BASE}.test_serializer_dumps": PRIVATE + "cache._cache._serializer",
    f"{BASE}.test_redis_pool_options": PRIVATE + "cache._cache._get_connection_pool",
    f"{BASE}.test_client_driver_info": PRIVATE + "cache._cache.get_client",
} | dict.fromkeys(
    (
        "cache.tests.DefaultNonExpiringCacheKeyTests." + name
        for name in (
            "test_caches_with_unset_timeout_set_expiring_key",
            "test_caches_set_with_timeout_as_none_set_non_expiring_key",
        )
    ),
    "reads what only Django's LocMemCache has: cache._expire_info",
)
"""Tests that are left out of every suite: name -> reason."""

EXCLUDED_WHEN_AWAITED = dict.fromkeys(
    (
        f"{BASE}.test_{name}_async_uses_specialized_implementation"
        for name in (
            "get_many",
            "set_many",
            "delete_many",
            "get_or_set",
            "has_key",
            "incr",
            "incr_version",
            "close",
        )
    ),
    "compares sync methods with a-methods, and runs in the suite 'base'",
) | {
    f"{BASE}.test_get_or_set_racing": "replaces add(), which aget_or_set() need not call",
}
"""Tests that say nothing through the a-methods: name -> reason."""

SKIPPED = {
    f"{BASE}.{name}": "MAX_ENTRIES is not for Redis; Django's own backend skips it too"
    for name in ("test_cull", "test_zero_cull", "test_cull_delete_when_store_empty")
}
"""Tests that skip themselves on Django's own Redis backend: name -> reason."""


@dataclass(frozen=True)
class Suite:
    """Tests of Django that are run together, in one process.

    *floor* is how many of them the poorest supported Django has; fewer means that something was
    lost on the way.  *stores* is how many ``LOCATION`` they name, each of which needs a
    store of its own.  *hits* is how many reads a near cache answers at least, if there is one.
    """

    tests: tuple[str, ...]
    floor: int
    stores: int = 1
    hits: int = 0
    awaited: bool = False
    under_loop: bool = False
    excluded: dict[str, str] = field(default_factory=lambda: EXCLUDED)
    skipped: dict[str, str] = field(default_factory=dict)


# The longest come first: they sleep most of the time, and the others run meanwhile.
SUITES = {
    # What Django asks of every backend.
    "base": Suite((BASE,), floor=55, hits=120, skipped=SKIPPED),
    # The same through the a-methods, as in a view of a WSGI server: a new event loop each call.
    "awaited-in-new-loops": Suite(
        (BASE,),
        floor=54,
        hits=120,
        awaited=True,
        excluded=EXCLUDED | EXCLUDED_WHEN_AWAITED,
        skipped=SKIPPED,
    ),
    # The same as in a sync view of an ASGI server: its one event loop runs every call.
    "awaited-in-one-loop": Suite(
        (BASE,),
        floor=54,
        hits=120,
        awaited=True,
        under_loop=True,
        excluded=EXCLUDED | EXCLUDED_WHEN_AWAITED,
        skipped=SKIPPED,
    ),
    # Whole pages: the middleware, cache_page() and Vary.
    "pages": Suite(
        (
            "cache.tests.CacheUtils",
            "cache.tests.PrefixedCacheUtils",
            "cache.tests.CacheHEADTest",
            "cache.tests.CacheI18nTest",
            "cache.tests.PrefixedCacheI18nTest",
            "cache.tests.CacheMiddlewareTest",
            "cache.tests.TestWithTemplateResponse",
        ),
        floor=49,
        hits=100,
        stores=2,
    ),
    # Sessions in the cache alone, and in front of a database.
    "sessions": Suite(
        (
            "sessions_tests.tests.CacheSessionTests",
            "sessions_tests.tests.CacheDBSessionTests",
            "sessions_tests.tests.CacheDBSessionWithTimeZoneTests",
        ),
        floor=210,
        hits=15,
        stores=2,
    ),
    # {% cache %}
    "fragments": Suite(
        (
            "template_tests.syntax_tests.test_cache",
            "cache.tests.TestMakeTemplateFragmentKey",
        ),
        floor=25,
        hits=70,
        stores=3,
    ),
    # `caches`: one object per thread and task, the defaults of CACHES.
    "handler": Suite(
        (
            "cache.tests.CacheHandlerTest",
            "cache.tests.DefaultNonExpiringCacheKeyTests",
            "async.tests.CacheTest",
        ),
        floor=9,
        stores=2,
    ),
}
