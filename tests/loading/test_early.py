"""Early renewal: an entry outlives its fresh life by more than its load takes, for a renewal that ends too late."""

from __future__ import annotations

import time

import pytest
from tests.caches import own_prefix
from tests.faces import BLOCKING, Face
from tests.loading.entries import stored
from tests.loading.gates import Clock, Gated, calling, until

from fleetcache import Cache
from fleetcache.loading import wishes
from fleetcache.servers.memory import memory_server

COST = 0.02
"""How many seconds the first load takes, at least."""


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def memory(clock: Clock, face: str, monkeypatch) -> Face:
    """A cache on a server whose clock the test turns, with entries that are renewed as early as their loads take twice."""
    monkeypatch.setattr(wishes, "drawn", lambda stamp: 1.0)
    name = own_prefix()
    memory_server(name)._clock = clock
    return Face(Cache(f"memory://{name}", {"KEY_PREFIX": name}), face)


async def load(cache: Face, **policy) -> None:
    """Load the first value."""
    first = Gated("old", opened=True)
    first.during = lambda: time.sleep(COST)
    assert await cache.get_or_set("key", first.of(cache), 60, **policy) == "old"


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_a_renewal_that_ends_too_late_is_stored(memory, clock, many):
    """It began while the value was fresh; when it ends, the fresh life is over, but the entry is there."""
    await load(memory, early=1.0)
    renewal = Gated("new", opened=True)

    def late() -> None:
        clock.now += COST

    renewal.during = late
    clock.now += 60 - COST / 2
    if many:

        def load_many(keys):
            return dict.fromkeys(keys, renewal())

        found = (await memory.get_or_set_many(["key"], load_many, 60, early=1.0))["key"]
    else:
        found = await memory.get_or_set("key", renewal.of(memory), 60, early=1.0)
    assert found == ("new" if memory.face == BLOCKING else "old")
    await until(lambda: not memory.whole._flights.running)

    assert await memory.get("key") == "new"
    assert (renewal.calls, memory.whole.stats.fills_refused) == (1, 0)


async def test_nobody_gets_the_old_value_unasked(memory, clock):
    """When the fresh life is over, the entry is missing for everybody, and a caller without limits loads."""
    await load(memory, early=1.0)
    clock.now += 60.001

    assert await stored(memory, "key") is not None
    assert await memory.get("key") is None
    assert await memory.get_many(["key"]) == {}
    assert await memory.has_key("key") is False
    assert await memory.ttl("key") == 0
    assert (await memory.lookup("key")).state == "stale"
    assert await memory.add("key", "added", 60) is True
    assert await memory.get("key") == "added"


async def test_a_caller_without_limits_loads(memory, clock):
    """He does not get the old value, even while it is there; nor if his loader fails."""
    await load(memory, early=1.0)
    clock.now += 60.001
    failing = Gated(LookupError("gone"), opened=True)
    with pytest.raises(LookupError):
        await memory.get_or_set("key", failing.of(memory), 60, early=1.0)
    again = Gated("new", opened=True)

    assert await memory.get_or_set("key", again.of(memory), 60, early=1.0) == "new"
    assert memory.whole.stats.stale_served == 0


async def test_it_is_kept_for_a_second_and_two_loads(memory, clock):
    """Then it is gone; a longer stale life stays as it is, and without `early` there is none."""
    await load(memory, early=1.0)
    left = (await memory.pttl("key"), memory_left(memory))
    assert left[0] <= 60_000
    assert 61_000 + 2 * COST * 1000 <= left[1] < 63_000

    await memory.delete("key")
    await load(memory, early=1.0, stale_if_error=90)
    assert memory_left(memory) == 150_000
    await memory.delete("key")
    await load(memory)
    assert memory_left(memory) == 60_000


def memory_left(cache: Face) -> int:
    """Return for how many milliseconds the server keeps the entry."""
    (left,) = cache.topology.home(cache.name("key")).exchange((("PTTL", cache.name("key")),))
    return int(left)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_only_renewals_that_began_are_counted(memory, clock, many):
    """Of two processes that would renew a value early, one gets the lease; the other's counter stays as it is."""
    await load(memory, early=1.0)
    clock.now += 60 - COST / 2
    params = {"KEY_PREFIX": memory.whole.key_prefix, "OPTIONS": {"HERD_TIMEOUT": 61}}
    other = Face(Cache(f"memory://{memory.whole.key_prefix}", params), memory.face)
    renewal, unwanted = Gated("new"), Gated("unwanted", opened=True)
    renewing = calling(memory, "get_or_set", "key", renewal.of(memory), 60, early=1.0)
    await renewal.entered()

    if many:
        found = await other.get_or_set_many(["key"], lambda keys: {"key": unwanted()}, 60, early=1.0)
        assert found == {"key": "old"}
    else:
        assert await other.get_or_set("key", unwanted.of(other), 60, early=1.0) == "old"
    await until(lambda: not other.whole._flights.running)
    renewal.gate.set()
    await renewing
    await until(lambda: not memory.whole._flights.running)

    assert (memory.whole.stats.early, other.whole.stats.early, unwanted.calls) == (1, 0, 0)
