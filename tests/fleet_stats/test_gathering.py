"""What the processes of a fleet have published is found and added, wherever the cache is, whatever is in the way."""

from __future__ import annotations

import json
import os
import re
import time
import zlib

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.faces import AWAITING
from tests.fleet_stats.sources import PLACES, Source, cache_at, group, publisher, snapshot
from tests.waiting import until

from fleetcache import Cache
from fleetcache.fleet import agather, ahistory, gather, gathering, history, places
from fleetcache.fleet.publishing import PUBLISHING
from fleetcache.telemetry import prometheus
from fleetcache.testing import cluster

RIGHT = ["on", ">right", "&*", "+@all"]


async def gathered(cache, face):
    return await agather(cache) if face == AWAITING else gather(cache)


async def told(cache, face, hours=1):
    return await ahistory(cache, hours) if face == AWAITING else history(cache, hours)


def others(fleet):
    """Return the workers that are not this process."""
    return [worker for worker in fleet.workers if not worker.own]


@pytest.mark.parametrize("place", PLACES)
async def test_published_figures_are_gathered_and_added(place, face, request):
    """Each process is found with what it said of itself, by both faces, on every kind of server."""
    cache = cache_at(place, request.getfixturevalue)
    for count in (1, 2, 3):
        publisher(Source(cache, snapshot(groups={"users": group(near=count)}))).publish()

    fleet = await gathered(cache, face)

    assert fleet.missing == []
    assert sorted(worker.snapshot["groups"]["users"]["near"] for worker in others(fleet)) == [1, 2, 3]
    assert fleet.totals["groups"]["users"]["near"] == 6
    first = others(fleet)[0]
    assert (first.pid, first.interval, first.cut, bool(first.version)) == (os.getpid(), 10.0, "", True)
    assert abs(first.at - time.time()) < 60


@pytest.mark.parametrize("place", PLACES)
async def test_the_history_has_what_was_counted_since(place, face, request):
    """The first entry adds all, a later one only what has come since; errors and seconds too."""
    cache = cache_at(place, request.getfixturevalue)
    source = Source(cache, snapshot(groups={"users": group(near=5, load_seconds=0.25)}, errors={"ServerGone": 2}))
    published = publisher(source)
    published.publish()
    source.figures["groups"] = {"users": group(near=7, missed=1, load_seconds=0.25), "home": group(writes=3)}
    for _ in range(6):
        published.publish()

    periods = await told(cache, face)
    full = [period for period in periods if period.groups]

    assert len(periods) == 12
    assert periods[-1].at <= time.time() < periods[-1].at + 2 * places.PERIOD
    assert sum(period.sum("near") for period in full) == 7
    assert sum(period.sum("load_seconds") for period in full) == 0.25
    assert sum(period.groups.get("home", {}).get("writes", 0) for period in full) == 3
    assert sum(period.errors for period in full) == 2
    assert full[-1].missing == ""
    if len(full) == 1:
        assert full[0].hit_ratio == 7 / 8


async def test_strange_fields_of_the_history_are_left_out(valkey, face):
    """Numbers without end, or what is no number, hide nothing else."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    name = places.history_name(int(time.time()) // places.PERIOD, cache.key_prefix)
    strange = {"near:a": b"9" * 5000, "near:b": "-", "server:b": "1.5", "errors": "many", "other": b"\xff"}
    cache.get_client().hset(name, mapping={**strange, "near:users": "3"})

    full = [period for period in await told(cache, face) if period.groups]

    assert [period.groups for period in full] == [{"users": {"near": 3}}]
    assert [period.errors for period in full] == [0]


async def test_the_site_does_not_see_what_is_published(valkey):
    """Neither `keys` nor a deletion by pattern nor `clear` of a prefix finds the entries."""
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": "unseen", "OPTIONS": {"STATS": {"PUBLISH": 0}}})
    publisher(Source(cache)).publish()
    cache.set("a", 1)

    assert cache.keys("*") == ["a"]
    assert cache.delete_pattern("*") == 1
    cache.clear()

    assert len(others(gather(cache))) == 1


@pytest.mark.parametrize("place", ["valkey", "cluster"])
def test_a_prefix_within_another_has_a_fleet_of_its_own(place, request):
    """`shop` and `shop:1` are two sites, also where one has braces."""
    caches = [cache_at(place, request.getfixturevalue, KEY_PREFIX=f"shop{end}") for end in ("", ":1", "{x}", "}", "*")]
    for cache in caches:
        publisher(Source(cache)).publish()

    assert [len(others(gather(cache))) for cache in caches] == [1] * 5


def test_a_thousand_processes_are_read_in_bounded_steps(valkey, monkeypatch):
    """A thousand are read whole; of more it is said how many are left out; no command scans the database."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    groups = {f"group{n}": group(near=1, missed=2) for n in range(20)}
    for _ in range(1003):
        publisher(Source(cache, snapshot(groups=groups))).publish()
    raw = cache.get_client()
    raw.config_resetstat()

    began = time.perf_counter()
    fleet = gather(cache)
    took = time.perf_counter() - began

    assert len(others(fleet)) == gathering.MOST
    assert fleet.totals["groups"]["group7"]["missed"] == 2 * gathering.MOST
    assert [text for text in fleet.missing if "1003 processes" in text]
    calls = {name: facts["calls"] for name, facts in raw.info("commandstats").items()}
    assert calls["cmdstat_zrevrange"] == places.PARTS
    assert calls["cmdstat_mget"] <= gathering.MOST / gathering.PAGE + places.PARTS
    assert not {"cmdstat_keys", "cmdstat_scan"} & calls.keys()
    assert took < 20


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(valkey):
    """Bytes of another hand, or another kind of entry, under the name of a process."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    good, spoilt, other = (publisher(Source(cache)) for _ in range(3))
    for each in (good, spoilt, other):
        each.publish()
    raw = cache.get_client()
    raw.set(spoilt.name, b"\x00nonsense")
    raw.delete(other.name)
    raw.lpush(other.name, "a list")

    fleet = gather(cache)

    assert [worker.name for worker in others(fleet)] == [good.name]
    assert len(fleet.missing) == 1
    assert spoilt.name in fleet.missing[0]


def test_a_list_of_another_kind_is_named(valkey):
    """If something else stands where a part of the list should be, the other parts are read."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    published = publisher(Source(cache))
    published.part = 3
    published.publish()
    cache.get_client().set(places.list_name(5, cache.key_prefix), "text")

    fleet = gather(cache)

    assert len(others(fleet)) == 1
    assert f"1 in 8 of the processes, listed in {places.list_name(5, cache.key_prefix)}," in fleet.missing[0]
    assert "WRONGTYPE" in fleet.missing[0]


def test_processes_that_ended_are_forgotten(valkey):
    """An entry that has expired is not shown, and its name leaves the list with the next entry of its part."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    ended, going = publisher(Source(cache), 0.02), publisher(Source(cache))
    ended.part = going.part = 1
    ended.publish()
    raw, listed = cache.get_client(), places.list_name(1, cache.key_prefix)
    until(lambda: not raw.exists(ended.name))

    fleet = gather(cache)
    assert (others(fleet), fleet.missing) == ([], [])
    assert raw.zcard(listed) == 1

    raw.zadd(listed, {ended.name: (time.time() - 61) * 1000})
    going.publish()

    assert raw.zrange(listed, 0, -1) == [going.name.encode()]


@pytest.mark.parametrize("awaits", [False, True])
async def test_with_a_node_of_a_cluster_away_the_others_are_shown(awaits):
    """The processes and the history on the other nodes are read; what is missing is said, and nothing is raised."""
    with cluster(replicas=0) as servers:
        cache = Cache(servers.url(), {"KEY_PREFIX": "c", "OPTIONS": {"STATS": {"PUBLISH": 0}, "SOCKET_TIMEOUT": 0.5}})
        for part in range(places.PARTS):
            published = publisher(Source(cache))
            published.part = part
            published.publish()
        servers.nodes[1].kill()

        fleet = await agather(cache) if awaits else gather(cache)
        periods = await ahistory(cache, 24) if awaits else history(cache, 24)

        assert 0 < len(others(fleet)) < places.PARTS
        (missing,) = fleet.missing
        (parts,) = re.findall(r"what about (\d) in 8 of the processes", missing)
        assert len(others(fleet)) + int(parts) == places.PARTS
        assert len(periods) == 288
        assert 0 < len([period for period in periods if period.missing]) < 200


@pytest.mark.parametrize("awaits", [False, True])
async def test_without_a_server_nothing_is_raised(awaits):
    """This process is shown, and what is missing, which is said once for all parts."""
    cache = Cache("redis://127.0.0.1:1/0")

    fleet = await agather(cache) if awaits else gather(cache)
    periods = await ahistory(cache, 1) if awaits else history(cache, 1)

    assert [worker.own for worker in fleet.workers] == [True]
    (missing,) = fleet.missing
    assert missing.startswith("what the processes have published cannot be read: 127.0.0.1:1/0: ")
    assert all(period.missing for period in periods)


def test_this_process_is_shown_as_it_is_now(valkey):
    """Not as it was when it last published; and once only."""
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": "now", "OPTIONS": {"STATS": {"PUBLISH": 3600}}})
    users = cache.tally.group(cache.make_key("users:1"))
    users.joined = 1
    PUBLISHING.of(cache._common).publish()
    users.joined = 2

    (worker,) = gather(cache).workers

    assert worker.own
    assert worker.snapshot["groups"]["users"]["joined"] == 2


def written(**parts):
    """Return the entry of a process, without compression."""
    facts = {"host": "h", "pid": 1, "version": "1", "digest": "d", "started": 1, "at": 1, "interval": 10}
    return json.dumps({"format": 1, **facts, "snapshot": {"since": 1}, **parts}).encode()


SPOILT = {
    "more than two megabytes": b"[" + b"0," * 9_000_000 + b"0]",
    "too deep": b"[" * 900_000,
    "a count without end": written(snapshot={"since": 1, "groups": {"a": {"near": 10**4000, "loads": 1}}}),
    "a number without end": written(snapshot={"since": 1, "groups": {"a": {"near": 1e308}}}),
    "no host": b'{"format": 1, "snapshot": {"since": 1}}',
    "an empty snapshot": written(snapshot={}),
    "another form": written(format=2, version="9" * 4000),
    "no time": written(at=None),
    "no mapping": b"[1]",
    "half of an object": written()[:30],
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_entry_is_named_in_few_words(valkey, case):
    """Neither bombs nor numbers without end reach the sums, or the page."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    good, spoilt = (publisher(Source(cache)) for _ in range(2))
    for each in (good, spoilt):
        each.publish()
    cache.get_client().set(spoilt.name, zlib.compress(SPOILT[case]))

    fleet = gather(cache)

    assert [worker.name for worker in others(fleet)] == [good.name]
    (missing,) = fleet.missing
    assert spoilt.name in missing
    assert len(missing) < 500


def test_exporters_serve_whatever_another_process_has_published(valkey):
    """A scrape of the fleet leaves out what is no figure, or no text."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    strange = publisher(Source(cache))
    strange.publish()
    found = {
        "since": "x",
        "groups": {"\ud800": {"near": 1}, "users": {"near": 7, "server": "x", "loads": [1]}},
        "errors": {"ServerGone": "many", "Other": [1]},
        "commands": {"GET": {"calls": "x", "latency": {"sum": "x", "buckets": [[1, 2, 3]]}}, "SET": 5},
        "near": {"state": 3, "entries": "x", "evictions": {"size": "x"}},
        "servers": [3, {"address": ["x"], "away": "x"}],
        "audit": {"compared": "x", "violations": None, "events": 3},
        "top": {"hits": [["a"], 3]},
    }
    cache.get_client().set(strange.name, zlib.compress(written(host="\ud800<b>", snapshot=found)))
    registry = CollectorRegistry()
    prometheus.install(registry, fleet=cache)

    scraped = generate_latest(registry).decode()

    assert re.search(r'fleetcache_requests_total{.*group="users",level="near".*} 7.0', scraped)
    assert "ServerGone" not in scraped


def test_the_groups_of_a_sum_are_bounded(valkey):
    """Workers whose keys begin with the names of users have other groups each; no read is lost."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    for worker in range(15):
        groups = {f"{worker}-{user}": group(server=1) for user in range(100)}
        publisher(Source(cache, snapshot(groups=groups))).publish()

    totals = gather(cache, live=False).totals

    assert len(totals["groups"]) == 1000
    assert sum(each["server"] for each in totals["groups"].values()) == 1500
