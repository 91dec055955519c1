"""get_or_set: what a call returns while a value is missing, fresh, old, or cannot be loaded."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import time
import weakref
from dataclasses import replace
from typing import Any

import pytest
from tests.caches import own_prefix
from tests.faces import AWAITING, BLOCKING, Face, settled
from tests.loading.entries import put
from tests.loading.gates import Clock, Gated, calling, joined, until

from fleetcache import Cache
from fleetcache.errors import LoadFailed
from fleetcache.judging import drawn
from fleetcache.loading import renewing, wishes
from fleetcache.loading.load import current_load
from fleetcache.policy import Policy
from fleetcache.servers.memory import memory_server

TRANSPORTS = ["valkey-tcp", "valkey-near", "redis-tcp", "cluster", "memory"]


class SoftTimeLimit(Exception):
    """As Celery's: an Exception like any other."""


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def whole(clock: Clock) -> Cache:
    """A cache on a server whose clock the test turns."""
    name = own_prefix()
    memory_server(name)._clock = clock
    return Cache(f"memory://{name}", {"KEY_PREFIX": name})


@pytest.fixture
def memory(whole: Cache, face: str) -> Face:
    """The same, one face after the other."""
    return Face(whole, face)


def fails() -> Any:
    raise LookupError("the database is away")


async def settle(cache: Face) -> None:
    """Wait until nothing is being loaded."""
    await until(lambda: not cache.whole._flights.running)


# --- a stale value ----------------------------------------------------------------------------------


async def test_a_stale_value_is_returned_while_it_is_renewed(memory, clock):
    """Nobody waits: one caller renews the value, and the others get the old one."""
    options = {"timeout": 60, "stale_while_revalidate": 30}
    assert await memory.get_or_set("key", lambda: "old", **options) == "old"
    clock.now += 61
    assert await memory.get("key") is None

    load = Gated("new")
    first = calling(memory, "get_or_set", "key", load.of(memory), **options)
    await load.entered()
    for _ in range(3):
        assert await memory.get_or_set("key", load.of(memory), **options) == "old"
    load.gate.set()

    assert await first == ("old" if memory.face == AWAITING else "new")
    await settle(memory)
    assert await memory.get("key") == "new"
    assert load.calls == 1
    assert memory.whole.stats.stale_served >= 3


async def test_a_value_older_than_that_is_loaded(memory, clock):
    """After the stale life a caller waits for the new value."""
    await memory.get_or_set("key", lambda: "old", 60, stale_while_revalidate=30)
    clock.now += 91

    assert await memory.get_or_set("key", lambda: "new", 60, stale_while_revalidate=30) == "new"


async def test_a_stale_value_in_place_of_an_error(memory, clock):
    """As long as *stale_if_error* says, an old value answers for a loader that fails; then the error is raised."""
    options = {"timeout": 60, "stale_if_error": 100}
    await memory.get_or_set("key", lambda: "old", **options)
    clock.now += 150

    assert await memory.get_or_set("key", fails, **options) == "old"
    assert await memory.get_or_set("key", lambda: "new", **options) == "new"
    clock.now += 161
    assert isinstance(await settled(memory.get_or_set("key", fails, **options)), LookupError)


async def test_each_caller_by_his_own_policy(memory, clock):
    """Who allows no old value gets the error, who allows one that value, from one load.

    HybridCache #6202: a caller who only reads leads, and the others get what his options make of the load.
    """
    await memory.get_or_set("key", lambda: "old", 60, stale_if_error=100)
    clock.now += 61
    load = Gated(LookupError("away"))
    strict = calling(memory, "get_or_set", "key", load.of(memory), 60)
    await load.entered()
    lenient = calling(memory, "get_or_set", "key", load.of(memory), 60, stale_if_error=100)
    await joined(memory, 1)
    load.gate.set()

    assert isinstance(await settled(strict), LookupError)
    assert await lenient == "old"
    assert load.calls == 1


async def test_nothing_stale_after_a_delete(memory, clock):
    """A hard invalidation ends the old value for failures too."""
    options = {"timeout": 60, "stale_if_error": 100, "stale_while_revalidate": 100}
    await memory.get_or_set("key", lambda: "old", **options)
    clock.now += 61
    await memory.delete("key")

    assert isinstance(await settled(memory.get_or_set("key", fails, **options)), LookupError)


async def test_after_a_soft_invalidation(memory):
    """The old value may be returned as stale, but is loaded anew."""
    options = {"timeout": 60, "stale_if_error": 100}
    await memory.get_or_set("key", lambda: "old", **options)
    await memory.invalidate("key", soft=True)

    assert await memory.get("key") is None
    assert await memory.get_or_set("key", fails, **options) == "old"
    assert await memory.get_or_set("key", lambda: "new", **options) == "new"


@pytest.mark.parametrize("stale", [False, True])
async def test_retry_after(memory, clock, stale):
    """The error goes to the caller; until *retry_after* nobody loads."""
    options = {"timeout": 60, "retry_after": 20, "stale_if_error": 500 * stale}
    if stale:
        await memory.get_or_set("key", lambda: "old", **options)
        clock.now += 61
    first = await settled(memory.get_or_set("key", fails, **options))
    clock.now += 5
    load = Gated("new", opened=True)
    second = await settled(memory.get_or_set("key", load.of(memory), **options))
    assert load.calls == 0
    clock.now += 15.1
    third = await memory.get_or_set("key", load.of(memory), **options)

    assert third == "new"
    if stale:
        assert [first, second] == ["old", "old"]
    else:
        assert isinstance(first, LookupError)
        assert isinstance(second, LoadFailed)
        assert second.retry_in == pytest.approx(15, abs=0.1)
        assert "15.0 s" in str(second)


@pytest.mark.parametrize(("left", "renewed"), [(9_000, True), (11_000, False)])
async def test_early_renewal(memory, monkeypatch, left, renewed):
    """A fresh value is renewed as soon as its end is nearer than its load takes and β draws more; nobody waits."""
    monkeypatch.setattr(wishes, "drawn", lambda stamp: 1.0)
    await put(memory, "key", "old", fresh=left, cost=4_000, early=1.5)
    load = Gated("new", opened=True)

    found = await memory.get_or_set("key", load.of(memory), 60, early=1.5)
    await settle(memory)

    assert found == ("new" if renewed and memory.face == BLOCKING else "old")
    assert await memory.get("key") == ("new" if renewed else "old")
    assert memory.whole.stats.early == renewed


def test_one_draw_for_one_entry():
    """However often an entry is read, its early renewal is drawn once; the draws of entries differ, with a mean of 1."""
    stamps = [number.to_bytes(8) for number in range(5000)]
    draws = [drawn(stamp) for stamp in stamps]

    assert draws == [drawn(stamp) for stamp in stamps]
    assert len(set(draws)) == 5000
    assert 0.9 < sum(draws) / 5000 < 1.1
    assert min(draws) >= 0


# --- the policy ---------------------------------------------------------------------------------------


async def test_policies(memory, clock):
    """A policy stands in place of a timeout, single fields beside it, and the settings have the defaults."""
    hourly = Policy(timeout=3600, stale_if_error=7200)

    await memory.get_or_set("a", lambda: 1, hourly)
    await memory.get_or_set("b", lambda: 1, replace(hourly, timeout=60))
    await memory.get_or_set("c", lambda: 1, 60, stale_while_revalidate=30)
    await memory.get_or_set("d", lambda: 1)
    ttls = [await memory.ttl(key) for key in "abcd"]
    clock.now += 61
    there = [await memory.get(key, stale=True) for key in "abcd"]

    assert ttls == [3600, 60, 60, 300]
    assert there == [1, 1, 1, 1]
    assert isinstance(await settled(memory.get_or_set("e", lambda: 1, hourli=1)), TypeError)
    assert isinstance(await settled(memory.get_or_set("e", lambda: 1, early=-1)), ValueError)


async def test_defaults_of_the_settings(face, clock):
    """OPTIONS["LOADING"] gives every loading call a soft life."""
    name = own_prefix()
    memory_server(name)._clock = clock
    loading = {"STALE_IF_ERROR": 100, "TIMEOUT": 60}
    cache = Face(Cache(f"memory://{name}", {"OPTIONS": {"LOADING": loading}}), face)
    await cache.get_or_set("key", lambda: "old")
    clock.now += 61

    assert await cache.get_or_set("key", fails) == "old"


async def test_jitter(memory):
    """Lives differ, and none is longer than asked or shorter than the jitter allows."""
    for number in range(30):
        await memory.get_or_set(f"key{number}", lambda: "made", 1000, jitter=0.5)
    lives = {await memory.pttl(f"key{number}") for number in range(30)}

    assert len(lives) > 20
    assert 500_000 <= min(lives) <= max(lives) <= 1_000_000


async def test_absent_for(memory):
    """None has a life of its own; with 0 it is not stored."""
    assert await memory.get_or_set("short", lambda: None, 1000, absent_for=10) is None
    assert await memory.get_or_set("never", lambda: None, 1000, absent_for=0) is None

    assert await memory.ttl("short") == 10
    assert await memory.has_key("never") is False
    assert await memory.get_or_set("never", lambda: "made", absent_for=0) == "made"


@pytest.mark.parametrize("timeout", [0, -5])
async def test_without_a_fresh_life_nothing_is_stored(memory, timeout):
    """A stale life needs a fresh one before it: a timeout of 0 or less stores nothing, whatever else is asked for."""
    load = Gated("first", "second", opened=True)
    options = {"timeout": timeout, "stale_while_revalidate": 60, "stale_if_error": 60}

    assert await memory.get_or_set("key", load.of(memory), **options) == "first"
    assert await memory.get_or_set("key", load.of(memory), **options) == "second"
    assert (await memory.lookup("key")).state == "missing"


async def test_refresh(memory):
    """It loads in any case, also over what another caller is loading."""
    await memory.set("key", "old")

    assert await memory.get_or_set("key", lambda: "new", refresh=True) == "new"
    assert await memory.get("key") == "new"


async def test_refresh_takes_no_older_load(memory):
    """Who refreshes while a load runs gets a value that was loaded after his call."""
    load = Gated("first", "second")
    first = calling(memory, "get_or_set", "key", load.of(memory))
    await load.entered()
    second = calling(memory, "get_or_set", "key", load.of(memory), refresh=True)
    await joined(memory, 1)
    load.gate.set()

    assert [await first, await second] == ["first", "second"]
    assert await memory.get("key") == "second"


async def test_refresh_takes_no_older_failure(memory, clock):
    """Who refreshes while a load runs that will fail gets a value from his own loader, not the error or an old value."""
    await memory.get_or_set("key", lambda: "old", 60, stale_if_error=100)
    clock.now += 61
    load = Gated(LookupError("away"), "second")
    first = calling(memory, "get_or_set", "key", load.of(memory), 60, stale_if_error=100)
    await load.entered()
    second = calling(memory, "get_or_set", "key", load.of(memory), 60, stale_if_error=100, refresh=True)
    await joined(memory, 1)
    load.gate.set()

    assert [await first, await second] == ["old", "second"]


# --- what a loader says -------------------------------------------------------------------------------


async def test_a_loader_that_skips(memory):
    """Its value is returned, and not stored."""

    def load() -> str:
        current_load().skip()
        return "made"

    assert await memory.get_or_set("key", load) == "made"
    assert await memory.has_key("key") is False
    assert isinstance(await settled(memory.get_or_set("key", fails)), LookupError)


async def test_a_loader_that_sets_the_timeout(memory):
    """The timeout that it sets is that of the value."""

    def load() -> str:
        assert current_load().key == "key"
        assert current_load().timeout == 60
        current_load().timeout = 7
        return "made"

    await memory.get_or_set("key", load, 60)
    assert await memory.ttl("key") == 7


async def test_a_loader_that_finds_nothing_new(memory, clock):
    """The old value begins a new life."""
    options = {"timeout": 60, "stale_if_error": 100}
    seen = []

    def load() -> Any:
        seen.append((current_load().stale, current_load().is_stale))
        return current_load().unchanged()

    assert isinstance(await settled(memory.get_or_set("key", load, **options)), LookupError)
    await memory.get_or_set("key", lambda: ["old"], **options)
    clock.now += 61

    assert await memory.get_or_set("key", load, **options) == ["old"]
    assert seen == [(None, False), (["old"], True)]
    assert await memory.get("key") == ["old"]


def test_outside_of_a_loader():
    """There is no load."""
    with pytest.raises(LookupError, match="for loaders"):
        current_load()


# --- tags ---------------------------------------------------------------------------------------------


async def test_tags(memory):
    """A loaded value is given up with each of its tags, stored or still being loaded."""
    await memory.get_or_set("key", lambda: "made", tags=["a", "b"])
    assert await memory.get("key") == "made"
    await memory.invalidate_tags("b")
    assert await memory.get("key") is None

    load = Gated("old", "new")
    first = calling(memory, "get_or_set", "key", load.of(memory), tags=["a", "b"])
    await load.entered()
    await memory.invalidate_tags("a")
    second = calling(memory, "get_or_set", "key", load.of(memory), tags=["a", "b"])
    await load.entered(2)
    load.gate.set()

    assert [await first, await second] == ["old", "new"]
    assert await memory.get("key") == "new"


async def test_callers_with_other_tags(memory):
    """They wait for a load without their tags, and then load with them."""
    load = Gated("untagged", "tagged")
    first = calling(memory, "get_or_set", "key", load.of(memory))
    await load.entered()
    second = calling(memory, "get_or_set", "key", load.of(memory), tags=["a"])
    await joined(memory, 1)
    load.gate.set()

    assert [await first, await second] == ["untagged", "tagged"]
    await memory.invalidate_tags("a")
    assert await memory.get("key") is None


async def test_tags_that_a_loader_adds(memory):
    """A value is stored with them once they can be captured before its load begins.

    FusionCache #515: tags that the factory sets are not honoured.
    """

    def load() -> str:
        current_load().tag("late")
        return "made"

    assert await memory.get_or_set("key", load) == "made"
    assert await memory.has_key("key") is False
    assert memory.whole.stats.fills_refused == 1
    assert await memory.get_or_set("key", load) == "made"
    assert await memory.get("key") == "made"
    assert memory.whole.stats.fills_refused == 1
    await memory.invalidate_tags("late")
    assert await memory.get("key") is None


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_tags_that_nobody_expected_are_told(memory, caplog, many):
    """Once a minute for each entry, by their names, with what to do about it."""
    caplog.set_level("INFO", "fleetcache.loading")
    tags = iter("abc")

    def load(keys: list[str] | None = None) -> Any:
        current_load().tag(f"late {next(tags)}")
        return {"key": "made"}

    for _ in range(2):
        call = memory.get_or_set_many(["key"], load) if many else memory.get_or_set("key", load)
        assert await call == {"key": "made"}

    (record,) = [record for record in caplog.records if record.name == "fleetcache.loading"]
    assert (record.event, record.levelname) == ("unnoted", "INFO")
    assert "loaded, but not stored: the loader added the tags late a, which" in record.getMessage()
    assert "name them in tags=" in record.getMessage()
    assert memory.whole.stats.fills_refused == 2


async def test_a_value_that_is_skipped_is_not_refused(memory):
    """Its loader wanted it so, whatever its tags."""

    def load() -> str:
        current_load().tag("late")
        current_load().skip()
        return "made"

    assert await memory.get_or_set("key", load) == "made"
    assert memory.whole.stats.fills_refused == 0


async def test_a_constant_with_tags(memory):
    """It is stored with its tags."""
    assert await memory.get_or_set("key", 5, tags=["a"]) == 5
    await memory.invalidate_tags("a")

    assert await memory.get_or_set("key", 6) == 6


# --- limits of time -----------------------------------------------------------------------------------


async def test_a_soft_timeout(whole, clock):
    """Whoever has an old value gets it when the load takes too long; the load goes on."""
    cache = Face(whole, AWAITING)
    options = {"timeout": 60, "stale_if_error": 100, "soft_timeout": 0.02}
    await cache.get_or_set("key", lambda: "old", **options)
    clock.now += 61
    load = Gated("new")

    assert await cache.get_or_set("key", load.aload, **options) == "old"
    load.gate.set()
    await settle(cache)
    assert await cache.get("key") == "new"


async def test_a_hard_timeout(whole):
    """A caller waits no longer; the load goes on."""
    cache, load = Face(whole, AWAITING), Gated("made")

    with pytest.raises(TimeoutError, match="not loaded in time"):
        await cache.get_or_set("key", load.aload, hard_timeout=0.02)
    load.gate.set()
    await settle(cache)

    assert await cache.get("key") == "made"


@pytest.mark.parametrize("joins", [False, True], ids=["leader", "joined"])
async def test_a_loader_that_blocks_the_loop(whole, joins):
    """Its value is returned, although the time was over before anybody could look at the clock."""
    cache = Face(whole, AWAITING)

    def load() -> list[str]:
        time.sleep(0.05)
        return ["made"]

    calls = [calling(cache, "get_or_set", "key", load, hard_timeout=0.01) for _ in range(1 + joins)]

    assert await asyncio.gather(*calls) == [["made"]] * (1 + joins)


async def test_a_loader_of_many_that_blocks_the_loop(whole):
    """As with one."""

    def load(keys: list[str]) -> dict[str, str]:
        time.sleep(0.05)
        return dict.fromkeys(keys, "made")

    found = await whole.aget_or_set_many(["a", "b"], load, hard_timeout=0.01)

    assert found == {"a": "made", "b": "made"}


async def test_a_hard_timeout_of_a_thread_that_joined(whole):
    """In blocking code only those who joined have it."""
    cache, load = Face(whole, BLOCKING), Gated("made")
    first = calling(cache, "get_or_set", "key", load, hard_timeout=0.02)
    await load.entered()

    assert isinstance(await settled(calling(cache, "get_or_set", "key", load, hard_timeout=0.02)), TimeoutError)
    load.gate.set()
    assert await first == "made"


# --- who renews ---------------------------------------------------------------------------------------


async def test_renewal_by_a_thread(whole, clock):
    """With ``renew="thread"`` the caller gets the old value at once, and his context is there."""
    cache = Face(whole, BLOCKING)
    who = contextvars.ContextVar("who", default="nobody")
    who.set("caller")
    options = {"timeout": 60, "stale_while_revalidate": 30, "renew": "thread"}
    whole.get_or_set("key", lambda: "old", **options)
    clock.now += 61
    seen: list[tuple[str, str]] = []
    load = Gated("new")
    load.during = lambda: seen.append((who.get(), threading.current_thread().name))

    assert whole.get_or_set("key", load, **options) == "old"
    await load.entered()
    assert whole.get_or_set("key", load, **options) == "old"
    load.gate.set()
    await settle(cache)

    assert whole.get("key") == "new"
    assert load.calls == 1
    assert seen == [("caller", "fleetcache renewals")]


def test_renewal_by_a_callable(whole, clock):
    """A site's own function gets the work, once while it is not done."""
    work: list[Any] = []
    options = {"timeout": 60, "stale_while_revalidate": 30, "renew": work.append}
    whole.get_or_set("key", lambda: "old", **options)
    clock.now += 61

    assert [whole.get_or_set("key", lambda: "new", **options) for _ in range(3)] == ["old"] * 3
    assert len(work) == 1
    work[0]()
    assert whole.get("key") == "new"


async def test_renewal_after_a_response(whole, clock, monkeypatch):
    """The work is handed to the hook; where there is no response, a thread does it."""
    work: list[Any] = []
    responses = iter([True, False])

    def after_response(each: Any) -> bool:
        taken = next(responses)
        if taken:
            work.append(each)
        return taken

    monkeypatch.setattr(renewing, "after_response", after_response)
    options = {"timeout": 60, "stale_while_revalidate": 30, "renew": "response"}
    whole.get_or_set("key", lambda: "old", **options)
    clock.now += 61

    assert whole.get_or_set("key", lambda: "new", **options) == "old"
    work.pop()()
    assert whole.get("key") == "new"
    clock.now += 61
    whole.get_or_set("key", lambda: "newer", **options)
    await until(lambda: whole.get("key") == "newer")


async def test_a_renewal_that_fails(memory, clock):
    """The old value is returned, and the failure is counted."""
    options = {"timeout": 60, "stale_while_revalidate": 30}
    await memory.get_or_set("key", lambda: "old", **options)
    clock.now += 61

    assert await memory.get_or_set("key", fails, **options) == "old"
    await settle(memory)
    assert memory.whole.stats.load_errors == 1


@pytest.mark.parametrize("limit", [SystemExit, SoftTimeLimit])
def test_an_interrupt_of_a_renewal(whole, clock, limit):
    """It is the caller's who renews, and not taken for a failure of the loader."""
    options = {"timeout": 60, "stale_while_revalidate": 30}
    whole.get_or_set("key", lambda: "old", **options)
    clock.now += 61

    def strike(signum: int, frame: Any) -> None:
        raise limit("time is over")

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(limit):
            whole.get_or_set("key", lambda: signal.raise_signal(signal.SIGUSR1), **options)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert whole.stats.load_errors == 0
    assert whole._flights.running == {}


async def test_an_interrupt_of_a_load(whole):
    """A time limit that strikes one caller leaves the others to load."""

    def strike(signum: int, frame: Any) -> None:
        raise SoftTimeLimit("time is over")

    before = signal.signal(signal.SIGUSR1, strike)
    others: list[Any] = []

    def load() -> Any:
        thread = threading.Thread(target=lambda: others.append(whole.get_or_set("key", lambda: "made")))
        thread.start()
        threads.append(thread)
        while not whole.stats.joined:
            time.sleep(0.001)
        signal.raise_signal(signal.SIGUSR1)

    threads: list[threading.Thread] = []
    try:
        with pytest.raises(SoftTimeLimit):
            whole.get_or_set("key", load)
    finally:
        signal.signal(signal.SIGUSR1, before)
    threads[0].join(5)
    assert others == ["made"]


async def test_tags_and_refresh_count_in_a_pipeline(cache):
    """A loader within a pipeline gives its value the tags, and with refresh it is called although there is a value."""
    pipe = cache.pipeline()
    pipe.whole.get_or_set("a", lambda: "old", 60, tags=["t"])
    assert await pipe.execute() == ["old"]
    pipe = cache.pipeline()
    pipe.whole.get_or_set("a", lambda: "new", 60, tags=["t"], refresh=True)
    assert await pipe.execute() == ["new"]
    assert await cache.get("a") == "new"

    await cache.invalidate_tags("t")

    assert await cache.get("a") is None


async def test_a_callable_that_takes_no_renewal(whole, clock, caplog):
    """An executor that was shut down fails nobody: the caller renews, and gets the old value."""

    def refuses(work):
        raise RuntimeError("cannot schedule new futures after shutdown")

    options = {"timeout": 60, "stale_while_revalidate": 300, "renew": refuses}
    for _ in range(2):
        await Face(whole, BLOCKING).get_or_set("key", lambda: "old", 60, stale_while_revalidate=300)
        await Face(whole, BLOCKING).get_or_set_many(
            ["many"], lambda keys: {"many": "old"}, 60, stale_while_revalidate=300
        )
        clock.now += 61
        assert whole.get_or_set("key", lambda: "new", **options) == "old"
        assert whole.get_or_set_many(["many"], lambda keys: {"many": "new"}, **options) == {"many": "old"}
        assert (whole.get("key"), whole.get("many")) == ("new", "new")
        assert "cannot schedule new futures" in caplog.text
        whole.delete_many(["key", "many"])


def test_old_values_of_a_batch_are_renewed_each_time(whole, clock):
    """A renewal that is done elsewhere leaves nothing behind that would keep the next one from being done."""
    options = {"timeout": 2, "stale_while_revalidate": 60, "renew": lambda work: work()}
    seen = []
    for turn in range(3):
        seen.append(
            whole.get_or_set_many(["a", "b"], lambda keys, turn=turn: dict.fromkeys(keys, turn), **options)["a"]
        )
        clock.now += 3

    assert seen == [0, 0, 1]
    assert whole._flights.submitted == {}


def test_a_callable_that_renews_is_not_kept(whole):
    """What a function refers to, such as a request, lives no longer because a call has named the function."""

    class Request:
        pass

    request = Request()
    known = weakref.ref(request)
    whole.get_or_set("key", lambda: 1, 60, stale_while_revalidate=5, renew=lambda work, request=request: work())
    del request
    gc.collect()

    assert known() is None
