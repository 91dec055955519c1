"""An unreadable value is missing for everybody: for readers, and for callers that store a value if there is none."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.faces import FACES, Face, settled

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import HerdClient
from fleetcache.errors import UnreadableValue
from fleetcache.stats import payloads
from fleetcache.testing import valkey_server

GONE = b"\x80\x04\x8c\x07shop_v1\x8c\x04Cart\x93)\x81."
"""A pickle of a class that a deploy has renamed."""


def put(cache: Face, *keys: str, payload: bytes = GONE, seconds: int | None = None) -> None:
    """Store *payload* as it is."""
    for key in keys:
        name = str(cache.make_key(key))
        lifetime = () if seconds is None else ("PX", seconds * 1000)
        assert cache.topology.home(name).exchange(((c.SET, name, payload, *lifetime),)) in ([b"OK"], ["OK"])


async def test_get_or_set_replaces_it(cache):
    """The value is made once, and found by the next call, for the time that was asked for."""
    put(cache, "cart")
    made = []

    for _ in range(5):
        assert await cache.get_or_set("cart", lambda: made.append(1) or {"items": []}, 60) == {"items": []}

    assert len(made) == 1
    assert await cache.get("cart") == {"items": []}
    assert await cache.ttl("cart") in (59, 60)


async def test_add_takes_its_place(cache):
    """`add` stores where `get` finds nothing, in a pipeline too, and refuses what can be read."""
    put(cache, "a", "b", "c", seconds=1000)

    assert await cache.add("a", 1, None) is True
    assert await cache.add("a", 2) is False
    assert await cache.set("b", [1], 60, nx=True) is True
    pipe = cache.pipeline()
    pipe.add("c", 1).get("c").add("c", 2).incr("c").add("new", 5).get("new").expire("c", 50).ttl("c")
    assert (await pipe.execute())[:7] == [True, 1, False, 2, True, 5, True]
    assert await cache.get_many("abc") == {"a": 1, "b": [1], "c": 2}
    assert await cache.ttl("a") is None
    assert await cache.ttl("b") in (59, 60)
    assert await cache.ttl("c") in (49, 50)


@pytest.mark.together
async def test_add_in_a_transaction(cache):
    """A transaction cannot look twice: there it counts as an entry, and nothing is raised."""
    put(cache, "a")
    pipe = cache.pipeline(transaction=True)
    pipe.add("a", 1).add("b", 2)

    assert await pipe.execute() == [False, True]
    assert await cache.get_many("ab") == {"b": 2}


async def test_counters_begin_anew(cache):
    """`incr` with a default counts from it, for the timeout that was asked for."""
    put(cache, "n", "m", seconds=1000)

    assert await cache.incr("n", default=5, timeout=60) == 6
    assert await cache.ttl("n") in (59, 60)
    with pytest.raises(ValueError, match="not found"):
        await cache.incr("m")


async def test_reads_miss_it(cache):
    """Every read takes it as missing."""
    put(cache, "a", "b")

    assert await cache.get("a", "default") == "default"
    assert await cache.get_many("ab") == {}
    assert await cache.get_with_ttl("a", "default") == ("default", 0)
    pipe = cache.pipeline()
    pipe.get("a", "default").get_many("ab").get_with_ttl("b")
    assert await pipe.execute() == ["default", {}, (None, 0)]


async def test_it_is_an_entry(cache):
    """What asks for entries, without reading them, finds it: that costs no read."""
    put(cache, "a", seconds=1000)

    assert await cache.has_key("a") is True
    assert await cache.ttl("a") in (999, 1000)
    assert await cache.touch("a", 50) is True
    assert await cache.keys("*") == ["a"]
    assert await cache.delete("a") is True


async def test_add_finds_what_is_no_value(cache):
    """A list is an entry: `add` refuses, as it did."""
    await cache.rpush("list", 1)

    assert await cache.add("list", 1) is False
    assert await cache.lrange("list", 0, -1) == [1]


async def test_raise_leaves_it(make):
    """With UNREADABLE = "raise" it is there for everybody, and a reader is told the reason."""
    cache = make(UNREADABLE="raise")
    put(cache, "a")

    assert await cache.add("a", 1) is False
    for call in (cache.get("a"), cache.get_or_set("a", 1), cache.get_many("a")):
        assert isinstance(await settled(call), UnreadableValue)


@pytest.mark.parametrize("face", FACES)
async def test_herd_clients_too(face, valkey):
    """A HerdClient's values take its place as others do."""
    cache = Face(HerdClient(valkey.url(), {"KEY_PREFIX": f"herd-{face}"}), face)
    put(cache, "a", "b")

    assert await cache.get_or_set("a", "made", 60) == "made"
    assert await cache.add("b", 1) is True
    assert await cache.get_many("ab") == {"a": "made", "b": 1}


@pytest.mark.parametrize("serializer", ["JSONSerializer", "MSGPackSerializer", "MsgspecSerializer"])
@pytest.mark.parametrize("near", [None, True])
async def test_another_serializer(serializer, near, valkey):
    """After a change of the serializer old values give way, with copies near as well."""
    prefix = {"KEY_PREFIX": f"{serializer}-{near}"}
    old = Cache(valkey.url(), prefix)
    old.set("a", {"old": 1}, None)
    options = {"SERIALIZER": f"fleetcache.codec.serializers.{serializer}"}
    new = Cache(valkey.url(), {**prefix, "OPTIONS": options}, near=near)

    assert new.get("a") is None
    assert new.get_or_set("a", {"new": 2}) == {"new": 2}
    assert await new.aget("a") == {"new": 2}


def test_one_of_many_is_first(valkey):
    """Of several add() over an unreadable value one returns True, and its value stays."""
    caches = [Cache(valkey.url(), {"KEY_PREFIX": "crowd"}) for _ in range(8)]
    put(Face(caches[0], "blocking"), "a")
    stored: list[int] = []
    barrier = threading.Barrier(len(caches))

    def add(number: int) -> None:
        barrier.wait()
        if caches[number].add("a", number):
            stored.append(number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(len(caches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert stored == [caches[0].get("a")]


async def test_it_is_logged_once_a_minute(cache, caplog, monkeypatch):
    """However often it is read, one line a name and minute says so, and no more than a thousand are kept in mind."""
    now = [1000.0]
    monkeypatch.setattr(payloads, "monotonic", lambda: now[0])
    put(cache, "a", "b")
    before = cache.stats.unreadable

    with caplog.at_level(logging.WARNING, "fleetcache.codec"):
        for _ in range(5):
            await cache.get_many("ab")
            await cache.get("a")
        assert len(caplog.records) == 2
        now[0] += 61
        await cache.get("a")
        assert len(caplog.records) == 3
    assert cache.stats.unreadable >= before + 16  # the near caches of tests read twice


def test_lines_are_bounded(monkeypatch):
    """Of a million names a thousand are logged a minute, and remembered."""
    now = [0.0]
    monkeypatch.setattr(payloads, "monotonic", lambda: now[0])
    said = payloads.Said()

    assert sum(said.is_new(str(number)) for number in range(3000)) == payloads.MOST == len(said.times)
    now[0] = 61.0
    assert said.is_new("5") is True
    assert said.is_new("5") is False
    assert len(said.times) == 1


async def test_clients_of_ones_own(valkey):
    """client= is asked in the same way; a redis-py pipeline, which answers later, is sent a plain `SET … NX`."""
    cache: Any = Cache(valkey.url(), {"KEY_PREFIX": "client"})
    put(Face(cache, "blocking"), "a", "b")
    raw = cache.get_client()

    assert cache.add("a", 1, client=raw) is True
    with raw.pipeline() as pipe:
        cache.add("b", 1, client=pipe)
        cache.add("c", 1, client=pipe)
        assert pipe.execute() == [None, True]


def test_a_user_without_rights(monkeypatch):
    """A refusal that is no matter of types is told."""
    with valkey_server(arguments=["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]) as server:
        cache = Cache(server.url())

        with pytest.raises(ResponseError, match="OOM"):
            cache.add("a", "x" * 2_000_000)
