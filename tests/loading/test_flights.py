"""Loads in one process: callers of both faces join them, and none pays for another."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import traceback
from typing import Any

import pytest
from tests.caches import own_prefix
from tests.faces import AWAITING, BLOCKING, Face, settled
from tests.loading.gates import Gated, calling, joined, until

from fleetcache import Cache

TOGETHER = 5


@pytest.fixture
def whole() -> Cache:
    """A cache that needs no server."""
    return Cache("memory://flights", {"KEY_PREFIX": own_prefix()})


@pytest.fixture
def memory(whole: Cache, face: str) -> Face:
    """The same, one face after the other."""
    return Face(whole, face)


async def test_one_load(cache):
    """Callers at the same time get the value of one load, each a list of his own."""
    load = Gated([1])
    callers = [calling(cache, "get_or_set", "key", load.of(cache)) for _ in range(TOGETHER)]
    await load.entered()
    await joined(cache, TOGETHER - 1)
    load.gate.set()

    values = await asyncio.gather(*callers)

    assert values == [[1]] * TOGETHER
    assert len({id(value) for value in values}) == TOGETHER
    assert load.calls == 1
    assert cache.whole._flights.running == {}
    assert await cache.get("key") == [1]


async def test_threads_and_tasks_join_each_other(whole):
    """A thread waits for the load of a task, and a task for that of a thread."""
    for leads, joins in ((AWAITING, BLOCKING), (BLOCKING, AWAITING)):
        leader, other = Face(whole, leads), Face(whole, joins)
        load, before = Gated("made"), whole.stats.joined
        first = calling(leader, "get_or_set", leads, load.of(leader))
        await load.entered()
        second = calling(other, "get_or_set", leads, load.of(other))
        await until(lambda before=before: whole.stats.joined > before)
        load.gate.set()

        assert [await first, await second] == ["made", "made"]
        assert load.calls == 1


async def test_an_error_goes_to_all_who_joined(memory):
    """It is stored nowhere, and its traceback does not grow with each caller."""
    error = LookupError("nothing there")
    load = Gated(error)
    callers = [calling(memory, "get_or_set", "key", load.of(memory)) for _ in range(TOGETHER)]
    await load.entered()
    await joined(memory, TOGETHER - 1)
    load.gate.set()

    found = [await settled(caller) for caller in callers]

    assert [(type(each), each.args) for each in found] == [(LookupError, error.args)] * TOGETHER
    assert load.calls == 1
    assert len(traceback.extract_tb(error.__traceback__)) < 25
    assert memory.whole.stats.load_errors == 1
    assert await memory.get_or_set("key", lambda: "made") == "made"


@pytest.mark.parametrize("value", [None, 5, "text", (1, 2), {"a": [1]}])
async def test_what_joined_callers_get(memory, value):
    """A joined caller gets an equal value, whatever its type."""
    load = Gated(value)
    callers = [calling(memory, "get_or_set", "key", load.of(memory)) for _ in range(2)]
    await joined(memory, 1)
    load.gate.set()

    assert await asyncio.gather(*callers) == [value, value]


async def test_a_cancelled_waiter_is_alone(whole):
    """Whoever is cancelled leaves, the first caller too; the load goes on for the others.

    cashews 7.6: waiters await one task without a shield, and one's cancellation cancels all.
    """
    cache, load = Face(whole, AWAITING), Gated("made")
    callers = [calling(cache, "get_or_set", "key", load.aload) for _ in range(3)]
    await load.entered()
    await joined(cache, 2)

    callers[0].cancel()
    callers[2].cancel()
    assert isinstance((await asyncio.gather(callers[0], return_exceptions=True))[0], asyncio.CancelledError)
    load.gate.set()

    assert await callers[1] == "made"
    assert load.calls == 1


async def test_the_last_waiter_takes_the_load_along(whole):
    """Nobody joins a load that is being cancelled, and its lease is free for the next one.

    async-lru PR#697, PR#708 and RisingWave PR#3912: the last waiter has gone, and the work goes on for ever.
    Tailscale #18919: a new caller joins a flight that is cancelled already.
    """
    cache, load = Face(whole, AWAITING), Gated("made")
    caller = calling(cache, "get_or_set", "key", load.aload)
    await load.entered()
    (flight,) = whole._flights.running.values()
    seen: list[Any] = []
    flight.abandon = lambda abandon=flight.abandon: (seen.append(dict(whole._flights.running)), abandon())

    caller.cancel()
    await asyncio.wait((caller,))
    assert seen == [{}]
    await until(lambda: flight.outcome is not None)
    assert flight.task.cancelled()

    assert await cache.get_or_set("key", lambda: "next") == "next"


async def test_a_thread_keeps_the_load_of_a_cancelled_task(whole):
    """A waiting thread counts as much as a waiting task."""
    tasks, threads, load = Face(whole, AWAITING), Face(whole, BLOCKING), Gated("made")
    first = calling(tasks, "get_or_set", "key", load.aload)
    await load.entered()
    second = calling(threads, "get_or_set", "key", load)
    await joined(threads, 1)

    first.cancel()
    load.gate.set()

    assert await second == "made"
    assert load.calls == 1


@pytest.mark.parametrize("end", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_loader_that_ends_its_caller(whole, end):
    """It ends nobody else: one of the others loads."""
    cache, load = Face(whole, BLOCKING), Gated(end(), "made")
    ended: list[BaseException] = []

    def lead() -> None:
        try:
            whole.get_or_set("key", load)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=lead)
    thread.start()
    await load.entered()
    others = [calling(cache, "get_or_set", "key", load) for _ in range(3)]
    await joined(cache, 3)
    load.gate.set()

    assert await asyncio.gather(*others) == ["made"] * 3
    thread.join()
    assert [type(error) for error in ended] == [end]
    assert load.calls == 2


async def test_a_coroutine_that_ends_in_a_cancellation(whole):
    """Its caller hears of it; the others elect another leader, and are not cancelled.

    Elasticsearch PR#157457: a cancelled search fails others.  async_singleflight #12: many new leaders.  RisingWave PR#3911:
    the leader is dropped, and its followers wait for ever.
    """
    cache, load = Face(whole, AWAITING), Gated(asyncio.CancelledError(), "made")
    callers = [calling(cache, "get_or_set", "key", load.aload) for _ in range(4)]
    await load.entered()
    await joined(cache, 3)
    load.gate.set()

    found = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["made"] * 3
    assert load.calls == 2


async def test_the_loader_has_the_callers_context(memory):
    """The first caller's context variables are there, in a task as in a thread.

    HybridCache #5568: the loader runs without its caller's ambient context.
    """
    who = contextvars.ContextVar("who", default="nobody")
    who.set("caller")

    async def aload() -> str:
        return who.get()

    assert await memory.get_or_set("key", aload if memory.face == AWAITING else who.get) == "caller"


# --- waiting that would never end -----------------------------------------------------------------


async def test_a_loader_of_its_own_name(memory):
    """It loads, and does not wait for itself.

    Symfony #59191: a holder that needs its own lock waits for ever.
    """
    if memory.face == AWAITING:

        async def load() -> Any:
            return ["outer", await memory.get_or_set("key", lambda: "inner")]
    else:

        def load() -> Any:
            return ["outer", memory.whole.get_or_set("key", lambda: "inner")]

    assert await asyncio.wait_for(calling(memory, "get_or_set", "key", load), 3) == ["outer", "inner"]
    assert await memory.get("key") == ["outer", "inner"]


async def test_loaders_that_wait_for_each_other(memory):
    """One of them loads by itself; the other returns what is stored by then, as everybody does whose load is overtaken."""
    both = threading.Barrier(2)

    def loader(mine: str, other: str) -> Any:
        async def aload() -> Any:
            started.append(mine)
            while len(started) < 2:
                await asyncio.sleep(0.001)
            return [mine, await memory.get_or_set(other, lambda: "short")]

        def load() -> Any:
            both.wait(5)
            return [mine, memory.whole.get_or_set(other, lambda: "short")]

        return aload if memory.face == AWAITING else load

    started: list[str] = []
    callers = [calling(memory, "get_or_set", mine, loader(mine, other)) for mine, other in ("ab", "ba")]
    values = await asyncio.wait_for(asyncio.gather(*callers), 4)

    assert values == [await memory.get("a"), await memory.get("b")]
    assert values in (["short", ["b", "short"]], [["a", "short"], "short"])
    assert memory.whole._flights.running == {}


async def test_a_blocking_call_on_a_loops_thread(whole):
    """It does not wait for a task of that loop, which could not go on meanwhile."""
    load = Gated("task")
    task = calling(Face(whole, AWAITING), "get_or_set", "key", load.aload)
    await load.entered()

    assert whole.get_or_set("key", lambda: "blocking") == "blocking"

    load.gate.set()
    assert await task in {"task", "blocking"}


async def test_a_loop_that_ends_with_a_load(whole):
    """A thread that waits for a task of a closed loop loads by itself."""
    load, other = Gated("task"), Gated("thread", opened=True)
    loop = asyncio.new_event_loop()
    stopped = threading.Event()

    def run() -> None:
        task = loop.create_task(whole.aget_or_set("key", load.aload))
        loop.run_until_complete(load.entered())
        stopped.wait(5)
        task._log_destroy_pending = False
        for each in asyncio.all_tasks(loop):
            each._log_destroy_pending = False
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    await load.entered()
    waiting = calling(Face(whole, BLOCKING), "get_or_set", "key", other)
    await until(lambda: whole.stats.joined)
    stopped.set()

    assert await asyncio.wait_for(waiting, 5) == "thread"
    thread.join()


# --- what the process does --------------------------------------------------------------------------


def test_a_fork_empties_the_table(whole):
    """A child does not wait for leaders that are in the parent."""
    load = Gated("made")
    thread = threading.Thread(target=whole.get_or_set, args=("key", load))
    thread.start()
    while not load.calls:
        pass
    pid = os.fork()
    if pid == 0:
        os._exit(0 if whole._flights.running == {} else 1)
    load.gate.set()
    thread.join()

    assert os.waitpid(pid, 0)[1] == 0


async def test_waiting_holds_no_connection(valkey):
    """Ten threads that wait need no more connections than there are.

    cashews #127: waiters hold the connections of the pool, and the holder cannot release its lock.
    """
    whole = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {"MAX_CONNECTIONS": 5}})
    cache, load = Face(whole, BLOCKING), Gated("made")
    callers = [calling(cache, "get_or_set", "key", load)]
    await load.entered()
    for count in range(1, 10):
        callers.append(calling(cache, "get_or_set", "key", load))
        await joined(cache, count)

    assert whole.get("other") is None
    load.gate.set()
    assert await asyncio.gather(*callers) == ["made"] * 10


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_leaves_nothing_behind(whole):
    """An exception at any line of the library leaves no flight in the table."""
    import sys

    class Bang(BaseException):
        pass

    at, lines = 1, 10_000
    while at < lines:
        count = 0

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal count
            if "fleetcache/loading" not in frame.f_code.co_filename:
                return None
            if event == "line":
                count += 1
                if count == at:
                    raise Bang
            return trace

        sys.settrace(trace)
        try:
            whole.get_or_set(f"key{at}", lambda: "made")
            lines = 0
        except Bang:
            pass
        finally:
            sys.settrace(None)
        assert whole._flights.running == {}, at
        at += 1
    assert at > 100


# --- several caches -------------------------------------------------------------------------------------


async def test_a_loader_may_ask_another_cache_for_the_same_key(face):
    """A small cache before a large one: what the inner call loads is stored there, for the outer one to find again."""
    small, large = (Face(Cache(f"memory://{own_prefix()}"), face) for _ in range(2))
    load = Gated("made", opened=True)

    async def aload():
        return await large.whole.aget_or_set("key", load.of(large))

    async def aload_many(keys):
        return await large.whole.aget_or_set_many(keys, lambda keys: dict.fromkeys(keys, load()))

    def load_many(keys):
        return large.whole.get_or_set_many(keys, lambda keys: dict.fromkeys(keys, load()))

    for _ in range(2):
        await small.clear()
        outer = aload if face == AWAITING else lambda: large.whole.get_or_set("key", load)
        assert await small.get_or_set("key", outer) == "made"
        outer_many = aload_many if face == AWAITING else load_many
        assert await small.get_or_set_many(["a", "b"], outer_many) == {"a": "made", "b": "made"}

    assert await large.get_many(["key", "a", "b"]) == {"key": "made", "a": "made", "b": "made"}
    assert load.calls == 2


async def test_a_loader_may_ask_a_cache_of_other_settings_for_its_own_key(face):
    """Nobody waits for the lease of the load that he is part of, whichever cache has taken it."""
    location = f"memory://{own_prefix()}"
    one, other = Face(Cache(location), face), Cache(location, {"TIMEOUT": 77})
    options = {"lease": 30, "wait": 30}

    async def aload():
        return await other.aget_or_set("key", lambda: "made", 60, **options)

    async def aload_many(keys):
        return await other.aget_or_set_many(keys, lambda keys: dict.fromkeys(keys, "made"), 60, **options)

    def load():
        return other.get_or_set("key", lambda: "made", 60, **options)

    def load_many(keys):
        return other.get_or_set_many(keys, lambda keys: dict.fromkeys(keys, "made"), 60, **options)

    async with asyncio.timeout(5):
        assert await one.get_or_set("key", aload if face == AWAITING else load, 60, **options) == "made"
        loads = aload_many if face == AWAITING else load_many
        assert await one.get_or_set_many(["a"], loads, 60, **options) == {"a": "made"}


class Unreadable:
    """Pickle can store it, but not make one of what it has stored."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_a_value_that_cannot_be_read_again_is_returned_to_all_who_joined(memory):
    """A value that was made fails no caller, if only its loader's copy can be had."""
    made = Unreadable()
    load = Gated(made)
    callers = [calling(memory, "get_or_set", "key", load.of(memory)) for _ in range(TOGETHER)]
    await load.entered()
    await joined(memory, TOGETHER - 1)
    load.gate.set()

    assert await asyncio.gather(*callers) == [made] * TOGETHER


class Counting(Cache):
    """As a class that counts hits for a monitor: neither face of get_or_set calls these."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return super().get(*args, **kwargs)

    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_many(*args, **kwargs)


class Overriding(Cache):
    """A class with an operation that get_or_set is built on."""

    async def aget(self, *args: Any, **kwargs: Any) -> Any:
        return await super().aget(*args, **kwargs)


async def test_a_class_that_overrides_blocking_reads_shares_loads():
    """What get_or_set does not call does not decide how it loads."""
    assert Counting.shares_loads and Counting._shares_batches
    assert not Overriding.shares_loads
