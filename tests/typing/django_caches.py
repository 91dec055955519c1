"""What type checkers know of Django's caches by fleetcache's handles; mypy and pyright read this file, nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

from fleetcache.django import RedisCache, cache, caches

assert_type(cache, RedisCache)
assert_type(caches["sessions"], RedisCache)
assert_type(cache.get("key", 0), Any | int)
assert_type(cache.set("key", 1, tags=["a"]), bool)
assert_type(cache.ttl("key"), int | None)
assert_type(cache.get_or_set("key", lambda: [1]), list[int])
assert_type(caches["sessions"].keys("*"), list[str])

# Each of these has more arguments than the method of Django's BaseCache.
assert_type(cache.incr("hits", 2, default=0, timeout=60), int | Any)
assert_type(cache.decr("hits", 2, client=None), int | Any)
assert_type(cache.add("key", 1, 60, client=None), bool)
assert_type(cache.set_many({"a": 1}, 60, tags=["a"]), list[str])
assert_type(cache.get_many([1, 2], client=None), dict[int, Any])
cache.get_many(["a", 1])
cache.get_many([b"key"])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
assert_type(cache.delete_many(["a", 5]), int | None)
assert_type(cache.delete("key", client=None), bool)
assert_type(cache.has_key("key", client=None), bool)
assert_type(cache.touch("key", 60, client=None), bool)
assert_type(cache.incr_version("key", client=None), int | Any)
assert_type(cache.decr_version("key", client=None), int | Any)
cache.clear(client=None)

cache.touch("key", "60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("key", 1, "60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.get(b"key")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def use() -> None:
    assert_type(await cache.aget_many(["key"]), dict[str, Any])
    async with cache.lock("key", timeout=5):
        assert_type(await cache.aincr("hits", default=0), int | Any)
