"""The caches that are compared: each answers from memory."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from benchmarks.contenders import FLOOR, OURS, SMALL, TIMEOUT, VCACHE, Backend

LOCMEM = "LocMemCache"
PREFIX = ":1:"
"""What the names of all keys start with, where nothing else is set."""

MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
VALUES: Mapping[str, Any] = {"str": "abcdefghijklmnopqrst", "int": 4711, "small": SMALL, **MANY}


class NearCache(Protocol):
    """The part of Django's cache API that is timed."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any, timeout: int) -> Any: ...
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    def has_key(self, key: str) -> Any: ...


class Memory:
    """The least that could answer from memory: a dict, a clock, and pickle for what a caller could change."""

    def __init__(self, _url: str) -> None:
        self.entries: dict[str, tuple[float, bool, Any]] = {}

    def set(self, key: str, value: Any, timeout: int) -> None:
        scalar = type(value) in {str, int}
        self.entries[key] = time.monotonic() + timeout, scalar, value if scalar else pickle.dumps(value)

    def get(self, key: str) -> Any:
        deadline, scalar, value = self.entries[key]
        if time.monotonic() < deadline:
            return value if scalar else pickle.loads(value)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        now, found = time.monotonic(), {}
        for key in keys:
            deadline, scalar, value = self.entries[key]
            if now < deadline:
                found[key] = value if scalar else pickle.loads(value)
        return found

    def has_key(self, key: str) -> bool:
        return time.monotonic() < self.entries[key][0]


class RedisPy:
    """redis-py's client-side cache, with pickle."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig())
        with redis.Redis.from_url(url) as client:
            # It goes by the name and refuses Valkey, which it works with.
            CacheProxyConnection.DEFAULT_SERVER_NAME = client.info("server").get("server_name", "redis")

    def set(self, key: str, value: Any, timeout: int) -> Any:
        return self.client.set(key, pickle.dumps(value), px=timeout * 1000)

    def get(self, key: str) -> Any:
        return pickle.loads(self.client.get(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        keys = list(keys)
        return {key: pickle.loads(value) for key, value in zip(keys, self.client.mget(keys), strict=True)}

    def has_key(self, key: str) -> Any:
        return self.client.exists(key)


def locmem(_url: str) -> Any:
    return Backend("django.core.cache.backends.locmem.LocMemCache")("benchmark")


def ours(url: str) -> Any:
    from fleetcache import Cache

    return Cache(url, {"OPTIONS": {"NEAR": True}})


DJANGO_OURS = Backend("fleetcache.django.RedisCache", options={"NEAR": True})

CACHES: Mapping[str, Callable[[str], NearCache]] = {
    FLOOR: Memory,
    LOCMEM: locmem,
    "django-vcache": Backend(VCACHE.path, options={"CLIENT_SIDE_CACHE": {"ENABLED": True}}),
    "redis-py": RedisPy,
    OURS: DJANGO_OURS,
    "fleetcache.Cache": ours,
}
"""Each makes a cache that answers from memory."""


def close_at_end(cache: Any, stack: ExitStack) -> None:
    """Close the near cache of *cache*, if it has one, before its server ends."""
    if near := getattr(cache, "near", None):
        stack.callback(near.close)


def check(cache: NearCache) -> None:
    """Raise unless *cache* gives back what it was given."""
    for key, value in VALUES.items():
        cache.set(key, value, timeout=TIMEOUT)
    for _ in range(2):
        if any(cache.get(key) != value for key, value in VALUES.items()) or cache.get_many(list(MANY)) != MANY:
            raise ValueError("gave back another value than it was given")
    if not cache.has_key("str"):
        raise ValueError("does not have a key that it was given")


def wait_until_live(cache: Any, patience: float = 10) -> float:
    """Ask until hits are served, and return how many seconds that took."""
    started = time.perf_counter()
    cache.get("str")
    while cache.near.state != "live":
        if time.perf_counter() - started > patience:
            raise TimeoutError(f"the near cache is still {cache.near.state} after {patience} s")
        time.sleep(0.0001)
    return time.perf_counter() - started


def announced(cache: Any) -> int:
    """Return how many names the server has announced as changed, copied here or not."""
    return int(cache.near.stats()["pushes"])
