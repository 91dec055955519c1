"""How many connections threads may use, and that closing never cuts anybody's command."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import pytest
from redis.exceptions import RedisError
from tests.faces import Face, settled
from tests.load import CROWDS, Load

from fleetcache import Cache
from fleetcache.errors import ServerTimeout, TooManyConnections

from .deadlines import HASTY, SLACK, wait_until_admitted

pytestmark = [pytest.mark.timeout(30), pytest.mark.alone]


def free(server) -> int:
    """Return how many callers of *server* could have a connection now."""
    return server.max_connections - len(server.seats.taken) + len(server.idle)


def connected(raw) -> int:
    return raw.info("clients")["connected_clients"] - 1


@pytest.fixture
def raw(mortal):
    client = Cache(mortal.url()).get_client()
    yield client
    client.close()
    client.connection_pool.disconnect()


def crowd(cache: Cache, threads: int, calls: int = 50) -> list[Exception]:
    """Let threads use the cache at once; return what was raised."""
    raised: list[Exception] = []
    cache.clear()

    def work(number: int) -> None:
        for step in range(calls):
            try:
                assert cache.set(f"key{number}", step) is True
                assert cache.get(f"key{number}") == step
                assert cache.incr(f"count{number}", default=0) == step + 1
            except Exception as error:
                raised.append(error)
                return

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)
    return raised


def test_threads_share_connections(mortal, raw):
    """There are never more connections than threads."""
    cache = Cache(mortal.tcp_url())

    assert crowd(cache, 12) == []

    assert 1 <= connected(raw) <= 12


@pytest.mark.parametrize(
    "options",
    [
        {"MAX_CONNECTIONS": 3, "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool"},
        {
            "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": 3, "timeout": 5},
        },
        {
            "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": 3, "timeout": None},
        },
    ],
    ids=["MAX_CONNECTIONS", "timeout=5", "timeout=None"],
)
def test_a_blocking_pool_waits_for_its_turn(mortal, raw, options):
    """With redis-py's BlockingConnectionPool callers wait for a connection, and all are served."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": options})

    assert crowd(cache, 12) == []

    assert connected(raw) <= 3


def test_a_limit_is_an_error_when_it_is_reached(mortal, proxy):
    """Without one, the caller beyond the limit is told at once, and how to change it; places come back."""
    cache = Cache(proxy.url(), {"OPTIONS": {"MAX_CONNECTIONS": 2, "socket_timeout": 5}})
    cache.set("a", 1)
    proxy.hold()
    holding = [threading.Thread(target=cache.get, args=("a",)) for _ in range(2)]
    for thread in holding:
        thread.start()
    server = cache.topology.primaries[0]
    deadline = time.monotonic() + 3
    while (len(server.open) < 1 or server.idle or free(server)) and time.monotonic() < deadline:
        time.sleep(0.001)

    started = time.monotonic()
    with pytest.raises(TooManyConnections, match=r"all 2 connections are in use.*max_connections"):
        cache.get("a")
    assert time.monotonic() - started < 0.1
    proxy.heal()
    for thread in holding:
        thread.join(10)

    assert [cache.get("a") for _ in range(5)] == [1] * 5
    assert free(server) == 2


def test_being_at_the_limit_is_not_an_outage(mortal, proxy, journal):
    """A full pool says nothing about the server, and shuts nobody out."""
    cache = Cache(proxy.url(), {"OPTIONS": {"MAX_CONNECTIONS": 1, "socket_timeout": 5}})
    cache.set("a", 1)
    proxy.hold()
    holding = threading.Thread(target=cache.get, args=("a",))
    holding.start()
    server = cache.topology.primaries[0]
    deadline = time.monotonic() + 3
    while free(server) and time.monotonic() < deadline:
        time.sleep(0.001)
    for _ in range(10):
        with pytest.raises(TooManyConnections):
            cache.get("a")
    proxy.heal()
    holding.join(10)

    assert cache.get("a") == 1
    assert journal.events == []


def test_a_blocking_pool_has_its_own_patience(mortal):
    """The wait for a place ends with the pool's timeout."""
    options = {
        **HASTY,
        "socket_timeout": 2,
        "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
        "CONNECTION_POOL_KWARGS": {"max_connections": 1, "timeout": 0.1},
    }
    cache = Cache(mortal.tcp_url(), {"OPTIONS": options})
    cache.set("a", 1)
    mortal.pause()
    holding = threading.Thread(target=cache.get, args=("a",))
    holding.start()
    server = cache.topology.primaries[0]
    deadline = time.monotonic() + 3
    while free(server) and time.monotonic() < deadline:
        time.sleep(0.001)

    started = time.monotonic()
    with pytest.raises(TooManyConnections):
        cache.get("a")

    assert 0.09 <= time.monotonic() - started <= 0.1 + SLACK
    mortal.resume()
    holding.join(10)


def test_places_come_back_from_every_failure(proxy):
    """After timeouts, resets and refusals as many callers may come as before."""
    cache = Cache(proxy.url(), {"OPTIONS": {**HASTY, "MAX_CONNECTIONS": 2, "BREAKER_FAILURES": 1000}})
    cache.set("a", 1)
    for fault in (proxy.reset, lambda: proxy.cut_after(1), proxy.hold):
        fault()
        for operation in (cache.get, cache.incr):
            with suppress(RedisError, ValueError):
                operation("missing")
        proxy.heal()
        wait_until_admitted(cache)
        assert cache.get("a") == 1

    assert free(cache.topology.primaries[0]) == 2


async def test_close_cuts_nobody(face, mortal, raw):
    """Any number of close() under CLOSE_CONNECTION while others work: no error, no wrong answer."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"CLOSE_CONNECTION": True}})

    with Load(cache, **CROWDS[face]) as load:
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            cache.close()
            await cache.aclose()
            time.sleep(0.0005)

    assert load.wrong == []
    assert load.failures == []
    assert load.calls > 100


def test_close_hangs_up_what_is_idle(mortal, raw):
    """close() ends idle connections if CLOSE_CONNECTION says so, and keeps them otherwise."""
    keeping = Cache(mortal.tcp_url(), {"OPTIONS": {"client_name": "keeping"}})
    closing = Cache(mortal.tcp_url(), {"OPTIONS": {"client_name": "closing", "CLOSE_CONNECTION": True}})
    for cache in (keeping, closing):
        assert crowd(cache, 4, 5) == []
        cache.close()

    deadline = time.monotonic() + 3
    while {client["name"] for client in raw.client_list()} & {"closing"} and time.monotonic() < deadline:
        time.sleep(0.005)
    names = [client["name"] for client in raw.client_list()]
    assert "closing" not in names
    assert "keeping" in names
    assert closing.get("a") is None


async def test_tasks_do_not_count_against_the_limit(mortal, raw):
    """However low max_connections, any number of tasks share the loop's one connection."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"MAX_CONNECTIONS": 1}})
    await cache.aset("a", 1)

    assert await asyncio.gather(*(cache.aget("a") for _ in range(300))) == [1] * 300
    assert connected(raw) == 1


async def test_a_deadline_without_a_limit(face, mortal, proxy):
    """socket_timeout=None waits as long as it takes; connecting still has its limit."""
    cache = Face(Cache(proxy.url(), {"OPTIONS": {"socket_timeout": None, "socket_connect_timeout": 0.5}}), face)
    await cache.set("a", 1)
    proxy.hold()
    threading.Timer(0.3, proxy.heal).start()

    started = time.monotonic()
    assert await cache.get("a") == 1
    assert time.monotonic() - started >= 0.25
    mortal.pause()
    limited = Face(Cache(proxy.url(), {"OPTIONS": {**HASTY}}), face)
    assert isinstance(await settled(limited.get("a")), ServerTimeout)
    mortal.resume()
