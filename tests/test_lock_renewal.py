"""Locks that renew themselves while they are held."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from redis.exceptions import LockNotOwnedError
from tests import nearby
from tests.forks import FORKS, ended_well, in_child
from tests.renewals import awaited, passed, renewals
from tests.waiting import eventually, until

from fleetcache import Cache
from fleetcache.errors import InvalidTimeout
from fleetcache.locks import renewing

SHORT = 0.3
"""The timeout, in seconds, of a lock that a test lets expire."""

KEPT = 1.0
"""The timeout, in seconds, of a lock that must not expire, though a busy machine may let its thread wait."""

LONGER = 1.3 * KEPT
"""A time, in seconds, that such a lock lives through only if it is renewed."""


@pytest.mark.also(server="oldest")
async def test_a_renewed_lock_outlives_its_timeout(cache):
    """It is held for as long as its holder likes, and free as soon as that releases it."""
    async with cache.lock("lock", timeout=KEPT, renew=True) as lock:
        await passed(LONGER)

        assert await lock.owned() is True
        assert lock.lost is False
        assert await cache.lock("lock", timeout=10).acquire(blocking=False) is False
        assert 0 < await cache.pttl("lock") <= 1000 * KEPT

    assert await lock.locked() is False
    assert lock.lost is False
    assert renewals() == []


@pytest.mark.parametrize("timeout", [None, 0])
async def test_a_renewed_lock_needs_a_timeout(cache, timeout):
    """Without one it would never expire, so there is nothing to renew, and a dead holder would block all others."""
    with pytest.raises(InvalidTimeout, match="renew=True"):
        cache.lock("lock", timeout=timeout, renew=True)


@pytest.mark.parametrize("taken", [False, True])
async def test_a_lost_lock_is_noticed(cache, taken):
    """A lock that other code deleted, or that another caller holds, is marked lost, and `release` says so."""
    lock = cache.lock("lock", timeout=SHORT, renew=True)
    await lock.acquire()
    await cache.delete("lock")
    other = cache.lock("lock", timeout=10)
    if taken:
        await other.acquire()

    await eventually(awaited(lambda: lock.lost), True)
    with pytest.raises(LockNotOwnedError):
        await lock.release()

    assert await other.owned() is taken
    assert lock.lost is True
    assert renewals() == []
    if not taken:
        assert await lock.acquire(blocking=False) is True
        assert lock.lost is False
        await lock.release()


async def test_a_renewal_shortens_nothing(cache):
    """What the holder extends the lock by is its own; a lock that it shortened is renewed in time."""
    async with cache.lock("long", timeout=KEPT, renew=True) as long:
        await long.extend(60)
        await passed(KEPT / 2)
        assert 50 < await cache.ttl("long") <= 61

    async with cache.lock("short", timeout=60, renew=True) as short:
        await short.extend(KEPT, replace_ttl=True)
        await passed(LONGER)
        assert await short.owned() is True
        assert short.lost is False


async def test_several_locks_are_renewed_by_one_thread(cache):
    """A crowd of holders costs one thread for each server, however different their timeouts are."""
    locks = [cache.lock(f"lock{number}", timeout=KEPT * (1 + number % 3), renew=True) for number in range(12)]
    for lock in locks:
        await lock.acquire()
    await passed(LONGER)

    busy = [chores for chores in renewing._renewed.values() if chores.all]
    assert len(busy) <= len(cache.topology.primaries)
    assert len({chores.thread for chores in busy}) == len(busy)
    for lock in locks:
        assert await lock.owned() is True
        await lock.release()


# --- how a renewal ends ---------------------------------------------------------------------------


def test_it_ends_with_its_thread():
    """What a thread has not released when it ends expires."""
    cache = Cache("memory://renewal-thread")
    lock = cache.lock("lock", timeout=SHORT, renew=True)

    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join(5)

    until(lambda: not lock.locked())
    assert renewals() == []


def test_it_ends_with_the_lock_object():
    """Nobody can release a lock whose object is gone."""
    cache = Cache("memory://renewal-object")
    assert cache.lock("lock", timeout=SHORT, renew=True).acquire()

    gc.collect()

    until(lambda: not cache.lock("lock").locked())
    assert renewals() == []


async def test_it_ends_with_its_task():
    """A task that ends without releasing leaves a lock that expires."""
    cache = Cache("memory://renewal-task")
    lock = cache.lock("lock", timeout=SHORT, renew=True)

    async def work() -> None:
        await lock.aacquire()

    await asyncio.create_task(work())

    await eventually(lock.alocked, False)
    await eventually(awaited(lambda: lock.lost), True)
    with pytest.raises(LockNotOwnedError):
        await lock.arelease()


async def test_a_task_that_only_acquires_is_not_the_holder():
    """``asyncio.wait_for`` and ``gather`` may run `aacquire` in tasks of their own, which end at once."""
    cache = Cache("memory://renewal-passing")
    first, second = (cache.lock(name, timeout=KEPT, renew=True) for name in ("first", "second"))

    await asyncio.gather(first.aacquire(), asyncio.create_task(second.__aenter__()))
    await passed(LONGER)

    for lock in (first, second):
        assert await lock.aowned() is True
        await lock.arelease()


@pytest.mark.parametrize("by", FORKS)
def test_a_forked_child_renews_nothing(valkey, by, monkeypatch):
    """A child does not keep alive what its parent holds; its own locks it renews."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": f"renewal-{by}"})
    lock = cache.lock("lock", timeout=5, renew=True)

    def child() -> None:
        assert lock.token is None
        assert lock.lost is False
        monkeypatch.setattr(renewing, "SHARE", 50)
        with cache.lock("own", timeout=5, renew=True) as own:
            (renewal,) = renewals()
            granted = renewal.until
            until(lambda: renewal.until > granted)
            assert own.owned()
            assert [renewal.lock for renewal in renewals()] == [cache._masked(own.name)]

    with nearby.at_rest(), lock:
        assert ended_well(in_child(child, by))
        assert lock.owned() is True
        assert len(renewals()) == 1
    assert lock.locked() is False


def test_an_exception_in_the_block_ends_it():
    """The lock of a block that raised is free."""
    cache = Cache("memory://renewal-raises")

    with pytest.raises(ZeroDivisionError), cache.lock("lock", timeout=10, renew=True):
        raise ZeroDivisionError

    assert not cache.has_key("lock")
    assert renewals() == []
