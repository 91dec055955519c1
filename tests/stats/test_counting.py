"""Each figure of a snapshot, against what a short program does, counted by hand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from random import Random
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError
from tests import django_settings
from tests.caches import own_prefix, params
from tests.faces import AWAITING, BLOCKING, FACES, Face, settled
from tests.forks import ended_well, in_child
from tests.loading.gates import Gated, calling, joined, two_processes, until
from tests.near.conftest import Copies, copied, copy

from fleetcache import Cache
from fleetcache.client import HerdClient, ShardClient
from fleetcache.django import RedisCache
from fleetcache.errors import ServerGone
from fleetcache.forks import chance
from fleetcache.near.store import Store
from fleetcache.stats.tally import TALLIES
from fleetcache.stats.top import sure
from fleetcache.testing import empty_memory

from .conftest import Make, calls, figures

django_settings.configure()

PLAIN = "x" * 10
"""A value whose payload has 10 bytes more than an empty text's."""


def size(cache: Any, value: Any) -> int:
    """Return the bytes of *value*'s payload."""
    payload = cache.encode(value)
    return len(payload) if isinstance(payload, bytes) else len(str(payload))


# --- reads and writes -----------------------------------------------------------------------------


async def test_reads_and_writes(cache: Face, where: str):
    """A read is counted once, where it was answered; a write and a deletion for each key."""
    await cache.set("a:1", PLAIN)
    await cache.set("a:2", PLAIN, timeout=None)
    await cache.set("b:1", {"other": "group"})
    await cache.get("a:1")  # with copies: leaves one
    await cache.get("a:3")
    await cache.delete("a:2")
    await cache.delete("a:2")

    length = size(cache, PLAIN)
    assert figures(cache) == {"server": 1, "missed": 1, "writes": 2, "deletes": 2}
    assert cache.snapshot()["groups"]["a"]["bytes_written"] == 2 * length
    assert cache.snapshot()["groups"]["a"]["bytes_read"] == length
    assert figures(cache, "b") == {"writes": 1}


async def test_reads_that_are_added_up_later():
    """The lengths of payloads that wait to be added up are few, also of a group that the sample seldom meets."""
    cache = Cache("memory://", params({}))
    cache.set_many({"a:1": PLAIN, "b:1": PLAIN})
    tally = cache.tally
    assert tally is not None
    waiting = 0
    for at in range(20_000):
        cache.get("a:1" if at % 50 else "b:1")
        waiting = max(waiting, *(len(group.sizes) for group in tally.groups.values()))

    length = size(cache, PLAIN)
    assert 0 < waiting < 64 * 256
    assert figures(cache, "a") == {"server": 19_600, "writes": 1}
    assert figures(cache, "b") == {"server": 400, "writes": 1}
    assert cache.snapshot()["groups"]["a"]["bytes_read"] == 19_600 * length


async def test_many_at_once(cache: Face):
    """`get_many`, `set_many` and `delete_many` count each key in its group."""
    await cache.set_many({"a:1": PLAIN, "a:2": 5, "b:1": PLAIN})
    found = await cache.get_many(["a:1", "a:2", "a:3", "b:1", "b:2"])
    await cache.delete_many(["a:1", "a:9", "b:1"])

    assert len(found) == 3
    assert figures(cache) == {"server": 2, "missed": 1, "writes": 2, "deletes": 2}
    assert figures(cache, "b") == {"server": 1, "missed": 1, "writes": 1, "deletes": 1}
    groups = cache.snapshot()["groups"]
    assert groups["a"]["bytes_written"] == groups["a"]["bytes_read"] == size(cache, PLAIN) + 1
    assert groups["b"]["bytes_written"] == groups["b"]["bytes_read"] == size(cache, PLAIN)


async def test_many_of_one_group(cache: Face):
    """Keys of one group are counted together, with the same result."""
    await cache.set_many({f"a:{at}": PLAIN for at in range(5)})
    await cache.get_many([f"a:{at}" for at in range(8)])

    assert figures(cache) == {"server": 5, "missed": 3, "writes": 5}
    assert cache.snapshot()["groups"]["a"]["bytes_read"] == 5 * size(cache, PLAIN)


async def test_conditional_writes(cache: Face):
    """Only what was stored counts as written."""
    await cache.add("a:1", 1)
    await cache.add("a:1", 2)
    await cache.set("a:2", 1, xx=True)
    await cache.set("a:1", 3, xx=True)
    await cache.set("a:1", 1, timeout=0)
    await cache.set_many({"a:1": 1, "a:2": 2}, timeout=0)

    assert figures(cache) == {"writes": 2, "deletes": 3}


async def test_numbers(cache: Face):
    """A sum is a write, also one that is made in Python; a failed one is none, and none of them is a read."""
    await cache.incr("a:1", default=1)
    await cache.incr("a:1", 5)
    await cache.decr("a:1")
    await cache.set("a:2", 1.5)
    await cache.incr("a:2", 0.25)
    await settled(cache.incr("a:3"))

    assert figures(cache) == {"writes": 5}


async def test_other_reads(cache: Face):
    """`has_key`, `lookup` and `get_with_ttl` are reads; `touch`, `ttl` and a scan are none."""
    await cache.set("a:1", PLAIN)
    await cache.has_key("a:1")
    await cache.has_key("a:2")
    await cache.lookup("a:1")
    await cache.get_with_ttl("a:1")
    await cache.touch("a:1", 100)
    await cache.ttl("a:1")
    await cache.keys("a:*")

    assert figures(cache) == {"server": 3, "missed": 1, "writes": 1}
    assert cache.snapshot()["groups"]["a"]["bytes_read"] == 2 * size(cache, PLAIN)


async def test_deleting_by_pattern(cache: Face):
    """Each entry that a pattern finds is counted in its group."""
    await cache.set_many({"a:1": 1, "a:2": 2, "b:1": 3})
    await cache.delete_pattern("*")

    assert (figures(cache)["deletes"], figures(cache, "b")["deletes"]) == (2, 1)


async def test_structures_are_counted_as_commands_only(cache: Face):
    """Hashes and the like are in no group."""
    await cache.hset("a:1", "field", 1)
    await cache.hget("a:1", "field")

    assert figures(cache) == {}
    assert (calls(cache)["HSET"], calls(cache)["HGET"]) == (1, 1)


async def test_unreadable_entries(cache: Face, where: str):
    """What cannot be read is a miss; its bytes were read all the same."""
    await cache.set("a:1", PLAIN)
    name = cache.make_key("a:1")
    if where == "memory":
        cache.topology.home(name).exchange([(b"SET", str(name), b"\x80\x05garbage")])
    else:
        with redis.Redis.from_url(cache.settings.location[0].url) as raw:
            raw.set(name, b"\x80\x05garbage")

    assert await cache.get("a:1", fresh=True) is None
    assert await cache.get_many(["a:1"], fresh=True) == {}
    assert figures(cache) == {"missed": 2, "writes": 1}
    assert cache.snapshot()["groups"]["a"]["bytes_read"] == 18


async def test_tags(cache: Face):
    """The versions of tags are no reads, and in no group."""
    await cache.set("a:1", PLAIN, tags=["t"])
    for _ in range(3):
        await cache.get("a:1", fresh=True)
    await cache.invalidate_tags("t")
    await cache.get("a:1", fresh=True)

    assert figures(cache) == {"server": 3, "missed": 1, "writes": 1}
    assert set(cache.snapshot()["groups"]) == {"a"}


async def test_pipelines(cache: Face):
    """Operations of a pipeline are counted as without one; their time is not, since they are sent later."""
    async with cache.pipeline() as pipe:
        pipe.set("a:1", PLAIN).get("a:1").get("a:2").get_many(["a:1", "a:3"]).incr("a:4", default=1).delete("a:4")
        await pipe.execute()

    assert figures(cache) == {"server": 2, "missed": 2, "writes": 2, "deletes": 1}
    assert all(not each["latency"]["count"] for each in cache.snapshot()["commands"].values())


# --- copies near ----------------------------------------------------------------------------------


async def test_hits_never_fall(copies: Copies, monkeypatch: pytest.MonkeyPatch):
    """A copy that is removed while a snapshot is made is counted all the same."""
    cache = copies()
    await cache.set("a:1", 1)
    await copied(cache, "a:1")
    for _ in range(100):
        await cache.get("a:1")
    before = figures(cache)["near"]

    def late(self: Store, *arguments: Any) -> Any:
        with cache.near.lock:
            self.drop(cache.make_key("a:1"))
        return plain(self, *arguments)

    plain = Store.hits_by_group
    monkeypatch.setattr(Store, "hits_by_group", late)

    assert figures(cache)["near"] == before
    monkeypatch.undo()
    assert copy(cache, cache.make_key("a:1")) is None
    assert figures(cache)["near"] == cache.snapshot()["near"]["hits"] == before


async def test_hits_of_copies(copies: Copies):
    """Hits of copies are counted by group: of present copies, and of those that were removed."""
    cache = copies()
    await cache.set_many({"a:1": PLAIN, "a:2": [1, 2]})
    for key in ("a:1", "a:2"):
        await copied(cache, key)
    before = figures(cache)
    for _ in range(3):
        await cache.get("a:1")
        await cache.get_many(["a:1", "a:2"])
    await cache.has_key("a:1")
    await cache.get_or_set("a:2", list)

    assert figures(cache) == before | {"near": before.get("near", 0) + 11}

    await cache.delete("a:1")

    assert copy(cache, str(cache.make_key("a:1"))) is None
    assert figures(cache)["near"] == before.get("near", 0) + 11


async def test_copies_of_missing_entries(copies: Copies):
    """A copy that says "there is none" answers a read that missed, also after it was removed."""
    cache = copies()
    await copied(cache, "a:1")
    before = figures(cache)["missed"]
    for _ in range(3):
        await cache.get("a:1")
    await cache.get_many(["a:1"])
    await cache.has_key("a:1")

    assert figures(cache) == {"missed": before + 5}

    await cache.set("a:1", 1)

    assert figures(cache) == {"missed": before + 5, "writes": 1}


async def test_loads_after_a_copy_of_missing(copies: Copies):
    """`get_or_set` that finds a copy of "missing" counts one missed read and one load."""
    cache = copies()
    await copied(cache, "a:1")
    before = figures(cache)["missed"]

    await cache.get_or_set("a:1", lambda: 5)

    assert figures(cache) == {"missed": before + 1, "loads": 1, "writes": 1}


async def test_evicted_copies_keep_their_hits(copies: Copies):
    """Also an eviction, and the end of all copies of a time, keep what was counted."""
    cache = copies(near={"MAX_BYTES": 40_000})
    await cache.set("a:1", PLAIN)
    await copied(cache, "a:1")
    before = figures(cache).get("near", 0)
    await cache.get("a:1")
    store = cache.near.store
    for at in range(500):
        store.put(f"filling:{at}", "x" * 100, None, 1e12, store.copies[next(iter(store.copies))].epoch)
    await cache.get("a:1")

    assert copy(cache, str(cache.make_key("a:1"))) is None or store.evictions["size"]
    assert before + 1 <= figures(cache)["near"] <= before + 2


# --- loads ----------------------------------------------------------------------------------------


async def test_loads(cache: Face):
    """The first call misses and loads; the next ones are hits."""
    load = Gated(PLAIN, opened=True)
    for _ in range(4):
        assert await cache.get_or_set("a:1", load.of(cache)) == PLAIN

    found = figures(cache)
    assert found.pop("near", 0) + found.pop("server") == 3
    assert found == {"missed": 1, "loads": 1, "writes": 1}
    group = cache.snapshot()["groups"]["a"]
    assert 0 < group["load_seconds"] < 5
    assert group["saved"] == pytest.approx(3 * group["load_seconds"])
    assert cache.snapshot()["loads"]["latency"]["count"] == 1
    assert cache.snapshot()["top"]["seconds"] == [["a:1", group["load_seconds"], 0]]
    assert cache.info()["loading"]["loads"] == 1


async def test_failed_loads(cache: Face):
    """A loader that raises counts as load and as error; what another read finds later is a new miss."""
    for _ in range(2):
        error = await settled(cache.get_or_set("a:1", Gated(ZeroDivisionError(), opened=True), retry_after=0.0))
        assert isinstance(error, ZeroDivisionError)

    assert figures(cache) == {"missed": 2, "loads": 2, "load_errors": 2}


async def test_joined_loads(cache: Face):
    """Who waits for another's load has missed, and has joined."""
    load = Gated(PLAIN)
    callers = [calling(cache, "get_or_set", "a:1", load.of(cache)) for _ in range(3)]
    await joined(cache, 2)
    load.gate.set()
    assert [await caller for caller in callers] == [PLAIN] * 3

    assert figures(cache) == {"missed": 3, "loads": 1, "joined": 2, "writes": 1}


@pytest.mark.parametrize("where", ["memory", "valkey"])
async def test_waiting_for_another_process(make: Make):
    """Whoever waits for the load of another process has joined it."""
    one, two = two_processes(make)
    load = Gated(PLAIN)
    first = calling(one, "get_or_set", "a:1", load.of(one))
    await load.entered()
    second = calling(two, "get_or_set", "a:1", lambda: "never called")
    await until(lambda: two.stats.waited)
    load.gate.set()

    assert (await first, await second) == (PLAIN, PLAIN)
    assert figures(one) == {"missed": 1, "loads": 1, "writes": 1}
    assert figures(two) == {"missed": 1, "joined": 1}


async def test_many_loads(cache: Face):
    """A loader of many counts once for each key, with an equal share of the time."""
    await cache.set("a:1", 1)
    found = await cache.get_or_set_many(["a:1", "a:2", "a:3", "b:1"], lambda keys: dict.fromkeys(keys, 2))

    assert len(found) == 4
    assert figures(cache) == {"server": 1, "missed": 2, "loads": 2, "writes": 3}
    assert figures(cache, "b") == {"missed": 1, "loads": 1, "writes": 1}
    groups = cache.snapshot()["groups"]
    assert groups["a"]["load_seconds"] == pytest.approx(2 * groups["b"]["load_seconds"])
    latency = cache.snapshot()["loads"]["latency"]
    assert latency["count"] == cache.info()["loading"]["loads"] == 1
    assert latency["sum"] == pytest.approx(groups["a"]["load_seconds"] + groups["b"]["load_seconds"])


async def test_refreshing(cache: Face):
    """What is loaded in any case is no read."""
    await cache.get_or_set("a:1", lambda: 1)
    await cache.get_or_set("a:1", lambda: 2, refresh=True)
    await cache.get_or_set_many(["a:1"], lambda keys: dict.fromkeys(keys, 3), refresh=True)

    assert figures(cache) == {"missed": 1, "loads": 3, "writes": 3}


async def test_constants(cache: Face):
    """A constant is no load."""
    await cache.get_or_set("a:1", 5)
    await cache.get_or_set("a:1", 6)
    await cache.get_or_set("a:2", 7, timeout=0)

    found = figures(cache)
    assert found.pop("near", 0) + found.pop("server") == 1
    assert found == {"missed": 2, "writes": 1}


class Rival(Cache):
    """A cache in which another caller is always faster."""

    async def aadd(self, key: Any, *args: Any, **kwargs: Any) -> bool:
        await self.aset(key, "of the rival")
        return False


async def test_lost_races(make: Make):
    """The second look at an entry that another caller has stored is no second read."""
    cache = make(kind=Rival)

    assert await cache.get_or_set("a:1", "constant") == "of the rival"
    assert figures(cache) == {"missed": 1, "writes": 1}


@pytest.mark.parametrize("where", ["memory"])
async def test_stale_values(make: Make):
    """A stale value that is returned at once counts as stale; who renews it himself and waits has missed."""
    cache = make(LOADING={"STALE_WHILE_REVALIDATE": 60, "RENEW": "caller"})
    await cache.get_or_set("a:1", lambda: 1, 10)
    await cache.invalidate("a:1", soft=True)
    assert await cache.get("a:1") is None
    assert await cache.get("a:1", stale=True) == 1
    assert figures(cache) == {"missed": 2, "stale": 1, "loads": 1, "writes": 1}

    value = await cache.get_or_set("a:1", lambda: 2, 10)
    if cache.face == BLOCKING:
        assert value == 2
        assert figures(cache) == {"missed": 3, "stale": 1, "loads": 2, "writes": 2}
    else:
        assert value == 1  # it is renewed beside him
        assert figures(cache)["stale"] == 2
        assert figures(cache)["missed"] == 2
    # `get` is no loading call
    assert cache.info()["loading"]["stale_served"] == (0 if cache.face == BLOCKING else 1)


@pytest.mark.parametrize("where", ["memory"])
@pytest.mark.parametrize("renew", ["caller", "thread"])
async def test_stale_values_of_many_renewed(make: Make, renew: str):
    """As with one value: whoever gets an old one is counted as stale in both figures, whoever waits for the new one in neither."""
    cache = make(LOADING={"STALE_WHILE_REVALIDATE": 60, "RENEW": renew})
    await cache.get_or_set_many(["a:1", "a:2"], lambda keys: dict.fromkeys(keys, 1), 10)
    await cache.invalidate("a:1", soft=True)
    await cache.invalidate("a:2", soft=True)

    found = await cache.get_or_set_many(["a:1", "a:2"], lambda keys: dict.fromkeys(keys, 2), 10)
    await until(lambda: figures(cache)["loads"] == 4 and not cache.whole._flights.running)

    old = list(found.values()).count(1)
    assert old == (0 if cache.face == BLOCKING and renew == "caller" else 2)
    assert (figures(cache).get("stale", 0), cache.info()["loading"]["stale_served"]) == (old, old)


@pytest.mark.parametrize("where", ["memory"])
async def test_stale_in_place_of_an_error(make: Make):
    """A read that ends with an old value because no new one could be loaded counts once: as stale."""
    cache = make(LOADING={"STALE_IF_ERROR": 60})
    await cache.get_or_set("a:1", lambda: 1, 10)
    await cache.invalidate("a:1", soft=True)

    assert await cache.get_or_set("a:1", Gated(ZeroDivisionError(), opened=True), 10) == 1
    assert figures(cache) == {"missed": 1, "stale": 1, "loads": 2, "load_errors": 1, "writes": 1}


@pytest.mark.parametrize("where", ["memory"])
async def test_stale_values_of_many(make: Make):
    """The same in a batch."""
    cache = make(LOADING={"STALE_WHILE_REVALIDATE": 60, "RENEW": "caller"})
    load = lambda keys: dict.fromkeys(keys, 1)  # noqa: E731 - used twice
    await cache.get_or_set_many(["a:1", "a:2"], load, 10)
    await cache.invalidate("a:1", soft=True)
    await cache.get_or_set_many(["a:1", "a:2"], load, 10)

    found = figures(cache)
    assert found["missed"] + found.get("stale", 0) == 3
    assert found["server"] == 1
    assert found.get("stale", 0) == (cache.face == AWAITING)


async def test_herd_client(make: Make):
    """A HerdClient counts each call once, too."""
    cache = make(kind=HerdClient)
    for _ in range(3):
        await cache.get_or_set("a:1", lambda: {"b": 1}, 1000)

    found = figures(cache)
    assert found.pop("near", 0) + found.pop("server") == 2
    assert found == {"missed": 1, "loads": 1, "writes": 1}


# --- commands and errors --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "valkey"])
async def test_commands(cache: Face):
    """Each command is counted; of an exchange of several, each of them."""
    for at in range(3):
        await cache.set(f"a:{at}", 1)
    for at in range(5):
        await cache.get(f"a:{at}")
    await cache.set_many({"a:1": 1, "a:2": 2})
    await cache.get_many(["a:1", "a:2"])
    await cache.set("a:1", 1, timeout=1)  # with its lease

    assert calls(cache) == {"SET": 6, "GET": 5, "MULTI": 1, "EXEC": 1, "MGET": 1, "DEL": 1}


@pytest.mark.parametrize("where", ["memory", "valkey"])
async def test_latency_is_sampled(cache: Face):
    """The first 32 exchanges are timed, then one in 4, after 512 one in 16, and after 2,048 one in 64."""
    for _ in range(2560):
        await cache.get("a:1")

    latency = cache.snapshot()["commands"]["GET"]["latency"]
    assert 190 <= latency["count"] <= 325  # 256, and its standard error is 14
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 5
    assert sum(count for _, count in latency["buckets"]) == latency["count"]


async def test_one_of_many_tasks_is_timed(valkey: Any):
    """Tasks that call while a timed exchange is under way are not timed as well."""
    cache = Cache(valkey.url(9), params({}))
    for _ in range(20):
        await asyncio.gather(*(cache.aget("a:1") for _ in range(100)))

    # 245, less the first tasks, which wait for the connection
    assert 120 <= cache.snapshot()["commands"]["GET"]["latency"]["count"] <= 315


@pytest.mark.parametrize("where", ["memory", "valkey"])
async def test_refusals(cache: Face):
    """A refusal is an error of its command, and of its class."""
    await cache.hset("a:1", "field", 1)
    assert isinstance(await settled(cache.get("a:1")), ResponseError)
    assert isinstance(await settled(cache.get_many(["a:1"])), dict)

    assert cache.snapshot()["commands"]["GET"]["errors"] == 1
    assert cache.snapshot()["commands"]["HSET"]["errors"] == 0
    assert sum(cache.snapshot()["errors"].values()) == 1
    assert figures(cache) == {"missed": 1}  # the read that raised is none


@pytest.mark.parametrize("face", FACES)
async def test_outages(face: str):
    """A server that is away is an error; with IGNORE_EXCEPTIONS the read has missed, and nothing was written."""
    cache = Face(Cache("redis://127.0.0.1:1", params({"IGNORE_EXCEPTIONS": True})), face)
    await cache.get("a:1")
    await cache.get_many(["a:1", "a:2"])
    await cache.set("a:1", 1)
    await cache.set_many({"a:1": 1})
    await cache.delete("a:1")
    await cache.delete_many(["a:1", "a:2"])
    await cache.lookup("a:1")

    assert figures(cache) == {"missed": 4}
    snapshot = cache.snapshot()
    assert sum(snapshot["errors"].values()) == 7
    assert set(snapshot["errors"]) <= {"NeverSent", "CircuitOpen"}
    assert snapshot["commands"]["GET"]["errors"] == 2


# --- whose figures --------------------------------------------------------------------------------


def test_caches_of_one_configuration_share_a_tally():
    """Both faces, the client, and other caches of the same settings count together; others apart."""
    prefix = own_prefix()
    one, two = (Cache("memory://shared", {"KEY_PREFIX": prefix}, alias=alias) for alias in ("", "second"))
    apart = Cache("memory://shared", {"KEY_PREFIX": own_prefix()})
    one.set("a:1", 1)
    two.get("a:1")
    one.client.get("a:1")
    one.strict.get("a:1")
    asyncio.run(one.aget("a:1"))

    assert one.tally is two.tally is one.client.tally
    assert one.tally.alias == "second"
    assert figures(one) == {"writes": 1, "server": 4}
    assert figures(apart) == {}
    assert {one.tally, apart.tally} <= set(TALLIES)


@pytest.mark.parametrize("where", ["memory", "valkey", "near"])
async def test_off(make: Make):
    """With STATS off nothing is counted, everything works, and the snapshot is empty."""
    cache = make(STATS=False)
    await cache.set("a:1", 1)
    await cache.set_many({"a:1": 1, "a:2": 2})
    await cache.get("a:1")
    await cache.get_many(["a:1", "a:3"])
    await cache.get_or_set("a:3", lambda: 1)
    await cache.get_or_set_many(["a:4"], lambda keys: dict.fromkeys(keys, 1))
    await cache.incr("a:1")
    await cache.has_key("a:1")
    await cache.delete("a:1")

    assert cache.tally is None
    assert cache.snapshot() == {}
    assert cache.info()["loading"]["loads"] == 2


async def test_work_that_is_not_counted(cache: Face):
    """A face without a tally does its work uncounted: the library's own work is done so."""
    await cache.set("a:1", 1)
    apart = cache.whole._face(tally=None)
    await apart.aget("a:1")

    assert figures(cache) == {"writes": 1}


@pytest.mark.parametrize("where", ["valkey"])
async def test_callers_clients(cache: Face):
    """Calls over a client of the caller are counted like others."""
    client = cache.get_client()
    await cache.set("a:1", 1, client=client)
    await cache.get("a:1", client=client)

    assert figures(cache) == {"writes": 1, "server": 1}


@pytest.mark.parametrize("face", FACES)
async def test_clusters(valkey_cluster: Any, face: str):
    """On a cluster, too, each key and each command is counted once."""
    cache = Face(Cache(valkey_cluster.url(), params({})), face)
    await cache.set_many({f"a:{at}": at for at in range(20)})
    await cache.get_many([f"a:{at}" for at in range(25)])
    await cache.delete_many([f"a:{at}" for at in range(20)])

    assert figures(cache) == {"server": 20, "missed": 5, "writes": 20, "deletes": 20}
    assert (calls(cache)["SET"], calls(cache)["MGET"]) == (20, 25)


@pytest.mark.parametrize("face", FACES)
async def test_shards(face: str):
    """On several servers each key is counted once."""
    locations = ["memory://shard1", "memory://shard2"]
    cache = Face(ShardClient(locations, params({})), face)
    await cache.set_many({f"a:{at}": at for at in range(20)})
    await cache.get_many([f"a:{at}" for at in range(25)])
    empty_memory()

    assert figures(cache) == {"server": 20, "missed": 5, "writes": 20}


@pytest.mark.parametrize("face", FACES)
async def test_django(face: str):
    """Django's backend counts like `Cache`; keys that Django makes have groups of their own."""
    cache = Face(RedisCache("memory://django", params({})), face)
    await cache.set("django.contrib.sessions.cacheabc", 1)
    await cache.get_many(["a:1", "a:2"])
    await cache.set("a:1", 1)
    await cache.incr("a:1")
    await cache.touch("a:1")
    await cache.get("plain")
    empty_memory()

    assert figures(cache) == {"missed": 2, "writes": 2}
    assert figures(cache, "sessions") == {"writes": 1}
    assert figures(cache, "other") == {"missed": 1}


def test_forked_children_count_from_zero():
    """A child has counted nothing, and what it counts is its own."""
    cache = Cache("memory://forks", params({}))
    cache.set("a:1", 1)
    cache.get("a:1")

    def in_the_child() -> None:
        assert cache.snapshot()["commands"] == {}
        assert figures(cache) == {}
        cache.get("a:1")
        assert figures(cache) == {"server": 1}

    assert ended_well(in_child(in_the_child))
    assert figures(cache) == {"writes": 1, "server": 1}


async def test_forked_children_with_copies(copies: Copies):
    """Neither the hits of the parent's copies nor those of removed ones are a child's."""
    cache = copies()
    await cache.set_many({"a:1": 1, "a:2": 2})
    for key in ("a:1", "a:2"):
        await copied(cache, key)
        await cache.get(key)
    await cache.delete("a:2")

    assert figures(cache)["near"] >= 2
    assert ended_well(in_child(lambda: _counts_nothing(cache)))


def _counts_nothing(cache: Face) -> None:
    assert figures(cache) == {}
    assert cache.snapshot()["near"]["hits"] == 0


def test_threads():
    """Threads count together; a count may be lost, but not many, and nothing breaks."""
    cache = Cache("memory://threads", params({}))
    cache.set("a:0", 1)

    def work() -> None:
        for at in range(500):
            cache.get("a:0")
            cache.get(f"g{at % 150}:x")
            cache.get_or_set(f"l{at % 150}:{at}", lambda: 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    groups = cache.snapshot()["groups"]
    assert 0.95 * 2000 <= groups["a"]["server"] <= 2000
    assert len(groups) <= 100
    assert sum(each["missed"] + each["server"] for each in groups.values()) >= 0.95 * 6000
    json.dumps(cache.snapshot())


# --- the snapshot ---------------------------------------------------------------------------------


async def test_shape(cache: Face, where: str):
    """A snapshot can be written as JSON, has every part, and the figures of ``info()``."""
    await cache.get_or_set("a:1", lambda: 1)

    snapshot = json.loads(json.dumps(cache.snapshot()))
    assert list(snapshot) == [
        "since", "groups", "commands", "loads", "errors", "top", "near", "loading", "servers", "advice", "audit",
    ]  # fmt: skip
    assert set(snapshot["groups"]["a"]) == {
        "near", "server", "stale", "missed", "loads", "joined", "load_errors", "load_seconds", "writes", "deletes",
        "bytes_read", "bytes_written", "saved",
    }  # fmt: skip
    assert snapshot["loading"] == cache.info()["loading"]
    assert snapshot["servers"] == cache.info()["servers"]
    assert snapshot["near"]["state"] == ("live" if where == "near" else "off")


@pytest.mark.parametrize("where", ["memory"])
async def test_hot_keys(make: Make):
    """The keys that are read most, of the most bytes, are found by the sample."""
    cache = make()
    await cache.set_many({"a:hot": 1, "a:large": "x" * 20_000, **{f"a:{at}": 1 for at in range(200)}})
    for at in range(4000):
        await cache.get("a:hot")
        if at % 5 == 0:
            await cache.get("a:large")
            await cache.get(f"a:{at % 200}")

    top = cache.snapshot()["top"]
    assert top["hits"][0][0] == "a:hot"
    assert abs(top["hits"][0][1] - 4000) <= 5 * top["hits"][0][2] <= 3000
    assert top["bytes"][0][0] == "a:large"
    assert len(top["hits"]) <= 20


def test_hot_keys_of_get_many():
    """Each key of a `get_many` of the sample counts as often as any other: none stands for all the others."""
    chance.seed(1)
    cache, random, true = Cache("memory://many", params({})), Random(1), Counter[str]()
    keys = [f"p:{at}" for at in range(100)]
    cache.set_many(dict.fromkeys(keys, PLAIN))
    for _ in range(300):
        true.update(list(cache.get_many(random.sample(keys, 10))))
    empty_memory()

    top = cache.snapshot()["top"]["hits"]
    assert len(sure(top)) >= 10
    assert all(abs(total - true[key]) <= 4 * error < 4 * total for key, total, error in top)


@pytest.mark.parametrize("where", ["memory"])
async def test_commands_that_are_asked_together_do_not_sample_the_others(make: Make):
    """A command that is asked with others at times, and at times alone, has a sample for each."""
    cache = make()
    await cache.set_many({"a:1": 1, "a:2": 1})
    for _ in range(2000):
        await cache.get("a:1")
        for _ in range(9):
            await cache.get_with_ttl("a:2")

    hits = {key: (total, error) for key, total, error in cache.snapshot()["top"]["hits"]}
    assert abs(hits["a:1"][0] - 2000) < 5 * hits["a:1"][1] < 2000
    assert abs(hits["a:2"][0] - 18_000) < 5 * hits["a:2"][1] < 18_000


@pytest.mark.parametrize("face", FACES)
async def test_connecting_is_not_timed(valkey: Any, face: str):
    """The first exchange of a process, which connects, is counted and not timed."""
    cache = Face(Cache(valkey.url(9), params({"KEY_PREFIX": own_prefix(), "SOCKET_TIMEOUT": 4.9})), face)
    await cache.get("a:1")
    first = cache.snapshot()["commands"]["GET"]
    await cache.get("a:1")
    second = cache.snapshot()["commands"]["GET"]

    assert [(each["calls"], each["latency"]["count"]) for each in (first, second)] == [(1, 0), (2, 1)]


async def test_hot_copies(copies: Copies):
    """The hits of copies count in full."""
    cache = copies()
    await cache.set("a:1", PLAIN)
    await copied(cache, "a:1")
    for _ in range(100):
        await cache.get("a:1")

    before = cache.snapshot()["top"]["hits"]
    assert before[0][0] == "a:1"
    assert before[0][1] >= 100

    await cache.delete("a:1")

    assert cache.snapshot()["top"]["hits"] == before


async def test_cancelled_reads(valkey: Any):
    """A read that was cancelled is not counted at all."""
    cache = Cache(valkey.url(9), params({}))
    await cache.aset("a:1", 1)
    task = asyncio.create_task(cache.aget("a:1"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert figures(cache) == {"writes": 1}


@pytest.mark.parametrize("operation", ["delete", "has_key", "touch", "ttl", "set"])
def test_each_command_of_an_exchange_without_replies_is_an_error(operation):
    """Also those that the library sends beside what the caller asked for."""
    cache = Cache("redis://127.0.0.1:1/0", {"KEY_PREFIX": operation, "OPTIONS": {"IGNORE_EXCEPTIONS": True}})

    getattr(cache, operation)("a", *([1, 5] if operation == "set" else []))

    commands = cache.snapshot()["commands"].values()
    assert sum(command["calls"] for command in commands) == sum(command["errors"] for command in commands) > 1


def test_errors_name_their_class():
    """Errors of the network have the names of fleetcache's classes; a read that raises is not counted."""
    cache = Cache("redis://127.0.0.1:2", params({}))
    with pytest.raises(ServerGone):
        cache.get("a:1")

    assert cache.snapshot()["errors"] == {"NeverSent": 1}
    assert figures(cache) == {}


def test_a_script_that_is_sent_whole_is_counted(valkey):
    """After a restart the server knows no script: EVAL follows EVALSHA, and both are commands."""
    cache = Cache(valkey.tcp_url(3), params({"STATS": {"PUBLISH": 0}}))
    cache.set("a", 1)
    cache.get_client().script_flush()

    for _ in range(2):
        cache.incr("a")

    commands = cache.snapshot()["commands"]
    assert (commands["EVALSHA"]["calls"], commands["EVAL"]["calls"], commands["EVALSHA"]["errors"]) == (2, 1, 0)


@pytest.mark.parametrize("many", [False, True])
def test_a_load_that_is_interrupted_is_a_load(valkey, many):
    """Of its group as of the process, and it has not failed by itself."""
    cache = Cache(valkey.tcp_url(3), params({"STATS": {"PUBLISH": 0}}))

    def load(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set_many(["u:1"], load, 300) if many else cache.get_or_set("u:1", load, 300)

    assert cache.info()["loading"]["loads"] == cache.snapshot()["groups"]["u"]["loads"] == 1
    assert cache.snapshot()["groups"]["u"]["load_errors"] == 0


async def test_a_load_that_is_cancelled_is_a_load(valkey):
    """As when the request that waits for it has ended."""
    cache = Cache(valkey.tcp_url(3), params({"STATS": {"PUBLISH": 0}}))
    begun = asyncio.Event()

    async def load():
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(cache.aget_or_set("u:1", load, 300))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])

    assert cache.info()["loading"]["loads"] == cache.snapshot()["groups"]["u"]["loads"] == 1
