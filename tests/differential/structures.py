"""Cases: sets, hashes and sorted sets."""

from __future__ import annotations

from .sides import Cache, Cases
from .values import HASHABLE, VALUES

KINDS = ("none", "true", "one", "negative", "huge", "float", "digits", "long", "bytes", "tuple", "datetime", "int-enum")
MEMBERS = {name: HASHABLE[name] for name in KINDS}
FIELDS = MEMBERS | {name: VALUES[name] for name in ("dict", "nested", "set", "object", "empty")}

case = Cases()


# --- sets -----------------------------------------------------------------------------------------


@case
def members_of_every_kind(cache: Cache) -> None:
    for name, value in FIELDS.items():
        cache.sadd(name, value)
        cache.sadd(name, value, "other")
        cache.sismember(name, value)
        cache.smismember(name, value, "missing", "other")
        cache.scard(name)
        cache.srem(name, value)
        cache.smembers(name)


@case
def members_read(cache: Cache) -> None:
    for name, value in MEMBERS.items():
        cache.sadd(name, value)
        cache.smembers(name)
        cache.sscan(name)
        cache.sscan_iter(name)
        cache.srandmember(name)
        cache.srandmember(name, 5)
        cache.spop(name)


@case
def sets(cache: Cache) -> None:
    cache.sadd("a", 1, 2, 3)
    cache.sadd("a", 3, "text")
    cache.sadd("a", 1, version=2)
    cache.sadd("nothing")
    cache.scard("a")
    cache.scard("a", version=2)
    cache.scard("missing")
    cache.smembers("a")
    cache.smembers("a", version=2)
    cache.smembers("missing")
    cache.sismember("a", 1)
    cache.sismember("a", "1")
    cache.sismember("a", member="text", version=2)
    cache.smismember("a", 1, "text", None)
    cache.smismember("a", 1, version=2)
    cache.smismember("missing", 1)
    cache.srem("a", 1, 9)
    cache.srem("a", "text", version=2)
    cache.srem("missing", 1)
    cache.srem("a", 2, 3, "text")
    cache.has_key("a")


@case
def popping_members(cache: Cache) -> None:
    cache.sadd("a", 1)
    cache.sadd("b", 1, 2, 3)
    cache.sadd("c", 5, version=2)
    cache.srandmember("a")
    cache.srandmember("a", 2)
    cache.srandmember("a", -3)
    cache.srandmember("b", count=5)
    cache.srandmember("c", version=2)
    cache.srandmember("missing")
    cache.srandmember("missing", 2)
    cache.spop("a")
    cache.spop("a")
    cache.spop("a", 2)
    cache.spop("b", 5)
    cache.spop("c", count=1, version=2)
    cache.spop("missing", 0)


@case
def scanning_members(cache: Cache) -> None:
    cache.sadd("a", "foo", "bar1", "bar2")
    cache.sadd("b", "foo", version=2)
    cache.sscan("a")
    cache.sscan("a", count=100)
    cache.sscan("b", version=2)
    cache.sscan("missing")
    cache.sscan_iter("a")
    cache.sscan_iter("a", count=1)
    cache.sscan_iter("b", version=2)
    cache.sscan_iter("missing")


@case
def scanning_members_by_pattern(cache: Cache) -> None:
    cache.sadd("a", "foo", "bar1", "bar2", 15, 25)
    for match in ("bar*", "b*1", "ba", "bar?", "foo", "*", "", None):
        cache.sscan("a", match)
        cache.sscan_iter("a", match=match)


@case(shard="structures, sharded")
def combining_sets(cache: Cache) -> None:
    cache.sadd("a", 1, 2, 3, "text")
    cache.sadd("b", 2, 3, 4)
    cache.sadd("c", 3, "text")
    cache.sadd("a", 9, version=2)
    for combine in (cache.sdiff, cache.sinter, cache.sunion):
        combine("a", "b")
        combine("a", "b", "c")
        combine("a")
        combine("a", "missing")
        combine("a", "b", version=2)
    cache.sinter("a", "b", version=2)
    cache.sdiff("a", "b", version=2)
    cache.sunion("a", "b", version=2)


@case(shard="structures, sharded")
def storing_combined_sets(cache: Cache) -> None:
    cache.sadd("a", 1, 2, 3, "text")
    cache.sadd("b", 2, 3, 4)
    cache.sadd("a", 9, version=2)
    cache.sdiffstore("diff", "a", "b")
    cache.sinterstore("inter", "a", "b")
    cache.sunionstore("union", "a", "b", "missing")
    cache.sdiffstore("diff", "a", "b", version_dest=3, version_keys=2)
    cache.sinterstore("inter", "a", "b", version=2)
    cache.sunionstore("union", "a", version=2)
    cache.sinterstore("union", "missing", "a")
    cache.smembers("diff")
    cache.smembers("diff", version=3)


@case
def moving_members(cache: Cache) -> None:
    cache.sadd("{t}a", 1, "text")
    cache.sadd("{t}b", 2)
    cache.smove("{t}a", "{t}b", 1)
    cache.smove("{t}a", "{t}b", 1)
    cache.smove(source="{t}a", destination="{t}new", member="text")
    cache.smove("missing", "missing", 1, version=2)
    cache.smembers("{t}b")


# --- hashes ---------------------------------------------------------------------------------------


@case(shard="structures, sharded")
def fields_of_every_kind(cache: Cache) -> None:
    for name, value in FIELDS.items():
        if value is not None:
            cache.hset("a", name, value)
        cache.hset("b", mapping={name: value})
    cache.hlen("a")
    cache.hkeys("a")


@case(shard="structures, sharded")
def hashes(cache: Cache) -> None:
    cache.hset("a", "f", 1)
    cache.hset("a", "f", 2)
    cache.hset("a", field="g", value="text", version=2)
    cache.hset("a", mapping={"h": 1, "i": [1]})
    cache.hset("a", "j", 1, {"h": 2, "k": 3})
    cache.hset("a", 5, 5)
    cache.hset("a", "ключ", 5)
    cache.hkeys("a")
    cache.hkeys("a", version=2)
    cache.hkeys("missing")
    cache.hlen("a")
    cache.hlen("a", version=2)
    cache.hlen("missing")
    cache.hexists("a", "f")
    cache.hexists("a", 5)
    cache.hexists("a", "g")
    cache.hexists("a", field="g", version=2)
    cache.hdel("a", "f")
    cache.hdel("a", "f")
    cache.hdel("a", field="g", version=2)
    cache.hset("a")
    cache.hset("a", mapping={})
    cache.hexists("missing", "f")


# --- sorted sets ----------------------------------------------------------------------------------


@case(shard="structures, sharded")
def scored_members_of_every_kind(cache: Cache) -> None:
    for name, value in MEMBERS.items():
        cache.zadd(name, {value: 1.5})
        cache.zincrby(name, 2, value)
        cache.zscore(name, value)
        cache.zrank(name, value)
        cache.zrange(name, 0, -1, withscores=True)
        cache.zrem(name, value)
        cache.zadd(name, {value: 1})
        cache.zpopmin(name)
        cache.zadd(name, {value: 1})
        cache.zpopmax(name, 2)
        cache.zadd(name, {value: 1})
        cache.zrevrangebyscore(name, 5, 0)


@case(shard="structures, sharded")
def adding_scores(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2.5})
    cache.zadd("z", {"a": 3, "c": 1})
    cache.zadd("z", {"a": 5, "d": 1}, nx=True)
    cache.zadd("z", {"a": 5, "e": 1}, xx=True)
    cache.zadd("z", {"a": 6, "f": 1}, ch=True)
    cache.zadd("z", {"a": 2}, incr=True)
    cache.zadd("z", {"missing": 2}, xx=True, incr=True)
    cache.zadd("z", {"a": 2, "b": 99}, gt=True, ch=True)
    cache.zadd("z", {"a": 2, "b": 999}, lt=True, ch=True)
    cache.zadd("z", {"a": float("inf"), "n": float("-inf")})
    cache.zadd("z", {"a": 1}, version=2)
    cache.zadd("z", {"a": 1, "b": 2}, False, False, True)
    cache.zrange("z", 0, -1, withscores=True)


@case(shard="structures, sharded")
def adding_scores_wrongly(cache: Cache) -> None:
    cache.zadd("z", {})
    cache.zadd("z", {"a": 1}, nx=True, xx=True)
    cache.zadd("z", {"a": 1}, nx=True, gt=True)
    cache.zadd("z", {"a": 1}, gt=True, lt=True)
    cache.zadd("z", {"a": 1, "b": 1}, incr=True)
    cache.zadd("z", {"a": "text"})


@case(shard="structures, sharded")
def asking_for_scores(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2, "c": 3})
    cache.zadd("z", {"d": 4}, version=2)
    cache.zcard("z")
    cache.zcard("z", version=2)
    cache.zcard("missing")
    cache.zcount("z", 1, 2)
    cache.zcount("z", "(1", "+inf")
    cache.zcount("z", min="-inf", max=2.5, version=2)
    cache.zscore("z", "a")
    cache.zscore("z", "missing")
    cache.zscore("z", value="d", version=2)
    cache.zrank("z", "b")
    cache.zrank("z", "b", True)
    cache.zrank("z", "missing", withscore=True)
    cache.zrank("z", value="d", withscore=False, version=2)
    cache.zrank("missing", "a")
    cache.zincrby("z", 2.5, "a")
    cache.zincrby("z", amount=-1, value="new")
    cache.zincrby("z", 1, "d", version=2)


@case(shard="structures, sharded")
def ranges_by_rank(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2, "c": 3.5})
    cache.zadd("z", {"d": 4}, version=2)
    for start, end in ((0, -1), (1, 1), (0, 0), (5, 9), (-2, -1)):
        cache.zrange("z", start, end)
        cache.zrange("z", start, end, True)
        cache.zrange("z", start=start, end=end, desc=True, withscores=True)
        cache.zrange("z", start, end, withscores=True, score_cast_func=int)
        cache.zrevrange("z", start, end)
        cache.zrevrange("z", start=start, end=end, withscores=True, score_cast_func=int)
    cache.zrange("z", 0, -1, version=2)
    cache.zrevrange("z", 0, -1, version=2)
    cache.zrange("missing", 0, -1, withscores=True)
    cache.zrevrange("missing", 0, -1)


@case(shard="structures, sharded")
def ranges_by_score(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2, "c": 3.5})
    cache.zadd("z", {"d": 4}, version=2)
    for low, high in (("-inf", "+inf"), (1, 2), ("(1", 3.5), (9, 10), (3, 1)):
        cache.zrangebyscore("z", low, high)
        cache.zrangebyscore("z", min=low, max=high, start=1, num=1)
        cache.zrangebyscore("z", low, high, withscores=True)
        cache.zrangebyscore("z", low, high, start=0, num=2, withscores=True, score_cast_func=int)
        cache.zrevrangebyscore("z", high, low)
        cache.zrevrangebyscore("z", max=high, min=low, start=1, num=1)
        cache.zrevrangebyscore("z", high, low, withscores=True, score_cast_func=int)
    cache.zrangebyscore("z", 0, 9, version=2)
    cache.zrevrangebyscore("z", 9, 0, version=2)
    cache.zrangebyscore("z", 0, 9, start=1)
    cache.zrevrangebyscore("z", 9, 0, num=1)
    cache.zrangebyscore("missing", 0, 9)


@case(shard="structures, sharded")
def removing_scores(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
    cache.zadd("z", {"d": 4, "e": 5}, version=2)
    cache.zrem("z", "a", "missing")
    cache.zrem("z", "d", version=2)
    cache.zrem("missing", "a")
    cache.zremrangebyscore("z", 1, 2)
    cache.zremrangebyscore("z", min="(3", max="+inf")
    cache.zremrangebyscore("z", 0, 9, version=2)
    cache.zcard("z")


@case(shard="structures, sharded")
def popping_scores(cache: Cache) -> None:
    cache.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5.5})
    cache.zadd("z", {"x": 4, "y": 5}, version=2)
    cache.zpopmin("z")
    cache.zpopmax("z")
    cache.zpopmin("z", 1)
    cache.zpopmax("z", count=5)
    cache.zpopmin("z", version=2)
    cache.zpopmax("z", count=1, version=2)
    cache.zpopmin("missing")
    cache.zpopmin("missing", count=2)
    cache.zpopmax("missing")
    cache.zpopmax("missing", 2)


@case(shard="structures, sharded")
def arguments_confused(cache: Cache) -> None:
    cache.zcount("z", None, 1)
    cache.hset("h", True, 1)
    cache.zincrby("z", None, "a")
    cache.zrange("z", None, 1)
    cache.srandmember("s", "many")


@case(shard="structures, sharded")
def kinds_confused(cache: Cache) -> None:
    cache.set("text", "text")
    cache.sadd("set", 1)
    for call in (cache.sadd, cache.sismember, cache.zscore, cache.hexists, cache.hdel, cache.zrem):
        call("text", 1)
    for call in (cache.smembers, cache.scard, cache.hkeys, cache.hlen, cache.zcard, cache.zpopmin, cache.spop):
        call("text")
    for call in (cache.zrange, cache.zrangebyscore):
        call("set", 0, 1)
    cache.hset("set", "f", 1)
    cache.zadd("set", {"a": 1})
    cache.zincrby("set", 1, "a")
    cache.sscan("text")
    cache.sscan_iter("text")
