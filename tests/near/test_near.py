"""What is read twice is answered the second time from a copy, as the server would have answered it."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from typing import Any

import pytest
from django.core.cache import CacheKeyWarning
from tests import django_settings
from tests.waiting import eventually, until

from fleetcache import Cache
from fleetcache.client import HerdClient
from fleetcache.errors import SettingsError
from fleetcache.keys import CacheKey

from .conftest import copied, copy

django_settings.configure()

from fleetcache.django import RedisCache  # noqa: E402 - needs the settings

VALUES: dict[str, Any] = {
    "text": "text",
    "empty": "",
    "int": 5,
    "large int": 2**70,
    "float": 1.5,
    "bool": True,
    "bytes": b"\0\xff",
    "None": None,
    "dict": {"a": [1, {2}]},
    "tuple": (1, [2]),
    "long": "x" * 100_000,
}

SERIALIZERS: dict[str, dict[str, Any]] = {
    "pickle": {},
    "json": {"SERIALIZER": "fleetcache.codec.serializers.JSONSerializer"},
    "msgpack": {"SERIALIZER": "fleetcache.codec.serializers.MSGPackSerializer"},
    "msgspec": {"SERIALIZER": "fleetcache.codec.serializers.MsgspecSerializer"},
    "msgspec json": {"SERIALIZER": "fleetcache.codec.serializers.MsgspecJSONSerializer"},
    "zlib": {"COMPRESSOR": "fleetcache.codec.compressors.ZlibCompressor", "COMPRESS_MIN_LENGTH": 1},
}


# Hits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_hit(near, asked, value):
    """What was read once is not asked for again, whatever it is."""
    await near.set("key", value)
    assert await copied(near, "key") == value
    asked()

    found = [await near.get("key", "default") for _ in range(5)]

    assert found == [value] * 5
    assert {type(each) for each in found} == {type(value)}
    assert asked() == 0
    assert near.near.stats()["hits"] == 5


@pytest.mark.parametrize("options", SERIALIZERS.values(), ids=SERIALIZERS)
async def test_a_hit_with_each_codec(copies, asked, options):
    """Copies are decoded as the values themselves are."""
    near = copies(**options)
    value = {"a": [1, "x" * 1000, None], "b": 1.5}
    await near.set("key", value)
    await near.set("text", "text")
    await copied(near, "key")
    await copied(near, "text")
    asked()

    assert [await near.get("key"), await near.get("text")] == [value, "text"]
    assert await near.get_many(["text", "key"]) == {"text": "text", "key": value}
    assert asked() == 0


async def test_what_is_missing_is_remembered(near, asked):
    """That there is nothing is kept like a value, and each caller gets the default of its own."""
    assert await copied(near, "missing") is None
    asked()

    assert await near.get("missing") is None
    assert await near.get("missing", 7) == 7
    assert await near.get_many(["missing"]) == {}
    assert await near.has_key("missing") is False
    assert asked() == 0


async def test_each_caller_has_an_object_of_its_own(near):
    """What one does to a value that can be changed, no other sees."""
    await near.set("key", {"list": [1]})
    await copied(near, "key")

    first, second = await near.get("key"), await near.get("key")
    first["list"].append(2)
    (await near.get_many(["key"]))["key"].clear()

    assert second == await near.get("key") == {"list": [1]}


async def test_the_first_reader_may_change_what_it_got(near):
    """The value of the read that left the copy is not what the copy holds."""
    await near.set("key", [1])

    (await near.get("key")).append(2)

    assert await copied(near, "key") == [1]
    assert await near.get("key") == [1]


async def test_a_miss_is_one_round_trip(near, trips):
    """The value and its time to live are asked for together, and a hit asks for nothing."""
    await near.set("key", "value")
    await near.fence()
    trips.clear()

    assert await near.get("key") == "value"
    assert await near.get("key") == "value"

    assert trips == [["GET", "PTTL"]]


async def test_many_are_one_round_trip(near, trips):
    """Only those that are not near are asked for, all together, and they come in the order they were named."""
    await near.set_many({"a": 1, "b": "two", "d": [4]})
    await copied(near, "b")
    await copied(near, "missing")
    trips.clear()

    found = await near.get_many(["d", "missing", "b", "c", "a", "b"])

    assert list(found.items()) == [("d", [4]), ("b", "two"), ("a", 1)]
    assert trips == [["MGET", "PTTL", "PTTL", "PTTL"]]
    assert await near.get_many(("a", "b", "c", "d")) == {"a": 1, "b": "two", "d": [4]}
    assert [await near.get(key) for key in "abcd"] == [1, "two", None, [4]]
    assert len(trips) == 1


async def test_has_key(near, asked):
    """A copy says whether there is a value, be it None; without one the server is asked."""
    await near.set_many({"none": None, "text": "t", "dict": {}})
    for key in ("none", "text", "dict", "missing"):
        await copied(near, key)
    asked()

    assert [await near.has_key(key) for key in ("none", "text", "dict", "missing")] == [True, True, True, False]
    assert asked() == 0
    assert await near.has_key("other") is False
    assert asked() == 1


async def test_fresh(near, asked, raw):
    """``fresh`` asks the server although there is a copy, and leaves one."""
    await near.set("key", "value")
    await copied(near, "key")
    asked()

    assert await near.get("key", fresh=True) == "value"
    assert await near.get_many(["key"], fresh=True) == {"key": "value"}
    assert await near.has_key("key", fresh=True) is True
    assert asked() == 5

    await copied(near, "key")
    asked()
    assert await near.get("key") == "value"
    assert asked() == 0


async def test_get_or_set(near, asked):
    """A value that is near is not made again; one that is known to be missing is."""
    made = []

    def make():
        made.append(1)
        return "made"

    await copied(near, "key")

    assert await near.get_or_set("key", make) == "made"
    assert await copied(near, "key") == "made"
    asked()
    assert await near.get_or_set("key", make) == "made"

    assert asked() == 0
    assert made == [1]


async def test_get_with_ttl(near):
    """The time to live is the server's word, and so is the value."""
    await near.set("key", "value", 50)
    await copied(near, "key")

    value, left = await near.get_with_ttl("key")

    assert value == "value"
    assert 49 < left <= 50
    assert await near.get_with_ttl("missing", 1) == (1, 0)


async def test_a_newer_answer_ends_the_copy(near):
    """Who was told that something changed does not read the old value afterwards (G3), however late the announcement."""
    await near.set("key", "old")
    for ask in (
        lambda: near.has_key("key", fresh=True),
        lambda: near.get_with_ttl("key"),
        lambda: near.get("key", fresh=True),
        lambda: near.get_many(["key"], fresh=True),
    ):
        await copied(near, "key")
        entry = copy(near, near.make_key("key"))

        await ask()

        assert copy(near, entry.name) is not entry


@pytest.mark.parametrize("key", ["key", 5, CacheKey("bare"), ("a", 1)], ids=repr)
async def test_kinds_of_keys(near, asked, key):
    """Numbers and complete names lead to copies as texts do, the latter where they are under a prefix."""
    key = near.make_key(str(key)) if isinstance(key, CacheKey) else key
    await near.set(key, "value")
    await copied(near, key)
    asked()

    assert await near.get(key) == "value"
    assert await near.get_many([key]) == {key: "value"}
    assert await near.has_key(key) is True
    assert asked() == 0


async def test_versions(near, asked):
    """Each version has a copy of its own."""
    for version in (1, 2, "x"):
        await near.set("key", f"v{version}", version=version)
        await copied(near, "key", version)
    asked()

    assert [await near.get("key", version=version) for version in (None, 1, 2, "x")] == ["v1", "v1", "v2", "vx"]
    assert asked() == 0
    near.whole.version = 2
    assert await near.get("key") == "v2"
    assert asked() == 0


async def test_another_prefix_is_not_kept(near, asked):
    """What the cache is told to call otherwise later is not announced, and so leaves no copies."""
    await near.set("key", "value")
    await copied(near, "key")
    near.whole.key_prefix = "elsewhere"

    assert await near.get("key") is None
    await near.set("key", "there")
    asked()
    assert [await near.get("key") for _ in range(3)] == ["there"] * 3
    assert asked() == 3
    await near.delete("key")


def dashed(key, prefix, version):
    return f"{prefix}-{version}-{key}"


async def test_a_key_function_of_ones_own(copies, asked):
    """The prefix is what all names have in common; names of other versions are not kept."""
    near = copies(KEY_FUNCTION=dashed)
    assert near.near.prefixes == (f"{near.key_prefix}-1-",)
    await near.set("key", "value")
    await near.set("key", "other", version=2)
    await copied(near, "key")
    asked()

    assert await near.get("key") == "value"
    assert await near.get_many(["key"]) == {"key": "value"}
    assert asked() == 0
    assert [await near.get("key", version=2) for _ in range(2)] == ["other"] * 2
    assert asked() == 2
    await near.delete_many(["key"])
    assert await near.get("key") is None
    await near.delete("key", version=2)


async def test_herd_client(copies, asked):
    """A herded value comes from its copy, and its soft expiry counts there too."""
    near = copies(kind=HerdClient, HERD_TIMEOUT=60)
    await near.set("key", {"a": 1}, 30)
    await near.set("late", "value", 30)
    await copied(near, "key")
    asked()

    first = await near.get("key")
    first["a"] = 2
    assert await near.get("key") == {"a": 1}
    assert await near.get_many(["key"]) == {"key": {"a": 1}}
    assert asked() == 0


async def test_a_value_that_should_be_renewed(copies, monkeypatch):
    """Beyond its soft expiry a copy is the default to ever more readers."""
    near = copies(kind=HerdClient, HERD_TIMEOUT=10)
    await near.set("key", "value", 30)
    await copied(near, "key")
    now = time.time()

    monkeypatch.setattr("fleetcache.client.time", lambda: now + 41)

    assert await near.get("key", "renew") == "renew"


@pytest.mark.parametrize("key", ["with space", "x" * 251], ids=["space", "long"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "missing"])
async def test_a_name_to_be_warned_of(copies, key, stored):
    """Django warns whenever it is used, and so it is not kept near."""
    near = copies(kind=RedisCache)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if stored:
            await near.set(key, "value")
        before = len(warned)
        for _ in range(3):
            await near.get(key)
            copy(near, "whatever")

    assert Counter(each.category for each in warned[before:]) == {CacheKeyWarning: 3}
    if stored:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await near.delete(key)


async def test_an_unreadable_payload_leaves_no_copy(near, raw, asked):
    """It is a miss each time, counted each time; readable again, it is a hit."""
    name = near.make_key("key")
    raw.set(name, b"\x80garbage")
    asked()

    assert [await near.get("key") for _ in range(2)] == [None, None]
    assert await near.get_many(["key"]) == {}
    assert copy(near, name) is None
    assert asked() == 6
    assert near.info()["unreadable"] == 3

    raw.set(name, 5)
    await near.fence()
    assert await copied(near, "key") == 5


async def test_a_pipeline_asks_the_server(near, asked):
    """What is collected is sent, copy or not; and what it reads leaves none."""
    await near.set_many({"a": 1, "b": 2})
    await copied(near, "a")
    asked()
    pipe = near.pipeline()
    pipe.get("a").get_many(["a", "b"]).has_key("a").get("b")

    assert await pipe.execute() == [1, {"a": 1, "b": 2}, True, 2]

    assert asked() == 4


async def test_the_raising_client_shares_the_copies(near, asked):
    """``cache.client`` finds what the cache left, and the other way round."""
    await near.set("key", "value")
    await copied(near, "key")
    asked()

    assert near.whole.client.get("key") == "value"
    assert await near.whole.client.aget("key") == "value"
    assert asked() == 0


async def test_a_client_of_the_caller_is_asked(near, raw, asked):
    """With ``client=`` nothing comes from a copy, nor becomes one."""
    await near.set("key", "value")
    await copied(near, "key")
    asked()

    assert await near.get("key", client=raw) == "value"
    assert await near.get_many(["key"], client=raw) == {"key": "value"}
    assert await near.has_key("key", client=raw) is True
    assert asked() == 3


async def test_both_faces_share_copies(near, asked):
    """What one face has read is near for the other, and for every object of these settings."""
    await near.set("key", "value")
    await copied(near, "key")
    settings = near.settings
    twin = Cache(
        near.near.listeners and settings.location[0].url,
        {"KEY_PREFIX": settings.key_prefix, "OPTIONS": {"NEAR": {"DOORKEEPER": False}}},
    )
    asked()

    assert twin.near is near.near
    assert twin.get("key") == near.whole.get("key") == "value"
    assert await twin.aget("key") == await near.whole.aget("key") == "value"
    assert asked() == 0


async def test_copies_do_not_outlive_max_ttl(copies, asked):
    """A copy is read again after MAX_TTL, although nobody has changed the entry."""
    near = copies(near={"MAX_TTL": 0.2})
    await near.set("key", "value")
    await copied(near, "key")
    entry = copy(near, near.make_key("key"))
    began = time.monotonic()
    asked()

    until(lambda: near.whole.get("key") == "value" and near.near.copies.get(entry.name) is not entry)

    assert time.monotonic() - began < 1
    assert asked() >= 2


# Settings ----------------------------------------------------------------------------------------


def unprefixed(key, prefix, version):
    return f"pick:{version}:{key}"


async def test_prefixes(copies, asked):
    """Only names under PREFIXES are kept."""
    near = copies(near={"PREFIXES": ["pick:1:a", "pick:1:b"]}, KEY_FUNCTION=unprefixed)
    await near.set_many({"a1": 1, "b1": 2, "c1": 3})
    for key in ("a1", "b1"):
        await copied(near, key)
    await near.get("c1")
    asked()

    assert await near.get("a1") == 1
    assert await near.get_many(["b1", "a1"]) == {"b1": 2, "a1": 1}
    assert asked() == 0
    assert [await near.get("c1") for _ in range(2)] == [3, 3]
    assert asked() == 2
    assert await near.get_many(["a1", "c1"]) == {"a1": 1, "c1": 3}
    await near.delete_many(["a1", "b1", "c1"])


@pytest.mark.parametrize(
    "prefixes, params",
    [(["other:"], {"KEY_PREFIX": "shop"}), (["shop-"], {"KEY_PREFIX": "shop"}), (["a"], {})],
    ids=["other", "no colon", "no prefix"],
)
def test_prefixes_that_fit_no_name(valkey, prefixes, params):
    """A prefix that no entry's name begins with is a mistake, and is called one."""
    with pytest.raises(SettingsError, match="no entry's name begins like that") as raised:
        Cache(valkey.url(9), {**params, "OPTIONS": {"NEAR": {"PREFIXES": prefixes}}})

    assert f"{params.get('KEY_PREFIX', '')}:1:user:1" in str(raised.value)


def test_a_key_function_without_a_beginning(valkey):
    """Without a common beginning of names PREFIXES has to be given."""
    with pytest.raises(SettingsError, match="no common beginning"):
        Cache(valkey.url(9), {"KEY_FUNCTION": lambda key, prefix, version: f"{key}", "OPTIONS": {"NEAR": True}})


async def test_absent_entries_may_be_left_out(copies, asked):
    """With ABSENT off, what is missing is asked for each time."""
    near = copies(near={"ABSENT": False})
    await near.set("key", "value")
    await copied(near, "key")
    asked()

    assert [await near.get("missing") for _ in range(3)] == [None] * 3
    assert await near.has_key("missing") is False
    assert asked() == 2 * 3 + 1
    assert await near.get("key") == "value"
    assert asked() == 0


async def test_max_bytes(copies):
    """However much is read, the copies take no more; and what would take a quarter is not kept."""
    near = copies(near={"MAX_BYTES": 50_000})
    await near.set_many({f"key{number}": "x" * (number % 3000) for number in range(300)})
    await near.set("large", "x" * 13_000)

    for number in range(300):
        await near.get(f"key{number}")
        assert near.near.store.bytes <= 50_000
    assert await near.get("large") == "x" * 13_000
    await near.get("large")

    stats = near.near.stats()
    assert stats["entries"] > 10
    assert stats["bytes"] <= stats["max_bytes"] == 50_000
    assert stats["evictions"]["size"] > 10
    assert stats["evictions"]["too large"] > 0
    assert copy(near, near.make_key("large")) is None


def test_no_near_cache(valkey):
    """Without NEAR there is none, and ``info()`` says so; a fence has nothing to wait for."""
    cache = Cache(valkey.url(9), {"KEY_PREFIX": "plain"})

    cache.fence()

    assert cache.near is None
    assert cache.info()["near"] == {"state": "off", "why": "OPTIONS['NEAR'] is not set"}


async def test_memory(copies):
    """What is in the process already needs no copies."""
    near = copies("memory://near")
    await near.set("key", [1])

    await near.fence()

    assert near.near is None
    assert near.info()["near"] == {"state": "off", "why": "memory:// is in this process already"}
    assert await near.get("key", fresh=True) == [1]
    assert await near.get_many(["key"], fresh=True) == {"key": [1]}
    assert await near.has_key("key", fresh=True) is True


async def test_info(copies):
    """``info()`` tells the state, the counters and the bounds, and sends nothing."""
    near = copies()
    assert await copied(near, "key") is None
    await near.get("key")
    await near.set("key", 1)
    await near.fence()

    stats = near.info()["near"]

    assert stats["state"] == "live"
    assert stats["why"] == ""
    assert stats["hits"] == 1
    assert stats["misses"] >= 1
    assert stats["filled"] >= 1
    assert stats["entries"] == 0
    assert 0 < stats["bytes"] < stats["max_bytes"] == 64_000_000
    assert stats["invalidations"]["own write"] == 1
    assert stats["evictions"] == {"size": 0, "expired": 0, "ended": 0, "too large": 0}
    assert stats["pushes"] >= 2  # the canary, and the write
    assert stats["canaries"] == sum(stats["lag"].values()) >= 1
    assert isinstance(stats["refused"], int)
    assert sum(stats["epochs"].values()) == 0


async def test_a_copy_is_kept_for_the_life_of_its_entry_only(near):
    """The time to live that was read with a value bounds the copy, in milliseconds."""
    await near.set("short", "value", 0.4)
    await near.set("long", "value", 1000)
    await near.set("ever", "value", None)
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    left = {}
    for key in ("short", "long", "ever"):
        await copied(near, key)
        left[key] = copy(near, near.make_key(key)).deadline - began

    assert left["short"] <= 0.402  # servers count milliseconds
    assert 59 < left["long"] <= 60.5
    assert 59 < left["ever"] <= 60.5
    await eventually(lambda: near.get("short"), None)
