"""Tasks give up at any moment, by hundreds; nobody ever gets another's reply."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest
from redis.exceptions import ConnectionError, TimeoutError

from fleetcache import Cache

from .deadlines import HASTY, LIMIT

pytestmark = [pytest.mark.timeout(40), pytest.mark.alone]
TASKS = 500


def connected(raw) -> int:
    """Return how many clients the server has, but for the one that asks."""
    return raw.info("clients")["connected_clients"] - 1


async def test_500_tasks_use_one_connection(mortal):
    """However many tasks talk at once, the server sees one connection of this loop."""
    cache = Cache(mortal.tcp_url())
    raw = Cache(mortal.url()).get_client()

    async def work(number: int) -> None:
        for step in range(10):
            assert await cache.aset(f"key{number}", [number, step]) is True
            assert await cache.aget(f"key{number}") == [number, step]
            if number == 250:
                assert connected(raw) == 1

    await asyncio.gather(*(work(number) for number in range(TASKS)))

    assert connected(raw) == 1
    raw.close()


@pytest.mark.parametrize("breaking", [False, True], ids=["healthy", "with resets"])
async def test_random_cancellation(mortal, proxy, breaking):
    """Of 500 tasks, cancelled at random and replaced, every one reads its own value."""
    cache = Cache(proxy.url(), {"OPTIONS": {**HASTY, "socket_timeout": 5}})
    await cache.aset_many({f"key{number}": [f"key{number}"] * (number % 7 + 1) for number in range(TASKS)}, None)
    stop = time.monotonic() + 1.5
    wrong, read, cancelled = [], 0, 0

    def goes_on() -> bool:
        return time.monotonic() < stop or cancelled <= TASKS

    async def work(number: int) -> None:
        nonlocal read
        key = f"key{number}"
        other = f"key{random.randrange(TASKS)}"
        while goes_on():
            with suppress(ConnectionError, TimeoutError):
                found = await cache.aget(key)
                both = await cache.aget_many([other, key])
                pipe = cache.pipeline()
                pipe.has_key(key).get(other).get("missing", number)
                piped = await pipe.aexecute()
                if found != [key] * (number % 7 + 1) or both[key] != found or both[other][0] != other:
                    wrong.append((key, found, both))
                if piped != [True, both[other], number]:
                    wrong.append((key, piped))
                read += 3

    running = {asyncio.create_task(work(number)): number for number in range(TASKS)}
    while goes_on():
        await asyncio.sleep(0.002)
        for task in random.sample(list(running), 20):
            number = running.pop(task)
            if task.done():
                task.result()
            task.cancel()
            cancelled += 1
            running[asyncio.create_task(work(number))] = number
        if breaking and cancelled % 400 == 0:
            await asyncio.to_thread(proxy.reset)
    outcomes = await asyncio.gather(*running, return_exceptions=True)

    print(f"{read} read, {cancelled} cancelled")
    assert wrong == []
    assert [outcome for outcome in outcomes if outcome is not None] == []


async def test_giving_up_leaves_the_connection_in_use(mortal, proxy):
    """A task that timed out on its own drops its reply; the connection serves the others."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    await cache.aset("a", 1)
    await cache.aset("b", 2)
    proxy.hold()
    for _ in range(3):
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            async with asyncio.timeout(0.02):
                await cache.aget("a")
    waiting = asyncio.create_task(cache.aget("b"))
    await asyncio.sleep(0.02)

    proxy.heal()

    assert await waiting == 2
    assert await cache.aget("a") == 1
    assert proxy.accepted == 1


async def test_everybody_gave_up(mortal, proxy):
    """A connection on which nobody waits for the replies any more is kept until these have had their time."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 0.8}})
    await cache.aset("a", 1)
    for rest, accepted in ((0.4, 1), (1.2, 2)):
        proxy.hold()
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            async with asyncio.timeout(0.02):
                await cache.aget("a")
        await asyncio.sleep(rest)
        proxy.heal()

        assert await cache.aget("a") == 1
        assert proxy.accepted == accepted


async def test_whoever_connects_may_be_cancelled(mortal, proxy):
    """When the task that began to connect is cancelled, the others still get the connection."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    proxy.hold()
    first = asyncio.create_task(cache.aget("a"))
    await asyncio.sleep(0.02)
    others = [asyncio.create_task(cache.aset(f"key{number}", number)) for number in range(20)]
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.sleep(0.01)
    proxy.heal()

    assert await asyncio.gather(*others) == [True] * 20
    assert first.cancelled()
    assert proxy.accepted == 1


async def test_a_crowd_meets_an_outage_at_once(mortal):
    """500 tasks waiting for a server that froze all hear of it when the first one's time is over."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": HASTY})
    await cache.aset("a", 1)
    mortal.pause()

    started = time.monotonic()
    outcomes = await asyncio.gather(*(cache.aget("a") for _ in range(TASKS)), return_exceptions=True)
    took = time.monotonic() - started

    mortal.resume()
    assert {type(outcome).__name__ for outcome in outcomes} == {"ServerTimeout"}
    assert took < LIMIT + 0.3


async def test_a_busy_loop_is_not_an_outage(mortal, journal):
    """A loop that was blocked beyond the limit could not hear the reply, and blames nobody."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": HASTY})
    await cache.aset("a", 1)

    reading = [asyncio.create_task(cache.aget("a")) for _ in range(10)]
    await asyncio.sleep(0)
    time.sleep(LIMIT * 1.5)

    assert await asyncio.gather(*reading) == [1] * 10
    assert journal.events == []


async def test_a_crowd_that_writes_more_than_the_server_takes(mortal, proxy):
    """While the server reads slowly writers wait, and all values arrive whole."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 10}})
    values = {f"key{number}": bytes([number]) * 300_000 for number in range(100)}
    await cache.aget("a")
    proxy.hold()
    writing = [asyncio.create_task(cache.aset(key, value)) for key, value in values.items()]
    await asyncio.sleep(0.05)
    (line,) = cache.topology.primaries[0].lines.values()

    assert line.writable is not None
    proxy.heal()

    assert await asyncio.gather(*writing) == [True] * 100
    assert await cache.aget_many(values) == values


async def test_writers_who_wait_when_the_connection_breaks(mortal, proxy):
    """A caller that had sent nothing yet uses the next connection, for INCR too."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    await cache.aset("n", 0)
    proxy.hold()
    crowd = [asyncio.create_task(cache.aset(f"key{number}", bytes(400_000))) for number in range(20)]
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(cache.aincr("n")) for _ in range(5)]
    await asyncio.sleep(0.01)

    proxy.reset()
    proxy.heal()

    assert await asyncio.gather(*crowd) == [True] * 20
    assert sorted(await asyncio.gather(*waiting)) == [1, 2, 3, 4, 5]
