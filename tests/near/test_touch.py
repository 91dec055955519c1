"""What is read near stays on the server, which evicts what it believes to be cold."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from tests.waiting import until

from fleetcache.near.touching import PAID
from fleetcache.near.tracking import Tracking
from fleetcache.testing import redis_server, valkey_server

from .conftest import calls, copied, copy, listeners, one_face

pytestmark = [pytest.mark.timeout(60), pytest.mark.flaky(reruns=2)]

OFTEN = {"TOUCH": 0.05, "MAX_TTL": 3600, "CANARY": 3600}


def hit(cache: Any, key: str, times: int) -> None:
    """Read *key* from its copy."""
    for _ in range(times):
        cache.whole.get(key)


@one_face
async def test_names_that_are_hit_are_touched(copies, raw):
    """Those that were hit often enough since the last time, no others, and nobody is told of it."""
    near = copies(near=OFTEN)
    for key in ("hot", "warm", "cold"):
        await near.set(key, "value", None)
        await copied(near, key)
    (listener,) = listeners(near.near)
    before = {key: copy(near, near.make_key(key)) for key in ("hot", "warm", "cold")}
    touches = calls(raw, "touch")

    hit(near, "hot", 2 * PAID)
    hit(near, "warm", PAID - 1)
    until(lambda: before["hot"].told)
    until(lambda: calls(raw, "touch") > touches)  # an entry is marked before its command is sent
    until(lambda: listener.tracking.touching.unanswered == 0)

    assert before["warm"].told == before["cold"].told == 0
    assert near.near.stats()["touched"] >= 1
    assert {key: copy(near, near.make_key(key)) for key in before} == before
    hit(near, "warm", PAID)
    until(lambda: before["warm"].told)


@one_face
async def test_at_most_once_within_touch(copies, raw):
    """However often a name is hit, the server is told of it once in TOUCH seconds."""
    near = copies(near={"TOUCH": 0.2})
    await near.set("hot", "value")
    await copied(near, "hot")
    touches, began = calls(raw, "touch"), time.monotonic()

    while time.monotonic() - began < 0.7:
        hit(near, "hot", 100)
        time.sleep(0.001)  # which lets its thread work

    assert 1 <= calls(raw, "touch") - touches <= 5
    assert near.near.stats()["touched"] <= 5


@pytest.mark.parametrize("never", [0, None])
@one_face
async def test_never(copies, never):
    """With TOUCH 0 or None the server is told nothing."""
    near = copies(near={"TOUCH": never})
    await near.set("hot", "value")
    await copied(near, "hot")
    hit(near, "hot", 100)

    assert near.near.options.touch is None
    assert not listeners(near.near)[0].tracking.touching.wanted


@one_face
async def test_a_user_who_may_not(copies, raw, caplog):
    """That is found out once, without a warning, and copies are as good as ever."""
    raw.execute_command("ACL", "SETUSER", "toucher", "on", ">secret", "~*", "&*", "+@all", "-touch")
    near = copies(near=OFTEN, USERNAME="toucher", PASSWORD="secret")
    await near.set("hot", "value")
    await copied(near, "hot")
    (listener,) = listeners(near.near)

    hit(near, "hot", 100)
    until(lambda: not listener.tracking.touching.takes)
    rejected = raw.info("commandstats")["cmdstat_touch"]["rejected_calls"]
    hit(near, "hot", 1000)
    time.sleep(0.2)

    assert raw.info("commandstats")["cmdstat_touch"]["rejected_calls"] == rejected
    assert near.near.state == "live"
    assert near.near.events.epochs == {}
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []


@one_face
async def test_a_cluster(copies, valkey_cluster):
    """Each primary is told of its own."""
    near = copies(valkey_cluster.url(), OFTEN, live=False)
    keys = [f"key{number}" for number in range(12)]
    for key in keys:
        await near.set(key, "value", None)
        await copied(near, key)
    moved = near.info()["redirects"].get("moved", 0)

    def told(key: str) -> bool:
        hit(near, key, 2 * PAID)
        entry = copy(near, near.make_key(key))
        return entry is not None and entry.told > 0

    for key in keys:
        until(lambda key=key: told(key))

    # An entry is marked before its command is sent and counted.
    until(lambda: {each.tracking.counts.touched > 0 for each in listeners(near.near)} == {True})
    until(lambda: not any(each.tracking.touching.unanswered for each in listeners(near.near)))
    assert all(each.tracking.touching.takes for each in listeners(near.near))
    assert near.info()["redirects"].get("moved", 0) == moved


def test_touching_does_not_keep_questions_waiting():
    """Commands that tell of copies in use do not count as questions without an answer."""
    tracking = Tracking()
    tracking._question = ("SET", "name", "", "XX")
    tracking.touching.unanswered = 100
    tracking._expected.extend([(tracking.touching._told, 0.0)] * 100)

    tracking.pulse(1.0)

    assert tracking._expected[-1][0] == tracking._answered


# Eviction -----------------------------------------------------------------------------------------


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", [valkey_server, redis_server])
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "volatile-lru"])
@one_face
async def test_what_is_hot_stays(copies, kind, policy):
    """Entries that are read from their copies alone are not evicted while colder ones stay."""
    arguments = ["--maxmemory", "4mb", "--maxmemory-policy", policy, "--maxmemory-samples", "20"]
    with kind(arguments=arguments) as server, redis.Redis.from_url(server.url()) as raw:
        near = copies(server.url())
        hot = [f"hot{number}" for number in range(20)]
        cold = [str(near.make_key(f"cold{number}")) for number in range(20)]
        await near.set_many(dict.fromkeys(hot, "x" * 1000), 3600)
        for name in cold:
            raw.set(name, "x" * 1000, ex=3600)
        for key in hot:
            await copied(near, key)
        misses, number = near.near.counts.misses, 0

        # The server's clock for this counts seconds, so what is written within one is equally cold.
        while raw.exists(*cold) > 2:
            number += 1
            raw.set(f"filler{number}", b"y" * 10_000, ex=1000)
            for key in hot:
                hit(near, key, PAID)
            time.sleep(0.005)
            assert number < 3000

        assert raw.exists(*(str(near.make_key(key)) for key in hot)) == len(hot)
        assert near.near.counts.misses == misses
