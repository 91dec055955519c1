"""The contenders: the floors, the peers, and fleetcache as one more of them.

A floor is the least that could do the work from Python: a socket, hiredis to pack and parse, and
pickle.  It names no keys, keeps no pool and handles no error.

Every contender has a database of its own, is asked through the same methods, and must give back
what was stored before it is timed.
"""

from __future__ import annotations

import asyncio
import importlib
import pickle
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import hiredis
import redis
import redis.asyncio

from benchmarks.contest import reason

FLOOR = "floor"
OURS = "fleetcache"
TIMEOUT = 300
SMALL = {"id": 4711, "name": "Ada Lovelace", "email": "ada@example.org", "active": True, "score": 0.75}
"""A small dict, about 100 bytes pickled."""


class BlockingCache(Protocol):
    """The part of Django's cache API that is timed."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any, timeout: int) -> Any: ...
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    def set_many(self, data: dict[str, Any], timeout: int) -> Any: ...


class Floor:
    """Blocking: a bare socket, hiredis and pickle."""

    def __init__(self, url: str) -> None:
        options = redis.connection.parse_url(url)
        if "path" in options:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(options["path"])
        else:
            self.socket = socket.create_connection((options["host"], options["port"]))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader(notEnoughData=Ellipsis)
        self.exchange(hiredis.pack_command(("SELECT", options.get("db", 0))))

    def exchange(self, request: bytes) -> Any:
        self.socket.sendall(request)
        while (reply := self.reader.gets()) is ...:
            self.reader.feed(self.socket.recv(65536))
        return reply

    def get(self, key: str) -> Any:
        return pickle.loads(self.exchange(hiredis.pack_command(("GET", key))))

    def set(self, key: str, value: Any, timeout: int) -> Any:
        return self.exchange(_set(key, value, timeout))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        keys = list(keys)
        replies = self.exchange(hiredis.pack_command(("MGET", *keys)))
        return {key: pickle.loads(reply) for key, reply in zip(keys, replies, strict=True)}

    def set_many(self, data: dict[str, Any], timeout: int) -> Any:
        self.exchange(b"".join([_set(key, value, timeout) for key, value in data.items()]))
        for _ in range(len(data) - 1):
            self.exchange(b"")


def _set(key: str, value: Any, timeout: int) -> bytes:
    # By hand in half of hiredis' time, and in a fiftieth from 100 kB on.
    name, payload, expiry = key.encode(), pickle.dumps(value), b"%d" % (timeout * 1000)
    return b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % (
        len(name), name, len(payload), payload, len(expiry), expiry,
    )  # fmt: skip


class MultiplexedFloor(asyncio.Protocol):
    """Awaiting: one connection, replies in the order asked, one write per turn of the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader(notEnoughData=Ellipsis)
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.outgoing: list[bytes] = []

    @classmethod
    async def connect(cls, url: str) -> MultiplexedFloor:
        options = redis.connection.parse_url(url)
        loop = asyncio.get_running_loop()
        if "path" in options:
            _, floor = await loop.create_unix_connection(cls, options["path"])
        else:
            _, floor = await loop.create_connection(cls, options["host"], options["port"])
        await floor.ask("SELECT", options.get("db", 0))
        return floor

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        if not self.outgoing:
            self.loop.call_soon(self.flush)
        self.outgoing.append(hiredis.pack_command(command))
        waiter = self.loop.create_future()
        self.waiting.append(waiter)
        return waiter

    def flush(self) -> None:
        self.transport.write(b"".join(self.outgoing))
        self.outgoing.clear()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not ...:
            self.waiting.popleft().set_result(reply)

    async def aget(self, key: str) -> Any:
        return pickle.loads(await self.ask("GET", key))

    async def aset(self, key: str, value: Any, timeout: int) -> Any:
        return await self.ask("SET", key, pickle.dumps(value), "PX", timeout * 1000)


class RedisAsyncio:
    """redis-py's own asyncio client and pool, with pickle."""

    def __init__(self, url: str) -> None:
        # The default pool refuses the 101st task.
        self.client = redis.asyncio.Redis.from_url(url, max_connections=10_000)

    async def aget(self, key: str) -> Any:
        return pickle.loads(await self.client.get(key))

    async def aset(self, key: str, value: Any, timeout: int) -> Any:
        return await self.client.set(key, pickle.dumps(value), px=timeout * 1000)


@dataclass(frozen=True)
class Backend:
    """A cache backend of Django's, made as Django makes it."""

    path: str
    scheme: str = "redis"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, url: str) -> Any:
        from django.conf import settings

        if not settings.configured:
            settings.configure()
        module, _, name = self.path.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        return cls(url.replace("redis://", f"{self.scheme}://"), {"OPTIONS": {**self.options}})


def _ours(url: str) -> Any:
    from fleetcache import Cache

    return Cache.from_url(url)


async def _coroutine(make: Callable[[str], Any], url: str) -> Any:
    return make(url)


async def _django_valkey(url: str) -> Any:
    cache = Backend("django_valkey.async_cache.cache.AsyncValkeyCache", "valkey")(url)
    cache.aget, cache.aset = cache.get, cache.set  # its plain names are the coroutines
    return cache


DJANGO = Backend("django.core.cache.backends.redis.RedisCache")
VCACHE = Backend("django_vcache.backend.ValkeyCache")
FLEETCACHE = Backend("fleetcache.django.RedisCache")

BLOCKING: Mapping[str, Callable[[str], BlockingCache]] = {
    FLOOR: Floor,
    "Django": DJANGO,
    "django-redis": Backend("django_redis.cache.RedisCache"),
    "django-valkey": Backend("django_valkey.cache.ValkeyCache", "valkey"),
    "django-vcache": VCACHE,
    OURS: FLEETCACHE,
    "fleetcache.Cache": _ours,
}
"""Each makes a cache with the blocking methods from a URL."""

AWAITING: Mapping[str, Callable[[str], Awaitable[Any]]] = {
    FLOOR: MultiplexedFloor.connect,
    "redis.asyncio": lambda url: _coroutine(RedisAsyncio, url),
    "Django": lambda url: _coroutine(DJANGO, url),
    "django-valkey": _django_valkey,
    "django-vcache": lambda url: _coroutine(VCACHE, url),
    OURS: lambda url: _coroutine(FLEETCACHE, url),
    "fleetcache.Cache": lambda url: _coroutine(_ours, url),
}
"""Each makes a cache with ``aget`` and ``aset`` from a URL, inside the loop that will use it."""


def enter(
    url: Callable[[int], str], names: Iterable[str] = BLOCKING
) -> tuple[dict[str, BlockingCache], dict[str, str]]:
    """Return the blocking caches that work, and why the others do not."""
    caches: dict[str, BlockingCache] = {}
    absent: dict[str, str] = {}
    for name in names:
        address = url(1 + list(BLOCKING).index(name))
        try:
            cache = BLOCKING[name](address)
            _check(cache, address)
        except Exception as error:  # any failure of a peer is a line in the table
            absent[name] = reason(error)
        else:
            caches[name] = cache
    return caches, absent


def _check(cache: BlockingCache, url: str) -> None:
    """Raise unless *cache* gives back what it was given, and the server was told for how long."""
    many = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
    large = "x" * 1_000_000
    cache.set("small", SMALL, timeout=TIMEOUT)
    cache.set("large", large, timeout=TIMEOUT)
    cache.set_many(many, timeout=TIMEOUT)
    if cache.get("small") != SMALL or cache.get("large") != large or cache.get_many(list(many)) != many:
        raise ValueError("gave back another value than it was given")
    with redis.Redis.from_url(url) as client:
        if not all(0 < client.ttl(key) <= TIMEOUT for key in client.scan_iter()):
            raise ValueError("stored a value without its timeout")


async def aenter(name: str, url: str) -> Any:
    """Return the awaiting cache of that name, or raise."""
    cache = await AWAITING[name](url)
    await cache.aset("small", SMALL, timeout=TIMEOUT)
    if await cache.aget("small") != SMALL:
        raise ValueError("gave back another value than it was given")
    return cache


def connections(url: str) -> int:
    """Return how many clients the server has, the one that asks aside."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("clients")["connected_clients"]) - 1
