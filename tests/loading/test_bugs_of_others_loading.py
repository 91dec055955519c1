"""Bugs of other caches, by their reports: each shows that loading here does what was missing there.

Other tests, whose docstrings name a report, show the same of its bug.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from tests.caches import TRANSPORTS, own_prefix
from tests.django_settings import configure
from tests.faces import AWAITING, BLOCKING, Face, settled
from tests.loading.entries import called, put
from tests.loading.gates import Gated, calling, joined, two_processes, until
from tests.loading.test_leases import lease_of, waits

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import HerdClient, ShardClient
from fleetcache.django import RedisCache
from fleetcache.keys import lease_name
from fleetcache.loading.load import current_load
from fleetcache.testing.proxy import FaultProxy

configure()

SOFT = {"timeout": 60, "stale_while_revalidate": 600, "stale_if_error": 600}

one_face = pytest.mark.parametrize("face", [AWAITING])
"""Marks a test of what threads cannot do."""


@pytest.fixture(params=["valkey-tcp", "valkey-near", "memory"])
def url(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """A Valkey, the same with a near cache, and memory."""
    return lambda db=0: TRANSPORTS[request.param](request.getfixturevalue, db)


def fails() -> Any:
    raise LookupError("the database is away")


async def at_rest(cache: Face) -> None:
    """Wait until nothing is being loaded."""
    await until(lambda: not cache.whole._flights.running)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel *task*, and wait for its end."""
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def noted(seen: list[Any], call: Callable[..., Any], *args: Any) -> Any:
    """Return what *call* returns; note it before in *seen*."""
    seen.append(await call(*args))
    return seen[-1]


# --- limits of time -----------------------------------------------------------------------------------


@one_face
@pytest.mark.parametrize("end", ["fails", "skips"])
async def test_a_load_that_fails_after_its_callers_have_gone(make, end):
    """FusionCache #332: a timed-out factory that says later that it failed overwrites the value.  Its word counts."""
    cache, load = make(), Gated(LookupError("late") if end == "fails" else "late")
    load.during = lambda: current_load().skip() if end == "skips" else None
    await put(cache, "key", "old", fresh=-1000)

    assert await cache.get_or_set("key", load.aload, 60, stale_if_error=50, soft_timeout=0.01) == "old"
    assert cache.whole._flights.running  # the load goes on
    load.gate.set()
    await at_rest(cache)

    assert load.calls == 1
    assert await cache.get("key") is None
    assert await cache.get("key", stale=True) == "old"


@one_face
async def test_a_soft_timeout_of_the_first_call(make):
    """FusionCache #67: a soft timeout ignores the fallback on the first call.  A process uses what another has left."""
    one, two = two_processes(make)
    load, options = Gated("new", "first"), {"timeout": 60, "stale_if_error": 50, "soft_timeout": 0.01}
    await put(one, "key", "old", fresh=-1000)

    assert await two.get_or_set("key", load.aload, **options) == "old"
    assert two.whole._flights.running  # the load goes on
    without = calling(two, "get_or_set", "nothing old", load.aload, **options)
    await load.entered(2)
    load.gate.set()

    assert await without == "first"


async def test_the_first_look_counts(valkey):
    """FusionCache #534: time limits forget the first look at the server.  A slow look uses up the same deadline."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        cache, seen = Face(Cache(link.url(), {"KEY_PREFIX": own_prefix()}), AWAITING), []
        await put(cache, "key", "old", fresh=-1000)
        loads = Gated("made"), Gated("made")
        link.hold()
        strict = calling(cache, "get_or_set", "none", loads[0].aload, hard_timeout=0.05)
        lenient = calling(cache, "get_or_set", "key", loads[1].aload, 60, stale_if_error=50, soft_timeout=0.05)
        for caller, load in zip((strict, lenient), loads, strict=True):
            caller.add_done_callback(lambda caller, load=load: seen.append(load.calls))
        await asyncio.sleep(0.06)
        link.heal()

        assert isinstance(await settled(strict), TimeoutError)
        assert await lenient == "old"
        await until(lambda: len(seen) == 2)
        assert seen == [0, 0]  # neither waited for any part of his load
        for load in loads:
            load.gate.set()
        await at_rest(cache)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_a_first_look_that_never_ends(valkey, many):
    """FusionCache #534: time limits forget the first look at the server.  Where that hangs, a coroutine leaves it in time."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        cache, load = Cache(link.url(), {"KEY_PREFIX": own_prefix()}), Gated({"key": "made"}, opened=True)
        await cache.aset("other", 1)
        link.hold()

        async def call(**limit: Any) -> Any:
            if many:
                return await cache.aget_or_set_many(["key"], lambda keys: load(), **limit)
            return await cache.aget_or_set("key", load, **limit)

        hasty, patient = asyncio.create_task(call(hard_timeout=0.05)), asyncio.create_task(call())
        with pytest.raises(TimeoutError, match="not loaded in time"):
            await hasty
        assert load.calls == 0
        link.heal()  # long before the time limit of the connection

        assert await patient == {"key": "made"}
        assert load.calls == 1


async def test_the_first_look_of_a_batch_counts(valkey):
    """FusionCache #534, for a batch: its slow look uses up the same deadline."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        cache, load = Cache(link.url(), {"KEY_PREFIX": own_prefix()}), Gated({"key": "new"}, opened=True)
        await put(Face(cache, AWAITING), "key", "old", fresh=-1000)
        link.hold()
        options: Any = {"stale_if_error": 50, "soft_timeout": 0.05}
        task = asyncio.create_task(cache.aget_or_set_many(["key"], lambda keys: load(), 60, **options))
        await asyncio.sleep(0.06)
        link.heal()

        assert await task == {"key": "old"}
        await at_rest(Face(cache, AWAITING))


@one_face
async def test_a_deadline_is_one_callers_own(make):
    """Bucketeer #2552: the first caller's deadline fails all who share its load.  It ends the wait of that caller only."""
    cache, load = make(), Gated("made")
    hasty = calling(cache, "get_or_set", "key", load.aload, hard_timeout=0.05)
    await load.entered()
    patient = [calling(cache, "get_or_set", "key", load.aload) for _ in range(3)]
    await joined(cache, 3)

    assert isinstance(await settled(hasty), TimeoutError)
    load.gate.set()

    assert await asyncio.gather(*patient) == ["made"] * 3
    assert load.calls == 1
    assert await cache.get("key") == "made"


async def test_an_old_value_is_returned_without_a_wait(make):
    """Bentocache #103: a timeout of the lock overrides "serve stale at once".  Who may have the old value waits for no lease."""
    one, two = two_processes(make)
    await put(one, "key", "old", fresh=-1000)
    load, other = Gated("new"), Gated("other", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one), 60, stale_while_revalidate=50)
    await load.entered()

    for _ in range(3):
        assert await two.get_or_set("key", other.of(two), 60, stale_while_revalidate=50, wait=60) == "old"
    assert other.calls == two.whole.stats.waited == 0
    load.gate.set()
    assert await first in {"old", "new"}
    await at_rest(one)


# --- cancelled callers --------------------------------------------------------------------------------


@one_face
@pytest.mark.parametrize("when", ["loading", "waiting"])
async def test_a_cancelled_caller_is_no_error(make, when, caplog):
    """FusionCache #608: a caller's cancellation is logged as a failure of the lock.  It is neither logged nor counted."""
    caplog.set_level(logging.DEBUG, "fleetcache")
    one, two = two_processes(make)
    load = Gated("made")
    first = calling(one, "get_or_set", "key", load.aload)
    await load.entered()
    if when == "waiting":
        second = calling(two, "get_or_set", "key", load.aload)
        await waits(two)
        await ended(second)
        await at_rest(two)
    await ended(first)
    await at_rest(one)

    assert await two.get_or_set("key", lambda: "next", retry_after=60) == "next"
    assert [record.message for record in caplog.records if record.name == "fleetcache.loading"] == []
    assert one.whole.stats.load_errors == two.whole.stats.load_errors == 0


@one_face
async def test_who_comes_after_a_cancelled_waiter(make):
    """janos/singleflight #4: the first waiter to be cancelled removes the key.  While one waits, the next caller joins."""
    cache, load = make(), Gated("made")
    callers = [calling(cache, "get_or_set", "key", load.aload) for _ in range(3)]
    await load.entered()
    await joined(cache, 2)
    await ended(callers.pop(0))
    await ended(callers.pop(0))

    callers.append(calling(cache, "get_or_set", "key", load.aload))
    await joined(cache, 3)
    load.gate.set()

    assert await asyncio.gather(*callers) == ["made"] * 2
    assert load.calls == 1


@one_face
async def test_the_task_that_loads_is_cancelled(make):
    """odysseus #6173: the owner is cancelled, and the future stays pending for ever.  The others elect one new leader."""
    cache, load = make(), Gated("never", "made")
    callers = [calling(cache, "get_or_set", "key", load.aload) for _ in range(4)]
    await load.entered()
    await joined(cache, 3)
    (flight,) = cache.whole._flights.running.values()

    flight.task.cancel()
    await load.entered(2)
    load.gate.set()

    found = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["made"] * 3
    assert load.calls == 2
    assert cache.whole._flights.running == {}


async def test_a_caller_who_is_cancelled_while_he_asks_for_the_lease(valkey):
    """rueidis PR#1010: the clean-up overtakes a queued acquire.  Releasing comes after it: no lease is left behind."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        cache, load = Face(Cache(link.url(), {"KEY_PREFIX": own_prefix()}), AWAITING), Gated("made", opened=True)
        await cache.get_or_set("other", load.aload)  # from now on the server knows the scripts
        opened = cache.whole._flights.open
        cache.whole._flights.open = lambda flight: (link.hold(), opened(flight))[1]
        caller = calling(cache, "get_or_set", "key", load.aload)
        await until(lambda: [flight for flight in cache.whole._flights.running.values() if flight.asks])
        await ended(caller)
        await at_rest(cache)
        cache.whole._flights.open = opened
        link.heal()

        assert await asyncio.wait_for(cache.get_or_set("key", load.aload, wait=60), 5) == "made"
        assert load.calls == 2
        with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
            await until(lambda: raw.get(lease_name(cache.name("key"))) is None)


async def test_a_cancellation_is_never_kept(make):
    """docker-agent PR#3206: a cancellation is cached for the whole TTL.  Nor is it a failure after which retry_after has all wait."""
    one, two = two_processes(make)
    load = Gated(asyncio.CancelledError(), opened=True)

    with pytest.raises(asyncio.CancelledError):
        await one.get_or_set("key", load.of(one), retry_after=60)

    for cache in (one, two):
        assert await cache.get_or_set("key", lambda: "made", retry_after=60) == "made"
        await cache.delete("key")


@one_face
async def test_a_failure_that_nobody_waits_for(make):
    """cashews #144: "Future exception was never retrieved".  The failure of a load that all have left is retrieved."""
    cache, load, complaints = make(), Gated(LookupError("late")), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    callers = [calling(cache, "get_or_set", "key", load.aload, hard_timeout=0.05) for _ in range(2)]
    assert [type(await settled(caller)) for caller in callers] == [TimeoutError] * 2
    load.gate.set()
    await at_rest(cache)
    callers.clear()
    load.values.clear()  # with the tracebacks, which lead to the task of the load
    await asyncio.sleep(0)
    gc.collect()

    assert load.calls == 1
    assert complaints == []
    assert cache.whole.stats.load_errors == 1


# --- what ends a load ---------------------------------------------------------------------------------


async def test_clearing_as_a_load_ends(make):
    """async-lru #503: a cache is cleared just before a load is done, which raises KeyError.  Either may come first."""
    cache, load = make(), Gated("cleared", "new", opened=True)
    load.during = lambda: cache.whole.clear() if load.calls == 1 else None

    assert await cache.get_or_set("key", load.of(cache)) == "cleared"
    assert cache.whole._flights.running == {}
    assert await cache.get_or_set("key", load.of(cache)) == "new"
    assert await cache.get("key") == "new"


@pytest.mark.parametrize("there", [True, False], ids=["an old value", "no value"])
async def test_a_superseded_load_leaves_its_successor(make, there):
    """Caffeine 7b8e99130, f954d46f6: a superseded refresh removes its successor's entry in the table.  Each removes its own."""
    cache = make()
    old, new = Gated("superseded"), Gated("new")
    if there:
        await put(cache, "key", "old", fresh=-1000)
    first = calling(cache, "get_or_set", "key", old.of(cache), **SOFT)
    await old.entered()
    await cache.delete("key")
    second = calling(cache, "get_or_set", "key", new.of(cache), **SOFT)
    await new.entered()
    (successor,) = cache.whole._flights.running.values()

    old.gate.set()
    await first
    await until(lambda: cache.whole.stats.fills_refused)
    assert list(cache.whole._flights.running.values()) == [successor]
    third = calling(cache, "get_or_set", "key", new.of(cache), **SOFT)
    await until(lambda: len(successor.waiting) > (cache.face == AWAITING))
    new.gate.set()

    assert [await second, await third] == ["new", "new"]
    assert new.calls == 1
    assert await cache.get("key") == "new"


async def test_who_had_joined_a_load_that_was_invalidated(make):
    """otter #137: a caller of an invalidated load gets an empty value and no error.  All who had joined get the loaded one."""
    cache, load = make(), Gated({"made": 1})
    callers = [calling(cache, "get_or_set", "key", load.of(cache))]
    await load.entered()
    looked = []
    for each in (cache.whole, cache.whole._still):
        object.__setattr__(each, "_look_at_lease", partial(noted, looked, each._look_at_lease))
    callers += [calling(cache, "get_or_set", "key", load.of(cache)) for _ in range(3)]
    await until(lambda: len(looked) == 3)  # each has seen that the load still stands
    await cache.delete("key")
    load.gate.set()

    assert await asyncio.gather(*callers) == [{"made": 1}] * 4
    assert load.calls == 1


async def test_a_name_is_free_when_its_value_can_be_seen(make):
    """otter #152: the slot is free before the value is visible, so it is loaded twice.  Store, publish, then free the name."""
    cache = make()
    flights, seen = cache.whole._flights, []
    detach = flights.detach

    def detached(flight: Any) -> None:
        name = cache.name("key")
        (payload,) = cache.topology.home(name).exchange(((c.GET_NOW, name),))
        seen.append((flights.running.get(name) is flight, payload is not None, flight.outcome is not None))
        detach(flight)

    flights.detach = detached
    await cache.get_or_set("key", lambda: "made")
    assert seen[0] == (True, True, True)


async def test_who_looked_too_early_looks_again(make):
    """otter #152: who missed just before a value was stored loads it again.  With the lease in hand he looks once more."""
    one, two = two_processes(make)
    flights, load = one.whole._flights, Gated("loaded again", opened=True)
    opened = flights.open

    def late(flight: Any) -> Any:
        two.whole.set("key", "stored")
        return opened(flight)

    flights.open = late

    assert await one.get_or_set("key", load.of(one)) == "stored"
    assert load.calls == 0


async def test_none_is_not_stored_over_what_was_created(make):
    """cacheops #478: "does not exist" is stored after the row was created.  A missing result obeys the lease like any other."""
    one, two = two_processes(make)
    for create in (lambda: two.delete("key"), lambda: two.set("key", "created"), lambda: two.invalidate_tags("rows")):
        load = Gated(None)
        first = calling(one, "get_or_set", "key", load.of(one), absent_for=60, tags=["rows"])
        await load.entered()
        await create()
        load.gate.set()

        assert await first in {None, "created"}
        assert await two.get_or_set("key", lambda: "created", tags=["rows"]) == "created"
        await two.delete("key")


async def test_a_hard_invalidation_ends_what_could_be_spared(make):
    """FusionCache #648: fail-safe serves an expired value after Clear(no fail-safe).  No level keeps it after a hard one."""
    one, two = two_processes(make)
    for give_up in (
        lambda: two.clear(),
        lambda: two.delete("key"),
        lambda: two.invalidate("key"),
        lambda: two.invalidate_tags("all"),
        lambda: two.delete_pattern("k*"),
    ):
        assert await one.get_or_set("key", lambda: "old", tags=["all"], **SOFT) == "old"
        await one.invalidate("key", soft=True)
        assert await one.get("key", stale=True) == "old"
        await give_up()
        if one.whole.near is not None:
            await one.fence()

        assert await one.get("key", stale=True) is None
        assert isinstance(await settled(one.get_or_set("key", fails, tags=["all"], **SOFT)), LookupError)


# --- leases -------------------------------------------------------------------------------------------


async def test_a_holder_that_dies(make):
    """django-redis-cache #128, #149 and Symfony #59191: a lock without an end blocks all for ever.  Every lease ends."""
    one, two = two_processes(make)
    name, load, held = one.name("key"), Gated("made", opened=True), []
    question = ((c.GET_NOW, lease_name(name)), (c.PTTL_NOW, lease_name(name)))
    load.during = lambda: held.extend(one.topology.home(name).exchange(question))
    dead = await called(one, "_take_lease", name, ("", b""), "dead", 0.1)
    assert dead.word == "mine"
    assert 0 < one.topology.home(name).exchange(question)[1] <= 1000

    callers = [calling(two, "get_or_set", "key", load.of(two)) for _ in range(3)]

    assert await asyncio.wait_for(asyncio.gather(*callers), 5) == ["made"] * 3
    assert load.calls == 1
    assert held[0].startswith(dead.generation)  # taken over, before the server had forgotten it
    assert held[1] > 0
    assert await lease_of(two, "key") is None


async def test_a_lease_is_released_by_its_holder_only(make):
    """cashews 7.6: unlocking deletes whoever's lock.  A leader who is late, and fails, leaves the lease of who took over."""
    one, two = two_processes(make)
    late, next_one = Gated(LookupError("late")), Gated("made")
    first = calling(one, "get_or_set", "key", late.of(one), lease=0.05)
    await late.entered()
    second = calling(two, "get_or_set", "key", next_one.of(two), wait=60)
    await next_one.entered()
    held = await lease_of(two, "key")
    late.gate.set()

    assert isinstance(await settled(first), LookupError)
    assert held is not None
    assert await lease_of(two, "key") == held
    next_one.gate.set()
    assert await second == "made"
    assert await one.get("key", fresh=True) == "made"


@pytest.mark.parametrize("face", [BLOCKING])
async def test_another_thread_releases_the_lease(make):
    """dogpile.cache #171: a lock's token is in a thread-local, so another thread cannot release it.  It is the flight's."""
    cache, threads = make(), []
    await put(cache, "key", "old", fresh=-1000)

    def renew(work: Callable[[], Any]) -> None:
        threads.append(threading.Thread(target=contextvars.copy_context().run, args=(work,)))

    def load() -> str:
        inner = threading.Thread(target=lambda: held.append(cache.whole.topology.home(name).exchange(question)[0]))
        inner.start()
        inner.join()
        return "new"

    name, held = cache.name("key"), []
    question = ((c.GET_NOW, lease_name(name)),)
    assert await cache.get_or_set("key", load, **SOFT, renew=renew) == "old"
    threads[0].start()
    threads[0].join()

    assert held[0] is not None
    assert await lease_of(cache, "key") is None
    assert await cache.get("key") == "new"


async def test_loads_of_other_names_do_not_meet(make):
    """Laravel PR#60626: a refresh is dropped because its lock has the name of another.  Prefix, version and key tell loads apart."""
    one, two = make(), make()
    loads = [Gated("a"), Gated("b"), Gated("c"), Gated("d")]
    places: list[tuple[Face, dict[str, Any]]] = [(one, {}), (one, {"version": 2}), (two, {}), (two, {"version": 2})]
    callers = [
        calling(cache, "get_or_set", "key", load.of(cache), **more, tags=["x"])
        for load, (cache, more) in zip(loads, places, strict=True)
    ]
    for load in loads:
        await load.entered()  # all at once
    await one.invalidate_tags("x", version=2)
    for load in loads:
        load.gate.set()

    assert await asyncio.gather(*callers) == ["a", "b", "c", "d"]
    assert [await cache.get("key", **more) for cache, more in places] == ["a", None, "c", "d"]


# --- what is stored -----------------------------------------------------------------------------------


async def test_value_and_age_are_one_entry(valkey, face):
    """Laravel #52847: a value and its creation time are two keys; one is forgotten, and callers get null.  Here they are one."""
    cache = Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()}), face)
    await cache.get_or_set("key", lambda: "old", **SOFT)
    with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
        assert list(raw.scan_iter(f"{cache.key_prefix}*")) == [cache.name("key").encode()]
        raw.delete(cache.name("key"))

    assert await cache.get_or_set("key", lambda: "new", **SOFT) == "new"


KINDS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda server: Cache(server.tcp_url(), {"KEY_PREFIX": own_prefix()}),
    "django": lambda server: RedisCache(server.tcp_url(), {"KEY_PREFIX": own_prefix()}),
    "herd": lambda server: HerdClient(server.tcp_url(), {"KEY_PREFIX": own_prefix()}),
    "shards": lambda server: ShardClient([server.tcp_url(5), server.tcp_url(6)], {"KEY_PREFIX": own_prefix()}),
    "near": lambda server: Cache(server.tcp_url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {"NEAR": True}}),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_cache_has_every_operation(valkey, face, kind):
    """Laravel #55700: a memoised store lacks `lock`.  No kind of cache lacks an operation of loading, tags or locks."""
    cache = Face(KINDS[kind](valkey), face)

    assert await cache.get_or_set("a", lambda: 1, tags=["x"]) == 1
    assert await cache.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 2)) == {"a": 1, "b": 2}
    assert (await cache.lookup("a")).value == 1
    async with cache.lock("lock", timeout=5):
        assert await cache.invalidate_tags("x") == 1
    assert await cache.get("a", stale=True) is None
    assert await cache.invalidate("b", soft=True) is True
