"""Pipelines: every operation in one round trip, on every server and in both faces."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.faces import FACES, Face, settled

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import ShardClient
from fleetcache.errors import UnstorableValue
from fleetcache.servers.remote import RemoteServer
from fleetcache.twin import blocking


async def test_results_come_in_order(cache):
    """Each operation's result is what the operation itself would have returned."""
    pipe = cache.pipeline()
    pipe.set("a", {"x": 1}).get("a").get("missing", "default").incr("n", default=5)
    pipe.set_many({"b": 2, "c": 3}).get_many(["a", "b", "missing"]).has_key("b").add("b", 9)
    pipe.hset("hash", "field", [1]).hgetall("hash").rpush("list", 1, 2).lrange("list", 0, -1)
    pipe.zadd("z", {"m": 1}).zrange("z", 0, -1, withscores=True).sadd("set", 1).smembers("set")
    pipe.ttl("a").touch("a", 10).get_with_ttl("c").delete_many("bc").delete("missing")

    assert len(pipe.whole) == 21
    results = await pipe.execute()

    assert results[:8] == [True, {"x": 1}, "default", 6, [], {"a": {"x": 1}, "b": 2}, True, False]
    assert results[8:12] == [1, {"field": [1]}, 2, [1, 2]]
    assert results[12:16] == [1, [("m", 1.0)], 1, {1}]
    value, left = results[18]
    assert results[16] in (299, 300)
    assert results[17] is True
    assert value == 3
    assert 299 <= left <= 300
    assert results[19:] == [2, False]
    assert len(pipe.whole) == 0


async def test_an_empty_pipeline(cache):
    """Nothing collected, nothing sent, nothing returned; and a pipeline is always true."""
    pipe = cache.pipeline()

    assert await pipe.execute() == []
    assert bool(pipe.whole) is True


async def test_a_pipeline_is_used_again(cache):
    """After execute() a pipeline is empty, and may collect anew."""
    pipe = cache.pipeline()
    pipe.set("a", 1)
    await pipe.execute()

    pipe.get("a")
    assert await pipe.execute() == [1]


def counted(monkeypatch) -> list[int]:
    """Return the list of how many commands each exchange of this thread has from now on."""
    asked: list[int] = []
    for name in ("exchange", "aexchange"):
        method = getattr(RemoteServer, name)

        def count(self, commands, method=method):
            if threading.current_thread() is threading.main_thread():  # a near cache may write its canary
                asked.append(len(commands))
            return method(self, commands)

        monkeypatch.setattr(RemoteServer, name, count)
    return asked


@pytest.mark.together
async def test_one_round_trip(cache, url, monkeypatch):
    """Fifty operations of one step are sent together."""
    if url().startswith("memory"):
        return
    asked = counted(monkeypatch)
    await cache.get("a")  # whose first use of a cluster asks it for its map
    asked.clear()
    pipe = cache.pipeline()
    for number in range(50):
        pipe.set(f"key{number}", number)

    assert await pipe.execute() == [True] * 50
    assert asked == [50]


async def test_operations_of_several_steps(cache):
    """Operations that ask more than once work, each in its place."""
    await cache.set("float", 1.5)
    await cache.set_many({f"key{number}": number for number in range(20)})
    pipe = cache.pipeline()
    pipe.incr("float").get_or_set("new", lambda: "made").delete_pattern("key*").keys("*")

    total, made, deleted, keys = await pipe.execute()

    assert (total, made, deleted) == (2.5, "made", 20)
    assert set(keys) == {"float", "new"}


ORDERS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "a counter and its end": (lambda p: p.incr("a", default=0).expire("a", 60).pttl("a"), [1, True, 60000]),
    "a counter that is deleted": (lambda p: p.incr("a", default=0).delete("a").get("a"), [1, True, None]),
    "a counter that is set": (lambda p: p.incr("a", default=0).set("a", 100).get("a"), [1, True, 100]),
    "a float": (lambda p: p.set("a", 1.5).incr("a").get("a").incr("a").get("a"), [True, 2.5, 2.5, 3.5, 3.5]),
    "a float and others": (lambda p: p.set("a", 1.5).incr("a").set("a", 7).incr("a"), [True, 2.5, True, 8]),
    "a float and many": (lambda p: p.set("a", 1.5).incr("a").get_many(["a"]), [True, 2.5, {"a": 2.5}]),
    "a float step": (lambda p: p.set("a", 1).incr("a", 0.5).incr("a", 1).set("a", 2), [True, 1.5, 2.5, True]),
    "a large number": (
        lambda p: p.set("a", 2**63 - 1).incr("a").incr("a").get("a"),
        [True, 2**63, 2**63 + 1, 2**63 + 1],
    ),
    "a pattern": (lambda p: p.set("a", 1).delete_pattern("*").set("a", 2).get("a"), [True, 1, True, 2]),
    "clear": (lambda p: p.set("a", 1).clear().set("a", 2).get("a"), [True, None, True, 2]),
    "get_or_set": (lambda p: p.get_or_set("a", 1).delete("a").get("a"), [1, True, None]),
    "get_or_set_many": (
        lambda p: p.set("a", 1).get_or_set_many("ab", lambda keys: dict.fromkeys(keys, 2)).get("b"),
        [True, {"a": 1, "b": 2}, 2],
    ),
    "get_or_set late": (lambda p: p.set("a", 3).get_or_set("a", 1).set("a", 4), [True, 3, True]),
    "keys": (lambda p: p.set("a", 1).keys("*").set("b", 1), [True, ["a"], True]),
    "scan": (lambda p: p.set("a", 1).scan(itersize=9999).set("b", 1), [True, (0, ["a"]), True]),
    "sscan": (lambda p: p.sadd("a", 1).sscan("a").sadd("a", 2), [1, {1}, 1]),
    "a version": (lambda p: p.set("a", 1).incr_version("a").set("a", 2).get("a", version=2), [True, 2, True, 1]),
    "a counter and everything": (lambda p: p.set("a", 1.5).incr("a").clear().get("a"), [True, 2.5, None, None]),
}


@pytest.mark.parametrize("known", [True, False], ids=["known scripts", "unknown scripts"])
async def test_operations_take_effect_where_they_stand(known, cache, url):
    """An operation that asks more than once, or whose script the server does not know, keeps its place."""
    for name, (collect, expected) in ORDERS.items():
        if url().startswith("redis+cluster") and name == "scan":
            continue  # a page is of one node
        if not known and not url().startswith(("memory", "redis+cluster")):
            cache.get_client().script_flush()
        pipe = cache.pipeline()
        collect(pipe.whole)

        results = await pipe.execute()

        if "pttl" in str(collect.__code__.co_names):
            results[-1] = round(results[-1], -3)
        assert results == expected, name
        await cache.clear()


@pytest.mark.parametrize("face", FACES)
async def test_order_on_shards(face, valkey):
    """On shards each server gets its operations in one write, in their order; what asks several times waits for all."""
    cache = Face(ShardClient([valkey.tcp_url(11), valkey.tcp_url(12)], {"KEY_PREFIX": f"shards-{face}"}), face)
    cache.get_server("a").script_flush()
    keys = [f"key{number}" for number in range(10)]
    pipe = cache.pipeline()
    for key in keys:
        pipe.set(key, 1.5).incr(key).get(key).expire(key, 60)
    pipe.keys("*").delete_pattern("key*").set_many(dict.fromkeys(keys, 0)).get_many(keys)

    results = await pipe.execute()

    assert results[:40] == [True, 2.5, 2.5, True] * 10
    assert sorted(results[40]) == sorted(keys)
    assert results[41:] == [10, [], dict.fromkeys(keys, 0)]


def chosen(dice: random.Random) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return some operation on one of two entries."""
    key = dice.choice(["a", "b"])
    value = dice.choice([1, 1.5, "text", 2**63, [1]])
    return dice.choice(
        [
            ("set", (key, value), {}),
            ("set", (key, value, dice.choice([None, 0, 1000])), {"xx": dice.random() < 0.3}),
            ("add", (key, value, 1000), {}),
            ("get", (key, "nothing"), {}),
            ("get_many", (["a", "b"],), {}),
            ("set_many", ({"a": value, "b": 2}, 500), {}),
            ("incr", (key,), {"default": dice.choice([None, 0, 5])}),
            ("incr", (key, dice.choice([1, 0.5])), {"default": 0, "timeout": 700}),
            ("decr", (key,), {}),
            ("delete", (key,), {}),
            ("delete_many", (["a", "b"],), {}),
            ("expire", (key, dice.choice([0, 1000])), {}),
            ("persist", (key,), {}),
            ("ttl", (key,), {}),
            ("has_key", (key,), {}),
            ("get_or_set", (key, value, 900), {}),
            ("get_with_ttl", (key,), {}),
            ("delete_pattern", ("*",), {}),
            ("clear", (), {}),
            ("keys", (dice.choice(["*", "b"]),), {}),
            ("rpush", (key, 1), {}),
            ("lrange", (key, 0, -1), {}),
        ]
    )


def told(result: Any) -> Any:
    """Return *result* as what can be compared: times without their last seconds, errors by their class."""
    if isinstance(result, Exception):
        return type(result)
    if isinstance(result, tuple):
        return (result[0], told(result[1]))
    if isinstance(result, (int, float)) and 100 < result < 1001:
        return round(result / 100)
    return sorted(result) if isinstance(result, list) and all(isinstance(each, str) for each in result) else result


@pytest.mark.parametrize("seed", range(3))
async def test_a_pipeline_does_what_its_operations_do(seed, make):
    """Whatever is collected returns and leaves what the operations do one after another."""
    dice = random.Random(seed)
    plain, piped = make(), make()
    for _ in range(15):
        calls = [chosen(dice) for _ in range(dice.randint(2, 9))]
        one_by_one = [told(await settled(getattr(plain, name)(*args, **kwargs))) for name, args, kwargs in calls]
        pipe = piped.pipeline()
        for name, args, kwargs in calls:
            getattr(pipe, name)(*args, **kwargs)

        together = [told(result) for result in await pipe.execute(raise_on_error=False)]

        assert together == one_by_one, calls
        for key in ("a", "b"):
            # A near cache may know of a list only that it is no value.
            left, right = [told(await settled(each.get(key))) for each in (piped, plain)]
            assert left == right or {left, right} == {None, ResponseError}, calls
            assert told(await piped.ttl(key)) == told(await plain.ttl(key)), calls


async def test_counters_take_one_round_trip(cache, url, monkeypatch):
    """Counters, their ends and reads of them are sent together, also before the server knows the script."""
    if url().startswith(("memory", "redis+cluster")):
        return
    cache.get_client().script_flush()
    await cache.get("a")
    asked = counted(monkeypatch)
    pipe = cache.pipeline()
    for number in range(10):
        pipe.incr(f"n{number}", default=0).expire(f"n{number}", 60).get(f"n{number}").incr(f"n{number}").set("b", 1)

    assert await pipe.execute() == [1, True, 1, 2, True] * 10
    # Each `expire` looks whether the entry has metadata, and of less than a lease's life voids the lease as well.
    assert asked == [70]


async def test_an_error_is_its_operations_own(cache):
    """The other operations run, the first error is raised; or errors are results, if asked."""
    await cache.rpush("list", 1)
    await cache.set("text", "a")

    for quiet in (False, True):
        pipe = cache.pipeline()
        pipe.set("before", 1).get("list").incr("missing").set("bad", lambda: None).set("after", 2)
        if quiet:
            before, wrong, missing, bad, after = await pipe.execute(raise_on_error=False)
            assert (before, after) == (True, True)
            assert isinstance(wrong, ResponseError)
            assert isinstance(missing, ValueError)
            assert isinstance(bad, UnstorableValue)
        else:
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await pipe.execute()
        assert await cache.get_many(["before", "after"]) == {"before": 1, "after": 2}
        await cache.delete_many(["before", "after"])


@pytest.mark.together
async def test_a_transaction_is_one_moment(cache):
    """In a transaction nobody else's command runs in between; scripts work in it too."""
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).incr("a", 5).get("a").incr("new", default=0).hset("h", "f", 1)

    assert await pipe.execute() == [True, 6, 6, 1, 1]


@pytest.mark.parametrize(
    "several",
    [
        lambda p: p.get_or_set("key", 1),
        lambda p: p.delete_pattern("*"),
        lambda p: p.keys("*"),
        lambda p: p.clear(),
        lambda p: p.incr("key", 0.5),
        lambda p: p.sscan("key"),
    ],
    ids=["get_or_set", "delete_pattern", "keys", "clear", "incr", "sscan"],
)
async def test_a_transaction_takes_operations_of_one_step(several, cache):
    """What must ask twice cannot be in one transaction, and says so before anything is sent."""
    pipe = cache.pipeline(transaction=True)
    pipe.set("before", 1)
    several(pipe.whole)

    with pytest.raises(TypeError, match="one step"):
        await pipe.execute()
    assert await cache.get("before") is None


@pytest.mark.together
async def test_a_float_in_a_transaction(cache):
    """A counter that turns out to need a second step is refused by itself; the others have run."""
    await cache.set("float", 1.5)
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).incr("float").get("float")

    first, refused, left = await pipe.execute(raise_on_error=False)

    assert (first, left, await cache.get("float")) == (True, 1.5, 1.5)
    assert isinstance(refused, TypeError)


async def test_a_stored_exception_is_a_value(cache):
    """What was stored is returned, an exception too; errors are told apart by their places."""
    error = TimeoutError("upstream")
    await cache.set("a", error)
    await cache.hset("h", "f", error)
    await cache.rpush("l", error, error)
    await cache.sadd("s", "member")
    pipe = cache.pipeline()
    pipe.get("a").hget("h", "f").lindex("l", 0).lpop("l").get_or_set("a", 1).get("missing", error).set("b", 1)

    results = await pipe.execute()

    assert [type(result) for result in results[:6]] == [TimeoutError] * 6
    assert results[6] is True
    assert results.errors == {}
    pipe.get("a").incr("missing").get("l")
    value, missing, wrong = results = await pipe.execute(raise_on_error=False)
    assert isinstance(value, TimeoutError)
    assert results.errors == {1: missing, 2: wrong}
    pipe.get("a").incr("missing")
    with pytest.raises(ValueError, match="not found"):
        await pipe.execute()


@pytest.mark.together
async def test_errors_within_a_transaction(cache):
    """An operation refused within a transaction is an error of its own; the others have run."""
    await cache.rpush("list", 1)
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).get("list").set("b", 2)

    first, wrong, second = await pipe.execute(raise_on_error=False)

    assert (first, second) == (True, True)
    assert isinstance(wrong, ResponseError)


async def test_what_cannot_be_piped(cache):
    """What is no operation is refused when it is named."""
    pipe = cache.pipeline().whole

    for name in ("nothing", "_page", "__deepcopy__", "aget"):
        with pytest.raises(AttributeError, match="no operation"):
            getattr(pipe, name)
    for name in ("fence", "close", "aclose", "lock", "iter_keys", "pipeline", "info", "make_key", "get_client"):
        with pytest.raises(AttributeError, match=f"call cache.{name} itself"):
            getattr(pipe, name)


def test_operations_are_declared():
    """Every operation with two faces can be piped, save those that are about no entry; a client class declares its own."""
    two_faced = {
        name
        for name in dir(Cache)
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(Cache, f"a{name}", None))
    }

    assert Cache.operations == two_faced - {"close", "fence", "lock"}


class Shop(Cache):
    """A client class with operations of its own."""

    operations = Cache.operations | {"swap"}

    async def aswap(self, key: str, other: str) -> Any:
        """Exchange two values."""
        await self.runtime.alone()
        values = await self.aget_many([key, other])
        return await self.aset_many({key: values.get(other), other: values.get(key)})

    swap = blocking(aswap)


@pytest.mark.parametrize("face", FACES)
async def test_operations_of_a_class_of_its_own(face):
    """An operation that a client class declares can be piped, and keeps its place."""
    pipe = Face(Shop("memory://shop"), face).pipeline()
    pipe.set("a", 1).set("b", 2).swap("a", "b").get("a").set("a", 3).get_many("ab")

    assert await pipe.execute() == [True, True, [], 2, True, {"a": 3, "b": 1}]


async def test_leaving_without_execute_drops_what_was_collected(cache):
    """A pipeline that was left sends nothing and warns of nothing."""
    async with cache.pipeline() as pipe:
        pipe.set("a", 1)

    assert len(pipe.whole) == 0
    assert await cache.get("a") is None


async def test_a_script_unknown_to_the_server(cache, url):
    """After SCRIPT FLUSH counters in a pipeline still count, each once."""
    if url().startswith("memory"):
        return
    await cache.set("n", 0)
    cache.get_client().script_flush()
    pipe = cache.pipeline()
    for _ in range(5):
        pipe.incr("n")

    assert sorted(await pipe.execute()) == [1, 2, 3, 4, 5]
    assert await cache.get("n") == 5


async def test_a_redis_py_pipeline_as_client(cache, url):
    """client= takes a redis-py pipeline for writes, whose owner sees the replies, and refuses reads."""
    if url().startswith(("memory", "redis+cluster")):
        return
    with cache.get_client().pipeline() as raw:
        await cache.set("a", 1, client=raw)
        await cache.set("b", [2], 10, client=raw)
        with pytest.raises(TypeError, match="cannot answer now"):
            await cache.get("a", client=raw)
        assert raw.execute() == [True, True]

    assert await cache.get_many("ab") == {"a": 1, "b": [2]}


async def test_a_raw_client_as_client(cache, url):
    """client= takes a redis-py client, over whose connections the operation then goes."""
    if url().startswith(("memory", "redis+cluster")):
        return
    raw = cache.get_client()

    assert await cache.set("a", [1], client=raw) is True
    assert await cache.get("a", client=raw) == [1]
    assert await cache.get_many(["a", "b"], client=raw) == {"a": [1]}
    assert await cache.incr("n", default=1, client=raw) == 2
    assert await cache.delete_many(["a", "n"], client=raw) == 2
    with pytest.raises(TypeError, match=r"redis\.Redis"):
        await cache.get("a", client=object())
    assert raw.execute_command(c.GET.decode(), cache.make_key("a")) is None
