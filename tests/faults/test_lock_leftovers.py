"""A lock that nobody holds does not stay, whatever ended the call that was to acquire or release it."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis
from tests.faces import FACES, Face, settled
from tests.forks import ended_well, in_child
from tests.renewals import renewals
from tests.waiting import PATIENCE, until

from fleetcache import Cache
from fleetcache.errors import ServerTimeout
from fleetcache.locks.leftovers import LEFTOVERS, MOST, Leftover

from .deadlines import HASTY, PATIENT, wait_until_admitted

pytestmark = [pytest.mark.timeout(120, method="thread"), pytest.mark.alone]  # SIGALRM is these tests' own
INTERRUPTS = 150


class TimeLimit(Exception):
    """What a job's time limit raises, such as Celery's SoftTimeLimitExceeded."""


class Stopped(BaseException):
    """What no handler of errors catches, such as gevent's Timeout."""


def free(cache: Cache, seconds: float = PATIENCE) -> bool:
    """Whether the lock is free, or becomes so within *seconds*: the pauses between two tries grow to two seconds."""
    deadline = time.monotonic() + seconds
    while cache.has_key("lock"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def acquisitions(cache: Cache) -> int:
    """Return how often the server of *cache* has run ``SET``, by which a lock is acquired, also in a script."""
    return int(cache.get_client().info("commandstats").get("cmdstat_set", {}).get("calls", 0))


def acquire(lock) -> bool:
    lock.acquire()
    return True


def enter_and_leave(lock) -> bool:
    with lock:
        pass
    return True


def enter_and_work(lock) -> bool:
    with lock:
        for _ in range(3):
            lock.owned()
    return True


def lost(
    cache: Cache, kind: type[BaseException], work: Callable[..., bool], wanted: int, **arguments: object
) -> tuple[int, int]:
    """Interrupt *work*, which gets a lock with *arguments*, at random; return how many times, and how many locks stayed."""
    armed = False

    def strike(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise kind

    before = signal.signal(signal.SIGALRM, strike)
    interrupted = stayed = 0
    deadline = time.monotonic() + 20
    try:
        while interrupted < wanted and time.monotonic() < deadline:
            done = False
            with suppress(kind):  # twice: it may come while the first one suppresses nothing
                with suppress(kind):
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 6e-4))
                    done = work(cache.lock("lock", blocking=False, **arguments))
                armed = False
            armed = False
            interrupted += not done
            stayed += not done and not free(cache)
            cache.delete("lock")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return interrupted, stayed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.few(3)
@pytest.mark.parametrize("work", [acquire, enter_and_leave, enter_and_work])
@pytest.mark.parametrize("kind", [TimeLimit, Stopped, KeyboardInterrupt])
@pytest.mark.parametrize("options", [{}, {"NEAR": True}, {"MAX_CONNECTIONS": 2}], ids=["plain", "near", "limited"])
def test_an_interrupt_leaves_no_lock(mortal, kind, work, options):
    """After an interrupt of ``acquire()`` or of a ``with`` block nobody holds the lock."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": options})

    interrupted, stayed = lost(cache, kind, work, INTERRUPTS)

    assert interrupted >= INTERRUPTS / 3
    assert stayed == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_an_interrupt_leaves_no_lock_on_a_cluster(valkey_cluster):
    """The node that gave the lock is asked to take it back."""
    cache = Cache(valkey_cluster.url(), {"KEY_PREFIX": "leftovers"})

    interrupted, stayed = lost(cache, TimeLimit, acquire, 50)

    assert interrupted >= 10
    assert stayed == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("work", [enter_and_leave, enter_and_work])
@pytest.mark.parametrize("kind", [TimeLimit, KeyboardInterrupt])
def test_an_interrupt_leaves_nothing_to_renew(mortal, kind, work):
    """After an interrupt nobody holds a lock that renews itself, and nothing renews it."""
    cache = Cache(mortal.tcp_url(), {"KEY_PREFIX": "renewed"})

    interrupted, stayed = lost(cache, kind, work, INTERRUPTS, timeout=60, renew=True)

    assert interrupted >= INTERRUPTS / 3
    assert stayed == 0
    assert renewals() == []


@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize("twice", [False, True])
async def test_a_cancelled_task_leaves_no_lock(mortal, twice, renew):
    """Tasks that are cancelled while they acquire, once or twice, leave no lock."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})

    async def work(number: int) -> None:
        async with cache.lock(f"lock{number}", blocking=False, timeout=60, renew=renew):
            await cache.aget("a")

    for _ in range(5):
        tasks = [asyncio.create_task(work(number)) for number in range(60)]
        for _ in range(2 if twice else 1):
            for task in random.sample(tasks, 50):
                await asyncio.sleep(random.choice((0, 0, 0.0001)))
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    deadline = time.monotonic() + PATIENCE
    while (left := await cache.akeys("lock*")) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert left == []
    assert renewals() == []


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("face", FACES)
async def test_a_lock_whose_reply_is_late_is_given_back(mortal, face, ignoring):
    """The server stands still and gives the lock after all: it is free soon after, without anybody asking."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": ignoring}}), face)
    beside = Cache(mortal.url())
    await cache.lock("other").acquire()  # which makes the server know the script
    before = acquisitions(beside)
    mortal.pause()

    found = await settled(cache.lock("lock").acquire())
    mortal.resume()
    until(lambda: acquisitions(beside) > before)  # the server may hear others first

    assert found is False if ignoring else isinstance(found, ServerTimeout)
    assert free(beside)
    time.sleep(0.1)
    assert free(beside, 0)


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("face", FACES)
async def test_a_lock_whose_release_is_lost_is_released_later(mortal, face, ignoring):
    """A release that the server cannot be asked for is made up for when it answers; the caller is told."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": ignoring}}), face)
    beside = Cache(mortal.url())
    first, second = cache.lock("lock"), cache.lock("other")
    assert await first.acquire() is await second.acquire() is True
    mortal.pause()

    found = [await settled(lock.release()) for lock in (first, second)]
    assert [await settled(first.release())][0].args[0].startswith("Cannot release")
    mortal.resume()

    assert all(error is None if ignoring else isinstance(error, redis.RedisError) for error in found)
    assert free(beside)
    until(lambda: not beside.has_key("other"))


async def test_cancelling_does_not_wait_for_a_silent_server(mortal):
    """A task that is cancelled while the server stands still ends at once; the lock is given back later."""
    cache, beside = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT}), Cache(mortal.url())
    await cache.aget("a")
    mortal.pause()
    task = asyncio.create_task(cache.lock("lock").aacquire())
    await asyncio.sleep(0.05)

    started = time.monotonic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    took = time.monotonic() - started
    mortal.resume()

    assert took < 1
    await asyncio.sleep(0.05)
    assert await asyncio.to_thread(free, beside)


def test_a_lock_whose_connection_broke_is_given_back(mortal, proxy):
    """The reply to an acquisition is lost with its connection."""
    cache, beside = Cache(proxy.url(), {"OPTIONS": PATIENT}), Cache(mortal.url())
    cache.get("a")
    proxy.cut_after(0)

    with pytest.raises(redis.ConnectionError):
        cache.lock("lock").acquire()
    assert free(beside)


def test_a_release_overtakes_no_acquisition(mortal, proxy):
    """What is still on its way when its caller gave up is given back when it has arrived."""
    late = Cache(proxy.url(), {"OPTIONS": {**HASTY, "client_name": "late"}})
    beside = Cache(mortal.url())
    late.lock("other").acquire()  # which makes the server know the script
    proxy.hold()

    with pytest.raises(ServerTimeout):
        late.lock("lock").acquire()
    time.sleep(0.3)
    assert free(beside, 0)
    before = acquisitions(beside)
    proxy.heal()

    until(lambda: acquisitions(beside) > before)
    assert free(beside)
    time.sleep(0.2)
    assert free(beside, 0)


def test_a_token_that_is_acquired_again_is_left_alone(mortal):
    """A caller that names the token and acquires again holds the lock; what was left over does not release it."""
    cache, beside = Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), Cache(mortal.url())
    cache.get("a")
    mortal.pause()
    with pytest.raises(ServerTimeout):
        cache.lock("lock").acquire(token="mine")
    mortal.resume()
    assert free(beside)

    wait_until_admitted(cache)
    lock = cache.lock("lock")
    assert lock.acquire(token="mine", blocking_timeout=2)
    time.sleep(0.3)

    assert lock.owned()


def test_a_child_leaves_its_parents_leftovers_alone(mortal):
    """A child that was forked while its parent gives locks back does neither that nor wait for the parent's threads."""
    cache, beside = Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), Cache(mortal.url())
    cache.get("a")
    mortal.pause()
    with pytest.raises(ServerTimeout):
        cache.lock("lock").acquire()

    def child() -> None:
        LEFTOVERS.forget(b"token")
        LEFTOVERS.end()
        assert LEFTOVERS.thread is None

    with next(iter(LEFTOVERS.all)).busy, LEFTOVERS.changing:  # as a thread might hold them
        pid = in_child(child)
    assert ended_well(pid)
    mortal.resume()
    assert free(beside)


def test_few_leftovers_are_remembered_and_their_thread_ends():
    """A crowd of leftovers costs bounded memory and one thread, which ends with them."""
    tried = 0

    def release() -> bool:
        nonlocal tried
        tried += 1
        return allowed

    allowed = False
    for number in range(2 * MOST):
        LEFTOVERS.add(Leftover(b"%d" % number, release, None))
    assert len(LEFTOVERS.all) <= MOST
    assert sum(thread.name == "fleetcache locks" for thread in threading.enumerate()) == 1
    allowed = True

    until(lambda: LEFTOVERS.thread is None)
    assert not LEFTOVERS.all
    assert tried >= MOST
