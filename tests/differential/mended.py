"""Where fleetcache is meant to differ from django-redis: why, and what each of them does.

``MENDED`` holds the bugs that were mended and the few choices that were made otherwise; each is
run, and both outcomes are asserted, so that this stays true.  What is not here is the same.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from hashlib import sha256
from typing import Any

import redis
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django_redis.exceptions import ConnectionInterrupted

from fleetcache.errors import InvalidKey, InvalidTimeout, UnstorableValue

from .outcomes import Left

INSTEAD = {("set_many", "('NoneType', None)"): ("list", [])}
"""In every case: `set_many` returns the keys that were not stored, as Django has it, and not None."""

STANDS_FOR = {UnstorableValue: (TypeError, pickle.PicklingError, AttributeError, OverflowError)}
"""In every case: what a serializer raises for values it cannot store differs by library and by
Python; fleetcache raises one class that is also a TypeError and a PicklingError."""

ANY = ...
"""An outcome that does not matter."""


@dataclass(frozen=True)
class Mended:
    """One difference."""

    name: str
    why: str
    script: Callable[..., None]
    """Calls a cache, and may turn the clock that it is given as well."""
    theirs: list[Any]
    """What comes of each call with django-redis: a value, an exception class, or ANY."""
    ours: list[Any]
    setups: tuple[str, ...] = ("default",)
    options: dict[str, Any] = field(default_factory=dict)
    """With these, or *params*, or *location*, the setup is one of its own."""
    params: dict[str, Any] = field(default_factory=dict)
    location: Any = None
    hurried: bool = False
    """The script races with a time to live; on a slow machine it may have to be tried again."""

    @property
    def own(self) -> bool:
        return bool(self.options or self.params or self.location)


MENDED: list[Mended] = []


def mended(name: str, why: str, *, theirs: list[Any], ours: list[Any], **how: Any) -> Any:
    """Put a script into the table."""

    def add(script: Callable[..., None]) -> Callable[..., None]:
        MENDED.append(Mended(name, why, script, theirs, ours, **how))
        return script

    return add


class Lucky(int):
    """A subclass of int."""


class Seat(IntEnum):
    FIVE = 53  # in MessagePack the one byte "5"


def hidden(key, prefix, version):
    """Name an entry by a digest."""
    return sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


# --- what is returned -----------------------------------------------------------------------------


@mended(
    "set_many",
    "Django: the list of the keys that were not stored.",
    theirs=[None, None],
    ours=[[], []],
)
def _(cache, clock):
    cache.set_many({"a": 1})
    cache.set_many({})


@mended(
    "delete_many of nothing",
    "Django: None.",
    theirs=[0],
    ours=[None],
)
def _(cache, clock):
    cache.delete_many([])


@mended(
    "get_backend_timeout",
    "Whole seconds, as Django's own Redis backend has it; BaseCache's moment in time is of no use here.",
    setups=("default", "herd", "shard", "sentinel"),
    theirs=[ANY, None],
    ours=[10, None],
)
def _(cache, clock):
    cache.get_backend_timeout(10)
    cache.get_backend_timeout(None)


@mended(
    "make_key",
    "The name that a cache makes is taken by its methods for what it is; there only cache.client's is.",
    theirs=[True, None, 1],
    ours=[True, 1, 1],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.get(cache.backend.make_key("a"))
    cache.get(cache.backend.client.make_key("a"))


@mended(
    "delete of cache.client",
    "A bool, like the cache's own.",
    theirs=[True, 1, 0],
    ours=[True, True, False],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.client.delete("a")
    cache.client.delete("a")


@mended(
    "prefix with a colon",
    "The reverse of a name takes off the prefix and version it has, not everything up to the second colon.",
    params={"KEY_PREFIX": "site:blue"},
    theirs=[True, ["1:a"], ["1:a"]],
    ours=[True, ["a"], ["a"]],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.keys("*")
    cache.iter_keys("*")


@mended(
    "make_pattern",
    "Special characters stand for themselves behind a backslash, which the backslash can do for itself too.",
    setups=("named",),
    theirs=["s[[]i]te[*]:3:a*"],
    ours=["s\\[i\\]te\\*:3:a*"],
)
def _(cache, clock):
    cache.client.make_pattern("a*")


@mended(
    "prefix with a backslash",
    "In patterns all special characters of a prefix stand for themselves, the backslash too.",
    params={"KEY_PREFIX": "a\\b"},
    theirs=[True, [], 0],
    ours=[True, ["x"], 1],
)
def _(cache, clock):
    cache.set("x", 1)
    cache.keys("*")
    cache.delete_pattern("*")


@mended(
    "clear with a prefix",
    "Other sites' keys stay; the option CLEAR says otherwise.",
    params={"KEY_PREFIX": "site"},
    theirs=[True, True, None, False, False],
    ours=[True, True, None, False, True],
)
def _(cache, clock):
    other = cache.backend.client.make_key("a", prefix="other")
    cache.set("a", 1)
    cache.set(other, 1)
    cache.clear()
    cache.has_key("a")
    cache.has_key(other)


@mended(
    "clear, names that hide the prefix",
    "Other sites' keys stay: no glob tells them from the cache's own, so it is refused; the option CLEAR says otherwise.",
    params={"KEY_PREFIX": "site", "KEY_FUNCTION": hidden},
    theirs=[True, True, None, False, False],
    ours=[True, True, ValueError, True, True],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.set("b", 1)
    cache.clear()
    cache.has_key("a")
    cache.has_key("b")


@mended(
    "keys, names that hide the key",
    "A glob that the function changes is refused; there it silently finds nothing.",
    params={"KEY_FUNCTION": hidden, "REVERSE_KEY_FUNCTION": str},
    theirs=[True, [], 0],
    ours=[True, ValueError, ValueError],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.keys("*")
    cache.delete_pattern("*")


@mended(
    "sscan",
    "The whole set, as its name says, not the first page of it.",
    theirs=[2000, ANY, False, ANY],
    ours=[2000, ANY, True, ANY],
)
def _(cache, clock):
    cache.sadd("a", *range(2000))
    found = cache.sscan("a")
    cache.note(len(found) == 2000)
    cache.sscan("a", count=5)


@mended(
    "smove version",
    "The version is that of both sets.",
    theirs=[1, True, {5}, set()],
    ours=[1, True, set(), {5}],
)
def _(cache, clock):
    cache.sadd("a", 5, version=2)
    cache.smove("a", "b", 5, version=2)
    cache.smembers("b")
    cache.smembers("b", version=2)


@mended(
    "score_cast_func",
    "It is given a number, whatever the protocol and the command.",
    theirs=[1, [("a", "b'1'")]],
    ours=[1, [("a", "1.0")]],
)
def _(cache, clock):
    cache.zadd("z", {"a": 1})
    cache.zrevrange("z", 0, -1, withscores=True, score_cast_func=str)


@mended(
    "combining no sets",
    "The server says so itself.",
    theirs=[TypeError] * 7,
    ours=[redis.ResponseError] * 7,
)
def _(cache, clock):
    cache.sdiff()
    cache.sinter()
    cache.sunion()
    cache.sdiffstore("a")
    cache.sinterstore("a")
    cache.sunionstore("a")
    cache.smismember("a")


@mended(
    "hset of None",
    "None is a value, in a mapping as well as alone.",
    theirs=[redis.DataError, 1],
    ours=[1, 0],
)
def _(cache, clock):
    cache.hset("a", "f", None)
    cache.hset("a", mapping={"f": None})


@mended(
    "get_or_set, replicated",
    "Every caller gets the value that was stored first, also while a replica does not know it yet.",
    theirs=["first", "second"],
    ours=["first", "first"],
    setups=("replicas",),
)
def _(cache, clock):
    cache.get_or_set("a", "first")
    cache.get_or_set("a", "second")


# --- times ----------------------------------------------------------------------------------------


@mended(
    "incr, shortly before the end",
    "The time to live is kept to the millisecond; there half a second or less was rounded to 0, which deletes.",
    hurried=True,
    theirs=[True, 2.5, False],
    ours=[True, 2.5, True],
)
def _(cache, clock):
    cache.set("a", 1.5, 0.45)
    cache.incr("a")
    cache.has_key("a")


@mended(
    "incr_version, shortly before the end",
    "As for incr: the entry is renamed on the server, with its time to live.",
    hurried=True,
    theirs=[True, 2, False],
    ours=[True, 2, True],
)
def _(cache, clock):
    cache.set("a", 1, 0.45)
    cache.incr_version("a")
    cache.has_key("a", version=2)


@mended(
    "incr_version of None",
    "None is a value.",
    theirs=[True, ValueError, None, "missing"],
    ours=[True, 2, "missing", None],
)
def _(cache, clock):
    cache.set("a", None)
    cache.incr_version("a")
    cache.get("a", "missing")
    cache.get("a", "missing", version=2)


@mended(
    "incr_version by a name with a colon",
    "The key in a name is all that follows prefix and version, not what follows the last colon.",
    theirs=[True, 2, None, 1],
    ours=[True, 2, 1, None],
)
def _(cache, clock):
    cache.set("user:1", 1)
    cache.incr_version(cache.backend.client.make_key("user:1"))
    cache.get("user:1", version=2)
    cache.get("1", version=2)


@mended(
    "incr_version by nothing",
    "The value stays where it is; there it was stored, and then deleted.",
    theirs=[True, 1, None],
    ours=[True, 1, 5],
)
def _(cache, clock):
    cache.set("a", 5)
    cache.incr_version("a", 0)
    cache.get("a")


@mended(
    "incr by what is no number",
    "It is refused as Python refuses to add it, whether or not the server could; a bool is Python's 0 or 1.",
    theirs=[True, 6, redis.DataError],
    ours=[True, TypeError, 6],
)
def _(cache, clock):
    cache.set("a", 5)
    cache.incr("a", "1")
    cache.incr("a", True)


@mended(
    "incr above 2^53",
    "The server's Lua rounds a number this large; its digits do not.",
    theirs=[True, 2**53, 2**53 + 1],
    ours=[True, 2**53 + 1, 2**53 + 1],
)
def _(cache, clock):
    cache.set("a", 2**53)
    cache.incr("a")
    cache.get("a")


@mended(
    "incr from nothing by a fraction",
    "It begins at 0, as it does by a whole number.",
    theirs=[TypeError, None],
    ours=[1.5, 1.5],
)
def _(cache, clock):
    cache.incr("a", 1.5, ignore_key_check=True)
    cache.get("a")


@mended(
    "pexpire by default",
    "The default timeout is in seconds; there it was taken for milliseconds, and entries lived a thousandth of it.",
    params={"TIMEOUT": 30_000},
    theirs=[True, True, Left(30)],
    ours=[True, True, Left(30_000)],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.pexpire("a", DEFAULT_TIMEOUT)
    cache.ttl("a")


@mended(
    "expire by a fraction, or for ever",
    "A timeout means the same in every method: any number of seconds, or None.",
    theirs=[True, redis.ResponseError, redis.DataError, Left(300)],
    ours=[True, True, True, None],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.expire("a", 10.5)
    cache.expire("a", None)
    cache.ttl("a")


@mended(
    "timeouts of another type",
    "A timedelta is a timeout in every method; text is refused before anything is sent.",
    theirs=[TypeError, TypeError, redis.ResponseError],
    ours=[True, True, InvalidTimeout],
)
def _(cache, clock):
    cache.set("a", 1, timedelta(seconds=10))
    cache.touch("a", timedelta(seconds=10))
    cache.set("a", 1, "5")


@mended(
    "timeouts that are no number",
    "They are refused like all others that are none; for ever is None.",
    theirs=[OverflowError, ValueError],
    ours=[InvalidTimeout, InvalidTimeout],
)
def _(cache, clock):
    cache.set("a", 1, float("inf"))
    cache.set("a", 1, float("nan"))


@mended(
    "a write that went elsewhere",
    "The timeout is converted once, not once more for every server that was tried.",
    options={"REPLICA_READ_ONLY": False},
    location=["redis://127.0.0.1:1/1", "redis://127.0.0.1:{port}/1"],
    theirs=[True, Left(10_000)],
    ours=[True, Left(10)],
)
def _(cache, clock):
    cache.set("a", 1, 10)
    cache.ttl("a")


# --- values ---------------------------------------------------------------------------------------


@mended(
    "gzip",
    "Equal values are equal bytes at any time of day; there a set held the same member once for every second.",
    options={"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
    theirs=[1, True, False, 1, 2] if sys.version_info < (3, 14) else [1, True, True, 0, 1],
    ours=[1, True, True, 0, 1],
)
def _(cache, clock):
    cache.sadd("a", "x" * 50)
    cache.sismember("a", "x" * 50)
    clock.now += 1
    cache.sismember("a", "x" * 50)
    cache.sadd("a", "x" * 50)
    cache.scard("a")


@mended(
    "unreadable values",
    'A miss, counted and logged, so that a deployment does not fail on what another wrote; UNREADABLE="raise" raises.',
    theirs=[pickle.UnpicklingError, "default", pickle.UnpicklingError, True],
    ours=["default", "default", {}, True],
)
def _(cache, clock):
    cache.raw.set(cache.backend.client.make_key("a"), b"hello")
    cache.get("a", "default")
    cache.get("missing", "default")
    cache.get_many(["a"])
    cache.has_key("a")


@mended(
    "a lock's own key",
    "As unreadable values.",
    theirs=[ANY, True, pickle.UnpicklingError, None],
    ours=[ANY, True, None, None],
)
def _(cache, clock):
    lock = cache.lock("l")
    lock.acquire(token="hello")
    cache.get("l")
    lock.release()


@mended(
    "values of another compressor",
    "They are told by their first bytes, so compression can be switched over, and off.",
    theirs=[pickle.UnpicklingError],
    ours=["x" * 100],
)
def _(cache, clock):
    import zlib

    cache.raw.set(cache.backend.client.make_key("a"), zlib.compress(pickle.dumps("x" * 100)))
    cache.get("a")


@mended(
    "integers as Python reads them",
    "Only digits are an integer; Python's int() also takes spaces and a plus.",
    theirs=[12, 12],
    ours=[None, None],
)
def _(cache, clock):
    for payload in (b" 12 ", b"+12"):
        cache.raw.set(cache.backend.client.make_key("a"), payload)
        cache.get("a")


@mended(
    "subclasses of int",
    "They are values like any other.",
    theirs=[redis.DataError, None],
    ours=[True, Lucky(7)],
)
def _(cache, clock):
    cache.set("a", Lucky(7))
    cache.get("a")


@mended(
    "MessagePack that looks like digits",
    "53 in MessagePack is the byte of the digit 5; a longer form of 53 is written, so it reads back.",
    options={"SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"},
    theirs=[True, 5, 1, [5]],
    ours=[True, 53, 1, [53]],
)
def _(cache, clock):
    cache.set("a", Seat.FIVE)
    cache.get("a")
    cache.zadd("z", {53: 1})
    cache.zrange("z", 0, -1)


@mended(
    "MessagePack with keys that are integers",
    "What was stored without complaint can be read.",
    options={"SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"},
    theirs=[True, ValueError],
    ours=[True, {1: 2}],
)
def _(cache, clock):
    cache.set("a", {1: 2})
    cache.get("a")


@mended(
    "values that cannot be stored",
    "One class for all serializers, which is also what their users catch.",
    theirs=[(AttributeError, pickle.PicklingError), None],
    ours=[UnstorableValue, None],
)
def _(cache, clock):
    cache.set("a", lambda: 1)
    cache.get("a")


# --- keys -----------------------------------------------------------------------------------------


@mended(
    "keys that are accidents",
    "None, bytes and containers as keys are mistakes, and are told.",
    theirs=[True, True, True],
    ours=[InvalidKey, InvalidKey, InvalidKey],
)
def _(cache, clock):
    for key in (None, b"a", ["a"]):
        cache.set(key, 1)


@mended(
    "warnings of keys",
    "Names that memcached would refuse are warned of, as Django's backends do.",
    theirs=[[], []],
    ours=[["CacheKeyWarning"], ["CacheKeyWarning"]],
)
def _(cache, clock):
    for key in ("a b", "x" * 300):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            cache.backend.set(key, 1)
        cache.note([warning.category.__name__ for warning in seen])


@mended(
    "keys of the primary",
    "A cursor is good on one server only, and the primary has all keys; reads of values go to replicas.",
    setups=("replicas",),
    theirs=[True, [], [], []],
    ours=[True, ["a"], ["a"], ["a"]],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.keys("*")
    cache.iter_keys("*")
    cache.keys("a")


# --- HerdClient -----------------------------------------------------------------------------------


@mended(
    "xx, herded",
    "It was dropped.",
    setups=("herd",),
    theirs=[True, 1],
    ours=[False, None],
)
def _(cache, clock):
    cache.set("a", 1, 10, xx=True)
    cache.get("a")


@mended(
    "sub-millisecond timeouts, herded",
    "A timeout that rounds to 0 deletes, in this client too.",
    setups=("herd",),
    theirs=[True, True, 1, True],
    ours=[True, True, None, True],
)
def _(cache, clock):
    cache.set("a", 1)
    cache.set("a", 1, 0.0005)
    cache.get("a")
    cache.add("b", 1, 0.0005)


@mended(
    "touch of None, herded",
    "None is a value.",
    setups=("herd",),
    theirs=[True, False, False],
    ours=[True, True, False],
)
def _(cache, clock):
    cache.set("a", None)
    cache.touch("a", 10)
    cache.touch("missing", 10)


@mended(
    "incr_version, herded",
    "The entry is renamed as it is; there every move added CACHE_HERD_TIMEOUT to its life.",
    setups=("herd",),
    theirs=[True, 2, Left(220), 3, Left(280), 1],
    ours=[True, 2, Left(160), 3, Left(160), 1],
)
def _(cache, clock):
    cache.set("a", 1, 100)
    cache.incr_version("a")
    cache.ttl("a", version=2)
    cache.incr_version("a", version=2)
    cache.ttl("a", version=3)
    cache.get("a", version=3)


@mended(
    "touch into a pipeline, herded",
    "It has to read first, which a pipeline cannot; there the question was queued before that was noticed.",
    setups=("herd",),
    theirs=[True, TypeError, 1],
    ours=[True, TypeError, 0],
)
def _(cache, clock):
    pipeline = cache.raw.pipeline()
    cache.set("a", 1, 100)
    cache.touch("a", 200, client=pipeline)
    cache.note(len(pipeline))
    pipeline.reset()


@mended(
    "iterators, herded",
    "get_many takes any iterable of keys, in every client.",
    setups=("herd", "shard"),
    theirs=[None, ValueError],
    ours=[[], {"a": 1}],
)
def _(cache, clock):
    cache.set_many({"a": 1})
    cache.get_many(iter(["a"]))


# --- ShardClient ----------------------------------------------------------------------------------


@mended(
    "get_many of None, sharded",
    "None is a value.",
    setups=("shard",),
    theirs=[True, {}],
    ours=[True, {"a": None}],
)
def _(cache, clock):
    cache.set("a", None)
    cache.get_many(["a"])


@mended(
    "get_many of another kind, sharded",
    "One question to each server, as in the other clients: what is no value is not there.",
    setups=("shard",),
    theirs=[1, redis.ResponseError],
    ours=[1, {}],
)
def _(cache, clock):
    cache.sadd("a", 1)
    cache.get_many(["a"])


@mended(
    "incr_version, sharded",
    "The key may have a colon; there the value went to what followed the last one.",
    setups=("shard",),
    theirs=[True, 2, None, 1],
    ours=[True, 2, 1, None],
)
def _(cache, clock):
    cache.set("user:1", 1)
    cache.incr_version("user:1")
    cache.get("user:1", version=2)
    cache.get("1", version=2)


@mended(
    "iter_keys, sharded",
    "It goes through all servers.",
    setups=("shard",),
    theirs=[None, NotImplementedError],
    ours=[[], ["a", "b", "c"]],
)
def _(cache, clock):
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.iter_keys("*")


@mended(
    "structures, sharded",
    "They live on one server like any key; several sets have to share a part in braces.",
    setups=("shard",),
    theirs=[1, 1] + [NotImplementedError] * 29,
    ours=[1, 1, {1}, {1, 2}, set(), 1, 0, 2]
    + [1, 1, ["f"], True, 1]
    + [1, 2.0, 1, 1, 2.0, 0, ["a"], ["a"], ["a"], ["a"], 0, 0, ("a", 2.0), None]
    + [ValueError, ValueError, ValueError, ValueError],
)
def _(cache, clock):
    cache.sadd("{s}a", 1)
    cache.sadd("{s}b", 2)
    cache.sdiff("{s}a", "{s}b")
    cache.sunion("{s}a", "{s}b")
    cache.sinter("{s}a", "{s}b")
    cache.sdiffstore("{s}c", "{s}a", "{s}b")
    cache.sinterstore("{s}c", "{s}a", "{s}b")
    cache.sunionstore("{s}c", "{s}a", "{s}b")
    cache.hset("h", "f", 1)
    cache.hlen("h")
    cache.hkeys("h")
    cache.hexists("h", "f")
    cache.hdel("h", "f")
    cache.zadd("z", {"a": 1})
    cache.zincrby("z", 1, "a")
    cache.zcard("z")
    cache.zcount("z", 0, 9)
    cache.zscore("z", "a")
    cache.zrank("z", "a")
    cache.zrange("z", 0, -1)
    cache.zrevrange("z", 0, -1)
    cache.zrangebyscore("z", 0, 9)
    cache.zrevrangebyscore("z", 9, 0)
    cache.zrem("z", "missing")
    cache.zremrangebyscore("z", 8, 9)
    cache.zpopmin("z")
    cache.zpopmax("z")
    for combine in (cache.sdiff, cache.sunion, cache.sinter, cache.sunionstore):
        combine(*"abcdefghij")


@mended(
    "clients, sharded",
    "A client that the caller brings is asked; there it warned, or was refused.",
    setups=("shard",),
    theirs=[True, 1, True, NotImplementedError, NotImplementedError, NotImplementedError, NotImplementedError],
    ours=[True, 1, True, {"a": 1}, ["a"], 0, 1],
)
def _(cache, clock):
    raw = cache.backend.client.get_server("server for a")
    cache.set("a", 1, client=raw)
    cache.get("a", client=raw)
    cache.has_key("a", client=raw)
    cache.get_many(["a"], client=raw)
    cache.keys("*", client=raw)
    cache.delete_pattern("b*", client=raw)
    cache.delete_many(["a"], client=raw)


# --- connections ----------------------------------------------------------------------------------


@mended(
    "exceptions of cache.client",
    "They are redis-py's, as those of the cache are; there they came wrapped in ConnectionInterrupted.",
    location="redis://127.0.0.1:1/1",
    theirs=[redis.ConnectionError, ConnectionInterrupted, ConnectionInterrupted, redis.ConnectionError],
    ours=[redis.ConnectionError] * 4,
)
def _(cache, clock):
    cache.get("a")
    cache.client.get("a")
    cache.client.set("a", 1)
    cache.client.ttl("a")


@mended(
    "close while connections are in use",
    "Connections in use are never closed: other threads would lose the replies they wait for.",
    options={"CLOSE_CONNECTION": True},
    theirs=[None, False],
    ours=[None, True],
)
def _(cache, clock):
    pool = cache.raw.connection_pool
    connection = pool.get_connection()
    try:
        cache.close()
        cache.note(connection._sock is not None)
    finally:
        pool.release(connection)


@mended(
    "two caches at one URL",
    "A pool is shared only by caches of equal options; there the second had the first one's.",
    options={"SOCKET_TIMEOUT": 11},
    theirs=[True, False],
    ours=[True, True],
)
def _(cache, clock):
    cache.set("a", 1)
    other = type(cache.backend)(cache.location, {"OPTIONS": {"SOCKET_TIMEOUT": 22}})
    cache.note(other.client.get_client().connection_pool.connection_kwargs["socket_timeout"] == 22)


@mended(
    "unknown options",
    "They are refused, with the nearest that exists; there a misspelt option was ignored.",
    options={"IGNORE_EXCEPTION": True},
    theirs=[None],
    ours=[ImproperlyConfigured],
)
def _(cache, clock):
    cache.get("a")


@mended(
    "SOCKET_TIMEOUT of 0",
    "No limit; there it was redis-py's own, which is none, or 5 seconds since its release 8.",
    options={"SOCKET_TIMEOUT": 0, "SOCKET_CONNECT_TIMEOUT": 0},
    theirs=["redis-py's"],
    ours=[None],
)
def _(cache, clock):
    cache.note(cache.raw.connection_pool.connection_kwargs.get("socket_timeout", "redis-py's"))


@mended(
    "pipelines of redis-py",
    "What methods return before the pipeline is executed means nothing; there most returned the pipeline, and some "
    "raised after the command was already queued.  What the pipeline returns is the same.",
    theirs=[*["the pipeline"] * 11, *[TypeError] * 5, ANY],
    ours=[1, True, True, True, 1, 1, 1, 1, 1, 1.0, 1, 1, 1, 1, 1, 1, ANY],
)
def _(cache, clock):
    pipeline = cache.raw.pipeline()
    pipeline.set(cache.backend.client.make_key("n"), 5)
    cache.delete_many(["a", "b"], client=pipeline)
    cache.expire("n", 50, client=pipeline)
    cache.expire_at("n", 4_000_000_000, client=pipeline)
    cache.persist("n", client=pipeline)
    cache.incr("n", client=pipeline)
    cache.decr("n", 2, client=pipeline)
    cache.incr("new", ignore_key_check=True, client=pipeline)
    cache.zadd("z", {"a": 1}, client=pipeline)
    cache.zrem("z", "b", client=pipeline)
    cache.zincrby("z", 1, "a", client=pipeline)
    cache.zremrangebyscore("z", 8, 9, client=pipeline)
    cache.sadd("s", 1, client=pipeline)
    cache.srem("s", 2, client=pipeline)
    cache.hset("h", "f", 1, client=pipeline)
    cache.hdel("h", "g", client=pipeline)
    cache.sunionstore("t", "s", client=pipeline)
    replies = pipeline.execute()
    assert replies == [True, 0, True, True, True, 6, 4, 1, 1, 0, 2.0, 0, 1, 0, 1, 0, 1], replies
    cache.note(replies)


@mended(
    "set_many into a pipeline",
    "Its commands wait for the others; there they were executed at once, without them.",
    theirs=[None, 1, []],
    ours=[[], None, [True, True]],
)
def _(cache, clock):
    pipeline = cache.raw.pipeline()
    cache.set_many({"a": 1, "b": 2}, client=pipeline)
    cache.get("a")
    cache.note(pipeline.execute())


# --- outages --------------------------------------------------------------------------------------

MISSED = redis.ConnectionError
"""django-redis raises this although IGNORE_EXCEPTIONS is set."""

OUTAGE: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    # name: the call, what django-redis does, what fleetcache does
    "get": (lambda cache: cache.get("a", 5), 5, 5),
    "get_many": (lambda cache: cache.get_many(["a"]), {}, {}),
    "get_or_set": (lambda cache: cache.get_or_set("a", 5), 5, 5),
    "set": (lambda cache: cache.set("a", 1), None, False),
    "add": (lambda cache: cache.add("a", 1), None, False),
    "add of a session": (lambda cache: cache.add("django.contrib.sessions.cachex", 1), None, True),
    "set_many": (lambda cache: cache.set_many({"a": 1}), None, ["a"]),
    "delete": (lambda cache: cache.delete("a"), None, False),
    "delete_many": (lambda cache: cache.delete_many(["a"]), None, None),
    "delete_pattern": (lambda cache: cache.delete_pattern("*"), None, None),
    "clear": (lambda cache: cache.clear(), None, None),
    "has_key": (lambda cache: cache.has_key("a"), None, False),
    "__contains__": (lambda cache: "a" in cache, False, False),
    "incr": (lambda cache: cache.incr("a"), None, None),
    "decr": (lambda cache: cache.decr("a"), None, None),
    "incr_version": (lambda cache: cache.incr_version("a"), None, None),
    "decr_version": (lambda cache: cache.decr_version("a", version=5), None, None),
    "keys": (lambda cache: cache.keys("*"), None, []),
    "close": (lambda cache: cache.close(), None, None),
    "iter_keys": (lambda cache: cache.iter_keys("*"), MISSED, []),
    "touch": (lambda cache: cache.touch("a"), MISSED, False),
    "ttl": (lambda cache: cache.ttl("a"), MISSED, 0),
    "pttl": (lambda cache: cache.pttl("a"), MISSED, 0),
    "persist": (lambda cache: cache.persist("a"), MISSED, False),
    "expire": (lambda cache: cache.expire("a", 5), MISSED, False),
    "expire_at": (lambda cache: cache.expire_at("a", 4_000_000_000), MISSED, False),
    "pexpire": (lambda cache: cache.pexpire("a", 5), MISSED, False),
    "pexpire_at": (lambda cache: cache.pexpire_at("a", 4_000_000_000_000), MISSED, False),
    "lock": (lambda cache: cache.lock("a").acquire(), MISSED, False),
    "sadd": (lambda cache: cache.sadd("a", 1), MISSED, 0),
    "scard": (lambda cache: cache.scard("a"), MISSED, None),
    "sdiff": (lambda cache: cache.sdiff("a", "b"), MISSED, set()),
    "sdiffstore": (lambda cache: cache.sdiffstore("a", "b"), MISSED, None),
    "sinter": (lambda cache: cache.sinter("a", "b"), MISSED, set()),
    "sinterstore": (lambda cache: cache.sinterstore("a", "b"), MISSED, None),
    "sismember": (lambda cache: cache.sismember("a", 1), MISSED, False),
    "smembers": (lambda cache: cache.smembers("a"), MISSED, set()),
    "smove": (lambda cache: cache.smove("a", "b", 1), MISSED, False),
    "spop": (lambda cache: cache.spop("a"), MISSED, None),
    "srandmember": (lambda cache: cache.srandmember("a", 2), MISSED, []),
    "srem": (lambda cache: cache.srem("a", 1), MISSED, 0),
    "sscan": (lambda cache: cache.sscan("a"), MISSED, set()),
    "sscan_iter": (lambda cache: cache.sscan_iter("a"), MISSED, []),
    "smismember": (lambda cache: cache.smismember("a", 1, 2), MISSED, [False, False]),
    "sunion": (lambda cache: cache.sunion("a", "b"), MISSED, set()),
    "sunionstore": (lambda cache: cache.sunionstore("a", "b"), MISSED, None),
    "hset": (lambda cache: cache.hset("a", "f", 1), MISSED, 0),
    "hdel": (lambda cache: cache.hdel("a", "f"), MISSED, 0),
    "hlen": (lambda cache: cache.hlen("a"), MISSED, None),
    "hkeys": (lambda cache: cache.hkeys("a"), None, []),
    "hexists": (lambda cache: cache.hexists("a", "f"), MISSED, False),
    "zadd": (lambda cache: cache.zadd("a", {"m": 1}), MISSED, 0),
    "zcard": (lambda cache: cache.zcard("a"), MISSED, None),
    "zcount": (lambda cache: cache.zcount("a", 0, 1), MISSED, None),
    "zincrby": (lambda cache: cache.zincrby("a", 1, "m"), MISSED, None),
    "zpopmax": (lambda cache: cache.zpopmax("a"), MISSED, None),
    "zpopmin": (lambda cache: cache.zpopmin("a", 2), MISSED, []),
    "zrange": (lambda cache: cache.zrange("a", 0, -1), MISSED, []),
    "zrangebyscore": (lambda cache: cache.zrangebyscore("a", 0, 1), MISSED, []),
    "zrank": (lambda cache: cache.zrank("a", "m"), MISSED, None),
    "zrem": (lambda cache: cache.zrem("a", "m"), MISSED, 0),
    "zremrangebyscore": (lambda cache: cache.zremrangebyscore("a", 0, 1), MISSED, 0),
    "zrevrange": (lambda cache: cache.zrevrange("a", 0, -1), MISSED, []),
    "zrevrangebyscore": (lambda cache: cache.zrevrangebyscore("a", 1, 0), MISSED, []),
    "zscore": (lambda cache: cache.zscore("a", "m"), MISSED, None),
}
"""With IGNORE_EXCEPTIONS and no server: django-redis returns None from some methods, and raises from the others."""

UNLIKE = {
    "set": "False, which is no as None is, and of the type that is promised",
    "add": "False, as above",
    "add of a session": "Django would try 10,000 other keys",
    "delete": "False, as above",
    "has_key": "False, as above",
    "set_many": "Django's list of the keys that were not stored; None would say that all were",
    "keys": "a list, because callers go through it",
    "hkeys": "a list, as above",
}
"""Why fleetcache returns something else where django-redis does not raise."""

# --- machinery ------------------------------------------------------------------------------------

NOT_CARRIED_OVER = {
    "connect": "override ConnectionFactory.connect",
    "connection_factory": "OPTIONS['CONNECTION_FACTORY'] names it",
    "disconnect": "override ConnectionFactory.disconnect",
    "do_close_clients": "close() does it, and never cuts a connection in use",
    "get_client_with_index": "get_client()",
    "get_next_client_index": "override Cache.open, and return a Topology",
}
"""Inner machinery of django-redis' client classes, and what to use instead."""
