"""Locks, on every server and in both faces."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from time import monotonic

import pytest
import redis
from redis.exceptions import LockError, LockNotOwnedError
from tests.faces import AWAITING, BLOCKING, settled
from tests.forks import ended_well, in_child

from fleetcache import Cache
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import InvalidTimeout

pytestmark = pytest.mark.also(server="oldest")


async def test_one_holder_at_a_time(cache):
    """While a lock is held nobody else gets it; released, the next one does."""
    first, second = cache.lock("lock", timeout=10), cache.lock("lock", timeout=10)

    assert await first.acquire(blocking=False) is True
    assert await second.acquire(blocking=False) is False
    assert await first.owned() is True
    assert await second.owned() is False
    assert await second.locked() is True
    await first.release()
    assert await second.locked() is False
    assert await second.acquire(blocking=False) is True
    await second.release()


async def test_with_holds_the_lock(cache):
    """``with`` and ``async with`` acquire and release, also when the body raises."""
    with pytest.raises(ZeroDivisionError):
        async with cache.lock("lock", timeout=10) as held:
            assert await held.owned() is True
            assert 9 <= await cache.ttl("lock") <= 10
            raise ZeroDivisionError

    assert await cache.lock("lock").locked() is False


async def test_with_gives_up(cache):
    """``with`` raises when the lock cannot be had in time."""
    async with cache.lock("lock", timeout=10):
        started = monotonic()
        with pytest.raises(LockError, match="within the time"):
            async with cache.lock("lock", sleep=0.01, blocking_timeout=0.05):
                pass

    assert monotonic() - started < 1


async def test_waiting_for_a_lock(cache):
    """acquire() waits for the holder's lifetime to end, and no longer than its patience."""
    await cache.lock("lock", timeout=0.2).acquire()
    waiting = cache.lock("lock", timeout=10, sleep=0.01)

    assert await waiting.acquire(blocking_timeout=0.01) is False
    assert await waiting.acquire(blocking_timeout=2) is True
    await waiting.release()


async def test_release_of_what_is_no_longer_held(cache):
    """A holder that was too slow hears of it when it releases, and does not release the next holder's lock."""
    slow, next_holder = cache.lock("lock", timeout=0.02), cache.lock("lock", timeout=10)
    await slow.acquire()
    await asyncio.sleep(0.05)
    await next_holder.acquire()

    with pytest.raises(LockNotOwnedError):
        await slow.release()

    assert await next_holder.owned() is True
    await next_holder.release()
    with pytest.raises(LockError):
        await next_holder.release()


@pytest.mark.parametrize("unit", [timedelta(seconds=1), Decimal(1), Fraction(1)])
async def test_waits_in_any_units(cache, unit):
    """What a lock waits for, or is extended by, is whatever a timeout can be."""
    lock = cache.lock("lock", timeout=unit * 10, sleep=unit / 100, blocking_timeout=unit / 20)
    await lock.acquire()

    assert await lock.extend(unit * 10) is True
    assert 18 <= await cache.ttl("lock") <= 20
    assert await cache.lock("lock", sleep=unit / 100, blocking_timeout=unit / 20).acquire() is False
    for nonsense in (float("nan"), float("inf"), "x", None, [], 1e308):
        with pytest.raises(InvalidTimeout):
            await lock.extend(nonsense)
    for nonsense in (float("nan"), "x", [], 1j):
        with pytest.raises(InvalidTimeout):
            await lock.acquire(blocking_timeout=nonsense)


async def test_extend_and_reacquire(cache):
    """A holder may add to its time, replace it, or begin it anew."""
    lock = cache.lock("lock", timeout=10)
    with pytest.raises(LockError):
        await lock.extend(1)
    with pytest.raises(LockError):
        await lock.reacquire()
    await lock.acquire()

    assert await lock.extend(10) is True
    assert 18 <= await cache.ttl("lock") <= 20
    assert await lock.extend(5, replace_ttl=True) is True
    assert 3 <= await cache.ttl("lock") <= 5
    assert await lock.reacquire() is True
    assert 8 <= await cache.ttl("lock") <= 10
    await cache.delete("lock")
    with pytest.raises(LockNotOwnedError):
        await lock.extend(1)
    with pytest.raises(LockNotOwnedError):
        await lock.reacquire()


async def test_a_lock_without_a_timeout(cache):
    """Without a timeout a lock stays until released, and cannot be extended."""
    lock = cache.lock("lock")
    await lock.acquire()

    assert await cache.ttl("lock") is None
    with pytest.raises(LockError, match="no timeout"):
        await lock.extend(1)
    with pytest.raises(LockError, match="no timeout"):
        await lock.reacquire()
    await lock.release()


async def test_a_token_of_ones_own(cache):
    """A token that was given is the one the key holds; it may be text or bytes."""
    for token in ("mine", b"mine"):
        lock = cache.lock("lock", timeout=10)
        await lock.acquire(token=token)
        assert lock.token == b"mine"
        assert await lock.owned() is True
        await lock.release()
        assert lock.token is None


async def test_versions_of_a_lock_are_apart(cache):
    """A lock's name has a version as every key has."""
    await cache.lock("lock", timeout=10).acquire()

    assert await cache.lock("lock", version=2, timeout=10).acquire(blocking=False) is True
    await cache.delete("lock", version=2)


async def test_a_lock_excludes_a_crowd(cache, face):
    """Of many additions to a number under a lock none is lost, in threads or in tasks."""
    await cache.set("number", 0)

    async def add():
        for _ in range(3):
            async with cache.lock("lock", timeout=10, sleep=0.001):
                found = await cache.get("number")
                await asyncio.sleep(0)
                await cache.set("number", found + 1)

    if face == AWAITING:
        await asyncio.gather(*(add() for _ in range(8)))
    else:
        threads = [threading.Thread(target=lambda: asyncio.run(add())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert await cache.get("number") == 24


async def test_a_token_belongs_to_its_thread(cache, face):
    """A lock object shared by threads is held by the one that acquired it, unless thread_local is off."""
    if face != BLOCKING:
        return
    local, shared = cache.lock("local", timeout=10).whole, cache.lock("shared", timeout=10, thread_local=False).whole
    local.acquire()
    shared.acquire()
    owned = []

    thread = threading.Thread(target=lambda: owned.extend([local.owned(), shared.owned()]))
    thread.start()
    thread.join(10)

    assert owned == [False, True]
    local.release()
    shared.release()


async def test_redis_py_respects_our_locks_and_we_respect_its(cache, url):
    """A lock of redis-py on the same name, as old django-redis workers use, excludes ours and is excluded."""
    if url().startswith("memory"):
        return
    raw, name = cache.get_client(), cache.make_key("lock")
    theirs, ours = redis.lock.Lock(raw, name, timeout=10), cache.lock("lock", timeout=10)

    assert await ours.acquire(blocking=False) is True
    assert theirs.acquire(blocking=False) is False
    await ours.release()
    assert theirs.acquire(blocking=False) is True
    assert await ours.acquire(blocking=False) is False
    assert isinstance(await settled(ours.release()), LockError)
    theirs.release()
    assert await ours.locked() is False


async def test_alock_is_lock(cache):
    """``await cache.alock(…)`` returns the same as ``cache.lock(…)``."""
    lock = await cache.whole.alock("lock", timeout=5)

    async with lock:
        assert lock.owned() is True
    async with await cache.whole.alock("lock", timeout=5) as again, cache.whole.lock("other", timeout=5) as other:
        assert (await again.aowned(), await other.aowned()) == (True, True)


async def test_lifetimes(cache, make):
    """A lock lives as long as it is told, or as the cache's entries do; never for no time at all."""
    for timeout in (None, DEFAULT_TIMEOUT, 0):
        for_ever = make(TIMEOUT=None).lock("lock", timeout=timeout)
        await for_ever.acquire()
        assert await for_ever.cache.attl("lock") is None
        await for_ever.release()
    usual = cache.lock("lock", timeout=DEFAULT_TIMEOUT)
    await usual.acquire()
    assert 298 <= await cache.ttl("lock") <= 300
    await usual.release()
    for timeout in (-1, 0.0001, timedelta(microseconds=1), "soon"):
        with pytest.raises(InvalidTimeout):
            cache.lock("lock", timeout=timeout)


async def test_one_lock_object_in_two_tasks(cache):
    """A task does not release what another one holds, though both use one object; once that has ended, anybody may."""
    lock = cache.lock("lock", timeout=0.1)
    slow, quick = asyncio.Event(), asyncio.Event()

    async def too_slow() -> Exception | None:
        await lock.acquire()
        slow.set()
        await quick.wait()
        return await settled(lock.release())

    async def next_holder() -> bool:
        await slow.wait()
        await lock.acquire(sleep=0.01)
        quick.set()
        await asyncio.sleep(0.05)
        return await lock.owned()

    lost, _ = await asyncio.gather(too_slow(), next_holder())
    assert isinstance(lost, LockError)
    other = cache.lock("other", timeout=10)
    assert await asyncio.create_task(_acquired(other)) is True
    assert await other.owned() is True
    await other.release()


async def _acquired(lock) -> bool:
    return await lock.acquire()


@pytest.mark.parametrize("thread_local", [True, False])
def test_a_forked_child_does_not_hold_its_parents_locks(valkey, thread_local):
    """A child neither owns nor releases what its parent holds, not even at the end of the parent's block."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": f"fork{thread_local}"})
    lock = cache.lock("lock", timeout=10, thread_local=thread_local)

    def child() -> None:
        assert lock.owned() is False
        lock.__exit__(None, None, None)
        with pytest.raises(LockError):
            lock.release()
        assert cache.lock("own", timeout=10).acquire()

    with lock:
        assert ended_well(in_child(child))
        assert lock.owned() is True
    assert lock.locked() is False
    cache.delete("own")


def test_a_token_may_be_handed_over(valkey):
    """``lock.local.token`` may be set, as with redis-py's: to release here what was acquired elsewhere."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": "handed"})
    first, second = cache.lock("lock", timeout=10), cache.lock("lock", timeout=10)
    first.acquire()

    second.local.token = first.local.token

    assert second.owned() is True
    second.release()
    assert first.locked() is False


def test_a_lock_in_an_exit_stack(valkey):
    """Whatever looks the ends of blocks up on the class finds them."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": "stack"})
    with ExitStack() as stack:
        lock = stack.enter_context(cache.lock("lock", timeout=10))
        assert lock.owned() is True
    assert lock.locked() is False

    async def awaited() -> None:
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(cache.lock("lock", timeout=10))
            assert await lock.aowned() is True
        assert await lock.alocked() is False

    asyncio.run(awaited())
