"""A user's module, as a type checker sees it: mypy and pyright read this file in their strict modes, nothing runs it.

Each call is one that a site makes, and says what it returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type
from uuid import UUID

from fleetcache import DEFAULT_TIMEOUT, Cache, Lookup, Policy, caches, configure
from fleetcache import cache as default
from fleetcache.client import DefaultClient
from fleetcache.locks.lock import Lock
from fleetcache.pipeline import Pipeline, Results
from fleetcache.twin import blocking


class User:
    name = ""


def load() -> User:
    return User()


async def aload() -> User:
    return User()


def load_many(keys: list[str]) -> dict[str, User]:
    return {key: User() for key in keys}


async def aload_many(keys: list[str]) -> dict[str, User]:
    return {key: User() for key in keys}


configure({"default": "memory://shop"})
cache = Cache("memory://shop", {"KEY_PREFIX": "shop", "TIMEOUT": 300}, near=True)
assert_type(Cache.from_url("memory://"), Cache)
assert_type(caches["default"], Cache)
assert_type(caches.all(), list[Cache])
assert_type(default.get("key"), Any | None)


def values() -> None:
    assert_type(cache.get("key"), Any | None)
    assert_type(cache.get("key", 0), Any | int)
    assert_type(cache.get("key", default=[1], fresh=True, stale=True, tags=["a"]), Any | list[int])
    assert_type(cache.set("key", User()), bool)
    assert_type(cache.set(UUID(int=5), "value", timedelta(hours=1), version=2, tags=["user:5"]), bool)
    assert_type(cache.set(5, "value", None, nx=True), bool)
    assert_type(cache.set("key", "value", DEFAULT_TIMEOUT, xx=True), bool)
    assert_type(cache.add("key", 1, 0.5), bool)
    assert_type(cache.get_many(["a", "b"]), dict[str, Any])
    cache.get_many(["a", 1])
    numbered: dict[str | int, Any] = {"a": 1, 5: 2}
    cache.set_many(numbered)
    assert_type(cache.set_many({"a": 1, "b": "text"}, 60, tags=("x",)), list[str])
    assert_type(cache.delete("key"), bool)
    assert_type(cache.delete_many(["a", 5]), int | None)
    assert_type(cache.has_key("key"), bool)
    assert_type("key" in cache, bool)
    assert_type(cache.lookup("key"), Lookup)
    assert_type(cache.get_with_ttl("key"), tuple[Any | None, float | None])
    assert_type(cache.get_with_ttl("key", 1), tuple[Any | int, float | None])
    assert_type(cache.incr("hits"), int | Any)
    assert_type(cache.incr("hits", 2, default=0, timeout=60), int | Any)
    assert_type(cache.decr("sum", Decimal("1.5")), int | Any)


def loading() -> None:
    assert_type(cache.get_or_set("user:5", load), User)
    assert_type(cache.get_or_set("user:5", load, 300, tags=["user:5"], stale_while_revalidate=60), User)
    assert_type(cache.get_or_set("user:5", load, Policy(timeout=60, early=1.0)).name, str)
    assert_type(cache.get_or_set("number", lambda: 5), int)
    assert_type(cache.get_or_set("text", "a text", timedelta(minutes=5)), str)
    assert_type(cache.get_or_set("names", lambda: ["a"], refresh=True), list[str])
    assert_type(cache.get_or_set_many(["a", "b"], load_many, 60, tags=lambda key: [key]), dict[str, User])
    assert_type(cache.invalidate("key", soft=True), bool)
    assert_type(cache.invalidate_tags("user:5", "users", later=True), int)


def entries() -> None:
    assert_type(cache.ttl("key"), int | None)
    assert_type(cache.pttl("key"), int | None)
    assert_type(cache.touch("key", 60), bool)
    assert_type(cache.expire("key", timedelta(days=1)), bool)
    assert_type(cache.expire_at("key", datetime.now(UTC)), bool)
    assert_type(cache.persist("key"), bool)
    assert_type(cache.incr_version("key"), int | Any)
    assert_type(cache.keys("user:*"), list[str])
    assert_type(cache.iter_keys("user:*", itersize=100), Iterator[str])
    assert_type(cache.scan(0, "user:*"), tuple[int, list[str]])
    assert_type(cache.delete_pattern("user:*"), int | None)
    cache.clear()
    assert_type(cache.info(), dict[str, Any])
    assert_type(cache.snapshot(), dict[str, Any])
    assert_type(cache.strict, Cache)
    assert_type(cache.strict.get("limit", 0), Any | int)
    cache.fence()
    cache.close()


def structures() -> None:
    assert_type(cache.hset("cart", "apples", 3), int)
    assert_type(cache.hset("cart", mapping={"pears": 1}), int)
    assert_type(cache.hget("cart", "apples"), Any | None)
    assert_type(cache.hget("cart", "apples", 0), Any | int)
    assert_type(cache.hgetall("cart"), dict[str, Any])
    assert_type(cache.hmget("cart", ["apples", "pears"]), list[Any])
    assert_type(cache.hincrby("cart", "apples", 2), int | None)
    assert_type(cache.sadd("tags", "a", "b"), int)
    assert_type(cache.smembers("tags"), set[Any])
    assert_type(cache.spop("tags"), Any | None)
    assert_type(cache.spop("tags", 2), set[Any])
    assert_type(cache.sismember("tags", "a"), bool)
    assert_type(cache.sscan_iter("tags"), Iterator[Any])
    assert_type(cache.zadd("scores", {"ann": 1.5}, gt=True), int)
    assert_type(cache.zadd("scores", {"ann": 1.5}, incr=True), float | None)
    assert_type(cache.zrange("scores", 0, -1), list[Any])
    assert_type(cache.zrange("scores", 0, -1, desc=True, withscores=True), list[tuple[Any, float]])
    assert_type(cache.zrangebyscore("scores", "(1", "+inf"), list[Any])
    assert_type(cache.zpopmin("scores"), tuple[Any, float] | None)
    assert_type(cache.zpopmin("scores", 2), list[tuple[Any, float]])
    assert_type(cache.zrank("scores", "ann"), int | None)
    assert_type(cache.zscore("scores", "ann"), float | None)
    assert_type(cache.lpush("queue", 1, 2), int | None)
    assert_type(cache.rpop("queue"), Any | None)
    assert_type(cache.rpop("queue", 2), list[Any])
    assert_type(cache.lrange("queue", 0, -1), list[Any])


def together() -> None:
    with cache.lock("report", timeout=60, blocking_timeout=timedelta(seconds=5), renew=True) as lock:
        assert_type(lock, Lock)
        assert_type(lock.extend(30), bool)
        assert_type(lock.token, bytes | None)
    with cache.pipeline() as pipe:
        assert_type(pipe.set("a", 1, 60).incr("b", default=0).get("c", None), Pipeline)
        assert_type(pipe.zrange("scores", 0, -1, withscores=True).get_or_set("user:5", load), Pipeline)
        assert_type(pipe.execute(), Results)


async def awaiting() -> None:
    assert_type(await cache.aget("key"), Any | None)
    assert_type(await cache.aget("key", ""), Any | str)
    assert_type(await cache.aset("key", User(), 60), bool)
    assert_type(await cache.aget_many(["a"]), dict[str, Any])
    assert_type(await cache.aget_or_set("user:5", load), User)
    assert_type(await cache.aget_or_set("user:5", aload, 60), User)
    assert_type(await cache.aget_or_set("user:5", aload(), 60), User)
    assert_type(await cache.aget_or_set("number", 5), int)
    assert_type(await cache.aget_or_set_many(["a"], aload_many, 60), dict[str, User])
    assert_type(await cache.attl("key"), int | None)
    assert_type(await cache.aincr("hits"), int | Any)
    assert_type(cache.aiter_keys("*"), AsyncIterator[str])
    assert_type(await cache.aspop("tags", 2), set[Any])
    assert_type(await cache.azrange("scores", 0, -1, withscores=True), list[tuple[Any, float]])
    async with cache.lock("report", timeout=60) as lock:
        assert_type(lock, Lock)
        assert_type(await lock.areacquire(), bool)
    async with cache.pipeline(transaction=True) as pipe:
        assert_type(await pipe.set("a", 1).get("a").aexecute(), Results)


class Journal(DefaultClient):
    """A client of the site's own."""

    async def aset(self, *args: Any, **kwargs: Any) -> bool:
        return await super().aset(*args, **kwargs)

    set = blocking(aset)

    async def adouble(self, key: str, *, by: int = 2) -> int | None:
        return await self.aincr(key, by)

    double = blocking(adouble)


assert_type(Journal("memory://").double("key", by=3), int | None)
assert_type(Journal("memory://").set("key", 1), bool)
