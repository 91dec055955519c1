"""Hashes, sets, sorted sets and lists, on every server and in both faces."""

from __future__ import annotations

import pytest
from redis.exceptions import DataError, ResponseError

from fleetcache.errors import UnstorableValue

VALUES = [1, "1", None, 1.5, "text", b"bytes", (1, "two")]

# --- hashes -------------------------------------------------------------------------------------------


async def test_hset_and_hget(cache):
    """Fields hold any value; hset() counts the fields that are new."""
    for number, value in enumerate(VALUES):
        assert await cache.hset("hash", f"field{number}", value) == 1
    assert await cache.hset("hash", "field0", "other") == 0
    assert await cache.hset("hash", "field0", 1) == 0

    assert [await cache.hget("hash", f"field{number}") for number in range(len(VALUES))] == VALUES
    assert await cache.hget("hash", "missing") is None
    assert await cache.hget("hash", "missing", "default") == "default"
    assert await cache.hget("missing", "field") is None


async def test_hset_takes_a_mapping(cache):
    """hset() with a mapping sets all of its fields, and one more field beside it."""
    assert await cache.hset("hash", mapping={"a": 1, "b": [2]}) == 2
    assert await cache.hset("hash", "c", 3, mapping={"a": 0, "d": 4}) == 2

    assert await cache.hgetall("hash") == {"a": 0, "b": [2], "c": 3, "d": 4}
    with pytest.raises(DataError):
        await cache.hset("hash")


async def test_hash_readers(cache):
    """All fields, their names, their values, some of them, their number, whether one is there."""
    await cache.hset("hash", mapping={"a": 1, "b": None, "ü": "x"})

    assert await cache.hgetall("hash") == {"a": 1, "b": None, "ü": "x"}
    assert sorted(await cache.hkeys("hash")) == ["a", "b", "ü"]
    assert sorted(await cache.hvals("hash"), key=str) == [1, None, "x"]
    assert await cache.hmget("hash", ["ü", "missing", "a"]) == ["x", None, 1]
    assert await cache.hmget("hash", []) == []
    assert await cache.hlen("hash") == 3
    assert await cache.hexists("hash", "a") is True
    assert await cache.hexists("hash", "missing") is False


async def test_a_missing_hash(cache):
    """A hash that is not there is an empty one."""
    assert await cache.hgetall("missing") == {}
    assert await cache.hkeys("missing") == []
    assert await cache.hvals("missing") == []
    assert await cache.hmget("missing", ["a"]) == [None]
    assert await cache.hlen("missing") == 0
    assert await cache.hexists("missing", "a") is False
    assert await cache.hdel("missing", "a") == 0


async def test_hsetnx_hdel_hincrby(cache):
    """hsetnx() leaves a field that is there; hdel() counts what it removed; hincrby() counts in a field."""
    assert await cache.hsetnx("hash", "a", 1) is True
    assert await cache.hsetnx("hash", "a", 2) is False
    assert await cache.hget("hash", "a") == 1
    assert await cache.hincrby("hash", "a") == 2
    assert await cache.hincrby("hash", "a", -5) == -3
    assert await cache.hincrby("hash", "new", 7) == 7
    assert await cache.hdel("hash", ["a", "missing", "new"]) == 2
    assert await cache.has_key("hash") is False
    await cache.hset("hash", "text", "a")
    with pytest.raises(ResponseError, match="not an integer"):
        await cache.hincrby("hash", "text")


# --- sets ---------------------------------------------------------------------------------------------


async def test_sets_hold_any_value_once(cache):
    """Members come back as they were, equal ones once; sadd() and srem() count."""
    assert await cache.sadd("set", *VALUES) == len(VALUES)
    assert await cache.sadd("set", *VALUES) == 0
    assert await cache.smembers("set") == set(VALUES)
    assert await cache.scard("set") == len(VALUES)
    assert await cache.srem("set", "text", "missing") == 1
    assert await cache.sismember("set", "text") is False
    assert await cache.sismember("set", 1) is True
    assert await cache.smismember("set", 1, "missing", None) == [True, False, True]
    assert await cache.smembers("missing") == set()
    assert await cache.scard("missing") == 0


@pytest.mark.together
async def test_set_algebra(cache):
    """Difference, intersection and union, returned or stored."""
    await cache.sadd("a", 1, 2, 3)
    await cache.sadd("b", 2, 3, 4)
    await cache.sadd("c", 3)

    assert await cache.sdiff("a", "b") == {1}
    assert await cache.sinter("a", "b", "c") == {3}
    assert await cache.sunion("a", "b", "missing") == {1, 2, 3, 4}
    assert await cache.sdiffstore("d", "a", "b") == 1
    assert await cache.sinterstore("i", "a", "b") == 2
    assert await cache.sunionstore("u", "a", "b") == 4
    assert await cache.smembers("d") == {1}
    assert await cache.smembers("i") == {2, 3}
    assert await cache.smembers("u") == {1, 2, 3, 4}
    assert await cache.sinterstore("i", "a", "missing") == 0
    assert await cache.has_key("i") is False


@pytest.mark.together
async def test_sdiffstore_across_versions(cache):
    """The destination's version and the sources' are chosen apart."""
    await cache.sadd("a", 1, 2, version=5)
    await cache.sadd("b", 2, version=5)

    assert await cache.sdiffstore("d", "a", "b", version_dest=6, version_keys=5) == 1
    assert await cache.smembers("d", version=6) == {1}


@pytest.mark.together
async def test_smove(cache):
    """smove() moves a member within one version, and tells whether it was there."""
    await cache.sadd("a", 1, 2, version=3)

    assert await cache.smove("a", "b", 1, version=3) is True
    assert await cache.smove("a", "b", "missing", version=3) is False
    assert await cache.smembers("a", version=3) == {2}
    assert await cache.smembers("b", version=3) == {1}


async def test_spop_and_srandmember(cache):
    """One member or several, removed or not; None or nothing where there is none."""
    members = set(range(10))
    await cache.sadd("set", *members)

    assert await cache.srandmember("set") in members
    some = await cache.srandmember("set", 4)
    assert len(some) == 4
    assert set(some) <= members
    one = await cache.spop("set")
    several = await cache.spop("set", 3)
    assert len({one} | several) == 4
    assert await cache.smembers("set") == members - several - {one}
    assert await cache.spop("missing") is None
    assert await cache.spop("missing", 2) == set()
    assert await cache.srandmember("missing") is None
    assert await cache.srandmember("missing", 2) == []


async def test_sscan_is_complete(cache):
    """sscan() returns every member of a large set, sscan_iter() yields them; match is a glob on digits."""
    members = {f"member{number}" for number in range(500)} | {*range(500)}
    await cache.sadd("set", *members)

    assert await cache.sscan("set") == members
    assert await cache.sscan("set", count=100) == members
    assert {member async for member in cache.sscan_iter("set")} == members
    assert await cache.sscan("missing") == set()
    assert [member async for member in cache.sscan_iter("missing")] == []


async def test_sscan_with_a_pattern(make):
    """What is compressed cannot be matched, and says so."""
    cache = make(COMPRESSOR="fleetcache.codec.compressors.ZlibCompressor")
    await cache.sadd("set", "a", "b")

    assert await cache.sscan("set") == {"a", "b"}
    with pytest.raises(ValueError, match="compression"):
        await cache.sscan("set", match="a*")
    with pytest.raises(ValueError, match="compression"):
        [member async for member in cache.sscan_iter("set", match="a*")]


# --- sorted sets --------------------------------------------------------------------------------------


@pytest.fixture
def scores():
    return {"a": 1.0, "b": 2.0, "c": 3.5, 4: 4.0, ("e", 5): float("inf")}


async def test_zadd_counts_and_updates(cache):
    """zadd() counts new members, with ch changed ones too, and adds to a score with incr."""
    assert await cache.zadd("z", {"a": 1, "b": 2}) == 2
    assert await cache.zadd("z", {"a": 5, "c": 3}) == 1
    assert await cache.zadd("z", {"a": 6, "d": 4}, ch=True) == 2
    assert await cache.zadd("z", {"a": 100, "e": 5}, nx=True) == 1
    assert await cache.zscore("z", "a") == 6
    assert await cache.zadd("z", {"a": 7, "new": 1}, xx=True) == 0
    assert await cache.zscore("z", "new") is None
    assert await cache.zadd("z", {"a": 1}, gt=True, ch=True) == 0
    assert await cache.zadd("z", {"a": 1}, lt=True, ch=True) == 1
    assert await cache.zadd("z", {"a": 1.5}, incr=True) == 2.5
    assert await cache.zadd("z", {"a": 1}, incr=True, nx=True) is None


@pytest.mark.parametrize(
    "wrong",
    [{"nx": True, "xx": True}, {"nx": True, "gt": True}, {"nx": True, "lt": True}, {"gt": True, "lt": True}],
    ids=lambda wrong: "+".join(wrong),
)
async def test_zadd_refuses_contradictions(cache, wrong):
    """Switches that contradict each other are refused before anything is sent."""
    with pytest.raises(DataError):
        await cache.zadd("z", {"a": 1}, **wrong)
    with pytest.raises(DataError):
        await cache.zadd("z", {})
    with pytest.raises(DataError):
        await cache.zadd("z", {"a": 1, "b": 2}, incr=True)

    assert await cache.has_key("z") is False


async def test_zrange(cache, scores):
    """Members by rank, from either end, with scores cast as asked."""
    await cache.zadd("z", scores)
    members = list(scores)

    assert await cache.zrange("z", 0, -1) == members
    assert await cache.zrange("z", 1, 2) == ["b", "c"]
    assert await cache.zrange("z", 0, -1, desc=True) == members[::-1]
    assert await cache.zrange("z", 0, 1, withscores=True) == [("a", 1.0), ("b", 2.0)]
    assert await cache.zrange("z", 0, 1, withscores=True, score_cast_func=int) == [("a", 1), ("b", 2)]
    assert await cache.zrange("z", 0, 0, desc=True, withscores=True) == [(("e", 5), float("inf"))]
    assert await cache.zrevrange("z", 0, 1) == [("e", 5), 4]
    assert await cache.zrevrange("z", 1, 1, withscores=True) == [(4, 4.0)]
    assert await cache.zrange("missing", 0, -1) == []


async def test_zrangebyscore(cache, scores):
    """Members by score, limits open, closed or infinite, a window of them, from either end."""
    await cache.zadd("z", scores)

    assert await cache.zrangebyscore("z", 2, 4) == ["b", "c", 4]
    assert await cache.zrangebyscore("z", "(2", "(4") == ["c"]
    assert await cache.zrangebyscore("z", "-inf", "+inf") == list(scores)
    assert await cache.zrangebyscore("z", 1, 4, start=1, num=2) == ["b", "c"]
    assert await cache.zrangebyscore("z", 1, 2, withscores=True) == [("a", 1.0), ("b", 2.0)]
    assert await cache.zrevrangebyscore("z", 4, 2) == [4, "c", "b"]
    assert await cache.zrevrangebyscore("z", 4, 1, start=1, num=1, withscores=True) == [("c", 3.5)]
    assert await cache.zrangebyscore("missing", 0, 1) == []
    with pytest.raises(DataError):
        await cache.zrangebyscore("z", 1, 2, start=1)
    with pytest.raises(DataError):
        await cache.zrevrangebyscore("z", 2, 1, num=1)


async def test_ranks_and_scores(cache, scores):
    """Where a member stands from either end, how many there are, and between which scores."""
    await cache.zadd("z", scores)

    assert await cache.zrank("z", "b") == 1
    assert await cache.zrevrank("z", "b") == 3
    assert await cache.zrank("z", "missing") is None
    assert await cache.zrevrank("z", "missing") is None
    assert await cache.zscore("z", ("e", 5)) == float("inf")
    assert await cache.zscore("z", "missing") is None
    assert await cache.zcard("z") == 5
    assert await cache.zcount("z", 2, "(4") == 2
    assert await cache.zcount("z", "-inf", "+inf") == 5
    assert await cache.zincrby("z", 0.25, "a") == 1.25
    assert await cache.zincrby("z", -1, "new") == -1


async def test_zrank_with_score(cache, url, scores):
    """Servers of 7.2 and later give rank and score in one step; older ones refuse."""
    await cache.zadd("z", scores)

    try:
        found = await cache.zrank("z", "c", withscore=True)
    except ResponseError as error:
        assert "syntax" in str(error) or "number of arguments" in str(error)
        return
    assert found == [2, 3.5]
    assert await cache.zrevrank("z", "c", withscore=True) == [2, 3.5]
    assert await cache.zrank("z", "missing", withscore=True) is None


async def test_zpop(cache, scores):
    """The lowest and the highest members leave with their scores, one or several."""
    await cache.zadd("z", scores)

    assert await cache.zpopmin("z") == ("a", 1.0)
    assert await cache.zpopmax("z") == (("e", 5), float("inf"))
    assert await cache.zpopmin("z", 2) == [("b", 2.0), ("c", 3.5)]
    assert await cache.zpopmax("z", 5) == [(4, 4.0)]
    assert await cache.zpopmin("z") is None
    assert await cache.zpopmax("z", 2) == []


async def test_zrem(cache):
    """Members leave by name, score or rank, and are counted."""
    await cache.zadd("z", {name: score for score, name in enumerate("abcdefgh")})

    assert await cache.zrem("z", "a", "missing", "b") == 2
    assert await cache.zremrangebyscore("z", 2, "(4") == 2
    assert await cache.zremrangebyrank("z", 0, 1) == 2
    assert await cache.zrange("z", 0, -1) == ["g", "h"]
    assert await cache.zrem("missing", "a") == 0
    assert await cache.zremrangebyscore("missing", 0, 1) == 0
    assert await cache.zremrangebyrank("missing", 0, 1) == 0


# --- lists --------------------------------------------------------------------------------------------


async def test_lists_keep_order_and_values(cache):
    """Values come back as they were, in the order they were pushed."""
    assert await cache.rpush("list", *VALUES) == len(VALUES)
    assert await cache.lpush("list", "first", "before it") == len(VALUES) + 2

    assert await cache.lrange("list", 0, -1) == ["before it", "first", *VALUES]
    assert await cache.llen("list") == len(VALUES) + 2
    assert await cache.lindex("list", 1) == "first"
    assert await cache.lindex("list", -1) == VALUES[-1]
    assert await cache.lindex("list", 100) is None
    assert await cache.lpop("list") == "before it"
    assert await cache.rpop("list") == VALUES[-1]
    assert await cache.lpop("list", 2) == ["first", VALUES[0]]
    assert await cache.rpop("list", 100) == VALUES[-2:0:-1]
    assert await cache.lpop("list") is None
    assert await cache.rpop("list", 2) == []
    assert await cache.lrange("missing", 0, -1) == []
    assert await cache.llen("missing") == 0


async def test_lists_are_changed_in_place(cache):
    """A value is replaced, removed by occurrence, or left out by position."""
    await cache.rpush("list", 1, 2, 1, 3, 1)

    assert await cache.lset("list", 1, "two") is True
    assert await cache.lrem("list", -1, 1) == 1
    assert await cache.lrange("list", 0, -1) == [1, "two", 1, 3]
    assert await cache.lrem("list", 0, 1) == 2
    assert await cache.ltrim("list", 1, -1) is True
    assert await cache.lrange("list", 0, -1) == [3]
    with pytest.raises(ResponseError, match="index out of range"):
        await cache.lset("list", 5, 1)
    with pytest.raises(ResponseError, match="no such key"):
        await cache.lset("missing", 0, 1)


# --- all of them --------------------------------------------------------------------------------------


async def test_a_key_of_another_kind_is_refused(cache):
    """What is meant for one kind of entry refuses another, and leaves it alone."""
    await cache.set("value", 1)

    for refused in (
        cache.hget("value", "a"),
        cache.hgetall("value"),
        cache.hset("value", "a", 1),
        cache.sadd("value", 1),
        cache.smembers("value"),
        cache.zadd("value", {"a": 1}),
        cache.zrange("value", 0, -1),
        cache.rpush("value", 1),
        cache.lrange("value", 0, -1),
    ):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await refused
    assert await cache.get("value") == 1


async def test_what_cannot_be_stored_stores_nothing(cache):
    """When one member cannot be stored, none is."""
    bad = object.__new__(type("Local", (), {}))

    for refused in (
        cache.hset("key", mapping={"good": 1, "bad": bad}),
        cache.hsetnx("key", "bad", bad),
        cache.sadd("key", 1, bad),
        cache.zadd("key", {1: 1, bad: 2}),
        cache.rpush("key", 1, bad),
        cache.lpush("key", 1, bad),
    ):
        with pytest.raises(UnstorableValue):
            await refused
    assert await cache.has_key("key") is False


@pytest.mark.together
async def test_structures_have_versions_and_lifetimes(cache):
    """Structures live under versions, expire, and are deleted like values."""
    await cache.hset("key", "a", 1, version=2)
    await cache.sadd("set", 1, version=2)
    await cache.zadd("z", {"a": 1}, version=2)
    await cache.rpush("list", 1, version=2)
    everything = ["key", "set", "z", "list"]

    assert [await cache.has_key(key) for key in everything] == [False] * 4
    assert [await cache.expire(key, 100, version=2) for key in everything] == [True] * 4
    assert [await cache.ttl(key, version=2) for key in everything] == [100] * 4
    assert await cache.incr_version("key", version=2) == 3
    assert await cache.hgetall("key", version=3) == {"a": 1}
    assert await cache.delete_many(["set", "z", "list"], version=2) == 3
