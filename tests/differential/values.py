"""Cases: storing values and reading them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .sides import Cache, Cases

case = Cases()


class Colour(IntEnum):
    RED = 1


class Shade(Enum):
    DARK = "dark"


class Point:
    """An object of the site's own."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)

    def __repr__(self) -> str:
        return f"Point({self.x})"


HASHABLE = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "negative": -7,
    "int64": 2**63 - 1,
    "huge": 2**70,
    "huge-negative": -(2**70),
    "float": 1.5,
    "whole-float": 2.0,
    "negative-zero": -0.0,
    "infinite": float("inf"),
    "empty": "",
    "digits": "42",
    "text": "ключ 🔑",
    "long": "all work and no play " * 40,
    "bytes": b"\x00\xff\x80",
    "digit-bytes": b"5",
    "tuple": (1, "a"),
    "datetime": dt.datetime(2026, 11, 23, 12, 30, 15, 123456, tzinfo=dt.UTC),
    "naive": dt.datetime(2026, 11, 23),
    "date": dt.date(2026, 11, 23),
    "time": dt.time(12, 30, 15, 5000),
    "duration": dt.timedelta(days=-1, seconds=5, microseconds=7),
    "decimal": Decimal("1.10"),
    "uuid": UUID(int=5),
    "int-enum": Colour.RED,
    "enum": Shade.DARK,
    "object": Point(1),
}
VALUES = HASHABLE | {
    "list": [1, "a", None],
    "dict": {"a": 1, "b": [1.5, {"c": None}]},
    "nested": {"list": [[[]], {"deep": {"er": [True, "x" * 200]}}]},
    "set": {1, 2},
}
"""Everything is stored by every serializer, or refused by it with the same exception."""


@case(shard="get_many of None, sharded")
def every_value(cache: Cache) -> None:
    for name, value in (VALUES | {"large": list(range(1000))}).items():
        cache.set(name, value)
        cache.get(name)
        name in cache
        cache.get_many([name])


@case(replicas="get_or_set, replicated")
def every_value_added(cache: Cache) -> None:
    for name, value in VALUES.items():
        cache.add(name, value)
        cache.add(name, "other")
        cache.get_or_set(name, "other")


@case(shard="get_many of None, sharded")
def every_value_at_once(cache: Cache) -> None:
    for name, value in VALUES.items():
        cache.set_many({name: value, f"{name}-too": value}, timeout=60)
        cache.get_many([name, f"{name}-too", "missing"])


@case(replicas="get_or_set, replicated")
def a_stored_none_beats_the_default(cache: Cache) -> None:
    cache.get("a")
    cache.get("a", "default")
    cache.set("a", None)
    cache.get("a", "default")
    cache.get("a", default="default", version=2)
    cache.get_or_set("a", "default")


@case
def timeouts(cache: Cache) -> None:
    for timeout in (10, 1.5, 0.9, None, DEFAULT_TIMEOUT):
        cache.set(f"new-{timeout}", 1, timeout)
        cache.set(f"old-{timeout}", 1, None)
        cache.set(f"old-{timeout}", 2, timeout=timeout)
        cache.add(f"added-{timeout}", 1, timeout)
        cache.add(f"old-{timeout}", 3, timeout=timeout)
        cache.set_many({f"many-{timeout}": 1}, timeout)


@case(herd="sub-millisecond timeouts, herded")
def timeouts_that_delete(cache: Cache) -> None:
    for timeout in (0, -1, -0.5, 0.0, 0.0005):
        cache.set("new", 1, timeout)
        cache.set("old", 1)
        cache.set("old", 2, timeout)
        cache.get("old")
        cache.set("old", 1)
        cache.set_many({"old": 2, "new": 2}, timeout=timeout)
        cache.get_many(["old", "new"])


@case(herd="sub-millisecond timeouts, herded")
def timeouts_that_delete_with_conditions(cache: Cache) -> None:
    for timeout in (0, -1, 0.0005):
        cache.set("old", 1, 60)
        cache.set("new", 2, timeout, nx=True)
        cache.set("old", 2, timeout, nx=True)
        cache.add("new", 2, timeout)
        cache.add("old", 2, timeout)
        cache.get("old")
        cache.set("new", 2, timeout, xx=True)
        cache.set("old", 2, timeout, xx=True)
        cache.get("old")


@case
def only_if_new(cache: Cache) -> None:
    cache.set("a", 1, timeout=60, nx=True)
    cache.set("a", 2, timeout=600, nx=True)
    cache.get("a")
    cache.set("a", 3, nx=False)
    cache.get("a")
    cache.set("b", 1, None, nx=True)


@case(herd="xx, herded")
def only_if_new_and_old(cache: Cache) -> None:
    cache.set("a", 1, nx=True, xx=True)
    cache.get("a")


@case(herd="xx, herded")
def only_if_old(cache: Cache) -> None:
    cache.set("a", 1, xx=True)
    cache.get("a")
    cache.set("a", 1, timeout=60)
    cache.set("a", 2, timeout=600, xx=True)
    cache.get("a")
    cache.set("a", 3, None, xx=True)


@case(shard="get_many of another kind, sharded")
def a_value_takes_the_place_of_another_kind(cache: Cache) -> None:
    cache.sadd("a", 1)
    cache.get("a")
    cache.get_many(["a"])
    cache.set("a", "text")
    cache.get("a")


@case(replicas="get_or_set, replicated")
def versions(cache: Cache) -> None:
    cache.set("a", 1, version=2)
    cache.add("a", 2, version=3)
    cache.set_many({"a": 4, "b": 5}, version=5)
    for version in (None, 1, 2, 3, 5, "beta"):
        cache.get("a", version=version)
        cache.has_key("a", version=version)
        cache.get_many(["a", "b"], version=version)
        cache.get_or_set("c", version, version=version)
    cache.delete("a", version=2)
    cache.delete_many(["a", "b"], version=5)
    cache.has_key("a", version=5)


@case
def many_in_the_order_of_the_keys(cache: Cache) -> None:
    cache.set_many({"c": 3, "a": 1, "b": 2})
    cache.get_many(["b", "missing", "a", "c"])
    cache.get_many(("c", "b"))
    cache.get_many({"a": None})
    cache.get_many(["a", "a", "b", "a"])


@case
def many_of_none(cache: Cache) -> None:
    cache.set("a", 1)
    for nothing in ([], (), {}, None):
        cache.get_many(nothing)
    cache.set_many({})
    cache.get("a")


@case(herd="iterators, herded", shard="iterators, herded")
def many_by_an_iterator(cache: Cache) -> None:
    cache.set_many({"a": 1, "b": 2})
    cache.get_many(iter(["a", "b"]))
    cache.get_many(key for key in ("b", "a"))


@case
def deleting(cache: Cache) -> None:
    cache.delete("a")
    cache.set("a", 1)
    cache.delete("a")
    cache.get("a")
    cache.set("a", 1, version=2)
    cache.delete("a")
    cache.delete("a", version=2)


@case
def deleting_many(cache: Cache) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3, "d": 4})
    cache.delete_many(["a", "missing"])
    cache.delete_many(key for key in ("b", "c"))
    cache.delete_many(("d", "d"))
    cache.delete_many(["a"])


@case
def deleting_under_another_prefix(cache: Cache) -> None:
    cache.set(cache.client.make_key("a", prefix="other"), 1)
    cache.set("a", 2)
    cache.delete("a", prefix="other")
    cache.delete("a", prefix="other")
    cache.delete("a", version=2, prefix="other")
    cache.get("a")


@case
def clearing(cache: Cache) -> None:
    cache.set("a", 1)
    cache.set("b", 1, version=7)
    cache.sadd("c", 1)
    cache.clear()
    cache.get("a")
    cache.keys("*")
    cache.clear()


@case(replicas="get_or_set, replicated")
def get_or_set(cache: Cache) -> None:
    cache.get_or_set("a", 1)
    cache.get_or_set("a", 2)
    cache.get_or_set("b", lambda: "called", 60)
    cache.get_or_set("b", lambda: "again", timeout=600)
    cache.get_or_set("c", None)
    cache.get_or_set("c", 3)
    cache.get_or_set("d", 4, timeout=0)
    cache.get("d")
    cache.get_or_set("e", 5, None, 2)
    cache.get("e", version=2)


@case
def keys_of_all_kinds(cache: Cache) -> None:
    for key in ("ключ", "a b", "user:1", "{tag}", "", "x" * 300, 5, 1.5, "*", "[a]", True):
        cache.set(key, "value")
        cache.get(key)
        cache.get_many([key])
        cache.ttl(key)
        cache.delete(key)


@case
def names_instead_of_keys(cache: Cache) -> None:
    name = cache.client.make_key("a", version=3)
    cache.set(name, 1)
    cache.get(name)
    cache.get(name, version=5)
    cache.get("a", version=3)
    cache.get_many([name])
    cache.incr(cache.client.make_key("count", version=3), ignore_key_check=True)
    cache.set_many({name: 2})
    cache.touch(name, 60)
    cache.delete_many([name])


@case
def closing(cache: Cache) -> None:
    cache.close()
    cache.set("a", 1)
    cache.close(signal=None, sender=None)
    cache.get("a")


@case
def names(cache: Cache) -> None:
    cache.make_key("a")
    cache.make_key("a", 2)
    cache.make_key("a", version=2)
    cache.make_and_validate_key("a", version=2)
    cache.validate_key("a")
    cache.client.make_key("a")
    cache.client.make_key("a:b", version="beta", prefix="p:q")
    cache.client.make_key("a", 2, "")
    cache.client.make_key(cache.client.make_key("a", 2), 3, "ignored")


@case(named="make_pattern")
def patterns(cache: Cache) -> None:
    cache.client.make_pattern(cache.client.make_key("a*", 2), 3, "ignored")
    cache.client.make_pattern("a*[b]?")
    cache.client.make_pattern("*", version=5, prefix="plain")


@case
def encoding(cache: Cache) -> None:
    for value in VALUES.values():
        cache.client.encode(value)
        cache.client.encode(value, allow_int=False)
    for payload in (5, b"5", b"-5", b"1180591620717411303424"):
        cache.client.decode(payload)
    cache.client.decode(value=b"7")
