"""Pipelines: every operation in one round trip, on every server and in both faces."""

from __future__ import annotations

import threading

import pytest
from redis.exceptions import ResponseError

from fleetcache import commands as c
from fleetcache.errors import UnstorableValue
from fleetcache.exchange.server import RemoteServer


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


@pytest.mark.together
async def test_one_round_trip(cache, url, monkeypatch):
    """Fifty operations of one step are sent together."""
    if url().startswith("memory"):
        return
    asked = []
    for name in ("exchange", "aexchange"):
        method = getattr(RemoteServer, name)

        def counted(self, commands, method=method):
            if threading.current_thread() is threading.main_thread():  # a near cache may write its canary
                asked.append(len(commands))
            return method(self, commands)

        monkeypatch.setattr(RemoteServer, name, counted)
    await cache.get("a")  # whose first use of a cluster asks it for its map
    asked.clear()
    pipe = cache.pipeline()
    for number in range(50):
        pipe.set(f"key{number}", number)

    assert await pipe.execute() == [True] * 50
    assert asked == [50]


async def test_operations_of_several_steps(cache):
    """Operations that ask more than once go on together, round by round."""
    await cache.set("float", 1.5)
    await cache.set_many({f"key{number}": number for number in range(20)})
    pipe = cache.pipeline()
    pipe.incr("float").get_or_set("new", lambda: "made").delete_pattern("key*").keys("*")

    total, made, deleted, keys = await pipe.execute()

    assert (total, made, deleted) == (2.5, "made", 20)
    assert set(keys) <= {"float", "new", *(f"key{number}" for number in range(20))}


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


async def test_a_transaction_takes_operations_of_one_step(cache):
    """What must ask twice cannot be in one transaction, and says so."""
    pipe = cache.pipeline(transaction=True)
    pipe.get_or_set("key", 1)

    with pytest.raises(TypeError, match="one step"):
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
    """Unknown operations, iterators and locks are refused when they are named."""
    pipe = cache.pipeline().whole

    for name in ("nothing", "_page", "__deepcopy__"):
        with pytest.raises(AttributeError):
            getattr(pipe, name)


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
