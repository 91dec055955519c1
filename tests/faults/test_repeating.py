"""A command that may have run is repeated only if repeating is harmless."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest
import redis
from redis.exceptions import ConnectionError
from tests.faces import AWAITING, Face, settled

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.errors import ConnectionLost
from fleetcache.exchange.contract import Verb
from fleetcache.testing import FaultProxy

from .deadlines import HASTY, wait_until_admitted

pytestmark = [pytest.mark.timeout(30), pytest.mark.alone]


def test_every_counter_is_exact(face, mortal, proxy):
    """Under resets each acknowledged increment counted once, and no other more than once."""
    cache = Cache(proxy.url(), {"OPTIONS": {**HASTY, "BREAKER_FAILURES": 1000}})
    cache.set("warm", 1)
    stop = threading.Event()
    counts = {"acknowledged": 0, "perhaps": 0}
    lock = threading.Lock()

    async def count(seed: int) -> None:
        own = Face(cache, face)
        chance = random.Random(seed)
        while not stop.is_set():
            outcome = await settled(own.incr("n", default=0))
            with lock:
                counts["acknowledged" if isinstance(outcome, int) else "perhaps"] += 1
            if not isinstance(outcome, int):
                assert isinstance(outcome, ConnectionError), outcome
            if face == AWAITING:
                await asyncio.sleep(0.002 * chance.random())

    async def crowd() -> None:
        await asyncio.gather(*(count(number) for number in range(50)))

    def run(work) -> None:
        with asyncio.Runner(debug=False) as runner:
            runner.run(work)

    works = [crowd()] if face == AWAITING else [count(number) for number in range(4)]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for number in range(30):
        enough, deadline = counts["acknowledged"] + 5, time.monotonic() + 3
        while counts["acknowledged"] < enough and time.monotonic() < deadline:
            time.sleep(0.001)
        proxy.reset() if number % 2 else proxy.cut_after(3)
    stop.set()
    for thread in threads:
        thread.join(10)

    total = Cache(mortal.url()).get("n")
    print(f"{face}: {counts}, counted {total}")
    assert counts["acknowledged"] >= 150
    assert counts["perhaps"] > 0
    assert counts["acknowledged"] <= total <= counts["acknowledged"] + counts["perhaps"]


async def test_what_ran_without_a_reply_is_not_run_again(face, mortal, proxy):
    """INCR, SADD and the like raise when their reply was lost, and have run once."""
    cache = Face(Cache(proxy.url(), {"OPTIONS": HASTY}), face)
    await cache.set("n", 0)
    for operation, look, expected in (
        (lambda: cache.incr("n"), lambda: cache.get("n"), 1),
        (lambda: cache.rpush("list", 1), lambda: cache.llen("list"), 1),
        (lambda: cache.zincrby("z", 1, "m"), lambda: cache.zscore("z", "m"), 1),
        (lambda: cache.hincrby("h", "f"), lambda: cache.hget("h", "f"), 1),
        (lambda: cache.add("added", 1), lambda: cache.get("added"), 1),
    ):
        # A script unknown to the server would be refused, and sent again whole.
        await cache.incr("other", default=0)
        proxy.cut_after(1)

        assert type(await settled(operation())) is ConnectionLost
        assert await look() == expected


async def test_what_does_no_harm_is_run_again(face, mortal, proxy):
    """Reads and plain writes whose reply was lost are repeated on a new connection, unseen."""
    cache = Face(Cache(proxy.url(), {"OPTIONS": HASTY}), face)
    await cache.set("a", 1)
    await cache.hset("h", "f", 1)
    for operation, expected in (
        (lambda: cache.get("a"), 1),
        (lambda: cache.set("a", 1), True),
        (lambda: cache.get_many("ab"), {"a": 1}),
        (lambda: cache.set_many({"a": 1, "c": 2}, 300), []),
        (lambda: cache.has_key("a"), True),
        (lambda: cache.expire("a", 1000), True),
        (lambda: cache.hgetall("h"), {"f": 1}),
        (lambda: cache.expire("a", 300), True),
        (lambda: cache.keys("h"), ["h"]),
    ):
        proxy.cut_after(1)
        assert await operation() == expected
    assert proxy.accepted >= 8


@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
async def test_an_idle_connection_found_dead(face, valkey, request, transport):
    """It is replaced without an error, even for what must not run twice, over every transport."""
    if transport == "tls":
        tls = request.getfixturevalue("tls")
        url, other = tls.tls_url(), tls.url()
    else:
        url, other = (valkey.tcp_url() if transport == "tcp" else valkey.url()), valkey.url()
    # A pool of its own.
    cache = Face(Cache(url, {"KEY_PREFIX": "idle", "OPTIONS": {**HASTY, "client_name": f"idle-{face}"}}), face)
    await cache.clear()
    with redis.Redis.from_url(other) as killer:
        for number in range(1, 4):
            await cache.set("a", 1)
            for client in killer.client_list():
                if client["name"] == f"idle-{face}":
                    killer.client_kill_filter(_id=client["id"])
            # The loop does not turn meanwhile, so it has not heard either.
            assert await cache.incr("n", default=0) == number
    await cache.clear()


async def test_a_restart_between_two_calls(face, mortal):
    """After a restart of the server INCR, EVAL and transactions work at once, without an error."""
    cache = Face(Cache(mortal.url(), {"OPTIONS": HASTY}), face)
    for operation in (
        lambda: cache.incr("n", default=0),
        lambda: cache.set_many({"a": 1}),
        lambda: cache.sadd("set", 1),
        lambda: cache.lock("lock", timeout=5).acquire(),
    ):
        await cache.set("a", 1)
        mortal.restart()
        assert await operation() in (1, True, [])


async def test_many_idle_connections_found_dead(mortal):
    """Twenty idle connections that died cost one reconnection, and no error."""
    cache = Cache(mortal.url(), {"OPTIONS": HASTY})
    barrier = threading.Barrier(20)

    def use() -> None:
        barrier.wait(5)
        cache.get("a")

    threads = [threading.Thread(target=use) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    mortal.restart()

    assert cache.get("a") is None
    assert cache.incr("n", default=0) == 1
    assert len(cache.topology.primaries[0].open) <= 2


def test_what_is_said_to_be_harmless():
    """The commands that may be repeated are those whose second run leaves and answers the same."""
    # Those about leases and tags may reply otherwise the second time, but nobody counts on that.
    verbs = [verb for verb in vars(c).values() if isinstance(verb, Verb)]
    ours = (c.VOID, c.CAPTURES, c.GIVE_UP, c.LEASE, c.STORE, c.FREE, c.NOTES)
    verbs = [verb for verb in verbs if all(verb is not each for each in ours)]
    reads = {verb.decode() for verb in verbs if verb.reads}
    # Those with which entries are looked at, which ask the primary.
    looks = {
        "DBSIZE",
        "EVAL_RO",
        "HRANDFIELD",
        "HSCAN",
        "HSTRLEN",
        "MEMORY",
        "OBJECT",
        "STRLEN",
        "TYPE",
        "XLEN",
        "XRANGE",
    }
    writes = {verb.decode() for verb in verbs if verb.harmless} - reads - looks

    assert writes == {"SET", "EXPIREAT", "PEXPIREAT", "PEXPIRE", "FLUSHDB", "LSET", "MULTI", "EXEC", "TIME"}
    assert c.SET_IF.harmless is False
    assert not reads & {"GETDEL", "SPOP", "LPOP", "EVALSHA"}


async def test_a_frozen_proxy_between(face, mortal):
    """A connection whose peer vanished without a word is given up at its limit, and not used again."""
    with FaultProxy(mortal.socket) as proxy:
        cache = Face(Cache(proxy.url(), {"OPTIONS": HASTY}), face)
        await cache.set("n", 0)
        proxy.hold()
        assert isinstance(await settled(cache.incr("n")), redis.TimeoutError)
        proxy.heal()
        wait_until_admitted(cache.whole)

        # It may have run; the next one counts on.
        assert await cache.incr("n") in (1, 2)
        assert proxy.accepted == 3  # a probe's among them
