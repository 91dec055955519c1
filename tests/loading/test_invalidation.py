"""invalidate_tags and invalidate: what is given up is not served any more, on whichever way it would come."""

from __future__ import annotations

import time

import pytest
import redis
from tests.caches import params
from tests.faces import AWAITING, Face
from tests.loading.test_voids import lease

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.codec.metadata import Metadata, opened
from fleetcache.keys import CacheKey
from fleetcache.loading import invalidation
from fleetcache.owed import OWED, Owed
from fleetcache.servers.memory import memory_server
from fleetcache.testing.proxy import FaultProxy
from fleetcache.twin import complete

HASTY = {"SOCKET_TIMEOUT": 1.0, "SOCKET_CONNECT_TIMEOUT": 1.0}


async def test_an_entry_is_given_up_by_each_of_its_tags(cache):
    """Entries without the tag stay, and an entry that is stored anew is there again.

    Laravel PR#57837, PR#57848: flushing tags does not work on a cluster.
    """
    await cache.set("a", 1, tags=["x", "y"])
    await cache.set("b", 2, tags=["y", "z"])
    await cache.set_many({"c": 3, "d": [4]}, tags=["z"])
    await cache.set("plain", 5)
    assert await cache.get_many(["a", "b", "c", "d", "plain"]) == {"a": 1, "b": 2, "c": 3, "d": [4], "plain": 5}

    assert await cache.invalidate_tags("x") == 1
    assert await cache.get("a") is None
    assert await cache.get("b") == 2

    assert await cache.invalidate_tags("z", "none") == 1
    assert await cache.get_many(["a", "b", "c", "d", "plain"]) == {"plain": 5}

    await cache.set("b", 6, tags=["y", "z"])
    assert await cache.get("b") == 6


async def test_a_tag_of_another_version_is_another_tag(cache):
    """Tags belong to prefix and version, as keys do."""
    await cache.set("a", 1, tags=["x"])
    await cache.set("a", 2, version=2, tags=["x"])

    assert await cache.invalidate_tags("x", version=2) == 1

    assert await cache.get("a") == 1
    assert await cache.get("a", version=2) is None


async def test_a_value_that_was_made_before_is_not_revived(cache):
    """A new version of the tag does not make entries valid that had the old one."""
    await cache.set("old", 1, tags=["x"])
    await cache.invalidate_tags("x")
    await cache.set("new", 2, tags=["x"])

    assert await cache.get_many(["old", "new"]) == {"new": 2}


async def test_the_versions_are_no_keys(cache):
    """Nobody lists them, and no pattern deletes them."""
    await cache.set("user:5", 1, tags=["user:5"])

    assert await cache.keys("*") == ["user:5"]
    assert await cache.delete_pattern("*x*") == 0
    assert await cache.delete_pattern("*:5x") == 0
    assert await cache.get("user:5") == 1
    await cache.set("user:6", 1, tags=["user:5"])
    assert await cache.delete_pattern("*:5") == 1
    assert await cache.get("user:6") == 1


async def test_clearing_takes_tags_along(cache):
    """After `clear` nothing of the cache is left on its server."""
    await cache.set("a", 1, tags=["x"])

    await cache.clear()

    assert await cache.get("a") is None
    assert await cache.get(cache.whole.make_key("~tag:x")) is None


async def test_add_replaces_what_was_given_up(cache):
    """An entry that is invalid is missing, so it may be added."""
    await cache.set("a", 1, tags=["x"])
    assert await cache.set("a", 2, nx=True, tags=["x"]) is False
    await cache.invalidate_tags("x")

    assert await cache.set("a", 3, nx=True, tags=["x"]) is True
    assert await cache.get("a") == 3


@pytest.mark.parametrize("version", [None, 2])
async def test_a_pipeline_gives_up_tags(cache, version):
    """In its order: what is stored behind it stays."""
    await cache.set("a", 1, version=version, tags=["x"])
    pipe = cache.pipeline()
    pipe.set("before", 1, version=version, tags=["x"]).invalidate_tags("x", version=version)
    pipe.set("behind", 2, version=version, tags=["x"]).invalidate("plain")

    results = await pipe.execute()

    assert results == [True, 1, True, False]
    assert await cache.get_many(["a", "before", "behind"], version) == {"behind": 2}


async def test_shards_hold_tags_anywhere(face, valkey, redis_debian):
    """The versions of an entry's tags are on other servers than the entry."""
    cache = Face(ShardClient([valkey.url(9), redis_debian.url(9)], params({})), face)
    keys, tags = [f"k{number}" for number in range(8)], [f"t{number}" for number in range(8)]
    await cache.set_many(dict.fromkeys(keys, 1), tags=tags)
    assert await cache.get_many(keys) == dict.fromkeys(keys, 1)

    assert await cache.invalidate_tags(*tags[:7]) == 7

    assert await cache.get_many(keys) == {}


async def test_what_is_given_up_has_no_time_left(cache):
    """Operations on its time to live, and those that move it, find nothing either."""
    await cache.set("a", 1, 60, tags=["x"])
    assert 55 <= await cache.ttl("a") <= 60
    assert await cache.touch("a", 90) is True
    await cache.invalidate_tags("x")

    assert await cache.ttl("a") == 0
    assert await cache.pttl("a") == 0
    assert await cache.get_with_ttl("a", "none") == ("none", 0)
    assert await cache.touch("a", 60) is False
    assert await cache.persist("a") is False
    pipe = cache.pipeline()
    pipe.get("a", "none").get_many(["a"]).has_key("a").ttl("a")
    assert await pipe.execute() == ["none", {}, False, 0]


async def test_an_entry_that_lives_longer_keeps_its_tags(cache):
    """Its tags live as long as it does, however its life was made longer."""
    await cache.set("a", 1, 10, tags=["x"])
    name = cache.whole.make_key("~tag:x")

    await cache.touch("a", 500)
    assert await cache.ttl(name) > 500
    await cache.persist("a")
    assert await cache.ttl(name) is None
    assert await cache.get("a") == 1


async def test_a_tagged_entry_moves_with_its_tags(cache):
    """In another version it is given up by the tag that it had when it was stored."""
    await cache.set("a", 1, tags=["x"])
    assert await cache.incr_version("a") == 2
    assert await cache.get("a", version=2) == 1

    await cache.invalidate_tags("x")

    assert await cache.get("a", version=2) is None


async def test_a_tag_is_given_up_when_the_memory_is_full(face, valkey):
    """The server refuses writes then, but deletes."""
    cache = Face(Cache(valkey.url(9), params({})), face)
    await cache.set("a", 1, tags=["x"])
    with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
        raw.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.ResponseError, match="OOM"):
                await cache.set("b", 1)
            assert await cache.invalidate_tags("x") == 1
            assert await cache.get("a") is None
        finally:
            raw.config_set("maxmemory", 0)


@pytest.mark.parametrize("tags", [("",), (5,), (b"x",)])
async def test_no_tags(cache, tags):
    """What names no tag is refused; no tags at all are none."""
    with pytest.raises((TypeError, ValueError), match="^tags"):
        await cache.invalidate_tags(*tags)
    assert await cache.invalidate_tags() == 0


async def test_without_the_right_to_scripts(face, valkey):
    """Versions are made by `SET NX GET`, and live as long."""
    with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
        raw.acl_setuser(
            "noscripts", enabled=True, passwords=["+p0"], keys=["*"], commands=["+@all", "-eval", "-evalsha"]
        )
    cache = Face(
        Cache(valkey.url(9), params({"USERNAME": "noscripts", "PASSWORD": "p0", "IGNORE_EXCEPTIONS": True})), face
    )
    await cache.set("a", 1, 10, tags=["x"])
    await cache.set("b", 1, 50, tags=["x", "y"])

    assert await cache.get_many("ab") == {"a": 1, "b": 1}
    assert 90 < await cache.ttl(cache.whole.make_key("~tag:x")) <= 100
    await cache.set("c", 1, None, tags=["x"])
    assert await cache.ttl(cache.whole.make_key("~tag:x")) is None
    assert await cache.invalidate_tags("x") == 1
    assert await cache.get_many("abc") == {}


# --- servers that are away ------------------------------------------------------------------------


def away(proxy: FaultProxy) -> None:
    """Let no connection reach the server."""
    proxy.repoint("/nowhere/server.sock")


async def test_an_invalidation_is_never_ignored(face, valkey):
    """It raises with IGNORE_EXCEPTIONS too; else old values would be served after the outage."""
    with FaultProxy(valkey.socket) as proxy:
        cache = Face(Cache(proxy.url(), params({"IGNORE_EXCEPTIONS": True, **HASTY})), face)
        await cache.set("a", 1, tags=["x"])
        away(proxy)

        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            await cache.invalidate_tags("x")

        assert await cache.set("b", 1, tags=["x"]) is False
        assert await cache.set_many({"b": 1}, tags=["x"]) == ["b"]


async def test_an_invalidation_is_sent_later(face, valkey):
    """Until the server has it, the tags are invalid in this process; then everywhere."""
    other = Cache(valkey.url(), params({"KEY_PREFIX": "later"}))
    with FaultProxy(valkey.socket) as proxy:
        cache = Face(Cache(proxy.url(), params({"KEY_PREFIX": "later", **HASTY})), face)
        await cache.set("a", 1, tags=["x"])
        away(proxy)
        assert await cache.invalidate_tags("x", later=True) == 0
        assert OWED.among(["later:1:~tag:x"])
        assert cache.whole.info()["loading"]["owed_tags"] == 1
        assert other.get("a") is None  # although its server is there

        proxy.repoint(valkey.socket)
        until = time.monotonic() + 20
        while OWED.names and time.monotonic() < until:
            time.sleep(0.01)

    assert OWED.names == {}
    assert complete(other._still._versions(["x"])) == {"x": None}
    assert other.set("a", 2, tags=["x"]) is True
    assert other.get("a") == 2


async def test_the_list_of_what_is_owed_is_bounded(face, valkey, monkeypatch):
    """What does not fit raises, and is not forgotten silently."""
    owed = Owed()
    monkeypatch.setattr(invalidation, "OWED", owed)
    monkeypatch.setattr("fleetcache.owed.MOST", 2)
    with FaultProxy(valkey.socket) as proxy:
        cache = Face(Cache(proxy.url(), params(HASTY)), face)
        away(proxy)
        await cache.invalidate_tags("x", "y", later=True)
        await cache.invalidate_tags("x", later=True)

        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            await cache.invalidate_tags("z", later=True)

        assert len(owed.names) == 2
        owed.end()


async def test_a_refusal_is_not_owed(face, valkey):
    """A user without the right to a tag would wait for ever."""
    with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
        raw.acl_setuser("nodel", enabled=True, passwords=["+p0"], keys=["*"], commands=["+@all", "-del"])
    cache = Face(Cache(valkey.url(9), params({"USERNAME": "nodel", "PASSWORD": "p0", "IGNORE_EXCEPTIONS": True})), face)

    with pytest.raises(redis.exceptions.NoPermissionError):
        await cache.invalidate_tags("x", later=True)

    assert OWED.names == {}


# --- one key --------------------------------------------------------------------------------------


async def soft(cache, value: object, *, fresh: int = 60_000, stale: int = 60_000, tags: tuple = ()) -> str:
    """Store *value* with a stale life, as a loading call does; return its name."""
    whole = cache.whole
    name = whole.make_key("a")
    now = await now_of(cache, name)
    metadata = Metadata(now + fresh, stale, tags=tags)
    payload = whole.codec.describe(value, metadata)
    whole.topology.home(name).exchange([(invalidation.c.SET, name, payload, "PX", fresh + stale)])
    return name


async def now_of(cache, name: str) -> int:
    ((seconds, microseconds),) = cache.whole.topology.home(name).exchange([(invalidation.c.TIME,)])
    return int(seconds) * 1000 + int(microseconds) // 1000


def stored(cache, name: str):
    (payload,) = cache.whole.topology.home(name).exchange([(invalidation.c.GET_NOW, name)])
    return payload


async def test_an_entry_is_deleted(cache):
    """Without *soft* it is `delete`, with its lease."""
    await cache.set("a", 1)
    lease(cache, cache.whole.make_key("a"), b"held")

    assert await cache.invalidate("a") is True
    assert await cache.invalidate("a") is False

    assert await cache.get("a") is None
    assert lease(cache, cache.whole.make_key("a")) is None


async def test_a_soft_invalidation_leaves_the_stale_value(cache):
    """The entry is missing for `get`, keeps its time to live and value, and has another stamp."""
    name = await soft(cache, {"made": 1})
    before, _ = opened(stored(cache, name))
    lease(cache, name, b"held")
    assert await cache.get("a") == {"made": 1}

    assert await cache.invalidate("a", soft=True) is True

    after, _ = opened(stored(cache, name))
    assert await cache.get("a") is None
    assert cache.whole.codec.decode(stored(cache, name)).value == {"made": 1}
    assert after.fresh_until <= await now_of(cache, name)
    assert (after.stale, after.tags) == (before.stale, before.tags)
    assert after.stamp != before.stamp
    assert 110_000 < await cache.pttl(CacheKey(name)) or await cache.pttl(CacheKey(name)) == 0
    assert lease(cache, name) is None


async def test_a_stale_entry_is_given_up_softly(cache):
    """What began to renew it before is not stored, and its stale life does not begin anew."""
    name = await soft(cache, "old", fresh=-5000)
    before, _ = opened(stored(cache, name))

    assert await cache.invalidate("a", soft=True) is True

    after, _ = opened(stored(cache, name))
    assert after.fresh_until == before.fresh_until
    assert after.stamp != before.stamp


@pytest.mark.parametrize("kind", ["missing", "plain", "tagged", "integer"])
async def test_without_a_stale_life_a_soft_invalidation_is_a_hard_one(cache, kind):
    """There is nothing that could be served, and what is being loaded is not stored either."""
    await (cache.set("a", 5, tags=["x"]) if kind == "tagged" else cache.set("a", 5 if kind == "integer" else "five"))
    if kind == "missing":
        await cache.delete("a")
    name = cache.whole.make_key("a")
    lease(cache, name, b"held")

    assert await cache.invalidate("a", soft=True) is (kind != "missing")

    assert stored(cache, name) is None
    assert lease(cache, name) is None


async def test_a_newer_value_is_given_up_in_place_of_an_older(face, monkeypatch):
    """If another caller stores between reading and swapping, his value is given up instead."""
    cache = Face(Cache("memory://swapped", params({})), face)
    name = await soft(cache, "old")
    server = memory_server("swapped")
    exchange, raced = server.exchange, []

    def racing(commands):
        replies = exchange(commands)
        if commands[0][0] is invalidation.c.GET_NOW and not raced:
            raced.append(1)
            payload = cache.whole.codec.describe("new", Metadata(2**45, 60_000))
            exchange([(invalidation.c.SET, name, payload, "PX", 60_000)])
        return replies

    monkeypatch.setattr(server, "exchange", racing)
    assert await cache.invalidate("a", soft=True) is True

    assert raced
    assert cache.whole.codec.decode(stored(cache, name)).value == "new"
    assert await cache.get("a") is None


def test_faces() -> None:
    """Both faces have both operations."""
    assert AWAITING
    assert {"invalidate", "ainvalidate", "invalidate_tags", "ainvalidate_tags"} <= set(dir(Cache))
