"""get_or_set_many: one read, one call of the loader for all that this caller may load, and no deadlocks."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from tests.caches import own_prefix
from tests.faces import AWAITING, BLOCKING, Face, settled
from tests.loading.entries import put
from tests.loading.gates import SOON, Gated, calling, joined, two_processes, until

from fleetcache import Cache, stats
from fleetcache.client import HerdClient
from fleetcache.errors import LoadFailed
from fleetcache.loading.load import current_load
from fleetcache.policy import Policy
from fleetcache.stats import tally

MANY = [f"key {number}" for number in range(20)]


class Batches(Gated):
    """A loader of many that makes texts of keys, each call when its gate is open; keys in *lacks* have no value."""

    def __init__(self, name: str = "made", *, lacks: tuple[Any, ...] = (), opened: bool = True) -> None:
        super().__init__(name, opened=opened)
        self.lacks = lacks
        self.asked: list[list[Any]] = []

    def _keep(self, keys: list[Any], name: Any) -> Any:
        return {key: f"{name} {key}" for key in keys if key not in self.lacks}

    def __call__(self, keys: list[Any]) -> Any:  # type: ignore[override]
        self.asked.append(keys)
        return self._keep(keys, super().__call__())

    async def aload(self, keys: list[Any]) -> Any:  # type: ignore[override]
        self.asked.append(keys)
        return self._keep(keys, await super().aload())


@pytest.fixture
def whole() -> Cache:
    """A cache that needs no server."""
    return Cache("memory://many", {"KEY_PREFIX": own_prefix()})


@pytest.fixture
def memory(whole: Cache, face: str) -> Face:
    """The same, one face after the other."""
    return Face(whole, face)


class Deadline(BaseException):
    """What a time limit of a task queue raises, for example."""


# --- what is returned and stored ----------------------------------------------------------------------


async def test_the_missing_are_loaded_together(cache):
    """What is there is not loaded; what is not is loaded by one call, and stored for the timeout."""
    load = Batches()
    await cache.set_many({"key 3": "there", "key 7": None}, 100)

    found = await cache.get_or_set_many(MANY, load.of(cache), 200)

    assert found == {key: f"made {key}" for key in MANY} | {"key 3": "there", "key 7": None}
    assert list(found) == MANY
    assert load.asked == [[key for key in MANY if key not in {"key 3", "key 7"}]]
    assert await cache.get_many(MANY) == found
    assert 199 <= await cache.ttl("key 1") <= 200
    assert 99 <= await cache.ttl("key 3") <= 100
    assert cache.whole._flights.running == {}


async def test_nothing_is_loaded_if_all_are_there(cache):
    """The result is that of get_many."""
    await cache.set_many({"a": 1, "b": [2], "c": None})

    assert await cache.get_or_set_many(["c", "a", "b"], Batches().of(cache)) == {"c": None, "a": 1, "b": [2]}
    assert await cache.get_or_set_many([], Batches().of(cache)) == {}


async def test_keys_of_all_kinds(cache):
    """Keys may come once, from an iterator, twice, or be numbers: the loader gets each once, as it was given."""
    load = Batches()

    assert await cache.get_or_set_many(iter([1, "b", 1, "b"]), load.of(cache)) == {1: "made 1", "b": "made b"}
    assert load.asked == [[1, "b"]]
    assert await cache.get_or_set_many([1], load.of(cache), version=2) == {1: "made 1"}
    assert await cache.get_many([1, "b"]) == {1: "made 1", "b": "made b"}
    assert await cache.get(1, version=2) == "made 1"


async def test_a_key_that_the_loader_leaves_out_is_missing(cache):
    """It is not in the result, nothing is stored for it, and nobody has to wait for its lease."""
    load = Batches(lacks=("b",))

    assert await cache.get_or_set_many(["a", "b", "c"], load.of(cache), lease=60, wait=50) == {
        "a": "made a",
        "c": "made c",
    }
    assert await cache.get("b", "missing") == "missing"
    assert await cache.get_or_set("b", lambda: "made alone") == "made alone"
    assert await cache.get_or_set_many(["x"], Batches(lacks=("x",)).of(cache)) == {}


async def test_values_that_were_not_asked_for_are_ignored(cache):
    """A loader may return more than it was asked for; only what was asked for is returned and stored."""
    assert await cache.get_or_set_many(["a"], lambda keys: {"a": 1, "other": 2}) == {"a": 1}
    assert await cache.get("other") is None


@pytest.mark.parametrize("made", [[1, 2], None, "ab", {("a", 1)}], ids=["list", "None", "text", "set"])
async def test_a_loader_of_many_returns_a_mapping(memory, made):
    """Anything else is a clear error, with the loader's name; nothing is stored."""

    def load_profiles(keys):
        return made

    with pytest.raises(TypeError, match=r"load_profiles\(\) has to return a mapping of keys to values, not"):
        await memory.get_or_set_many(["a", "b"], load_profiles)
    assert await memory.get_many(["a", "b"]) == {}
    assert await memory.get_or_set_many(["a"], Batches().of(memory), wait=0.5) == {"a": "made a"}


async def test_keys_of_another_kind_are_a_clear_error(memory):
    """A loader whose keys are texts where numbers were asked for would load for ever, and never store."""
    with pytest.raises(ValueError, match="for none of the keys that it was given; its keys are of type str, not int"):
        await memory.get_or_set_many([1, 2], lambda keys: {str(key): key for key in keys})


async def test_a_coroutine_function_needs_the_a_method(whole):
    """The blocking face says so, as get_or_set does."""

    async def load(keys):
        return {}

    with pytest.raises(TypeError, match="use the a-method"):
        whole.get_or_set_many(["a"], load)


async def test_an_unreadable_entry_is_replaced(memory):
    """It counts as missing."""
    memory.topology.primaries[0].exchange((("SET", memory.make_key("a"), b"\x80\x05broken"),))

    assert await memory.get_or_set_many(["a", "b"], Batches().of(memory)) == {"a": "made a", "b": "made b"}
    assert await memory.get("a") == "made a"


async def test_a_timeout_of_nothing_stores_nothing(memory):
    """The values are returned all the same."""
    assert await memory.get_or_set_many(["a", "b"], Batches().of(memory), 0) == {"a": "made a", "b": "made b"}
    assert await memory.get_many(["a", "b"]) == {}


async def test_a_value_that_cannot_be_stored(memory, caplog):
    """It is returned all the same, and the others are stored."""
    function = lambda: 1  # noqa: E731

    assert await memory.get_or_set_many(["a", "b"], lambda keys: {"a": 1, "b": function}) == {"a": 1, "b": function}
    assert await memory.get_many(["a", "b"]) == {"a": 1}
    assert "not stored" in caplog.text


# --- how much is asked --------------------------------------------------------------------------------


@pytest.fixture
def heard():
    """The commands of each exchange, by name."""
    exchanges: list[list[str]] = []
    end = stats.listen(lambda exchange: exchanges.append([bytes(command[0]).decode() for command in exchange.commands]))
    yield exchanges
    end()


async def test_three_exchanges(heard, valkey, face):
    """One read, one write for all leases, one write for all values; one read if all are there."""
    cache = Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()}), face)
    await cache.get_or_set_many(["learn the scripts"], Batches().of(cache))
    heard.clear()

    await cache.get_or_set_many(MANY, Batches().of(cache))

    assert [set(commands) for commands in heard] == [{"MGET"}, {"EVALSHA"}, {"EVALSHA"}]
    assert len(heard[0]) == 1
    assert len(heard[1]) == len(MANY) + 1  # the epoch
    assert len(heard[2]) == len(MANY)
    heard.clear()
    await cache.get_or_set_many(MANY, Batches().of(cache))
    assert heard == [["MGET"]]


async def test_one_call_counts_as_one_load(memory):
    """info() counts calls of loaders."""
    before = memory.whole.stats.loads

    await memory.get_or_set_many(MANY, Batches().of(memory))

    assert memory.whole.stats.loads == before + 1


# --- several callers ----------------------------------------------------------------------------------


async def test_what_is_free_is_loaded_before_waiting(cache):
    """Who needs keys that another caller of the process is loading loads the others first, then waits."""
    first, second = Batches("first", opened=False), Batches("second")
    one = calling(cache, "get_or_set_many", ["a", "b"], first.of(cache))
    await first.entered()

    two = calling(cache, "get_or_set_many", ["b", "c"], second.of(cache))
    await second.entered()  # while the first still loads
    await joined(cache, 1)
    first.gate.set()

    assert await one == {"a": "first a", "b": "first b"}
    assert await two == {"b": "first b", "c": "second c"}
    assert second.asked == [["c"]]


async def test_two_batches_that_need_keys_of_each_other(cache):
    """Neither waits for the other with its own keys in hand."""
    first, second = Batches("first", opened=False), Batches("second", opened=False)
    one = calling(cache, "get_or_set_many", ["a", "b"], first.of(cache))
    await first.entered()
    two = calling(cache, "get_or_set_many", ["c", "a", "d"], second.of(cache))
    await second.entered()
    three = calling(cache, "get_or_set_many", ["a", "b", "c", "d"], Batches("third").of(cache))
    await joined(cache, 1)
    first.gate.set()
    second.gate.set()

    assert await one == {"a": "first a", "b": "first b"}
    assert await two == {"c": "second c", "a": "first a", "d": "second d"}
    assert await three == {"a": "first a", "b": "first b", "c": "second c", "d": "second d"}


async def test_batches_and_single_calls_join_each_other(cache):
    """A flight is known by its name, whoever leads it."""
    many, single = Batches("many", opened=False), Gated("single")
    one = calling(cache, "get_or_set_many", ["a", "b"], many.of(cache))
    await many.entered()
    two = calling(cache, "get_or_set", "c", single.of(cache))
    await single.entered()

    waiting = [
        calling(cache, "get_or_set", "a", Gated("never").of(cache)),
        calling(cache, "get_or_set_many", ["b", "c"], Batches("never").of(cache)),
    ]
    await joined(cache, 2)
    many.gate.set()
    single.gate.set()

    assert await asyncio.gather(*waiting) == ["many a", {"b": "many b", "c": "single"}]
    assert (await one, await two) == ({"a": "many a", "b": "many b"}, "single")


async def test_threads_and_tasks_join_each_other(whole):
    """A batch of a thread waits for that of a task, and the other way round."""
    for leads, joins in ((AWAITING, BLOCKING), (BLOCKING, AWAITING)):
        leader, other = Face(whole, leads), Face(whole, joins)
        load, before = Batches(leads, opened=False), whole.stats.joined
        first = calling(leader, "get_or_set_many", [f"a {leads}", f"b {leads}"], load.of(leader))
        await load.entered()
        second = calling(other, "get_or_set_many", [f"b {leads}", f"c {leads}"], Batches("other").of(other))
        await until(lambda before=before: whole.stats.joined > before)
        load.gate.set()

        assert await second == {f"b {leads}": f"{leads} b {leads}", f"c {leads}": f"other c {leads}"}
        assert len(await first) == 2


async def test_who_joined_a_key_that_has_no_value_asks_his_own_loader(memory):
    """The loader of another caller does not decide that there is none."""
    load = Batches("first", lacks=("a",), opened=False)
    one = calling(memory, "get_or_set_many", ["a", "b"], load.of(memory))
    await load.entered()
    two = calling(memory, "get_or_set", "a", Gated("own", opened=True).of(memory))
    await joined(memory, 1)
    load.gate.set()

    assert await one == {"b": "first b"}
    assert await two == "own"


async def test_another_process_loads_some(make):
    """Keys whose leases another process holds are waited for, after the others were loaded."""
    here, there = two_processes(make)
    first, second = Batches("first", opened=False), Batches("second")
    one = calling(there, "get_or_set_many", ["a", "b"], first.of(there))
    await first.entered()

    two = calling(here, "get_or_set_many", ["b", "c"], second.of(here))
    await second.entered()
    await until(lambda: here.whole.stats.waited)
    first.gate.set()

    assert await two == {"b": "first b", "c": "second c"}
    assert await one == {"a": "first a", "b": "first b"}
    assert second.asked == [["c"]]


async def test_patience_ends(make):
    """Who has waited long enough loads the rest by one more call, and one only."""
    here, there = two_processes(make)
    first, second = Batches("first", opened=False), Batches("second")
    one = calling(there, "get_or_set_many", ["a", "b"], first.of(there))
    await first.entered()

    found = await asyncio.wait_for(calling(here, "get_or_set_many", ["a", "b", "c"], second.of(here), wait=0.2), SOON)

    assert found == {key: f"second {key}" for key in "abc"}
    assert second.asked == [["c"], ["a", "b"]]
    first.gate.set()
    assert (await one).keys() == {"a", "b"}
    assert await there.get_many("abc") == found


async def test_a_failed_load_frees_the_keys(make):
    """The error goes to the caller; another process that waits for a key tries it."""
    here, there = two_processes(make)
    first, second = Batches("first", opened=False), Batches("second")
    first.during = lambda: 1 / 0
    one = calling(there, "get_or_set_many", ["a", "b"], first.of(there))
    await first.entered()
    two = calling(here, "get_or_set_many", ["b", "c"], second.of(here))
    await until(lambda: here.whole.stats.waited)
    first.gate.set()

    assert isinstance(await settled(one), ZeroDivisionError)
    assert await two == {"b": "second b", "c": "second c"}
    assert second.asked == [["c"], ["b"]]


async def test_who_joined_gets_the_error(memory):
    """In the process an ordinary exception goes to all who had joined; nothing is stored."""
    load = Batches(opened=False)
    load.during = lambda: 1 / 0
    first = calling(memory, "get_or_set_many", ["a", "b"], load.of(memory))
    await load.entered()
    callers = [
        first,
        calling(memory, "get_or_set_many", ["a", "b"], load.of(memory)),
        calling(memory, "get_or_set", "b", Gated("never").of(memory)),
    ]
    await joined(memory, 2)
    load.gate.set()

    assert [type(await settled(caller)) for caller in callers] == [ZeroDivisionError] * 3
    assert load.calls == 1
    assert await memory.get_many(["a", "b"]) == {}
    assert memory.whole._flights.running == {}


async def test_after_a_failure_nobody_tries_for_a_while(make):
    """With retry_after each key of the batch is left alone in the whole fleet; what was there is still returned."""
    here, there = two_processes(make)
    policy = Policy(retry_after=60)
    with pytest.raises(ZeroDivisionError):
        await there.get_or_set_many(["a", "b"], lambda keys: 1 / 0, policy)

    load = Batches()
    with pytest.raises(LoadFailed):
        await here.get_or_set_many(["b", "c"], load.of(here), policy)
    assert load.asked == [["c"]]
    assert await here.get_or_set_many(["c"], load.of(here), policy) == {"c": "made c"}


# --- invalidation during a load -----------------------------------------------------------------------


WRITES: dict[str, Callable[[Face], Any]] = {
    "delete": lambda cache: cache.delete("a"),
    "set": lambda cache: cache.set("a", "newer"),
    "clear": lambda cache: cache.clear(),
    "a tag": lambda cache: cache.invalidate_tags("tag a"),
}


@pytest.mark.parametrize("write", ["delete", "set"])
async def test_what_was_given_up_meanwhile_is_not_stored(make, write):
    """A key that any process deletes or sets while it is loaded is not stored; the others are."""
    here, there = two_processes(make)
    load = Batches(opened=False)
    caller = calling(here, "get_or_set_many", ["a", "b"], load.of(here))
    await load.entered()
    await WRITES[write](there)
    load.gate.set()

    found = await caller
    assert found["b"] == "made b"
    assert found["a"] == ("newer" if write == "set" else "made a")
    assert await there.get("a") == ("newer" if write == "set" else None)
    assert await there.get("b") == "made b"
    assert here.whole.stats.fills_refused == 1


async def test_delete_pattern_gives_up_what_it_is_about(make):
    """The other values of the batch are stored."""
    here, there = two_processes(make)
    load = Batches(opened=False)
    caller = calling(here, "get_or_set_many", ["a", "b", "ab", "c"], load.of(here))
    await load.entered()
    await there.delete_pattern("a*")
    await there.delete_pattern("x*")
    load.gate.set()

    assert await caller == {key: f"made {key}" for key in ("a", "b", "ab", "c")}
    assert await there.get_many(["a", "b", "ab", "c"]) == {"b": "made b", "c": "made c"}


async def test_a_batch_of_which_nothing_is_left_to_store(make, monkeypatch):
    """Where the tags of all values were invalidated meanwhile nothing is sent, also if that exchange was to be timed."""
    monkeypatch.setattr(tally, "STEPS", ((2**31, 1),))  # every exchange is
    here, there = two_processes(make)
    load = Batches(opened=False)
    caller = calling(here, "get_or_set_many", ["a", "b"], load.of(here), tags=["common"])
    await load.entered()
    await there.invalidate_tags("common")
    load.gate.set()

    assert await caller == {"a": "made a", "b": "made b"}
    assert await there.get_many(["a", "b"]) == {}


async def test_clear_gives_up_the_whole_batch(make):
    """clear() hits what is being loaded, too."""
    here, there = two_processes(make)
    load = Batches(opened=False)
    caller = calling(here, "get_or_set_many", ["a", "b"], load.of(here))
    await load.entered()
    await there.clear()
    load.gate.set()

    assert await caller == {"a": "made a", "b": "made b"}
    assert await there.get_many(["a", "b"]) == {}


# --- within loaders, cancelled, interrupted -----------------------------------------------------------


async def test_a_loader_may_need_other_keys_and_its_own(memory):
    """Within a loader of many, calls for its own keys load by themselves; nothing waits for itself."""

    def load(keys):
        inner = memory.whole.get_or_set_many([*keys, "other"], lambda inner: {key: f"inner {key}" for key in inner})
        assert inner == {key: f"inner {key}" for key in [*keys, "other"]}
        return {key: memory.whole.get_or_set(key, lambda key=key: f"own {key}") for key in keys}

    async def aload(keys):
        inner = await memory.whole.aget_or_set_many(
            [*keys, "other"], lambda inner: {key: f"inner {key}" for key in inner}
        )
        assert inner == {key: f"inner {key}" for key in [*keys, "other"]}
        return {key: await memory.whole.aget_or_set(key, lambda key=key: f"own {key}") for key in keys}

    found = await memory.get_or_set_many(["a", "b"], aload if memory.face == AWAITING else load)

    assert found == {"a": "own a", "b": "own b"}
    assert await memory.get("other") == "inner other"


async def test_two_loaders_that_need_keys_of_each_other(whole):
    """A circle of loads ends: one of them loads beside the other."""
    cache = Face(whole, AWAITING)
    first, second = Batches("first", opened=False), Batches("second", opened=False)

    async def outer(keys, load, needed):
        await load.aload([])
        await whole.aget_or_set_many(needed, lambda keys: dict.fromkeys(keys, "inner"))
        return dict.fromkeys(keys, load.values[0])

    one = calling(cache, "get_or_set_many", ["a", "b"], lambda keys: outer(keys, first, ["c"]))
    two = calling(cache, "get_or_set_many", ["c", "d"], lambda keys: outer(keys, second, ["a"]))
    await first.entered()
    await second.entered()
    first.gate.set()
    second.gate.set()

    async with asyncio.timeout(SOON):
        found = {**await one, **await two}
    # Who loaded beside another was done before him, and all get the value that is stored.
    assert found == await cache.get_many(["a", "b", "c", "d"])
    assert (found["b"], found["d"]) == ("first", "second")
    assert sorted([found["a"], found["c"]]) in (["first", "inner"], ["inner", "second"], ["first", "second"])


async def test_the_load_knows_its_keys(memory):
    """current_load() is about the whole batch: its keys, and whether it is stored."""

    def load(keys):
        assert current_load().key == keys == ["a", "b"]
        assert (current_load().stale, current_load().is_stale) == ({}, False)
        with pytest.raises(TypeError, match="by returning it"):
            current_load().unchanged()
        current_load().skip()
        return dict.fromkeys(keys, 1)

    assert await memory.get_or_set_many(["a", "b"], load) == {"a": 1, "b": 1}
    assert await memory.get_many(["a", "b"]) == {}


async def test_a_cancelled_caller_leaves_the_load_to_who_joined(whole):
    """The batch goes on as long as anybody waits for one of its keys, and everything that it loads is stored."""
    cache, load = Face(whole, AWAITING), Batches(opened=False)
    first = calling(cache, "get_or_set_many", ["a", "b"], load.aload)
    await load.entered()
    second = calling(cache, "get_or_set", "b", Gated("never").aload)
    await joined(cache, 1)

    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
    load.gate.set()

    assert await second == "made b"
    await until(lambda: not whole._flights.running)
    assert await cache.get_many(["a", "b"]) == {"a": "made a", "b": "made b"}


async def test_the_last_caller_takes_the_load_along(whole):
    """Nobody waits for any key: the loader is cancelled, and the leases are free."""
    cache, load, cancelled = Face(whole, AWAITING), Batches(opened=False), []

    async def cancellable(keys):
        try:
            return await load.aload(keys)
        except asyncio.CancelledError:
            cancelled.append(keys)
            raise

    caller = calling(cache, "get_or_set_many", ["a", "b"], cancellable)
    await load.entered()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await until(lambda: cancelled)

    assert whole._flights.running == {}
    found = await asyncio.wait_for(whole.aget_or_set_many(["a", "b"], Batches("new").aload), 2)
    assert found == {"a": "new a", "b": "new b"}


async def test_an_interrupt_is_the_callers_own(whole):
    """What is no ordinary exception ends its caller alone; who joined loads anew."""
    cache = Face(whole, BLOCKING)
    load = Batches(opened=False)
    load.values = [Deadline()]
    one = calling(cache, "get_or_set_many", ["a", "b"], load)
    await load.entered()
    two = calling(cache, "get_or_set_many", ["b", "c"], Batches("second"))
    await joined(cache, 1)
    load.gate.set()

    assert isinstance((await asyncio.gather(one, return_exceptions=True))[0], Deadline)
    assert await two == {"b": "second b", "c": "second c"}
    assert whole._flights.running == {}


async def test_the_loader_runs_in_the_callers_context(memory):
    """Context variables are those of the caller, also in the task that loads."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="none")
    variable.set("de")

    assert await memory.get_or_set_many(["a"], lambda keys: {key: variable.get() for key in keys}) == {"a": "de"}


async def test_without_the_right_to_run_scripts(memory, monkeypatch):
    """Simpler leases, one after another; the values are the same."""
    monkeypatch.setattr(memory.whole._flights, "scripts", False)
    load = Batches(lacks=("c",))

    assert await memory.get_or_set_many(["a", "b", "c"], load.of(memory)) == {"a": "made a", "b": "made b"}
    assert await memory.get_many(["a", "b"]) == {"a": "made a", "b": "made b"}
    assert load.asked == [["a", "b", "c"]]


# --- old values, tags, policies -----------------------------------------------------------------------


async def test_old_values_are_renewed_with_the_missing(cache):
    """If anything has to be loaded, the same call of the loader renews what is old, and its result is returned."""
    load = Batches()
    await put(cache, "a", "old", fresh=-1000)
    await cache.set("c", "there")

    found = await cache.get_or_set_many(["a", "b", "c"], load.of(cache), 60, stale_while_revalidate=600)

    assert found == {"a": "made a", "b": "made b", "c": "there"}
    assert load.asked == [["a", "b"]]
    assert await cache.get_many(["a", "b"]) == {"a": "made a", "b": "made b"}


async def test_old_values_are_returned_at_once_in_asyncio(whole):
    """If nothing is missing, tasks do not wait for the renewal."""
    cache, load = Face(whole, AWAITING), Batches(opened=False)
    await put(cache, "a", "old a", fresh=-1000)
    await put(cache, "b", "old b", fresh=-1000)
    policy = Policy(timeout=60, stale_while_revalidate=600)

    for _ in range(3):
        assert await whole.aget_or_set_many(["a", "b"], load.aload, policy) == {"a": "old a", "b": "old b"}
    load.gate.set()
    await until(lambda: not whole._flights.running)

    assert load.asked == [["a", "b"]]
    assert await whole.aget_many(["a", "b"]) == {"a": "made a", "b": "made b"}
    assert whole.stats.stale_served == 6


async def test_the_blocking_caller_renews_by_himself(whole):
    """Without hidden threads he who got the leases loads, once for all; what comes after finds it."""
    cache, load = Face(whole, BLOCKING), Batches()
    await put(cache, "a", "old a", fresh=-1000)
    await put(cache, "b", "old b", fresh=-1000)

    found = whole.get_or_set_many(["a", "b"], load, 60, stale_while_revalidate=600)

    assert found == {"a": "made a", "b": "made b"}
    assert load.asked == [["a", "b"]]


async def test_a_failed_renewal_is_not_an_error(memory, caplog):
    """The old values are returned, and it is logged."""
    await put(memory, "a", "old a", fresh=-1000)

    found = await memory.get_or_set_many(["a"], lambda keys: 1 / 0, 60, stale_while_revalidate=600)
    await until(lambda: not memory.whole._flights.running)

    assert found == {"a": "old a"}
    assert "not renewed: ZeroDivisionError: division by zero" in caplog.text


async def test_who_comes_during_a_renewal_elsewhere(make):
    """The lease of an old value is another process': its old value is returned at once, and nothing is loaded."""
    here, there = two_processes(make)
    load, policy = Batches(opened=False), Policy(timeout=60, stale_while_revalidate=600)
    await put(here, "a", "old a", fresh=-1000)
    one = calling(there, "get_or_set_many", ["a"], load.of(there), policy)
    await load.entered()

    second = Batches("second")
    async with asyncio.timeout(SOON):
        assert await here.get_or_set_many(["a", "b"], second.of(here), policy) == {"a": "old a", "b": "second b"}
    load.gate.set()
    await one
    assert second.asked == [["b"]]


async def test_who_renews_may_be_anything(whole):
    """renew= takes a callable, which gets one piece of work for all; it is submitted once."""
    cache, load, submitted = Face(whole, BLOCKING), Batches(), []
    await put(cache, "a", "old a", fresh=-1000)
    await put(cache, "b", "old b", fresh=-1000)
    policy = Policy(timeout=60, stale_while_revalidate=600, renew=submitted.append)

    for _ in range(2):
        found = whole.get_or_set_many(["a", "b", "c"], load, policy)
        assert found == {"a": "old a", "b": "old b", "c": "made c"}
    assert load.asked == [["c"]]
    (work,) = submitted
    work()

    assert load.asked == [["c"], ["a", "b"]]
    assert whole.get_many(["a", "b"]) == {"a": "made a", "b": "made b"}


async def test_early_renewal(memory):
    """With early, a fresh value whose load took long is renewed before its end."""
    await put(memory, "a", "old a", fresh=1000, cost=3_000_000, early=1.0)

    found = await memory.get_or_set_many(["a"], Batches().of(memory), 60, early=1.0)
    await until(lambda: not memory.whole._flights.running)

    assert found["a"] in {"old a", "made a"}
    assert await memory.get("a") == "made a"
    assert memory.whole.stats.early == 1


async def test_old_values_stand_in_for_a_failed_load(memory):
    """stale_if_error answers for those keys that have an old value; if any has none, the error is raised."""
    policy = Policy(timeout=60, stale_if_error=600)
    await put(memory, "a", "old a", fresh=-1000)
    await put(memory, "b", "old b", fresh=-1000)

    assert await memory.get_or_set_many(["a", "b"], lambda keys: 1 / 0, policy) == {"a": "old a", "b": "old b"}
    with pytest.raises(ZeroDivisionError):
        await memory.get_or_set_many(["a", "c"], lambda keys: 1 / 0, policy)
    with pytest.raises(ZeroDivisionError):
        await memory.get_or_set_many(["a"], lambda keys: 1 / 0, 60)


async def test_the_loader_sees_the_old_values(memory):
    """current_load().stale has them by key; one that still holds is returned like a new one."""
    await put(memory, "a", "old a", fresh=-1000)

    def load(keys):
        assert current_load().stale == {"a": "old a"}
        return {"a": current_load().stale["a"], "b": "new"}

    assert await memory.get_or_set_many(["a", "b"], load, 60, stale_if_error=60) == {"a": "old a", "b": "new"}
    assert await memory.get("a") == "old a"


async def test_refresh_loads_all(cache):
    """With refresh what is there is replaced, and what other processes store meanwhile is not returned."""
    load = Batches()
    await cache.set_many({"a": "there", "b": "there"})

    assert await cache.get_or_set_many(["a", "b", "c"], load.of(cache), refresh=True) == {k: f"made {k}" for k in "abc"}
    assert load.asked == [["a", "b", "c"]]
    assert await cache.get_many("abc") == {k: f"made {k}" for k in "abc"}


async def test_tags_of_each_value(cache):
    """tags may be a callable of the key; a tag gives up the values that carry it."""
    load = Batches()

    def tags(key):
        return [f"tag {key}", "all"]

    async def get():
        return await cache.get_or_set_many(["a", "b"], load.of(cache), 60, tags=tags)

    assert await get() == await get() == {"a": "made a", "b": "made b"}
    await cache.invalidate_tags("tag a")
    assert await cache.get_many(["a", "b"]) == {"b": "made b"}
    await get()
    await cache.invalidate_tags("all")
    await get()
    assert load.asked == [["a", "b"], ["a"], ["a", "b"]]


async def test_tags_of_all_values(make):
    """What a tag gives up while it is loaded is not stored."""
    here, there = two_processes(make)
    load = Batches(opened=False)
    caller = calling(here, "get_or_set_many", ["a", "b"], load.of(here), 60, tags=["common"])
    await load.entered()
    await there.invalidate_tags("common")
    load.gate.set()

    assert await caller == {"a": "made a", "b": "made b"}
    assert await there.get_many(["a", "b"]) == {}
    assert here.whole.stats.fills_refused == 2


async def test_a_value_without_the_tags_is_loaded_anew(memory):
    """What was stored without a tag would outlive its invalidation."""
    load = Batches()
    await memory.set("a", "plain")

    assert await memory.get_or_set_many(["a"], load.of(memory), tags=["tag"]) == {"a": "made a"}
    assert await memory.get_or_set_many(["a"], load.of(memory), tags=["tag"]) == {"a": "made a"}
    assert await memory.get_or_set_many(["a"], load.of(memory), tags=["tag", "other"]) == {"a": "made a"}
    assert load.calls == 2


@pytest.mark.parametrize("tags", ["text", 5, [5], [""]])
async def test_wrong_tags_are_refused(memory, tags):
    """As by get_or_set."""
    with pytest.raises((TypeError, ValueError), match="tag"):
        await memory.get_or_set_many(["a"], Batches().of(memory), tags=tags)


async def test_time_limits(whole):
    """In asyncio a caller waits no longer than hard_timeout, or than soft_timeout for what has an old value."""
    cache, load = Face(whole, AWAITING), Batches(opened=False)
    await put(cache, "a", "old a", fresh=-1000)

    soft = await whole.aget_or_set_many(["a"], load.aload, 60, stale_if_error=600, soft_timeout=0.05)
    assert soft == {"a": "old a"}
    with pytest.raises(TimeoutError, match="not loaded in time"):
        await whole.aget_or_set_many(["a", "b"], load.aload, 60, soft_timeout=0.01, hard_timeout=0.05)
    load.gate.set()
    await until(lambda: not whole._flights.running)

    assert await whole.aget("a") == "made a"


async def test_a_load_that_may_end_for_the_next_caller(whole):
    """Who takes an old value because time is up leaves the load to go on, also if he wanted other keys as well."""
    cache, load = Face(whole, AWAITING), Batches(opened=False)
    await put(cache, "a", "old a", fresh=-1000)
    caller = calling(cache, "get_or_set_many", ["a", "b"], load.aload, 60, stale_if_error=600, soft_timeout=0.02)
    await load.entered()
    (flight,) = [flight for flight in whole._flights.running.values() if flight.name.endswith(":a")]
    await until(lambda: flight.stays)

    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    load.gate.set()
    await until(lambda: not whole._flights.running)

    assert await whole.aget("a") == "made a"


async def test_the_settings_have_defaults(face):
    """OPTIONS["LOADING"] is the policy of calls that say nothing else."""
    options = {"LOADING": {"TIMEOUT": 60, "STALE_IF_ERROR": 600}}
    cache = Face(Cache("memory://many", {"KEY_PREFIX": own_prefix(), "OPTIONS": options}), face)
    await put(cache, "a", "old a", fresh=-1000)

    assert await cache.get_or_set_many(["a"], lambda keys: 1 / 0) == {"a": "old a"}
    assert await cache.get_or_set_many(["b"], Batches().of(cache)) == {"b": "made b"}
    assert 59 <= await cache.ttl("b") <= 60


async def test_a_client_with_operations_of_its_own(face):
    """A site's client that overrides an operation on values sees every read and write of the batch."""
    called = []

    class Loud(Cache):
        async def aget_many(self, keys, *args, **kwargs):
            called.append("get")
            return await super().aget_many(keys, *args, **kwargs)

        async def aset_many(self, data, *args, **kwargs):
            called.append("set")
            return await super().aset_many(data, *args, **kwargs)

    cache = Face(Loud("memory://many", {"KEY_PREFIX": own_prefix()}), face)

    assert await cache.get_or_set_many(["a"], Batches().of(cache)) == {"a": "made a"}
    assert await cache.get_or_set_many(["a"], Batches("new").of(cache), refresh=True) == {"a": "new a"}
    assert called == ["get", "set", "set"]


async def test_batches_in_a_pipeline(memory):
    """They stand in their place there, with tags, and load by themselves."""
    load = Batches()
    pipe = memory.pipeline()
    pipe.whole.set("a", 1).get_or_set_many(["a", "b"], load.of(memory), 60, tags=["common"]).delete("a")
    pipe.whole.get_or_set_many(["a", "b"], load.of(memory), tags=lambda key: [key])
    pipe.whole.get_or_set_many(["b"], load.of(memory), refresh=True)

    assert await pipe.execute() == [
        True,
        {"a": 1, "b": "made b"},
        True,
        {"a": "made a", "b": "made b"},
        {"b": "made b"},
    ]
    assert load.asked == [["b"], ["a"], ["b"]]
    await memory.invalidate_tags("a")
    assert await memory.get_many(["a", "b"]) == {"b": "made b"}


async def test_the_herds_client(face):
    """HerdClient stores more than the value; its values come out as get_many returns them."""
    cache = Face(HerdClient("memory://many", {"KEY_PREFIX": own_prefix()}), face)
    await cache.set("a", "there", 60)

    assert await cache.get_or_set_many(["a", "b"], Batches().of(cache), 60) == {"a": "there", "b": "made b"}
    assert await cache.get_many(["a", "b"]) == {"a": "there", "b": "made b"}
