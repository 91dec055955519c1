"""Entries with metadata: each operation takes one that is stale or given up as missing, and keeps what it may."""

from __future__ import annotations

import pytest
from freezegun import freeze_time
from tests.faces import FACES, Face
from tests.loading.entries import MINUTE, called, put

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import HerdClient
from fleetcache.core import MISSING
from fleetcache.judging import Standing

FRESH, STALE = {"fresh": MINUTE}, {"fresh": -MINUTE, "stale": 10 * MINUTE}
GIVEN_UP = {"tags": (("no such tag", b"version1"),)}
VALUES = ["text", 5, None, {"a": [1, 2.5]}, b"12", 0.5, True]


async def tag(cache: Face, *names: str):
    """Return tags with the versions that they have now."""
    return await called(cache, "capture", names, 10 * MINUTE)


# --- reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
async def test_get(cache, value):
    """Only a fresh one is there; the stale one can be asked for; of metadata nothing is seen."""
    await put(cache, "fresh", value)
    await put(cache, "endless", value, fresh=None)
    await put(cache, "stale", value, **STALE)
    await put(cache, "gone", value, **GIVEN_UP)
    await put(cache, "tagged", value, tags=await tag(cache, "a", "b"))

    for _ in range(3):  # the second read may find a copy
        for key in ("fresh", "endless", "tagged"):
            found = await cache.get(key, "missing")
            assert (found, type(found)) == (value, type(value))
            assert await cache.get(key, "missing", fresh=True) == value
            assert await cache.get(key, "missing", stale=True) == value
        assert await cache.get("stale", "missing") == "missing"
        assert await cache.get("stale", "missing", stale=True) == value
        assert await cache.get("gone", "missing") == "missing"
        assert await cache.get("gone", "missing", stale=True) == "missing"


async def test_get_many(cache):
    """Each entry is judged as `get` judges it, beside plain ones."""
    await put(cache, "fresh", "text")
    await put(cache, "endless", [1], fresh=None)
    await put(cache, "stale", "old", **STALE)
    await put(cache, "gone", "old", **GIVEN_UP)
    await put(cache, "tagged", {"a": 1}, tags=await tag(cache, "a", "b"))
    await put(cache, "other", {"b": 2}, tags=await tag(cache, "b"))
    await cache.set("plain", "plain")

    expected = {"fresh": "text", "endless": [1], "tagged": {"a": 1}, "other": {"b": 2}, "plain": "plain"}
    for _ in range(3):
        assert (
            await cache.get_many(["fresh", "endless", "stale", "gone", "tagged", "other", "plain", "none"]) == expected
        )
        assert await cache.get_many(["stale", "gone"]) == {}
        assert await cache.get_many(["plain"], fresh=True) == {"plain": "plain"}


async def test_find(cache):
    """A loading call sees all that there is to know."""
    fresh = await put(cache, "fresh", "text")
    stale = await put(cache, "stale", ["old"], **STALE)
    gone = await put(cache, "gone", "old", **GIVEN_UP)
    await cache.set("plain", "plain")

    found = {key: await called(cache, "find", cache.name(key)) for key in ("fresh", "stale", "gone", "plain", "none")}

    assert (found["fresh"].value, found["fresh"].metadata) == ("text", fresh)
    assert 50 < found["fresh"].left < 60.01
    assert (found["stale"].value, found["stale"].metadata) == (["old"], stale)
    assert -70 < found["stale"].left < -59.99
    assert found["stale"].served() is MISSING
    assert found["stale"].served(stale=True) == ["old"]
    assert (found["gone"].value, found["gone"].metadata, found["gone"].left) == (MISSING, gone, None)
    assert [found[key].standing for key in ("fresh", "stale", "gone", "plain")] == [*Standing, None]
    assert (found["plain"].value, found["plain"].left) == ("plain", float("inf"))
    assert (found["none"].value, found["none"].payload, found["none"].left) == (MISSING, None, None)
    for each in found.values():
        again = await called(cache, "examine", cache.name("any"), each.payload)
        assert (again.value, again.metadata, again.standing) == (each.value, each.metadata, each.standing)


@pytest.mark.parametrize("face", FACES)
async def test_the_life_of_an_entry(face):
    """Fresh until its end, then stale, then gone, whatever the life that an old worker has given to the key."""
    cache = Face(Cache("memory://entries"), face)
    with freeze_time("2030-01-01") as clock:
        await put(cache, "a", "text", fresh=1000, stale=2000)
        await cache.get("a")
        await called(cache, "ask", (c.PERSIST, cache.name("a")), None)
        clock.tick(0.999)
        assert await cache.get("a") == "text"
        clock.tick(0.001)
        assert await cache.get("a") is None
        assert await cache.get("a", stale=True) == "text"
        clock.tick(1.999)
        assert await cache.get("a", stale=True) == "text"
        clock.tick(0.001)
        assert await cache.get("a", stale=True) is None


async def test_compressed_and_by_other_serializers(make):
    """Compressed entries and enveloped ones are judged alike."""
    for options in ({"COMPRESSOR": "zlib"}, {"SERIALIZER": "json"}, {"SERIALIZER": "msgpack", "COMPRESSOR": "zlib"}):
        cache = make(**options)
        value = {"text": "long enough to be compressed " * 20}
        await put(cache, "fresh", value, tags=await tag(cache, "a"))
        await put(cache, "stale", value, **STALE)
        assert await cache.get_many(["fresh", "stale"]) == {"fresh": value}
        assert await cache.get("stale", stale=True) == value
        assert await cache.get("fresh") == value


@pytest.mark.parametrize("face", FACES)
async def test_herd_client(face):
    """A HerdClient reads entries with metadata that others have written."""
    cache = Face(HerdClient("memory://herded"), face)
    await put(cache, "fresh", "text")
    await put(cache, "stale", "text", **STALE)

    assert await cache.get_many(["fresh", "stale"]) == {"fresh": "text"}
    assert await cache.get("stale") is None
