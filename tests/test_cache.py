"""Values, counters, lifetimes and keys: every operation of `Cache`, on every server and in both faces."""

from __future__ import annotations

import asyncio
import copy
import numbers
import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from time import time
from typing import Any

import pytest
from redis.exceptions import DataError, ResponseError
from tests.faces import AWAITING
from tests.nearby import CANARY

from fleetcache import DEFAULT_TIMEOUT, Cache
from fleetcache.codec.serializers import BaseSerializer
from fleetcache.errors import InvalidTimeout, UnreadableValue, UnstorableValue

pytestmark = pytest.mark.also(server="oldest")

# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64, 10**30, 0.1, float("inf")),
        *("", "text", "Ünïcödé 🎈", "123", b"", b"\x00\xff", b"12", Decimal("1.50")),
        *((1, 2), [1, [2]], {"a": {"b": None}}, {1, 2}, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ],
    ids=repr,
)
async def test_a_value_comes_back_as_it_was(cache, value):
    """What is stored is what is returned, and of the same type."""
    assert await cache.set("key", value) is True

    found = await cache.get("key", "nothing")
    assert found == value
    assert type(found) is type(value)


async def test_a_large_value_comes_back_whole(cache):
    """A value many times the size of a socket's buffer is neither cut nor mixed up."""
    value = bytes(range(256)) * 20_000

    await cache.set("large", value)
    await cache.set("next", 1)

    assert await cache.get("large") == value
    assert await cache.get_many(["large", "next"]) == {"large": value, "next": 1}


async def test_a_missing_key_is_the_default(cache):
    """get() of a missing key returns the default; a stored None is a value."""
    await cache.set("none", None)

    assert await cache.get("missing") is None
    assert await cache.get("missing", "default") == "default"
    assert await cache.get("none", "default") is None


async def test_set_replaces_value_and_timeout(cache):
    """set() leaves nothing of what was there."""
    await cache.set("key", "old", 100)

    assert await cache.set("key", "new", None) is True

    assert await cache.get("key") == "new"
    assert await cache.ttl("key") is None


async def test_set_nx_and_xx(cache):
    """nx stores only where there is nothing, xx only where there is something."""
    assert await cache.set("key", 1, xx=True) is False
    assert await cache.get("key") is None
    assert await cache.set("key", 1, nx=True) is True
    assert await cache.set("key", 2, nx=True) is False
    assert await cache.get("key") == 1
    assert await cache.set("key", 3, xx=True) is True
    assert await cache.get("key") == 3


@pytest.mark.parametrize("timeout", [0, -1, -0.5, timedelta(0)], ids=str)
async def test_a_timeout_of_nothing_deletes(cache, timeout):
    """set() with a timeout of 0 or less deletes, and tells whether there was something; nx tells whether it is free."""
    assert await cache.set("key", 1, timeout) is False
    await cache.set("key", 1)

    assert await cache.set("key", 2, timeout, nx=True) is False
    assert await cache.get("key") == 1
    assert await cache.set("key", 2, timeout) is True
    assert await cache.get("key") is None
    assert await cache.set("key", 2, timeout, nx=True) is True
    assert await cache.get("key") is None


@pytest.mark.parametrize(
    "timeout, least, most",
    [
        (100, 99_000, 100_000),
        (1.5, 1000, 1500),
        (timedelta(milliseconds=700), 200, 700),
        (DEFAULT_TIMEOUT, 299_000, 300_000),
    ],
)
async def test_timeouts_are_exact_to_the_millisecond(cache, timeout, least, most):
    """A timeout may be an int, a float, a timedelta or left to the cache; no fraction is lost."""
    await cache.set("set", 1, timeout)
    await cache.add("add", 1, timeout)
    await cache.set_many({"set_many": 1}, timeout)
    await cache.set("touch", 1, None)
    await cache.touch("touch", timeout)

    for key in ("set", "add", "set_many", "touch"):
        assert least <= await cache.pttl(key) <= most, key


async def test_none_is_for_ever(make):
    """A timeout of None, in the call or as the cache's own, means that the entry stays."""
    cache, own = make(), make(TIMEOUT=None)

    await cache.set("key", 1, None)
    await own.set("key", 1)
    await own.set("short", 1, 10)

    assert await cache.ttl("key") is None
    assert await own.ttl("key") is None
    assert await own.ttl("short") == 10


async def test_an_entry_goes_when_its_time_is_over(cache):
    """After its timeout an entry is missing to every operation."""
    await cache.set("key", 1, 0.02)
    await cache.set_many({"other": 1}, 0.02)
    await asyncio.sleep(0.05)

    assert await cache.get("key") is None
    assert await cache.get_many(["key", "other"]) == {}
    assert await cache.has_key("key") is False
    assert await cache.ttl("key") == 0
    assert await cache.add("key", 2) is True


async def test_add(cache):
    """add() stores only if there is nothing, and leaves what is there alone."""
    assert await cache.add("key", 1, 100) is True
    assert await cache.add("key", 2, 200) is False

    assert await cache.get("key") == 1
    assert await cache.ttl("key") <= 100


async def test_get_many(cache):
    """get_many() returns those that are there, under the keys they were asked for."""
    await cache.set_many({"a": 1, "b": None, "c": [3]})

    assert await cache.get_many(["c", "missing", "a", "b", "a"]) == {"c": [3], "a": 1, "b": None}
    assert await cache.get_many([]) == {}
    assert await cache.get_many(key for key in "ab") == {"a": 1, "b": None}
    assert await cache.get_many(["missing"]) == {}


async def test_set_many(cache):
    """set_many() stores all, returns the keys that failed, and with a timeout of 0 deletes all."""
    many = {f"key{number}": number for number in range(500)}

    assert await cache.set_many(many, 100) == []
    assert await cache.get_many(many) == many
    assert await cache.ttl("key0") in (99, 100)
    assert await cache.set_many({}) == []
    assert await cache.set_many(dict.fromkeys(many, 1), 0) == []
    assert await cache.get_many(many) == {}


async def test_a_bad_value_in_set_many_stores_nothing(cache):
    """When one value cannot be stored, none is."""
    with pytest.raises(UnstorableValue):
        await cache.set_many({"good": 1, "bad": lambda: None, "also good": 2})

    assert await cache.get_many(["good", "bad", "also good"]) == {}


async def test_delete(cache):
    """delete() tells whether there was something."""
    await cache.set("key", 1)

    assert await cache.delete("key") is True
    assert await cache.delete("key") is False
    assert await cache.get("key") is None


async def test_delete_many(cache):
    """delete_many() counts what was there, each key once; of no keys it returns None, as Django does."""
    await cache.set_many({"a": 1, "b": 2, "c": 3})

    assert await cache.delete_many(["a", "b", "a", "missing"]) == 2
    assert await cache.delete_many(["missing"]) == 0
    assert await cache.delete_many([]) is None
    assert await cache.get_many("abc") == {"c": 3}


async def test_has_key(cache):
    """has_key() and ``in`` know what is there, whatever its type."""
    await cache.set("key", None)
    await cache.rpush("list", 1)

    assert await cache.has_key("key") is True
    assert await cache.has_key("list") is True
    assert await cache.has_key("missing") is False
    if cache.face != AWAITING:
        assert "key" in cache.whole
        assert "missing" not in cache.whole


async def test_get_or_set(cache):
    """get_or_set() stores a value, or what a function returns, once; a stored None counts as a value."""
    calls = []

    def expensive():
        calls.append(1)
        return [1]

    assert await cache.get_or_set("key", expensive, 100) == [1]
    assert await cache.get_or_set("key", expensive) == [1]
    assert len(calls) == 1
    assert await cache.ttl("key") in (99, 100)
    assert await cache.get_or_set("plain", "value") == "value"
    assert await cache.get("plain") == "value"
    assert await cache.get_or_set("none", None) is None
    assert await cache.has_key("none") is True
    assert await cache.get_or_set("none", 5) is None
    assert await cache.get_or_set("short-lived", 5, 0) == 5


async def test_get_or_set_takes_a_coroutine_function_where_it_can(cache):
    """Awaiting, the default may be a coroutine function; blocking, that is a TypeError which says so."""

    async def expensive():
        await asyncio.sleep(0)
        return "made"

    if cache.face == AWAITING:
        assert await cache.get_or_set("key", expensive) == "made"
    else:
        with pytest.raises(TypeError, match="use the a-method"):
            await cache.get_or_set("key", expensive)
        assert await cache.get("key") is None


async def test_get_with_ttl(cache):
    """get_with_ttl() returns value and time to live of one moment."""
    await cache.set("key", "value", 100)
    await cache.set("for ever", "value", None)

    value, left = await cache.get_with_ttl("key")
    assert value == "value"
    assert 99 < left <= 100
    assert await cache.get_with_ttl("for ever") == ("value", None)
    assert await cache.get_with_ttl("missing", "default") == ("default", 0)


# --- counters -----------------------------------------------------------------------------------------


async def test_incr_and_decr(cache):
    """incr() and decr() return the new number, and keep the timeout."""
    await cache.set("key", 41, 100)

    assert await cache.incr("key") == 42
    assert await cache.incr("key", 8) == 50
    assert await cache.decr("key") == 49
    assert await cache.decr("key", 50) == -1
    assert await cache.incr("key", -1) == -2
    assert await cache.get("key") == -2
    assert await cache.ttl("key") in (99, 100)


async def test_a_missing_number(cache):
    """incr() of a missing key is a ValueError, and stores nothing."""
    for operation in (cache.incr, cache.decr, cache.incr_version, cache.decr_version):
        with pytest.raises(ValueError, match="not found"):
            await operation("missing")

    assert await cache.has_key("missing") is False


async def test_incr_with_a_default(cache):
    """A default is stored with its timeout in the same step, and only where there is nothing."""
    assert await cache.incr("key", 5, default=10, timeout=100) == 15
    assert await cache.ttl("key") in (99, 100)
    assert await cache.incr("key", default=1000, timeout=5) == 16
    assert await cache.ttl("key") > 5
    assert await cache.incr("lasting", default=0) == 1
    assert await cache.ttl("lasting") is None
    assert await cache.incr("unchecked", ignore_key_check=True) == 1


@pytest.mark.parametrize(
    "start, delta, total",
    [
        (2**53, 1, 2**53 + 1),
        (2**63 - 2, 1, 2**63 - 1),
        (2**63 - 1, 1, 2**63),
        (2**64, 1, 2**64 + 1),
        (1, 2**64, 2**64 + 1),
        (-(2**63), -1, -(2**63) - 1),
        (1.5, 1, 2.5),
        (1, 0.5, 1.5),
        (Decimal("0.1"), Decimal("0.2"), Decimal("0.3")),
    ],
)
async def test_numbers_beyond_64_bits_and_fractions(cache, start, delta, total):
    """incr() is exact for every number Python knows, and keeps the timeout."""
    await cache.set("key", start, 100)

    assert await cache.incr("key", delta) == total

    found = await cache.get("key")
    assert found == total
    assert type(found) is type(total)
    assert await cache.ttl("key") in (99, 100)


async def test_what_is_no_number_cannot_grow(cache):
    """incr() of a text or a list of the server is an error, and changes nothing."""
    await cache.set("text", "a")
    await cache.rpush("list", 1)

    with pytest.raises(TypeError):
        await cache.incr("text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await cache.incr("list")
    assert await cache.get("text") == "a"
    assert await cache.lrange("list", 0, -1) == [1]


async def test_incr_version(cache):
    """incr_version() moves value and timeout to another version, in one step."""
    await cache.set("key", "value", 100)

    assert await cache.incr_version("key") == 2
    assert await cache.get("key") is None
    assert await cache.get("key", version=2) == "value"
    assert await cache.ttl("key", version=2) in (99, 100)
    assert await cache.incr_version("key", 3, version=2) == 5
    assert await cache.decr_version("key", 4, version=5) == 1
    assert await cache.get("key") == "value"


# --- lifetimes ----------------------------------------------------------------------------------------


async def test_touch(cache):
    """touch() gives a new timeout, and tells whether the key was there; None lets it stay for ever."""
    await cache.set("key", 1, 10)

    assert await cache.touch("key", 1000) is True
    assert await cache.ttl("key") in (999, 1000)
    assert await cache.touch("key") is True
    assert await cache.ttl("key") in (299, 300)
    assert await cache.touch("key", None) is True
    assert await cache.ttl("key") is None
    assert await cache.touch("key", 0) is True
    assert await cache.get("key") is None
    assert await cache.touch("key", 10) is False


async def test_ttl_and_pttl(cache):
    """Seconds and milliseconds to live; None for ever, 0 for a missing key."""
    await cache.set("key", 1, 10)
    await cache.set("for ever", 1, None)

    assert await cache.ttl("key") == 10
    assert 9000 < await cache.pttl("key") <= 10_000
    assert await cache.ttl("for ever") is None
    assert await cache.pttl("for ever") is None
    assert await cache.ttl("missing") == 0
    assert await cache.pttl("missing") == 0


async def test_expire_and_persist(cache):
    """expire() and pexpire() set a time to live on what is there; persist() takes it away."""
    await cache.set("key", 1, None)

    assert await cache.persist("key") is False
    assert await cache.expire("key", 50) is True
    assert await cache.ttl("key") in (49, 50)
    assert await cache.pexpire("key", 20_500) is True
    assert 19_000 < await cache.pttl("key") <= 20_500
    assert await cache.expire("key", timedelta(seconds=5)) is True
    assert await cache.ttl("key") in (4, 5)
    assert await cache.persist("key") is True
    assert await cache.ttl("key") is None
    assert await cache.expire("key", 0) is True
    assert await cache.get("key") is None
    for nothing in (cache.expire("key", 5), cache.pexpire("key", 5), cache.persist("key")):
        assert await nothing is False


async def test_expire_at(cache):
    """expire_at() and pexpire_at() take a datetime or a number since 1970; the past deletes."""
    await cache.set("key", 1, None)
    now = time()

    assert await cache.expire_at("key", int(now) + 100) is True
    assert 98 <= await cache.ttl("key") <= 100
    assert await cache.expire_at("key", datetime.now(UTC) + timedelta(seconds=50)) is True
    assert 48 <= await cache.ttl("key") <= 50
    assert await cache.pexpire_at("key", int(now * 1000) + 20_000) is True
    assert 18_000 < await cache.pttl("key") <= 20_000
    assert await cache.pexpire_at("key", datetime.now(UTC) + timedelta(seconds=5)) is True
    assert 3_000 < await cache.pttl("key") <= 5_000
    assert await cache.expire_at("key", int(now) - 10) is True
    assert await cache.get("key") is None
    assert await cache.expire_at("key", int(now) + 10) is False
    assert await cache.pexpire_at("key", int(now * 1000) + 10_000) is False


@pytest.mark.parametrize("timeout", ["5", b"5", [5], float("nan"), float("inf"), {}], ids=repr)
async def test_a_timeout_that_is_none(cache, timeout):
    """What cannot be a timeout is refused by every method that takes one, and nothing is written."""
    await cache.set("key", 1, 100)

    for refused in (
        cache.set("key", 2, timeout),
        cache.set("new", 2, timeout),
        cache.add("new", 2, timeout),
        cache.set_many({"new": 2}, timeout),
        cache.touch("key", timeout),
        cache.expire("key", timeout),
        cache.pexpire("key", timeout),
        cache.get_or_set("new", 2, timeout),
        cache.incr("new", default=1, timeout=timeout),
    ):
        with pytest.raises(InvalidTimeout, match="number of seconds"):
            await refused
    assert await cache.get_many(["key", "new"]) == {"key": 1}
    assert await cache.ttl("key") in (99, 100)


class Seconds(int):
    """An integer by another name."""


@numbers.Real.register
class Measured:
    """A real number that Python does not know, as numpy's float32."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


@numbers.Integral.register
class Counted:
    """An integer that Python does not know, as numpy's int64; sums of it overflow."""

    def __index__(self) -> int:
        return 60

    def __mul__(self, other: Any) -> Any:
        return Counted()


@pytest.mark.parametrize(
    "timeout",
    [60, 60.0, Seconds(60), Fraction(120, 2), Decimal(60), Measured(60.0), Counted(), 10**6],
    ids=lambda timeout: f"{type(timeout).__name__} {timeout if isinstance(timeout, int) else ''}",
)
async def test_any_real_number_is_a_timeout(cache, timeout):
    """A timeout may be a number of any class, and of any size that the server can count."""
    expected = 10**6 if timeout == 10**6 else 60

    assert await cache.set("a", 1, timeout) is True
    assert await cache.ttl("a") in (expected - 1, expected)
    assert await cache.set_many({"b": 1}, timeout) == []
    assert await cache.expire("b", timeout) is True
    assert await cache.incr("n", default=0, timeout=timeout) == 1
    assert [await cache.ttl(key) in (expected - 1, expected) for key in "bn"] == [True, True]


@pytest.mark.parametrize(
    "when",
    [float("inf"), float("nan"), None, date(2030, 1, 1), "tomorrow", Decimal("sNaN"), 1e308, 10**5000],
    ids=["inf", "nan", "None", "date", "text", "sNaN", "1e308", "thousands of digits"],
)
async def test_a_moment_that_is_none(cache, when):
    """What cannot be a moment is refused, and nothing is changed."""
    await cache.set("key", 1, 100)

    for refused in (cache.expire_at("key", when), cache.pexpire_at("key", when)):
        with pytest.raises(InvalidTimeout, match="a moment is a datetime"):
            await refused
    assert await cache.ttl("key") in (99, 100)


# --- what is refused ------------------------------------------------------------------------------


async def test_set_many_tells_what_a_transaction_refused(cache, make):
    """An error within EXEC is raised, or with IGNORE_EXCEPTIONS its keys are those that were not stored."""
    await cache.set_many({"a": "old", "b": "old"}, None)
    beyond = (2**63 - 1) // 1000  # from now on it is more than the server counts

    with pytest.raises(ResponseError, match="invalid expire time"):
        await cache.set_many({"a": "new", "b": "new"}, beyond)
    for transaction in (False, True):
        pipe = cache.pipeline(transaction=transaction)
        pipe.set_many({"a": "new"}, beyond)
        with pytest.raises(ResponseError, match="invalid expire time"):
            await pipe.execute()
    tolerant = make(KEY_PREFIX=cache.key_prefix, IGNORE_EXCEPTIONS=True)
    assert await tolerant.set_many({"a": "new", "b": "new"}, beyond) == ["a", "b"]
    assert await cache.get_many("ab") == {"a": "old", "b": "old"}


async def test_a_wrong_type_names_entry_and_operation(cache):
    """The server says neither which entry is of another kind nor what was asked of it; the message does, without the key."""
    await cache.rpush("secret-list", 1)

    for asked, call in (
        ("GET", cache.get("secret-list")),
        ("SADD", cache.sadd("secret-list", 1)),
        ("incr", cache.incr("secret-list")),
    ):
        with pytest.raises(ResponseError, match=rf"WRONGTYPE .*\({asked} of .*…#[0-9a-f]+\)") as caught:
            await call
        assert "secret-list" not in str(caught.value)


async def test_a_count_begins_with_a_number(cache):
    """incr() refuses a default that is no number, and begins with whatever is one."""
    with pytest.raises(TypeError, match="default has to be a number, not str"):
        await cache.incr("a", default="x")
    assert await cache.get("a") is None
    assert await cache.incr("a", default=1.5, timeout=60) == 2.5
    assert await cache.get("a") == 2.5
    assert await cache.ttl("a") in (59, 60)


@pytest.mark.parametrize("stored", ["abc", 1, 1.5, None], ids=repr)
async def test_a_number_is_counted_on_by_a_number(cache, stored):
    """incr() and decr() refuse a delta that is no number, whatever is stored, and leave the value as it is."""
    await cache.set("a", stored)
    for call in (cache.incr("a", "1"), cache.incr("a", None), cache.decr("a", "1")):
        with pytest.raises(TypeError, match="delta has to be a number, not (str|NoneType)"):
            await call

    assert await cache.get("a") == stored


@pytest.mark.parametrize("delta", [2, 0.5, Decimal("0.5"), Fraction(1, 2), True], ids=repr)
async def test_numbers_of_every_kind_are_counted_by(cache, delta):
    """incr() and decr() add and subtract numbers of every kind."""
    await cache.set("a", 4)

    assert await cache.incr("a", delta) == 4 + delta
    assert await cache.get("a") == 4 + delta
    assert await cache.decr("a", delta) == 4


async def test_what_is_no_number_is_not_counted_on(cache):
    """incr() of a value that is no number says of which type it is."""
    for value in ("abc", [1], None):
        await cache.set("a", value)
        with pytest.raises(
            TypeError, match=f"the value is of type {type(value).__name__}, to which no int can be added"
        ):
            await cache.incr("a")
        assert await cache.get("a") == value
    assert await cache.incr("b", default=2**63) == 2**63 + 1
    assert await cache.incr("c", default=False) == 1


async def test_names_that_cannot_be_sent(cache):
    """A lone surrogate is no text that could be sent: DataError, whatever holds the entry."""
    for call in (
        cache.get("\ud800"),
        cache.set("\ud800", 1),
        cache.get_many(["a", "\ud800"]),
        cache.set_many({"\ud800": 1}),
        cache.delete_many(["\ud800"]),
        cache.hset("a", "\ud800", 1),
        cache.keys("\ud800*"),
        cache.lock("\ud800").acquire(),
    ):
        with pytest.raises(DataError):
            await call


def test_caches_are_not_pickled():
    """A cache or a lock says why it cannot be pickled; a deep copy of a cache uses the same connections."""
    cache = Cache("memory://pickled")

    for each in (cache, cache.lock("a"), cache.pipeline()):
        with pytest.raises(TypeError, match="cannot be pickled: its connections belong to this process"):
            pickle.dumps(each)
    other = copy.deepcopy(cache)
    other.key_prefix = "other"
    assert (other.topology, cache.key_prefix) == (cache.topology, "")


# --- keys and versions --------------------------------------------------------------------------------


async def test_versions_are_apart(cache):
    """Each version of a key is an entry of its own, for every kind of operation."""
    await cache.set("key", "one")
    await cache.set("key", "two", version=2)

    assert await cache.get("key") == "one"
    assert await cache.get("key", version=2) == "two"
    assert await cache.get_many(["key"], version=2) == {"key": "two"}
    assert await cache.delete("key", version=2) is True
    assert await cache.has_key("key", version=2) is False
    assert await cache.get("key") == "one"
    await cache.set_many({"a": 1, "b": 2}, version="v2")
    assert await cache.get_many("ab") == {}
    assert await cache.delete_many("ab", version="v2") == 2


async def test_make_key_passes_through(cache):
    """A name from make_key() is complete: no method puts a prefix before it again."""
    name = cache.make_key("key", version=7, prefix="elsewhere")
    await cache.set(name, "value")

    assert name == "elsewhere:7:key"
    assert cache.make_key(name) == name
    assert await cache.get(name) == "value"
    assert await cache.get_many([name]) == {name: "value"}
    assert await cache.delete("key", version=7, prefix="elsewhere") is True


async def test_any_text_names_an_entry(cache):
    """Spaces, colons, braces, line breaks, NUL, Unicode and nothing at all are keys like others."""
    keys = ["", " ", "a b", "a:b", "{a}", "a\r\nb", "a\0b", "Ünïcödé 🎈", "x" * 1000, "*", "[a]?"]

    await cache.set_many({key: key for key in keys})

    assert await cache.get_many(keys) == {key: key for key in keys}
    assert sorted(await cache.keys("*")) == sorted(keys)


async def test_numbers_may_be_keys(cache):
    """An object's text names its entry, as in Django."""
    await cache.set(5, "five")

    assert await cache.get("5") == "five"
    assert await cache.get_many([5]) == {5: "five"}


# --- looking around -----------------------------------------------------------------------------------


async def test_keys(make):
    """keys() finds what a glob matches, in one version and under one prefix, each once."""
    cache = make(SCAN_ITERSIZE=3)
    found = {f"user:{number}" for number in range(50)}
    await cache.set_many(dict.fromkeys(found, 1))
    await cache.set_many({"other": 1, "user*": 1, "u[s]er": 1})
    await cache.set("user:version", 1, version=2)

    keys = await cache.keys("user:*")
    assert sorted(keys) == sorted(found)
    assert await cache.keys("user:1?") and len(await cache.keys("user:1?")) == 10
    assert await cache.keys(r"user\*") == ["user*"]
    assert await cache.keys("user:*", version=2) == ["user:version"]
    assert await cache.keys("nothing*") == []


async def test_iter_keys(cache):
    """iter_keys() yields every key that stays, page by page, and is not upset by deletions."""
    await cache.set_many({f"key{number}": number for number in range(100)})

    seen = set()
    async for key in cache.iter_keys("key*", itersize=7):
        seen.add(key)
        await cache.delete(key)

    assert seen == {f"key{number}" for number in range(100)}
    assert [key async for key in cache.iter_keys("key*")] == []


async def test_scan(cache):
    """scan() gives pages with a cursor, 0 at the end."""
    await cache.set_many({f"key{number}": number for number in range(100)})

    cursor, seen, pages = 0, set(), 0
    while True:
        cursor, page = await cache.scan(cursor, "key*", 10)
        seen.update(page)
        pages += 1
        if not cursor:
            break

    assert seen == {f"key{number}" for number in range(100)}
    assert pages > 1


async def test_a_cursor_is_a_whole_number(cache):
    """scan() refuses any other cursor, and says with which a scan starts."""
    with pytest.raises(TypeError, match="the cursor has to be a whole number, 0 at the start, not str"):
        await cache.scan("x")


@pytest.mark.parametrize("prefix", ["a:b", "a*b", "[ab]", "a?", "", "back\\slash"])
async def test_prefixes_stand_for_themselves(make, prefix):
    """Colons and special characters in KEY_PREFIX neither match anything else nor are lost."""
    cache, other = make(db=8, KEY_PREFIX=prefix), make(db=8, KEY_PREFIX="aXb")
    await cache.set_many({"one": 1, "t:wo": 2})
    await other.set("one", 1)

    assert sorted(await cache.keys("*")) == ["one", "t:wo"]
    assert sorted([key async for key in cache.iter_keys("*")]) == ["one", "t:wo"]
    assert await cache.delete_pattern("*") == 2
    assert await other.get("one") == 1
    await other.clear()


async def test_delete_pattern(cache):
    """delete_pattern() deletes what matches and counts it, across pages; prefix and version may be named."""
    await cache.set_many({f"user:{number}": number for number in range(30)})
    await cache.set("other", 1)
    await cache.set("user:1", 1, version=2)

    assert await cache.delete_pattern("user:*", itersize=4) == 30
    assert await cache.delete_pattern("user:*") == 0
    assert await cache.get("other") == 1
    assert await cache.delete_pattern("user:*", version=2, prefix=cache.key_prefix) == 1
    assert await cache.delete_pattern(cache.make_pattern("oth*")) == 1


async def test_clear_removes_what_stands_under_the_prefix(make):
    """With a KEY_PREFIX, clear() removes all of its versions, and nothing else."""
    cache, other = make(), make()
    await cache.set_many({f"key{number}": number for number in range(30)})
    await cache.set("key", 1, version="v2")
    await other.set("key", 1)

    assert await cache.clear() is None

    assert await cache.keys("*") == []
    assert await cache.get("key", version="v2") is None
    assert await other.get("key") == 1


async def test_clear_empties_a_database_of_ones_own(make, url):
    """Without a KEY_PREFIX, or with CLEAR = "database", clear() empties the database, and no other."""
    elsewhere = make(db=0)
    await elsewhere.set("key", 1)
    for cache in (make(db=9, KEY_PREFIX=""), make(db=9, CLEAR="database")):
        neighbour = make(db=9)
        await cache.set("key", 1)
        await neighbour.set("key", 1)

        await cache.clear()

        assert await cache.get("key") is None
        assert await neighbour.get("key") is None
    # A cluster has no other database.
    assert await elsewhere.get("key") == (None if url().startswith("redis+cluster") else 1)


async def test_a_key_function_of_ones_own(make):
    """KEY_FUNCTION names entries, and REVERSE_KEY_FUNCTION finds the key in a name."""
    cache = make(
        KEY_PREFIX="own",
        KEY_FUNCTION=lambda key, prefix, version: f"{prefix}/{version}/{key}",
        REVERSE_KEY_FUNCTION=lambda name: name.split("/", 2)[2],
    )
    await cache.set_many({"a": 1, "b/c": 2})

    assert cache.make_key("a") == "own/1/a"
    assert await cache.get_many(["a", "b/c"]) == {"a": 1, "b/c": 2}
    assert sorted(key for key in await cache.keys("*") if CANARY not in key) == ["a", "b/c"]
    assert cache.reverse_key("own/1/x") == "x"
    await cache.delete_many(["a", "b/c"])


# --- underneath ---------------------------------------------------------------------------------------


class Garbage(BaseSerializer):
    """Writes what no serializer reads."""

    def dumps(self, value: Any, /) -> bytes:
        return b"\x80\x04garbage"


async def test_a_payload_that_cannot_be_read_is_a_miss(make, caplog):
    """Foreign bytes are as good as none, counted and logged without the key; UNREADABLE = "raise" raises."""
    cache = make()
    strict = make(KEY_PREFIX=cache.key_prefix, UNREADABLE="raise")
    secret = cache.make_key("user-4711-secret")
    await make(KEY_PREFIX=cache.key_prefix, SERIALIZER=Garbage).set(secret, "readable", None)

    assert await cache.get(secret, "default") == "default"
    assert await cache.get_many([secret]) == {}
    assert cache.stats.unreadable >= 2
    assert "unreadable" in caplog.text
    assert "4711" not in caplog.text
    with pytest.raises(UnreadableValue):
        await strict.get(secret)
    assert await cache.get_or_set(secret, "new") == await strict.get(secret) == "new"


async def test_encode_and_decode(cache):
    """encode() and decode() are the codec; integers may stay as they are."""
    assert cache.encode(5) == 5
    assert cache.decode(5) == 5
    assert cache.decode(b"5") == 5
    assert isinstance(cache.encode(5, allow_int=False), bytes)
    assert cache.decode(cache.encode({"a": [1]})) == {"a": [1]}


async def test_close_is_harmless(make):
    """A cache goes on after close(), whether or not that closed connections."""
    for cache in (make(), make(CLOSE_CONNECTION=True)):
        await cache.set("key", 1)
        await cache.close()
        assert await cache.get("key") == 1
        await cache.close(signal=None, sender=None)
        assert await cache.get("key") == 1
        await cache.close()


async def test_repr_says_where(cache):
    """repr() names class and server, without secrets."""
    assert repr(cache.whole).startswith(f"<{type(cache.whole).__name__} ")
    assert "://" not in repr(cache.whole) or "memory" in repr(cache.whole)
