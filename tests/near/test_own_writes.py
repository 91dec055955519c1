"""Whatever a process writes ends its own copy, before anything is announced, and however the write ends.

What is announced is not listened to, and the lease never ends: only the caches themselves can know.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import redis
from tests.faces import AWAITING, BLOCKING, Face
from tests.nearby import wait_until_live

from fleetcache import Cache
from fleetcache.client import HerdClient, ShardClient
from fleetcache.errors import ServerTimeout
from fleetcache.servers.remote import RemoteServer
from fleetcache.testing import valkey_server
from fleetcache.testing.servers import EmbeddedServer

from .conftest import copied, copy

DEAF = {"T_LIVE": 100, "CANARY": 100, "MAX_TTL": 100}

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

Case = tuple[Any, Callable[[Any, str], Any]]

# What is there before, in the words of a raw client, and the operation; of a pipeline, or of a cache.
WRITES: dict[str, list[Case]] = {
    "set": [
        ("text", lambda c, k: c.set(k, "new")),
        (None, lambda c, k: c.set(k, {"new": 1}, None)),
        (None, lambda c, k: c.set(k, "new", nx=True)),
        ("text", lambda c, k: c.set(k, "new", xx=True)),
        ("text", lambda c, k: c.set(k, "new", 0)),
        ("text", lambda c, k: c.set(k, "new", client=c.get_client()) if hasattr(c, "get_client") else c.set(k, "new")),
    ],
    "add": [(None, lambda c, k: c.add(k, "new"))],
    "set_many": [
        ("text", lambda c, k: c.set_many({k: "new", f"{k}2": "new"})),
        ("text", lambda c, k: c.set_many({k: "new", f"{k}2": "new"}, 0)),
    ],
    "get_or_set": [(None, lambda c, k: c.get_or_set(k, "new"))],
    "get_or_set_many": [(None, lambda c, k: c.get_or_set_many([k], lambda keys: dict.fromkeys(keys, "new")))],
    "delete": [("text", lambda c, k: c.delete(k))],
    "invalidate": [("text", lambda c, k: c.invalidate(k)), ("text", lambda c, k: c.invalidate(k, soft=True))],
    "delete_many": [("text", lambda c, k: c.delete_many([k, f"{k}2"]))],
    "delete_pattern": [("text", lambda c, k: c.delete_pattern(f"{k}*"))],
    "clear": [("text", lambda c, k: c.clear())],
    "incr": [
        ("5", lambda c, k: c.incr(k)),
        (None, lambda c, k: c.incr(k, default=7)),
        (None, lambda c, k: c.incr(k, ignore_key_check=True)),
        ("1.5", lambda c, k: c.incr(k)),
        (str(2**63 - 1), lambda c, k: c.incr(k)),
        (None, lambda c, k: c.incr(k, 2**70, default=1)),
    ],
    "decr": [("5", lambda c, k: c.decr(k))],
    "incr_version": [("text", lambda c, k: c.incr_version(k))],
    "decr_version": [("text", lambda c, k: c.decr_version(k))],
    "touch": [("text", lambda c, k: c.touch(k, 5)), ("text", lambda c, k: c.touch(k, 0))],
    "persist": [("text", lambda c, k: c.persist(k))],
    "expire": [("text", lambda c, k: c.expire(k, 5)), ("text", lambda c, k: c.expire(k, 0))],
    "pexpire": [("text", lambda c, k: c.pexpire(k, 5000)), ("text", lambda c, k: c.pexpire(k, 0))],
    "expire_at": [("text", lambda c, k: c.expire_at(k, LONG_AGO))],
    "pexpire_at": [("text", lambda c, k: c.pexpire_at(k, LONG_AGO))],
    "hset": [(None, lambda c, k: c.hset(k, "field", 1))],
    "hsetnx": [(None, lambda c, k: c.hsetnx(k, "field", 1))],
    "hincrby": [(None, lambda c, k: c.hincrby(k, "field"))],
    "hdel": [("HSET field 1", lambda c, k: c.hdel(k, "field"))],
    "sadd": [(None, lambda c, k: c.sadd(k, 1))],
    "srem": [("SADD 1", lambda c, k: c.srem(k, 1))],
    "spop": [("SADD 1", lambda c, k: c.spop(k)), ("SADD 1", lambda c, k: c.spop(k, 1))],
    "smove": [("SADD 1", lambda c, k: c.smove(k, f"{k}2", 1)), (None, lambda c, k: c.smove(f"{k}3", k, 1))],
    "sdiffstore": [(None, lambda c, k: c.sdiffstore(k, f"{k}3"))],
    "sinterstore": [(None, lambda c, k: c.sinterstore(k, f"{k}3"))],
    "sunionstore": [(None, lambda c, k: c.sunionstore(k, f"{k}3"))],
    "zadd": [(None, lambda c, k: c.zadd(k, {"m": 1}))],
    "zincrby": [(None, lambda c, k: c.zincrby(k, 1, "m"))],
    "zrem": [("ZADD 1", lambda c, k: c.zrem(k, 1))],
    "zpopmin": [("ZADD 1", lambda c, k: c.zpopmin(k))],
    "zpopmax": [("ZADD 1", lambda c, k: c.zpopmax(k, 1))],
    "zremrangebyscore": [("ZADD 1", lambda c, k: c.zremrangebyscore(k, 0, 2))],
    "zremrangebyrank": [("ZADD 1", lambda c, k: c.zremrangebyrank(k, 0, -1))],
    "lpush": [(None, lambda c, k: c.lpush(k, 1))],
    "rpush": [(None, lambda c, k: c.rpush(k, 1))],
    "lpop": [("RPUSH 1", lambda c, k: c.lpop(k)), ("RPUSH 1", lambda c, k: c.lpop(k, 1))],
    "rpop": [("RPUSH 1", lambda c, k: c.rpop(k))],
    "lset": [("RPUSH 1", lambda c, k: c.lset(k, 0, 2))],
    "lrem": [("RPUSH 1", lambda c, k: c.lrem(k, 1, 1))],
    "ltrim": [("RPUSH 1", lambda c, k: c.ltrim(k, 1, 0))],
}

READS = {
    *("get", "get_many", "get_with_ttl", "has_key", "keys", "lookup", "pttl", "scan", "ttl"),
    *("hexists", "hget", "hgetall", "hkeys", "hlen", "hmget", "hvals", "lindex", "llen", "lrange"),
    *("scard", "sdiff", "sinter", "sismember", "smembers", "smismember", "srandmember", "sscan", "sunion"),
    *("zcard", "zcount", "zrange", "zrangebyscore", "zrank", "zrevrange", "zrevrangebyscore", "zrevrank", "zscore"),
}

STEPS = {"get_or_set", "get_or_set_many", "delete_pattern", "clear"}
"""Operations of more than one step, which no transaction takes."""

CASES = [
    pytest.param(case, id=f"{name}{number}") for name, cases in WRITES.items() for number, case in enumerate(cases)
]


def test_no_operation_is_forgotten():
    """Each operation of a cache is known as a read or has cases here; `tests/loading/test_near_tags.py` has those of tags."""
    assert Cache.operations == WRITES.keys() | READS | {"invalidate_tags"}
    assert not WRITES.keys() & READS


class Deaf:
    """Two caches that hear of nothing, and what there is in truth."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.raw = redis.Redis.from_url(server.url(3))
        self.keys = (f"key{number}:" for number in count())
        self.cache = self.make("deaf")
        self.bare = self.make("")
        self.herd = self.make("herd", kind=HerdClient)
        self.aliases = [
            self.make("deaf", TIMEOUT=77),
            self.make("deaf", SOCKET_TIMEOUT=4),
        ]

    def make(self, prefix: str, kind: Any = Cache, **settings: Any) -> Any:
        params = {name: settings.pop(name) for name in ("TIMEOUT",) if name in settings}
        cache = kind(self.server.url(3), {"KEY_PREFIX": prefix, **params, "OPTIONS": {"NEAR": DEAF, **settings}})
        wait_until_live(cache.near)
        with cache.near.lock:
            cache.near.sole.tracking.invalidated = lambda name: None
            cache.near.sole.tracking.flushed = lambda: None
        return cache

    def close(self) -> None:
        self.raw.close()
        for cache in (self.cache, self.bare, self.herd, *self.aliases):
            cache.near.close()

    def put(self, cache: Any, key: str, what: str | None) -> None:
        """Store *what* under a name that was never used."""
        verb, _, arguments = (what or "").partition(" ")
        names = [cache.make_key(each) for each in (key, f"{key}2")]
        if verb == "ZADD":
            self.raw.zadd(names[0], {cache.encode(1, allow_int=False): 1})
        elif what is not None and arguments:
            self.raw.execute_command(verb, names[0], *arguments.split())
        elif what is not None:
            payload = cache.encode(1.5 if what == "1.5" else int(what) if what.isdigit() else what)
            self.raw.mset(dict.fromkeys(names, payload))
            self.raw.pexpire(names[0], 50_000)
        self.raw.sadd(cache.make_key(f"{key}3"), 1)


@pytest.fixture(scope="module")
def deaf() -> Iterator[Deaf]:
    with valkey_server() as server:
        deaf = Deaf(server)
        yield deaf
        deaf.close()


async def remembered(deaf: Deaf, cache: Face, what: str | None) -> tuple[str, list[str]]:
    """Return a key that *what* is stored under, and the names beside it, of all of which there are copies."""
    assert cache.near.state == "live", cache.near.stats()
    key = next(deaf.keys)
    structure = what is not None and " " in what
    keys = [(key, 1), (f"{key}2", 1), (key, 0), (key, 2)]
    if structure:  # which cannot be read as a value, so it is written behind the copy's back
        for each, version in keys:
            await copied(cache, each, version, deaf=True)
    deaf.put(cache.whole, key, what)
    if not structure:
        for each, version in keys:
            await copied(cache, each, version, deaf=True)
    return key, [cache.make_key(each, version) for each, version in keys]


async def same_as_the_server(deaf: Deaf, cache: Face, key: str, names: list[str]) -> None:
    """Check that reads see what there is."""
    for name in names:
        kind = deaf.raw.type(name)
        assert await cache.has_key(cache.make_key(name)) is (kind != b"none"), name
        if kind in {b"none", b"string"}:
            payload = deaf.raw.get(name)
            assert await cache.get(cache.make_key(name)) == (None if payload is None else cache.decode(payload)), name
        copy_now = copy(cache, name)
        if copy_now is not None:
            left = deaf.raw.pttl(name)
            assert left < 0 or copy_now.deadline <= cache.near.sole.tracking._drained + 1 + left / 1000


def lives(deaf: Deaf, names: list[str]) -> list[tuple[bytes | None, int]]:
    return [(deaf.raw.dump(name), deaf.raw.pttl(name) // 10_000) for name in names]


@pytest.fixture
def cache(deaf: Deaf, face: str) -> Face:
    return Face(deaf.cache, face)


@pytest.mark.parametrize("case", CASES)
async def test_a_write_ends_the_copy(deaf, cache, case):
    """Right after an operation a read sees what it did; the entries it did not touch are near still."""
    what, operation = case
    key, names = await remembered(deaf, cache, what)
    before = lives(deaf, names)

    await operation(cache, key)

    touched = [name for name, old, new in zip(names, before, lives(deaf, names), strict=True) if old != new]
    assert touched
    assert [name for name in touched if copy(cache, name) is not None] == []
    await same_as_the_server(deaf, cache, key, names)


@pytest.mark.parametrize("face, transaction", [(AWAITING, False), (BLOCKING, True)], ids=["pipeline", "transaction"])
@pytest.mark.parametrize("case", CASES)
async def test_a_write_in_a_pipeline(deaf, cache, case, transaction, request):
    """What a pipeline or a transaction writes, it writes as the operation alone does, reads between them included."""
    what, operation = case
    name = next(part for part in request.node.callspec.id.split("-") if part.rstrip("0123456789") in WRITES)
    if transaction and (name.rstrip("0123456789") in STEPS or name in {"incr3", "incr4", "incr5", "invalidate1"}):
        pytest.skip("takes more than one step")
    key, names = await remembered(deaf, cache, what)
    pipe = cache.pipeline(transaction=transaction)
    pipe.has_key(key)
    operation(pipe, key)
    pipe.has_key(key)

    await pipe.execute(raise_on_error=False)

    await same_as_the_server(deaf, cache, key, names)


@pytest.fixture
def lost_replies(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """Let what writes be done, and its reply never arrive; a task that waits for it waits for ever."""
    stuck = asyncio.Event()
    test = threading.get_ident()

    def lost(commands: Any) -> bool:
        return threading.get_ident() == test and any(command[0].writes for command in commands)

    def blocking(self: Any, commands: Any, method: Any = RemoteServer.exchange) -> Any:
        replies = method(self, commands)
        if lost(commands):
            raise ServerTimeout("no reply")
        return replies

    async def awaiting(self: Any, commands: Any, method: Any = RemoteServer.aexchange) -> Any:
        replies = await method(self, commands)
        if lost(commands):
            stuck.set()
            await asyncio.get_running_loop().create_future()
        return replies

    monkeypatch.setattr(RemoteServer, "exchange", blocking)
    monkeypatch.setattr(RemoteServer, "aexchange", awaiting)
    return stuck


@pytest.mark.parametrize("case", CASES)
async def test_a_write_that_nobody_knows_the_end_of(deaf, cache, case, lost_replies, monkeypatch):
    """Timed out or cancelled, a write may have happened: its copies are gone."""
    what, operation = case
    key, names = await remembered(deaf, cache, what)
    if cache.face == AWAITING and "client" in operation.__code__.co_names:
        pytest.skip("a client of one's own is not delayed here")

    if cache.face == AWAITING:
        task = asyncio.ensure_future(operation(cache, key))
        waiting = asyncio.ensure_future(lost_replies.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        try:
            await operation(cache, key)
        except ServerTimeout:
            pass

    await same_as_the_server(deaf, cache, key, names)


@pytest.mark.parametrize("refusal", ["refused", "unsent"])
async def test_a_write_that_fails_ends_the_copy(deaf, cache, refusal, monkeypatch):
    """The server's refusal, and a server that cannot be reached, are no reason to keep a copy."""
    key, (name, *_) = await remembered(deaf, cache, "text")

    if refusal == "refused":
        with pytest.raises(redis.ResponseError):
            await cache.hset(key, "field", 1)
    else:
        monkeypatch.setattr(RemoteServer, "exchange", unreachable)
        monkeypatch.setattr(RemoteServer, "aexchange", unreachable)
        with pytest.raises(ServerTimeout):
            await cache.set(key, "new")
        monkeypatch.undo()

    assert copy(cache, name) is None
    assert await cache.get(key) == "text"


def unreachable(self: Any, commands: Any) -> Any:
    raise ServerTimeout("no answer while connecting")


async def test_clearing_the_database(deaf, face):
    """FLUSHDB ends every copy, those of other configurations on this server too."""
    bare, cache = Face(deaf.bare, face), Face(deaf.cache, face)
    await bare.set("key", "value")
    await cache.set("key", "value")
    await copied(bare, "key", deaf=True)
    await copied(cache, "key", deaf=True)

    await bare.clear()

    assert await bare.get("key") is None
    assert await cache.get("key") is None


@pytest.mark.parametrize("number", [0, 1], ids=["other timeout", "other connections"])
async def test_configurations_tell_each_other(deaf, cache, face, number):
    """What one near cache of the process writes ends the copies of another on the same server."""
    alias = Face(deaf.aliases[number], face)
    assert alias.near is not cache.near
    key, _ = await remembered(deaf, cache, "old")
    assert await copied(alias, key, deaf=True) == "old"

    await alias.set(key, "new")
    assert await cache.get(key) == "new"
    await copied(cache, key, deaf=True)
    await cache.delete(key)
    assert await alias.get(key) is None
    await copied(alias, key, deaf=True)
    await copied(cache, key, deaf=True)
    assert await cache.incr(key, default=1) == 2
    assert await alias.get(key) == 2


async def test_a_read_that_was_under_way_leaves_no_copy(deaf, cache, monkeypatch):
    """A value that was read before a write of this process, and arrives after it, is returned and not kept."""
    key, (name, *_) = await remembered(deaf, cache, "old")
    await cache.near.afence()
    cache.near.forget([name])
    for method in ("exchange", "aexchange"):
        monkeypatch.setattr(RemoteServer, method, overtaken(method, deaf.cache, key))

    assert await cache.get(key) == "old"
    monkeypatch.undo()

    assert copy(cache, name) is None
    assert await cache.get(key) == "new"


@pytest.mark.parametrize("many", [False, True], ids=["set", "set_many"])
async def test_a_copy_that_was_made_while_a_write_was_under_way(deaf, cache, many, monkeypatch):
    """What another thread read before the server came to a write is gone when the write has returned."""
    key, (name, *_) = await remembered(deaf, cache, "old")
    seen: list[Any] = []

    def read() -> None:
        if not seen:
            seen.append(deaf.cache.get(key))
            assert copy(cache, name) is not None

    def read_elsewhere(commands: Any) -> None:
        if not seen and any(command[0].writes for command in commands):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()

    exchange, aexchange = RemoteServer.exchange, RemoteServer.aexchange
    monkeypatch.setattr(
        RemoteServer, "exchange", lambda self, commands: (read_elsewhere(commands), exchange(self, commands))[1]
    )
    monkeypatch.setattr(
        RemoteServer, "aexchange", lambda self, commands: (read_elsewhere(commands), aexchange(self, commands))[1]
    )

    await (cache.set_many({key: "new"}) if many else cache.set(key, "new"))

    assert seen == ["old"]
    assert copy(cache, name) is None
    assert await cache.get(key) == "new"


def overtaken(method: str, cache: Cache, key: str) -> Any:
    """Return an exchange whose replies are held until this process has written *key*."""
    original = getattr(RemoteServer, method)
    done = []

    def write() -> None:
        if not done:
            done.append(True)
            thread = threading.Thread(target=cache.set, args=(key, "new"))
            thread.start()
            thread.join()

    def exchange(self: Any, commands: Any) -> Any:
        replies = original(self, commands)
        write()
        return replies

    async def aexchange(self: Any, commands: Any) -> Any:
        replies = await original(self, commands)
        write()
        return replies

    return exchange if method == "exchange" else aexchange


async def test_a_lock_on_a_name_that_was_read(deaf, cache):
    """Acquiring and releasing are writes, and a get of the lock's name sees them."""
    key = next(deaf.keys)
    name = cache.make_key(key)
    await copied(cache, key, deaf=True)
    lock = cache.lock(key, timeout=10)

    assert await lock.acquire()
    assert await cache.has_key(key) is True
    await cache.near.afence()
    await cache.get(key)
    await lock.extend(10)
    assert copy(cache, name) is None
    await lock.release()
    assert await cache.get(key) is None


async def test_herd_client_writes(deaf, face):
    """The herding client's own operations end copies too."""
    herd = Face(deaf.herd, face)
    await herd.set("key", "old", 50)
    await herd.set("other", "old", 50)
    assert await copied(herd, "key", deaf=True) == "old"
    await copied(herd, "other", deaf=True)

    assert await herd.touch("key", 500)
    assert copy(herd, herd.make_key("key")) is None
    await copied(herd, "key", deaf=True)
    await herd.set_many({"key": "new", "other": "new"}, 50)
    assert await herd.get_many(["key", "other"]) == {"key": "new", "other": "new"}


async def test_shards(copies, face):
    """A version that lies on another server is written there and deleted here; both copies end."""
    with valkey_server() as other:
        cache = copies([copies.server.url(9), other.url(9)], DEAF, kind=ShardClient)
        keys = [f"key{number}" for number in range(20)]
        await cache.set_many(dict.fromkeys(keys, "value"))
        homes = {key: [cache.get_server_name(cache.make_key(key, version)) for version in (1, 2)] for key in keys}
        moving = next(key for key, (first, second) in homes.items() if first != second)
        await copied(cache, moving)
        await copied(cache, moving, 2)

        await cache.incr_version(moving)

        assert await cache.get(moving) is None
        assert await cache.get(moving, version=2) == "value"
        await cache.clear()
