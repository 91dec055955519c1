"""The caches that are compared: each in the way against stampedes that its documentation names.

Each is made from the URL of its server, the life of its values, and the loader; the outcome is called with a key.
Blocking code has the loader `Work.load`, awaiting code `Work.aload`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from benchmarks.contenders import OURS, Backend

LEASE = 10
"""Seconds after which a lock or lease of a process that died is free again."""
NEAR = f"{OURS}, NEAR"
ITSELF = f"{OURS}, the caller renews"
HERD = "django-redis, HerdClient"
PLAIN = "django-redis, get_or_set"
LOCK = "django-redis, cache.lock"
CACHEX = "django-cachex, cache.lock"
CACHEX_PLAIN = "django-cachex, aget and aset"
DOGPILE, CASHEWS, AIOCACHE = "dogpile.cache", "cashews", "aiocache"


@dataclass(frozen=True)
class Life:
    """How long a value lives, and whether it is to be renewed before that."""

    timeout: int
    early: bool


@dataclass
class Work:
    """A loader that takes some time, and what it noted: when each load began, by the monotonic clock in nanoseconds."""

    cost: float
    loads: list[int] = field(default_factory=list)

    def load(self, key: str) -> dict[str, Any]:
        self.loads.append(time.monotonic_ns())
        time.sleep(self.cost)
        return {"key": key, "made": time.monotonic_ns()}

    async def aload(self, key: str) -> dict[str, Any]:
        self.loads.append(time.monotonic_ns())
        await asyncio.sleep(self.cost)
        return {"key": key, "made": time.monotonic_ns()}


Read = Callable[[str], Any]
"""Returns the value of a key."""
ARead = Callable[[str], Awaitable[Any]]


def _policy(life: Life, renew: str) -> dict[str, Any]:
    return {"early": 1.0, "renew": renew} if life.early else {}


def ours(url: str, life: Life, work: Work, *, near: bool = False, renew: str = "thread") -> Read:
    cache = Backend("fleetcache.django.RedisCache", options={"NEAR": True} if near else {})(url)
    policy = _policy(life, renew)
    return lambda key: cache.get_or_set(key, partial(work.load, key), life.timeout, **policy)


def aours(url: str, life: Life, work: Work, *, near: bool = False) -> ARead:
    cache = Backend("fleetcache.django.RedisCache", options={"NEAR": True} if near else {})(url)
    policy = {"early": 1.0} if life.early else {}
    return lambda key: cache.aget_or_set(key, partial(work.aload, key), life.timeout, **policy)


def plain(url: str, life: Life, work: Work) -> Read:
    cache = Backend("django_redis.cache.RedisCache")(url)
    return lambda key: cache.get_or_set(key, partial(work.load, key), life.timeout)


def herd(url: str, life: Life, work: Work) -> Read:
    # Its get() says "missing" to some callers after the timeout.  get_or_set() would then not store: it only adds.
    cache = Backend("django_redis.cache.RedisCache", options={"CLIENT_CLASS": "django_redis.client.HerdClient"})(url)

    def read(key: str) -> Any:
        value = cache.get(key)
        if value is None:
            value = work.load(key)
            cache.set(key, value, life.timeout)
        return value

    return read


def locked(url: str, life: Life, work: Work, *, backend: Backend) -> Read:
    cache = backend(url)

    def read(key: str) -> Any:
        value = cache.get(key)
        if value is None:
            with cache.lock(f"lock:{key}", timeout=LEASE):
                value = cache.get(key)
                if value is None:
                    value = work.load(key)
                    cache.set(key, value, life.timeout)
        return value

    return read


def cachex(url: str, life: Life, work: Work) -> ARead:
    cache = Backend("django_cachex.cache.RedisCache")(url)

    async def read(key: str) -> Any:
        value = await cache.aget(key)
        if value is None:
            value = await work.aload(key)
            await cache.aset(key, value, life.timeout)
        return value

    return read


def dogpile(url: str, life: Life, work: Work) -> Read:
    from dogpile.cache import make_region

    def renew(region: Any, key: str, creator: Callable[[], Any], mutex: Any) -> None:
        def run() -> None:
            try:
                region.set(key, creator())
            finally:
                mutex.release()

        threading.Thread(target=run, daemon=True).start()

    # After the timeout all but one get the old value; in a thread that one does too.
    region = make_region(async_creation_runner=renew if life.early else None).configure(
        "dogpile.cache.redis",
        expiration_time=life.timeout,
        arguments={
            "url": url,
            "redis_expiration_time": 2 * life.timeout + LEASE,
            "distributed_lock": True,
            "thread_local_lock": False,
            "lock_timeout": LEASE,
        },
    )
    return lambda key: region.get_or_create(key, partial(work.load, key))


def cashews(url: str, life: Life, work: Work) -> ARead:
    from cashews import Cache

    cache = Cache()
    cache.setup(url, max_connections=1000)
    # What is renewed early is not locked when cold; its page warns of that.  The shares are its page's.
    decorate = (
        cache.early(ttl=life.timeout, early_ttl=0.7 * life.timeout, key="{key}")
        if life.early
        else cache(ttl=life.timeout, key="{key}", lock=True)
    )

    @decorate
    async def read(key: str) -> Any:
        return await work.aload(key)

    return read


def aiocache(url: str, life: Life, work: Work) -> ARead:
    from aiocache import Cache, cached_stampede
    from aiocache.serializers import PickleSerializer

    address = redis.connection.parse_url(url)

    @cached_stampede(
        lease=2,
        ttl=life.timeout,
        key_builder=lambda _function, key: key,
        cache=Cache.REDIS,
        serializer=PickleSerializer(),
        endpoint=address["host"],
        port=address["port"],
        db=address.get("db", 0),
        pool_max_size=1000,
    )
    async def read(key: str) -> Any:
        return await work.aload(key)

    return read


BLOCKING: Mapping[str, Callable[[str, Life, Work], Read]] = {
    OURS: ours,
    NEAR: partial(ours, near=True),
    ITSELF: partial(ours, renew="caller"),
    HERD: herd,
    LOCK: partial(locked, backend=Backend("django_redis.cache.RedisCache")),
    PLAIN: plain,
    CACHEX: partial(locked, backend=Backend("django_cachex.cache.RedisCache")),
    DOGPILE: dogpile,
}
AWAITING: Mapping[str, Callable[[str, Life, Work], ARead]] = {
    f"{OURS}, awaiting": aours,
    f"{NEAR}, awaiting": partial(aours, near=True),
    CASHEWS: cashews,
    AIOCACHE: aiocache,
    CACHEX_PLAIN: cachex,
}
NEARS = {NEAR, f"{NEAR}, awaiting"}
"""Who needs a server of his own: announcements do not know databases."""
NAMES = (*BLOCKING, *AWAITING)
