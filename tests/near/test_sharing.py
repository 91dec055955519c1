"""Near caches of many configurations: one listener for each server, and nothing left of those that nobody has any more."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from tests import nearby
from tests.nearby import wait_until_live
from tests.waiting import PATIENCE, until

from fleetcache import Cache, sharing
from fleetcache.cache import _shared
from fleetcache.client import ShardClient
from fleetcache.near import listener as listening
from fleetcache.near.audience import SPARE, shortest
from fleetcache.near.near import NEARS
from fleetcache.testing import valkey_server

from .conftest import copied, copy, listeners, one_face

pytestmark = [pytest.mark.timeout(120), pytest.mark.flaky(reruns=2)]

PATIENT = {"T_LIVE": 10}
"""Copies are served although the thread that listens waits for the processor for seconds."""


@pytest.fixture(autouse=True)
def _nobody_else_listens() -> Iterator[None]:
    """What other tests have left over has ended, so that it is not counted."""
    with nearby.at_rest():
        until(lambda: not near_threads())
        yield


def near_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fleetcache near"]


def told(raw: Any) -> int:
    """Return how many connections to the server are told what changes."""
    return sum("B" in client["flags"] for client in raw.client_list())


async def coherent(cache: Any, raw: Any) -> None:
    """See to it that *cache* serves copies, and none of before a write of another program."""
    await cache.set("key", 0)
    await copied(cache, "key")
    await served(cache, "key", 0)
    for number in range(1, 4):
        raw.set(cache.make_key("key"), number)
        await cache.fence()
        assert await cache.get("key") == number
        await copied(cache, "key")


async def served(cache: Any, key: str, value: Any) -> None:
    """Read *key*, which has a copy with this *value*, until a copy is served: the server may not have vouched for it yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        misses = cache.near.counts.misses
        assert await cache.get(key) == value
        if cache.near.counts.misses == misses:
            return
        assert time.monotonic() < deadline, cache.near.stats()


@pytest.mark.parametrize("server", ["valkey", "redis_debian"])
@one_face
async def test_one_listener_for_many_prefixes(copies, request, server):
    """Sixty configurations on a server have one connection and one thread, and each hears of its own entries."""
    url = request.getfixturevalue(server).url(8)
    with redis.Redis.from_url(url) as raw:
        until(lambda: not told(raw))  # a connection may end after its listener
        before, threads = told(raw), len(near_threads())

        made = [copies(url, PATIENT, TIMEOUT=300 + number) for number in range(60)]

        for cache in made:
            await coherent(cache, raw)
        assert told(raw) == before + 1
        assert len(near_threads()) == threads + 1
        assert {each for cache in made for each in listeners(cache.near)} == {listeners(made[0].near)[0]}
        for cache in made:
            for number in range(3):
                await cache.set("key", number)
                assert await cache.get("key") == number
        raw.flushdb()
        await made[0].fence()
        assert [await cache.get("key") for cache in made] == [None] * 60


@one_face
async def test_one_listener_for_each_primary(copies, valkey_cluster):
    """On a cluster there is one for each primary, however many configurations."""
    threads = len(near_threads())
    made = [copies(valkey_cluster.url(), live=False) for _ in range(5)]
    with redis.RedisCluster(host="127.0.0.1", port=valkey_cluster.primaries[0].port) as raw:
        for cache in made:
            for key in "abcdefghij":
                await cache.set(key, 0)
                await copied(cache, key)
                raw.set(cache.make_key(key), 1)
                await cache.fence()
                assert await cache.get(key) == 1
    assert len(near_threads()) == threads + 3


@one_face
async def test_one_listener_for_a_service_and_for_shards(copies, watched_servers, valkey):
    """Under Sentinels there is one; shards share those that others have."""
    threads = len(near_threads())
    made = [copies(watched_servers.url(0)) for _ in range(5)]
    with redis.Redis(port=watched_servers.primary.port) as raw:
        for cache in made:
            await coherent(cache, raw)
    assert len(near_threads()) == threads + 1

    with valkey_server() as second:
        alone = copies(valkey.url(9))
        both = [copies([valkey.url(9), second.url(9)], kind=ShardClient) for _ in range(3)]
        assert len(near_threads()) == threads + 3
        for shards in both:
            assert listeners(alone.near)[0] in listeners(shards.near)
            await shards.set_many(dict.fromkeys("abcdef", 1))
            for key in "abcdef":
                assert await copied(shards, key) == 1
        for shards in both:
            shards.near.close()


# Prefixes -----------------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("server", ["valkey", "redis_debian"])
@pytest.mark.parametrize("order", [["shop", "shop:1", "shop:2"], ["shop:2", "shop:1", "shop"], ["shop:1", "shop", "x"]])
@one_face
async def test_prefixes_that_cover_each_other(copies, request, server, order):
    """Whichever comes first, each is told of its own; that a shorter one comes later costs the others their copies once."""
    url = request.getfixturevalue(server).url(8)
    with redis.Redis.from_url(url) as raw:
        order = [f"{''.join(order)}.{prefix}" for prefix in order]  # of no other test
        made = [Cache(url, {"KEY_PREFIX": prefix, "OPTIONS": {"NEAR": {"T_LIVE": 5}}}) for prefix in order]
        try:
            for cache in made:
                wait_until_live(cache.near)
            for cache in made:
                wait_until_live(cache.near)  # once more: the first may have begun anew
                name = cache.make_key("key")
                for number in range(5):
                    raw.set(name, number)
                    cache.fence()
                    assert cache.get("key") == number
                    until(lambda cache=cache, number=number: cache.get("key") == number and cache.near.copies)
            (listener,) = {each for cache in made for each in listeners(cache.near)}
            assert listener.tracking.announced == shortest(f"{prefix}:" for prefix in order)
        finally:
            for cache in made:
                cache.near.close()
            until(lambda: listener.thread is None)


def test_shortest():
    """Of prefixes that begin with each other the shortest stands for all."""
    assert shortest(["shop:1:", "a", "shop:", "shop:2:", "ab", "b"]) == ("a", "b", "shop:")
    assert shortest([]) == ()


@one_face
async def test_a_prefix_that_the_user_may_not_write(copies, valkey, raw):
    """Questions and canaries use other prefixes, so a configuration that may not write costs the others nothing."""
    raw.execute_command("ACL", "SETUSER", "clerk", "on", ">secret", "~open*", "%R~shut*", "&*", "+@all")
    options = {"USERNAME": "clerk", "PASSWORD": "secret"}
    shut = copies(prefix="shut", live=False, **options)
    await shut.get("key")
    until(lambda: shut.near.state == "off")

    opened = copies(prefix="open", live=False, **options)
    await opened.get("key")
    until(lambda: opened.near.state == "live")

    await coherent(opened, raw)
    until(lambda: shut.whole.get("key") is None and shut.near.state == "live")
    raw.set(shut.make_key("key"), 1)
    await shut.fence()
    assert await copied(shut, "key") == 1


# Options ------------------------------------------------------------------------------------------


@one_face
async def test_the_strictest_interval_counts(copies):
    """T_LIVE, CANARY and T_TOPO of a listener are the shortest that any asks for; what copies are is each one's own."""
    one = copies(near={"T_LIVE": 3, "CANARY": 5, "MAX_TTL": 100})
    (listener,) = listeners(one.near)
    assert listener.tracking.options.t_live == 3

    two = copies(near={"T_LIVE": 2, "CANARY": 50, "MAX_TTL": 7, "MAX_BYTES": 20_000, "ABSENT": False})

    assert listeners(two.near) == [listener]
    found = listener.tracking.options
    assert (found.t_live, found.canary, found.max_ttl) == (2, 5, 100)
    await one.set("key", 1, None)
    await two.set("key", 1, None)
    await copied(one, "key")
    await copied(two, "key")
    assert copy(one, one.make_key("key")).deadline > copy(two, two.make_key("key")).deadline + 50
    two.near.close()
    assert listener.tracking.options.t_live == 3
    assert await one.get("key") == 1


# Ends ---------------------------------------------------------------------------------------------


@one_face
async def test_who_is_not_read_leaves(copies, raw):
    """Others go on; the next read joins them again, and finds what was written meanwhile."""
    busy = copies(near={**PATIENT, "MAX_TTL": 60})
    idle = copies(near={**PATIENT, "MAX_TTL": 0.2})
    (listener,) = listeners(busy.near)
    await busy.set("key", 1)
    await idle.set("key", 1)
    await copied(busy, "key")
    await copied(idle, "key")

    until(lambda: len(listener.tracking.readers) == 1)

    until(lambda: not idle.near.copies)
    assert busy.near.state == "live"
    raw.set(idle.make_key("key"), 2)
    assert await idle.get("key") == 2
    until(lambda: idle.whole.get("key") == 2 and idle.near.state == "live")
    assert await busy.get("key") == 1
    assert busy.near.events.epochs == {}


def test_caches_that_come_and_go(valkey):
    """As Django's do with each thread, or task: they find the copies of those before them."""
    params = {"KEY_PREFIX": "come-and-go", "OPTIONS": {"NEAR": {"T_LIVE": 10}}}
    cache = Cache(valkey.url(9), params)
    wait_until_live(cache.near)
    cache.set("key", "value")
    cache.fence()
    until(lambda: cache.get("key") and cache.near.copies)
    misses = cache.near.counts.misses
    near = id(cache.near)
    del cache
    gc.collect()

    cache = Cache(valkey.url(9), params)

    assert id(cache.near) == near
    assert cache.get("key") == "value"
    assert cache.near.counts.misses == misses
    cache.near.close()


def test_configurations_that_come_and_go_leave_nothing(valkey, raw, monkeypatch):
    """What no cache has any more ends: near caches, their connection, their thread, and what was known of their settings."""
    monkeypatch.setattr(sharing, "LATELY", 1000)
    url = valkey.url(7)
    until(lambda: not told(raw))
    before, known, shared = told(raw), len(NEARS), len(_shared.known)
    keeper = [Cache(url, {"KEY_PREFIX": "keeper", "OPTIONS": {"NEAR": True}})]
    wait_until_live(keeper[0].near)
    (listener,) = listeners(keeper[0].near)
    longest = 0

    for number in range(300):
        cache = Cache(url, {"KEY_PREFIX": f"short{number}", "OPTIONS": {"NEAR": True}})
        assert cache.get("key") is None
        longest = max(longest, len(listener.tracking.asked))
        del cache
        if number % 50 == 49:
            gc.collect()
            until(lambda: not listener.leaving)

    gc.collect()
    assert len(NEARS) <= known + sharing.MOST + 1
    assert len(_shared.known) <= shared + sharing.MOST + 1
    assert told(raw) <= before + 1
    assert longest < 300
    monkeypatch.setattr(sharing, "LATELY", 0)
    sharing.tidy()
    gc.collect()
    until(lambda: len(listener.tracking.readers) == 1)
    assert len(listener.tracking.asked) <= sharing.MOST + SPARE + 100
    until(lambda: keeper[0].get("key") is None and keeper[0].near.state == "live")
    keeper.clear()
    gc.collect()
    until(lambda: listener.thread is None)
    assert listener not in listening.RUNNING
    until(lambda: told(raw) <= before)
    assert not listener.server.watchers


def test_a_near_cache_that_is_collected_anywhere(valkey):
    """A finalizer runs at any moment, also within a change, and disturbs none."""
    caches = [Cache(valkey.url(6), {"KEY_PREFIX": f"any{number}", "OPTIONS": {"NEAR": True}}) for number in range(3)]
    for cache in caches:
        wait_until_live(cache.near)
    (listener,) = listeners(caches[0].near)

    def collect() -> None:
        with suppress(AttributeError):
            _shared.lately.clear()
            del caches[1:]
            gc.collect()

    del cache
    listener.gate.run(collect)

    until(lambda: len(listener.tracking.readers) == 1)
    until(lambda: caches[0].near.state == "live")  # a long collection makes it suspect for a moment
    assert "interrupt" not in caches[0].near.events.epochs
    began = time.monotonic()
    caches[0].near.close()
    until(lambda: listener.thread is None)
    assert time.monotonic() - began < 4  # less than the server's time limit, 5 seconds
