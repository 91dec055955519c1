"""Entries with metadata: each operation takes one that is stale or given up as missing, and keeps what it may."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from freezegun import freeze_time
from tests.faces import FACES, Face
from tests.loading.entries import MINUTE, called, now, put
from tests.nearby import NEAR

from fleetcache import Cache, Lookup
from fleetcache import commands as c
from fleetcache.client import HerdClient
from fleetcache.codec.metadata import Metadata
from fleetcache.core import MISSING
from fleetcache.judging import Standing
from fleetcache.servers.remote import RemoteServer

FRESH, STALE = {"fresh": MINUTE}, {"fresh": -MINUTE, "stale": 10 * MINUTE}
GIVEN_UP = {"tags": (("no such tag", b"version1"),)}
VALUES = ["text", 5, None, {"a": [1, 2.5]}, b"12", 0.5, True]


async def tag(cache: Face, *names: str):
    """Return tags with the versions that they have now."""
    return await called(cache, "_capture", names, 10 * MINUTE)


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

    found = {key: await called(cache, "_find", cache.name(key)) for key in ("fresh", "stale", "gone", "plain", "none")}

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
        again = await called(cache, "_examine", cache.name("any"), each.payload)
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
    await cache.set("tagged", "text", 300, tags=["a"])
    assert await cache.touch("tagged", 500) is True
    assert await cache.touch("stale", 500) is False
    found = await cache.lookup("tagged")
    assert (found.value, found.tags) == ("text", ("a",))
    assert found.left > 400


# --- whether it is there, and for how long --------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"COMPRESSOR": "zlib", "COMPRESS_MIN_LENGTH": 1}, {"SERIALIZER": "json"}])
async def test_has_key(make, options):
    """It says what `get` says, also of metadata too long to be seen at a glance, and of entries of other kinds."""
    cache = make(**options)
    many = await tag(cache, *(f"a tag with a rather long name, number {number}" for number in range(16)))
    await put(cache, "fresh", "text")
    await put(cache, "endless", ["text"], fresh=None)
    await put(cache, "many tags", "text", tags=many)
    await put(cache, "stale", "text", **STALE)
    await put(cache, "gone", "text", **GIVEN_UP)
    await put(cache, "many, gone", "text", tags=(*many[1:], *GIVEN_UP["tags"]))
    await cache.set_many({"plain": "text", "number": 5, "none": None, "C": "C", "empty": ""})
    await cache.rpush("list", 1)
    there = {"fresh", "endless", "many tags", "plain", "number", "none", "C", "empty", "list"}

    for key in (*there, "stale", "gone", "many, gone", "missing"):
        assert await cache.has_key(key) is (key in there), key
        assert await cache.has_key(key, fresh=True) is (key in there), key
        assert await getattr(cache, "__contains__")(key) is (key in there), key  # noqa: B009
        assert ((await cache.ttl(key)) != 0) is (key in there), key


async def test_a_compressor_that_is_not_configured_any_more(make):
    """What it has compressed is looked at in a second step."""
    old = make(COMPRESSOR="zlib", COMPRESS_MIN_LENGTH=1)
    cache = Face(type(old.whole)(*_same(old)), old.face)
    await put(old, "fresh", "text" * 50)
    await put(old, "stale", "text" * 50, **STALE)
    await old.set("plain", "text" * 50)

    assert [await cache.has_key(key) for key in ("fresh", "stale", "plain")] == [True, False, True]
    assert await cache.touch("fresh", 5)
    assert await cache.get("fresh") == "text" * 50
    assert await cache.pttl("fresh") <= 5000


def _same(cache: Face):
    """Return the arguments of a cache with the entries of *cache*, and no compressor."""
    settings = cache.whole.settings
    options = {} if settings.options.near is None else {"NEAR": NEAR}
    return settings.location[0].url, {"KEY_PREFIX": cache.key_prefix, "OPTIONS": options}


async def test_ttl(cache):
    """Only the fresh life counts."""
    await put(cache, "fresh", "text", fresh=30_000, stale=600_000)
    await put(cache, "endless", "text", fresh=None)
    await put(cache, "kept for ever", "text", fresh=30_000)
    await called(cache, "ask", (c.PERSIST, cache.name("kept for ever")), None)
    await put(cache, "stale", "text", **STALE)
    await put(cache, "gone", "text", **GIVEN_UP)

    for key in ("fresh", "kept for ever"):
        assert await cache.ttl(key) in (29, 30)
        assert 29_000 < await cache.pttl(key) <= 30_001
        value, left = await cache.get_with_ttl(key)
        assert (value, 29 < left <= 30.001) == ("text", True)
    assert [await cache.ttl("endless"), await cache.pttl("endless")] == [None, None]
    assert await cache.get_with_ttl("endless") == ("text", None)
    for key in ("stale", "gone", "missing"):
        assert [await cache.ttl(key), await cache.pttl(key)] == [0, 0]
        assert await cache.get_with_ttl(key, "default") == ("default", 0)


# --- other lives ----------------------------------------------------------------------------------


def _soon(seconds: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)


LIVES = {
    "touch": lambda cache, key, seconds: cache.touch(key, seconds),
    "expire": lambda cache, key, seconds: cache.expire(key, seconds),
    "pexpire": lambda cache, key, seconds: cache.pexpire(key, seconds * 1000),
    "expire_at": lambda cache, key, seconds: cache.expire_at(key, _soon(seconds)),
    "pexpire_at": lambda cache, key, seconds: cache.pexpire_at(key, _soon(seconds)),
}
each_life = pytest.mark.parametrize("live", LIVES.values(), ids=LIVES)


@each_life
@pytest.mark.parametrize("options", [{}, {"COMPRESSOR": "zlib", "COMPRESS_MIN_LENGTH": 1}, {"SERIALIZER": "json"}])
async def test_another_life(make, live, options):
    """The fresh life is another one, and after it the entry is stale for as long as before, with its tags."""
    cache = make(**options)
    tags = await tag(cache, "a", "b")
    before = await put(cache, "key", ["text"], fresh=30_000, stale=MINUTE, tags=tags, cost=5, early=1.5)

    assert await live(cache, "key", 500) is True

    after = (await called(cache, "_find", cache.name("key"))).metadata
    assert 498 < (after.fresh_until - await now(cache, "key")) / 1000 < 501
    assert replace(after, fresh_until=0) == replace(before, fresh_until=0)
    assert 558_000 < await whole_life(cache, "key") < 561_000
    assert await cache.ttl("key") in range(498, 502)
    assert await cache.get("key") == ["text"]


async def whole_life(cache: Face, key: str) -> int:
    """Return the milliseconds for which the server keeps *key*."""
    left: int = await called(cache, "ask", (c.PTTL_NOW, cache.name(key)), None)
    return left


@each_life
async def test_a_stale_entry_gets_no_other_life(cache, live):
    """It is missing, and stays as stale as it was, and for as long."""
    before = await put(cache, "stale", "text", **STALE)
    await put(cache, "gone", "text", **GIVEN_UP)

    assert await live(cache, "stale", 50) is False
    assert await live(cache, "stale", 5000) is False
    assert await live(cache, "gone", 500) is False
    assert await live(cache, "missing", 500) is False

    found = await called(cache, "_find", cache.name("stale"))
    assert (found.value, found.metadata) == ("text", before)
    assert 538_000 < await whole_life(cache, "stale") <= 540_010
    assert await cache.persist("stale") is False
    assert await cache.touch("stale", None) is False
    assert 538_000 < await whole_life(cache, "stale") <= 540_010
    assert await cache.get("stale", stale=True) == "text"


@each_life
async def test_a_life_that_ends_at_once(cache, live):
    """A fresh entry is deleted, and so is a stale one, which was missing already."""
    await put(cache, "fresh", "text")
    await put(cache, "stale", "text", **STALE)

    assert await live(cache, "fresh", -5) is True
    assert await live(cache, "stale", -5) is False

    assert await cache.get_many(["fresh"]) == {}
    assert await cache.get("stale", stale=True) is None


async def test_a_life_without_end(cache):
    """It is fresh for ever."""
    await put(cache, "key", "text", tags=await tag(cache, "a"))
    await put(cache, "other", "text", fresh=None)

    assert await cache.persist("key") is True
    assert await cache.persist("key") is False
    assert await cache.touch("other", None) is False
    assert [await cache.ttl("key"), await cache.ttl("other")] == [None, None]
    assert await cache.touch("key", 50) is True
    assert await cache.touch("other", 50) is True
    assert await cache.ttl("key") in (49, 50)
    assert await cache.ttl("other") in (49, 50)
    assert await cache.get_many(["key", "other"]) == {"key": "text", "other": "text"}


@pytest.mark.parametrize("described", [False, True])
async def test_a_change_of_life_loses_to_a_write(cache, monkeypatch, described):
    """If another value is stored meanwhile, it keeps the life that it was stored with."""
    await put(cache, "key", "text")
    new = Metadata(fresh_until=await now(cache, "key") + 90_000) if described else None
    payload = cache.codec.describe("new", new) if described else cache.codec.encode("new")
    judging = type(cache.whole)
    whole = judging._judgement

    async def judgement(self, name, metadata, *args, **kwargs):
        found = await whole(self, name, metadata, *args, **kwargs)
        await self.ask((c.SET, name, payload, "PX", 90_000), None)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(judging, "_judgement", judgement)
        assert await cache.touch("key", 5) is True

    found = await called(cache, "_find", cache.name("key"))
    assert (found.value, found.metadata) == ("new", new)
    assert 80_000 < await whole_life(cache, "key") <= 90_000


# --- writes that depend on what is there ----------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"UNREADABLE": "raise"}])
async def test_add(make, options):
    """It replaces what is stale or given up, and only that."""
    cache = make(**options)
    await put(cache, "fresh", "old")
    await put(cache, "stale", "old", **STALE)
    await put(cache, "stale too", "old", **STALE)
    await put(cache, "gone", "old", **GIVEN_UP)

    assert await cache.add("fresh", "new", 50) is False
    assert await cache.add("stale", "new", 50) is True
    assert await cache.set("stale too", "new", None, nx=True) is True
    assert await cache.add("gone", 5, 50) is True
    assert await cache.add("stale", "newer", 50) is False
    assert await cache.set("fresh", "new", 0, nx=True) is False

    assert await cache.get_many(["fresh", "stale", "stale too", "gone"]) == {
        "fresh": "old",
        "stale": "new",
        "stale too": "new",
        "gone": 5,
    }
    assert await cache.ttl("stale") in (49, 50)
    assert await cache.ttl("stale too") is None
    await put(cache, "stale", "old", **STALE)
    assert await cache.set("stale", "new", 0, nx=True) is True
    assert await cache.get("stale", stale=True) == "old"


async def test_get_or_set_replaces_a_stale_value(cache):
    """By its own constant, for which nothing is loaded."""
    await put(cache, "stale", "old", **STALE)

    assert await cache.get_or_set("stale", "new", 50) == "new"
    assert await cache.get("stale") == "new"


async def test_counters(cache):
    """A counter keeps its tags and its life; a stale one is missing, and begins with the default."""
    tags = await tag(cache, "a")
    before = await put(cache, "n", 5, fresh=30_000, tags=tags, cost=7)
    await put(cache, "real", 0.5, fresh=30_000)
    await put(cache, "stale", 5, **STALE)
    await put(cache, "gone", 5, **GIVEN_UP)

    assert await cache.incr("n") == 6
    assert await cache.incr("n", 4) == 10
    assert await cache.decr("n", 3) == 7
    assert await cache.incr("real", 2) == 2.5
    for key in ("stale", "gone"):
        with pytest.raises(ValueError, match="not found"):
            await cache.incr(key)
        assert await cache.incr(key, 2, default=100, timeout=50) == 102
        assert await cache.incr(key, 2, default=100) == 104
        assert await cache.ttl(key) in (49, 50)

    found = await called(cache, "_find", cache.name("n"))
    assert found.value == 7
    assert found.metadata.stamp != before.stamp  # what was judged before is another entry now
    assert replace(found.metadata, stamp=before.stamp) == before
    assert 80_000 < await whole_life(cache, "n") <= 90_000


@pytest.mark.together
async def test_another_version(cache):
    """The entry is moved with all that it says of itself."""
    tags = await tag(cache, "a")
    before = await put(cache, "key", "text", tags=tags, scope="1")
    stale = await put(cache, "stale", "text", **STALE)

    assert await cache.incr_version("key") == 2
    assert await cache.incr_version("stale") == 2

    assert await cache.get("key", version=2) == "text"
    assert await cache.get("key") is None
    assert (await called(cache, "_find", cache.name("key", 2))).metadata == before
    assert (await called(cache, "_find", cache.name("stale", 2))).metadata == stale
    assert await cache.get("stale", version=2) is None


# --- pipelines ------------------------------------------------------------------------------------


async def test_pipelines(cache):
    """Operations in a pipeline say the same, and take effect in their order."""
    tags = await tag(cache, "a")
    await put(cache, "fresh", "text", tags=tags)
    await put(cache, "stale", "text", **STALE)
    await put(cache, "gone", "text", **GIVEN_UP)
    await put(cache, "n", 5)
    await cache.set("plain", "text", 300)
    pipe = cache.pipeline()
    pipe.get("fresh").get("stale", "missing").get("stale", stale=True).get("gone", "missing")
    pipe.get_many(["fresh", "stale", "gone", "plain"]).has_key("stale").has_key("fresh").ttl("stale").ttl("plain")
    pipe.touch("fresh", 500).ttl("fresh").touch("stale", 500).touch("plain", 500).ttl("plain")
    pipe.incr("n", 2).get("n").add("stale", "new", 50).get("stale").add("fresh", "new").get("fresh")

    found = await pipe.execute()

    assert found[:4] == ["text", "missing", "text", "missing"]
    assert found[4:8] == [{"fresh": "text", "plain": "text"}, False, True, 0]
    assert found[8] in (299, 300)
    assert found[9] is True
    assert found[10] in (499, 500, 501)
    assert found[11:13] == [False, True]
    assert found[13] in (499, 500)
    assert found[14:] == [7, 7, True, "new", False, "text"]


async def test_a_pipeline_of_second_steps(cache):
    """Each operation sees what those before it have done, although each asks more than once."""
    await put(cache, "n", 5, fresh=30_000)
    pipe = cache.pipeline()
    pipe.incr("n", 2).touch("n", 400).ttl("n").get("n").incr("n").touch("n", 800).pttl("n").get_many("n")

    found = await pipe.execute()

    assert (found[0], found[1], found[3:6]) == (7, True, [7, 8, True])
    assert found[2] in (399, 400, 401)
    assert 790_000 < found[6] < 801_000
    assert found[7] == {"n": 8}


@pytest.mark.together
async def test_transactions(cache):
    """What an entry is worth is asked after the transaction; what would change it in a second step is left out."""
    tags = await tag(cache, "a")
    await put(cache, "fresh", "text", tags=tags)
    await put(cache, "stale", "text", **STALE)
    pipe = cache.pipeline(transaction=True)
    pipe.get("fresh").get("stale", "missing").get_many(["fresh", "stale"]).has_key("stale").ttl("stale")
    pipe.touch("fresh", 20).touch("stale", 20).add("stale", "new")

    assert await pipe.execute() == ["text", "missing", {"fresh": "text"}, False, 0, True, False, False]


# --- what it costs --------------------------------------------------------------------------------


async def test_plain_entries_take_one_round_trip(valkey, monkeypatch):
    """Whether an entry has metadata is asked in the exchange that is needed anyway."""
    cache = Cache(valkey.tcp_url(0), {"KEY_PREFIX": "one trip"})
    cache.set_many({"plain": "x" * 1000, "number": 5}, 300)
    trips = []
    exchange = RemoteServer.tell
    monkeypatch.setattr(
        RemoteServer, "tell", lambda self, commands: trips.append(len(commands)) or exchange(self, commands)
    )
    monkeypatch.setattr(RemoteServer, "exchange", lambda self, commands: self.hear(self.tell(commands)))

    for key in ("plain", "number", "missing"):
        cache.has_key(key), cache.ttl(key), cache.pttl(key), cache.touch(key, 300), cache.expire(key, 5), cache.get(key)
    cache.persist("plain")

    assert len(trips) == 19
    assert max(trips) == 3


# --- looking at it --------------------------------------------------------------------------------


async def test_lookup(cache):
    """It shows the state of an entry, and what its metadata says."""
    tags = await tag(cache, "a", "b")
    moment = await now(cache, "fresh")
    await put(cache, "fresh", "text", fresh=30_000, stale=600_000, tags=tags, cost=1500, made=moment - 5000)
    await put(cache, "stale", None, **STALE, made=1, cost=2)
    await put(cache, "gone", "text", **GIVEN_UP)
    await put(cache, "endless", "text", fresh=None, tags=tags[:1])
    await cache.set("plain", [1], 300)
    await cache.set("for ever", [1], None)

    found = {
        key: await cache.lookup(key, fresh=True)
        for key in ("fresh", "stale", "gone", "endless", "plain", "for ever", "missing")
    }

    assert {key: each.state for key, each in found.items()} == {
        "fresh": "fresh",
        "stale": "stale",
        "gone": "missing",
        "endless": "fresh",
        "plain": "fresh",
        "for ever": "fresh",
        "missing": "missing",
    }
    assert [each.value for each in found.values()] == ["text", None, None, "text", [1], [1], None]
    assert found["gone"] == found["missing"] == Lookup()
    fresh, stale, plain = found["fresh"], found["stale"], found["plain"]
    assert (fresh.tags, fresh.cost, found["endless"].tags) == (("a", "b"), 1.5, ("a",))
    assert 5 <= fresh.age < 8
    assert 27 < fresh.left <= 30.01
    assert (stale.cost, stale.age > 10**9) == (0.002, True)
    assert 538 < stale.left <= 540.01
    assert (plain.age, plain.cost, plain.tags) == (None, None, ())
    assert 298 < plain.left <= 300
    assert [found[key].left for key in ("endless", "for ever")] == [None, None]
