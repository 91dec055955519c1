"""The advice on MAX_BYTES: every read of a sampled name is seen, and the names outside of the sample pay nothing."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from tests.faces import Face
from tests.near.conftest import Copies, copied, copy

from fleetcache.near import advice
from fleetcache.near.advice import FACTORS, Advisor
from fleetcache.near.minisim import weight_of
from fleetcache.near.store import PACKED, Epoch, Store, Watched


@pytest.fixture
def advised(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> Face:
    """A cache with a near cache that simulates other sizes with all names."""
    monkeypatch.setattr(advice, "COARSER", (0,) * len(FACTORS))
    return copies(near={"MAX_BYTES": 400_000})


def missed(cache: Face) -> list[float]:
    """Return the misses of each size, as estimated."""
    advisor: Advisor = cache.near.advisor
    assert advisor.shift == 0
    return list(map(sum, advisor.spans[-1].missed))


async def test_hits_are_seen_by_every_size(advised: Face) -> None:
    """A name that all sizes hold is missed once, however often it is read, and its hits take the quick way."""
    await advised.set("a", 1)
    await copied(advised, "a")
    before = missed(advised)
    for _ in range(10):
        await advised.get("a")

    assert missed(advised) == before
    entry = copy(advised, str(advised.make_key("a")))
    assert type(entry.epoch) is Epoch
    sampled = advised.near.advisor.known[entry.name]
    assert [sampled.hits - seen for _, _, seen, *_ in sampled.copies] == [entry.hits] * len(FACTORS)


async def test_copy_that_a_size_lacks_is_watched(advised: Face) -> None:
    """If a smaller store has evicted a name, the next hit on its copy is a miss there."""
    await advised.set("a", 1)
    await copied(advised, "a")
    name = str(advised.make_key("a"))
    smallest = advised.near.advisor.minis[0]
    before = missed(advised)

    smallest.drop(advised.near.advisor.known[name])
    assert type(copy(advised, name).epoch) is Watched
    assert await advised.get("a") == 1

    assert missed(advised) == [before[0] + 1, *before[1:]]
    assert type(copy(advised, name).epoch) is Epoch


@pytest.mark.parametrize("how", ["own", "foreign"])
async def test_write_ends_the_simulated_copies(advised: Face, raw: Any, how: str) -> None:
    """A write by anybody is a miss in every size, as it is in the store."""
    await advised.set("a", 1)
    await copied(advised, "a")
    name = str(advised.make_key("a"))
    advised.near.copies.pop(name).epoch = Epoch()  # the store may have evicted it; the simulations have it
    assert name in advised.near.advisor.known

    if how == "own":
        await advised.set("a", 2)
    else:
        raw.set(name, 2)
    await advised.fence()

    assert name not in advised.near.advisor.known


async def test_flush_ends_all_simulated_copies(advised: Face, raw: Any) -> None:
    """When an epoch ends, the simulated stores are empty too."""
    await advised.set("a", 1)
    await copied(advised, "a")

    raw.flushdb()
    await advised.fence()

    assert not advised.near.advisor.known
    assert not any(mini.entries for mini in advised.near.advisor.minis)


async def test_get_many_is_seen(advised: Face) -> None:
    """Reads of many names are simulated too."""
    await advised.set_many({f"k{number}": number for number in range(20)})
    await advised.fence()
    before = missed(advised)

    await advised.get_many([f"k{number}" for number in range(20)])

    assert missed(advised) == [each + 20 for each in before]


async def test_advice_has_what_it_says(advised: Face) -> None:
    """The figures are complete, in the snapshot too, and the present size shows the measured ratio."""
    await advised.set("a", 1)
    await copied(advised, "a")
    for _ in range(30):
        await advised.get("a")

    found = advised.near.advice()

    stats = advised.near.stats()
    assert found["reads"] == stats["hits"] + stats["misses"]
    assert [size["max_bytes"] for size in found["sizes"]] == [100_000, 200_000, 400_000, 800_000, 1_600_000]
    assert found["sizes"][2]["hit_ratio"] == found["now"] == stats["hits"] / found["reads"]
    assert "at 0.4 MB" in found["text"]
    assert advised.snapshot()["advice"].keys() == found.keys()


@pytest.mark.parametrize("fits", [True, False])
async def test_misses_that_no_simulation_sees(advised: Face, monkeypatch: pytest.MonkeyPatch, fits: bool) -> None:
    """An invalidation by tag makes reads miss in every size, so no other size has a better ratio; least of all if all fits."""
    if not fits:
        monkeypatch.setattr(advice, "FULL", 1e-6)
    keys = [f"a:{at}" for at in range(20)]
    for _ in range(10):
        for key in keys:
            await advised.set(key, "x" * 100, tags=["all"])
        await advised.fence()
        for _ in range(5):
            await advised.get_many(keys)
        await advised.invalidate_tags("all")
        await advised.get_many(keys)

    found = advised.near.advice()

    assert 0.3 < found["now"] < 0.9
    assert [size["hit_ratio"] for size in found["sizes"]] == pytest.approx([found["now"]] * len(FACTORS), abs=0.02)
    assert any(size["error"] for size in found["sizes"]) is not fits


@pytest.mark.parametrize("stats", [False, {"ADVISE": False}])
def test_advice_can_be_off(copies: Copies, stats: Any) -> None:
    """Without it nothing is simulated, and the advice is empty."""
    cache = copies(live=False, STATS=stats)

    assert cache.near.store.watcher is None
    assert cache.near.advice() == {}


@pytest.mark.parametrize("value", ["text", "täxt", 5, 5000, b"bytes", 1.5, None, True])
def test_weights_are_those_of_the_store(value: Any) -> None:
    """A simulated copy weighs as much as a real one."""
    for name, payload in (("n" * 5, None), ("n" * 200, b"p" * 300)):
        store = Store(1_000_000)
        store.put(name, value, payload, inf, Epoch(inf))

        assert weight_of(name, value, payload) == store.copies[name].weight
    assert weight_of("n", PACKED, b"") > 0


async def test_forked_child_begins_anew(copies: Copies) -> None:
    """A child simulates its own reads, and its changes are seen, although the parent was in the middle of a change."""
    cache = copies(near={"MAX_BYTES": 400_000})
    await cache.set("a", 1)
    await copied(cache, "a")
    near = cache.near
    advisor = near.advisor
    advisor.busy = True

    near.after_fork()

    assert not advisor.busy
    assert not advisor.known
    assert advisor.advice()["reads"] == 0
    assert all(reads.sampled is advisor.known for reads in near.reads.values())
    assert near.auditor.compared == 0
