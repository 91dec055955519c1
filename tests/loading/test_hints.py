"""Without a near cache, the versions of the tags that an entry had last are asked for with it: in one round trip."""

from __future__ import annotations

import bz2

import pytest
from tests.caches import params
from tests.faces import Face
from tests.near.conftest import trips

from fleetcache import Cache
from fleetcache import tagging as tagging_module
from fleetcache.client import ShardClient
from fleetcache.codec.compressors import BaseCompressor
from fleetcache.owed import OWED
from fleetcache.tagging import Hints

__all__ = ["trips"]  # a fixture of the near cache's tests

TAGS = ["x", "y", "z"]


class LikeMetadata(BaseCompressor):
    """A compressor of a site, whose signature, BZh, begins with the B of metadata."""

    magic = (b"BZh",)

    def compress(self, value: bytes) -> bytes:
        return bz2.compress(value)

    def decompress(self, value: bytes) -> bytes:
        return bz2.decompress(value)


@pytest.fixture
def far(valkey, face) -> Face:
    """A cache without a near cache, which knows nothing yet."""
    return Face(Cache(valkey.url(9), params({})), face)


async def test_the_second_read_takes_one_round_trip(far, trips):
    """The first learns the tags; of each entry, and for all reading operations."""
    await far.set_many({"a": 1, "b": {"two": 2}}, tags=TAGS)
    trips.clear()
    assert await far.get("a") == 1
    assert trips == [["GET"], ["MGET"]]
    trips.clear()

    assert await far.get("a") == 1
    assert trips == [["MGET"]]
    assert await far.get("b") == {"two": 2}
    assert await far.get("b") == {"two": 2}
    assert trips == [["MGET"], ["GET"], ["MGET"], ["MGET"]]
    trips.clear()
    assert await far.get_many("ab") == {"a": 1, "b": {"two": 2}}
    assert trips == [["MGET"]]
    assert await far.invalidate_tags("y") == 1
    trips.clear()
    assert await far.get("a") is None
    assert await far.get_many("ab") == {}
    assert trips == [["MGET"], ["MGET"]]


async def test_the_reader_may_name_the_tags(far, trips):
    """Then the first read takes one round trip too; but what the entry says, decides."""
    await far.set("a", 1, tags=TAGS)
    trips.clear()

    assert await far.get("a", tags=TAGS) == 1
    assert trips == [["MGET"]]

    await far.set("b", 2, tags=["x"])
    trips.clear()
    assert await far.get("b", tags=["other"]) == 2
    assert trips == [["MGET"], ["MGET"]]
    await far.invalidate_tags("x")
    assert await far.get("b", tags=["other"]) is None
    assert await far.get("none", 5, tags=TAGS) == 5
    with pytest.raises(TypeError, match="tags takes an iterable"):
        await far.get("b", tags="x")


async def test_a_wrong_guess_costs_a_second_round_trip(far, trips):
    """Of an entry that has other tags now; then they are known."""
    await far.set("a", 1, tags=TAGS)
    await far.get("a")
    await far.set("a", 2, tags=["other"])
    trips.clear()

    assert await far.get("a") == 2
    assert trips == [["MGET"], ["MGET"]]
    assert await far.get("a") == 2
    assert trips == [["MGET"], ["MGET"], ["MGET"]]
    await far.invalidate_tags("other")
    assert await far.get("a") is None


async def test_an_entry_that_is_stored_anew_is_judged_anew(far):
    """Other versions, another value, the same tags."""
    for number in range(4):
        await far.set("a", number, tags=TAGS)
        assert await far.get("a") == number
        assert await far.get("a") == number
        await far.invalidate_tags(TAGS[number % 3])
        assert await far.get("a") is None


@pytest.mark.parametrize("value", [5, "plain", None, {"a": 1}])
async def test_an_entry_without_tags_is_plain_again(far, trips, value):
    """After its next read nobody asks for versions."""
    await far.set("a", 1, tags=TAGS)
    await far.get("a")
    await far.set("a", value)
    assert await far.get("a", "none") == value
    trips.clear()

    assert await far.get("a", "none") == value
    assert await far.get_many(["a"]) == {"a": value}
    assert trips == [["GET"], ["MGET"]]


async def test_fresh_asks_the_primary(far):
    """With *fresh* the versions come from the primary as well."""
    await far.set("a", 1, tags=TAGS)
    assert [await far.get("a", fresh=True) for _ in range(3)] == [1, 1, 1]
    await far.invalidate_tags("z")
    assert await far.get("a", fresh=True) is None


@pytest.mark.parametrize(
    "options",
    [
        {"COMPRESSOR": "fleetcache.codec.compressors.ZlibCompressor", "COMPRESS_MIN_LENGTH": 1},
        {"SERIALIZER": "fleetcache.codec.serializers.JSONSerializer"},
        {"SERIALIZER": "fleetcache.codec.serializers.MSGPackSerializer"},
        {"COMPRESSOR": "tests.loading.test_hints.LikeMetadata"},
    ],
    ids=["zlib", "json", "msgpack", "like metadata"],
)
async def test_other_payloads(valkey, face, trips, options):
    """Metadata within a compressed payload, or in the envelope of another serializer."""
    cache = Face(Cache(valkey.url(9), params(options)), face)
    value = {"text": "x" * 2000}
    await cache.set("a", value, tags=TAGS)
    assert await cache.get("a") == value
    trips.clear()

    assert await cache.get("a") == value
    assert trips == [["MGET"]]
    await cache.invalidate_tags("x")
    assert await cache.get("a") is None


async def test_several_servers_are_asked_at_once(face, valkey, redis_debian):
    """Shards, each with some of the versions."""
    cache = Face(ShardClient([valkey.url(9), redis_debian.url(9)], params({})), face)
    tags = [f"t{number}" for number in range(16)]
    await cache.set_many({"a": 1, "b": 2}, tags=tags)
    for _ in range(3):
        assert await cache.get("a") == 1
        assert await cache.get_many("ab") == {"a": 1, "b": 2}

    await cache.invalidate_tags("t11")

    assert await cache.get("a") is None
    assert await cache.get_many("ab") == {}


async def test_what_is_owed_counts(far):
    """An invalidation that the server has not received holds for known entries too."""
    await far.set("a", 1, tags=TAGS)
    assert [await far.get("a"), await far.get("a")] == [1, 1]
    owed = far.whole._tag_name("y")
    gone = []

    def send(names):
        gone.append(1)
        raise ConnectionError

    OWED.add([owed], send)
    try:
        assert await far.get("a") is None
        assert await far.get_many(["a"]) == {}
    finally:
        OWED.settle([owed])

    assert await far.get("a") == 1


async def test_a_damaged_entry_is_taken_as_missing(far):
    """Also if its beginning is known."""
    await far.set("a", {"b": 1}, tags=TAGS)
    await far.get("a")
    name = far.whole.make_key("a")
    raw = far.whole.get_client()
    raw.set(name, raw.get(name)[:-3])

    assert await far.get("a") is None
    raw.close()


def test_hints_are_bounded(monkeypatch) -> None:
    """Of two generations the older is given up."""
    monkeypatch.setattr(tagging_module, "GENERATION", 4)
    hints = Hints()
    for number in range(20):
        hints.note(str(number), tagging_module.Hint("1", ("x",), ("n",)))

    assert hints.of("19") is not None
    assert hints.of("0") is None
    assert len(hints.recent) + len(hints.older) <= 8
    hints.forget("19")
    assert hints.of("19") is None
