"""Cases: looking for keys, locks, and clients that the caller brings."""

from __future__ import annotations

from time import time

from .sides import Cache, Cases

case = Cases()

SPECIAL = ("a*b", "a?b", "a[x]b", "a\\b", "axb", "a:b", "ab")


@case(shard="iter_keys, sharded", replicas="keys of the primary")
def iterating(cache: Cache) -> None:
    cache.set_many({f"key-{number}": number for number in range(50)})
    cache.set("key-other", 1, version=2)
    cache.iter_keys("*")
    cache.iter_keys("key-1*", itersize=5)
    cache.iter_keys("key-*", version=2)
    cache.iter_keys(search="nothing*")


@case(replicas="keys of the primary")
def listing(cache: Cache) -> None:
    cache.set_many({f"key-{number}": number for number in range(50)})
    cache.set("key-other", 1, version=2)
    cache.sadd("set", 1)
    cache.keys("*")
    cache.keys("key-1*")
    cache.keys("key-[12]?")
    cache.keys("*", version=2)
    cache.keys("*", 2)
    cache.keys(search="nothing*")


@case(replicas="keys of the primary")
def listing_special_characters(cache: Cache) -> None:
    cache.set_many(dict.fromkeys(SPECIAL, 1))
    for pattern in (*SPECIAL, "a\\*b", "a\\?b", "a\\[x\\]b", "a\\\\b", "*:*", "a[*]b", "[", "a[^x]b"):
        cache.keys(pattern)


@case
def deleting_by_pattern(cache: Cache) -> None:
    cache.set_many({f"key-{number}": number for number in range(50)})
    cache.set("key-1", 1, version=2)
    cache.delete_pattern("key-1*")
    cache.delete_pattern("key-1*")
    cache.delete_pattern("key-2*", version=2)
    cache.delete_pattern("key-*", itersize=3)
    cache.delete_pattern("*", version="*")
    cache.delete_pattern("*", version=2)


@case
def deleting_by_pattern_special_characters(cache: Cache) -> None:
    for pattern in ("a*b", "a\\*b", "a?b", "a[x]b", "a\\[x\\]b"):
        cache.set_many(dict.fromkeys(SPECIAL, 1))
        cache.delete_pattern(pattern)
        cache.get_many(SPECIAL)


@case
def deleting_by_pattern_under_another_prefix(cache: Cache) -> None:
    for prefix in ("other", "o*", "o?h", "[o]"):
        name = cache.client.make_key("a", prefix=prefix)
        cache.set(name, 1)
    cache.set("a", 1)
    cache.delete_pattern("*", prefix="o*")
    cache.delete_pattern("*", version=1, prefix="o?h")
    cache.delete_pattern("*", prefix="[o]")
    cache.delete_pattern("*", prefix="*")
    cache.get("a")


@case
def reversing(cache: Cache) -> None:
    cache.client.reverse_key(cache.client.make_key("a:b"))


@case
def lock_and_unlock(cache: Cache) -> None:
    lock = cache.lock("l", timeout=100)
    lock.locked()
    lock.owned()
    lock.acquire()
    lock.locked()
    lock.owned()
    cache.has_key("l")
    cache.ttl("l")
    other = cache.lock("l")
    other.acquire(blocking=False)
    other.locked()
    other.owned()
    other.release()
    cache.lock("l", blocking=False).acquire()
    cache.lock("l", sleep=0.01, blocking_timeout=0.02).acquire()
    other.acquire(sleep=0.01, blocking=True, blocking_timeout=0.02)
    lock.release()
    lock.locked()
    lock.release()
    cache.has_key("l")


@case
def lock_with_a_token(cache: Cache) -> None:
    lock = cache.lock("l", version=2, timeout=50.5)
    lock.acquire(token="mine")
    cache.lock("l").acquire(token=b"other version")
    cache.lock("for-ever", thread_local=False).acquire(token="mine")
    cache.lock("no-limit", timeout=0).acquire(token="mine")
    for timeout in (None, 5, 1.5):
        cache.note(cache.backend.lock("l", timeout=timeout).timeout)
    cache.lock("m", 3, 70, 0.1, True, None).acquire(token="positional")


@case
def lock_as_a_context(cache: Cache) -> None:
    with cache.lock("l", timeout=100):
        cache.has_key("l")
        cache.lock("l", blocking_timeout=0).acquire()
    cache.has_key("l")
    cache.lock("l").acquire(token="theirs")
    cache.lock("l", blocking=False).__enter__()


@case
def lock_renewed(cache: Cache) -> None:
    lock = cache.lock("l", timeout=100)
    lock.extend(10)
    lock.reacquire()
    lock.acquire(token="mine")
    lock.extend(200)
    cache.ttl("l")
    lock.extend(50, replace_ttl=True)
    cache.ttl("l")
    lock.reacquire()
    cache.ttl("l")
    unlimited = cache.lock("m")
    unlimited.acquire(token="mine")
    unlimited.extend(10)
    unlimited.reacquire()


@case
def lock_lost(cache: Cache) -> None:
    lock = cache.lock("l", timeout=100)
    lock.acquire()
    cache.delete("l")
    lock.owned()
    lock.extend(10)
    lock.reacquire()
    lock.release()
    lock.release()
    lock.acquire()
    cache.delete("l")
    cache.lock("l").acquire(token="somebody else's")
    lock.release()


@case(shard="clients, sharded")
def clients_of_the_caller(cache: Cache) -> None:
    raw = cache.raw
    cache.set("a", 1, client=raw)
    cache.set("a", 2, 60, None, raw, True, False)
    cache.add("b", "text", client=raw)
    cache.get("a", client=raw)
    cache.get_many(["a", "b"], client=raw)
    cache.set_many({"c": 3, "d": None}, client=raw)
    cache.set_many({"d": None}, timeout=0, client=raw)
    cache.has_key("a", client=raw)
    cache.incr("a", client=raw)
    cache.decr("a", client=raw)
    cache.touch("a", 100, client=raw)
    cache.ttl("a", client=raw)
    cache.pttl("a", client=raw)
    cache.expire("a", 50, client=raw)
    cache.pexpire("a", 50_000, client=raw)
    cache.expire_at("a", 4_000_000_000, client=raw)
    cache.pexpire_at("a", 4_000_000_000_000, client=raw)
    cache.persist("a", client=raw)
    cache.keys("*", client=raw)
    cache.iter_keys("*", client=raw)
    cache.delete("a", client=raw)
    cache.delete_pattern("c*", client=raw)
    cache.delete_many(["b", "c"], client=raw)
    with cache.lock("l", client=raw):
        cache.has_key("l", client=raw)


@case(shard="clients, sharded", herd="incr_version, herded")
def moving_with_a_client_of_the_caller(cache: Cache) -> None:
    cache.set("a", 1, 100)
    cache.incr_version("a", client=cache.raw)


@case(shard="clients, sharded")
def clearing_with_a_client_of_the_caller(cache: Cache) -> None:
    cache.set("a", 1)
    cache.client.clear(client=cache.raw)
    cache.keys("*")


@case(shard="structures, sharded")
def structures_with_a_client_of_the_caller(cache: Cache) -> None:
    raw = cache.raw
    cache.sadd("s", 1, 2, 3, client=raw)
    cache.srem("s", 2, client=raw)
    cache.scard("s", client=raw)
    cache.smembers("s", client=raw)
    cache.sismember("s", 1, client=raw)
    cache.smismember("s", 1, 2, client=raw)
    cache.sscan("s", client=raw)
    cache.sscan_iter("s", client=raw)
    cache.sdiff("s", "t", client=raw)
    cache.sinter("s", "t", client=raw)
    cache.sunion("s", "t", client=raw)
    cache.sdiffstore("u", "s", "t", client=raw)
    cache.sinterstore("v", "s", "u", client=raw)
    cache.sunionstore("w", "s", "u", client=raw)
    cache.smove("s", "t", 1, client=raw)
    cache.srandmember("t", client=raw)
    cache.spop("t", client=raw)
    cache.hset("h", "f", 1, client=raw)
    cache.hlen("h", client=raw)
    cache.hkeys("h", client=raw)
    cache.hexists("h", "f", client=raw)
    cache.hdel("h", "f", client=raw)
    cache.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4}, client=raw)
    cache.zincrby("z", 1, "a", client=raw)
    cache.zcard("z", client=raw)
    cache.zcount("z", 0, 2, client=raw)
    cache.zrange("z", 0, -1, client=raw)
    cache.zrevrange("z", 0, -1, client=raw)
    cache.zrangebyscore("z", 0, 9, client=raw)
    cache.zrevrangebyscore("z", 9, 0, client=raw)
    cache.zrank("z", "b", client=raw)
    cache.zscore("z", "b", client=raw)
    cache.zrem("z", "c", client=raw)
    cache.zpopmin("z", client=raw)
    cache.zpopmax("z", client=raw)
    cache.zremrangebyscore("z", 0, 9, client=raw)


@case(shard="clients, sharded")
def writing_into_a_pipeline(cache: Cache) -> None:
    pipeline = cache.raw.pipeline()
    cache.set("a", 1, client=pipeline)
    cache.set("b", "text", 60, client=pipeline)
    cache.set("c", 1, nx=True, client=pipeline)
    cache.delete("a", client=pipeline)
    cache.set("e", 5, 0, client=pipeline)
    cache.pexpire("b", 200_000, client=pipeline)
    cache.pexpire_at("c", int(time() + 400) * 1000, client=pipeline)
    cache.smove("s", "t", 1, client=pipeline)
    cache.get("b")
    cache.note(pipeline.execute())
    cache.get("b")


@case(shard="clients, sharded", herd="touch into a pipeline, herded")
def touching_in_a_pipeline(cache: Cache) -> None:
    pipeline = cache.raw.pipeline()
    cache.set("a", 1, 100)
    cache.touch("a", 200, client=pipeline)
    cache.note(pipeline.execute())


@case
def raw_access(cache: Cache) -> None:
    cache.client.get_client()
    cache.client.get_client(True)
    cache.client.get_client(write=False, tried=[])


@case(shard="clients, sharded")
def raw_replies(cache: Cache) -> None:
    raw = cache.raw
    raw.zadd("z", {"a": 1, "b": 2.5})
    raw.hset("h", "f", 1)
    raw.sadd("s", 1)
    cache.note(raw.zrange("z", 0, -1, withscores=True))
    cache.note(raw.zpopmin("z"))
    cache.note(raw.zscore("z", "b"))
    cache.note(raw.hgetall("h"))
    cache.note(raw.smembers("s"))
    cache.note(raw.config_get("maxmemory"))
    cache.note(raw.expire("h", 100))
