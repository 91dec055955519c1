"""With IGNORE_EXCEPTIONS a dead server stops no page: every public method has a value to return, and no count that is wrong."""

from __future__ import annotations

import inspect
import logging
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache.client import HerdClient, ShardClient
from fleetcache.errors import ServerGone

from .load import HASTY, LIMIT, SLACK

pytestmark = pytest.mark.timeout(30)

PAGES = {"iter_keys", "sscan_iter"}
"""Operations that yield."""

ABSENT: dict[str, tuple[tuple[Any, ...], Any]] = {
    "add": (("a", 1), False),
    "clear": ((), None),
    "close": ((), None),
    "decr": (("a",), None),
    "decr_version": (("a",), None),
    "delete": (("a",), False),
    "delete_many": (["ab"], None),
    "delete_pattern": (("a*",), None),
    "expire": (("a", 1), False),
    "expire_at": (("a", datetime.now(UTC)), False),
    "fence": ((), None),
    "get": (("a", "default"), "default"),
    "get_many": (["ab"], {}),
    "get_or_set": (("a", lambda: "made"), "made"),
    "get_with_ttl": (("a", "default"), ("default", 0)),
    "has_key": (("a",), False),
    "hdel": (("a", "f"), 0),
    "hexists": (("a", "f"), False),
    "hget": (("a", "f", "default"), "default"),
    "hgetall": (("a",), {}),
    "hincrby": (("a", "f"), None),
    "hkeys": (("a",), []),
    "hlen": (("a",), None),
    "hmget": (("a", ["f", "g"]), [None, None]),
    "hset": (("a", "f", 1), 0),
    "hsetnx": (("a", "f", 1), False),
    "hvals": (("a",), []),
    "incr": (("a",), None),
    "incr_version": (("a",), None),
    "iter_keys": (("*",), []),
    "keys": (("*",), []),
    "lindex": (("a", 0), None),
    "llen": (("a",), None),
    "lpop": (("a",), None),
    "lpush": (("a", 1), None),
    "lrange": (("a", 0, -1), []),
    "lrem": (("a", 0, 1), 0),
    "lset": (("a", 0, 1), False),
    "ltrim": (("a", 0, 1), False),
    "persist": (("a",), False),
    "pexpire": (("a", 1), False),
    "pexpire_at": (("a", datetime.now(UTC)), False),
    "pttl": (("a",), 0),
    "rpop": (("a", 2), []),
    "rpush": (("a", 1), None),
    "sadd": (("a", 1), 0),
    "scan": ((), (0, [])),
    "scard": (("a",), None),
    "sdiff": (("a", "b"), set()),
    "sdiffstore": (("a", "b"), None),
    "set": (("a", 1), False),
    "set_many": (({"a": 1, "b": 2},), ["a", "b"]),
    "sinter": (("a", "b"), set()),
    "sinterstore": (("a", "b"), None),
    "sismember": (("a", 1), False),
    "smembers": (("a",), set()),
    "smismember": (("a", 1, 2), [False, False]),
    "smove": (("a", "b", 1), False),
    "spop": (("a", 2), set()),
    "srandmember": (("a", 2), []),
    "srem": (("a", 1), 0),
    "sscan": (("a",), set()),
    "sscan_iter": (("a",), []),
    "sunion": (("a", "b"), set()),
    "sunionstore": (("a", "b"), None),
    "touch": (("a",), False),
    "ttl": (("a",), 0),
    "zadd": (("a", {"m": 1}), 0),
    "zcard": (("a",), None),
    "zcount": (("a", 0, 1), None),
    "zincrby": (("a", 1.5, "m"), None),
    "zpopmax": (("a",), None),
    "zpopmin": (("a", 2), []),
    "zrange": (("a", 0, -1), []),
    "zrangebyscore": (("a", 0, 1), []),
    "zrank": (("a", "m"), None),
    "zrem": (("a", "m"), 0),
    "zremrangebyrank": (("a", 0, 1), 0),
    "zremrangebyscore": (("a", 0, 1), 0),
    "zrevrange": (("a", 0, -1), []),
    "zrevrangebyscore": (("a", 1, 0), []),
    "zrevrank": (("a", "m"), None),
    "zscore": (("a", "m"), None),
}
"""Arguments for each operation, and what it returns while the server is away."""


def operations(kind: type) -> set[str]:
    """Return the names of all public methods that have an awaiting face."""
    names = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    return {name for name in names if f"a{name}" in names} - {"lock"}


def careless(url: str, kind: type = Cache, **options: Any) -> Any:
    return kind(url, {"OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": True, **options}})


async def result(cache: Face, name: str) -> Any:
    arguments, _ = ABSENT[name]
    found = getattr(cache, name)(*arguments)
    return [item async for item in found] if name in PAGES else await found


def test_no_operation_is_forgotten():
    """The table above has every operation that there is."""
    assert ABSENT.keys() == operations(Cache)


@pytest.mark.parametrize("kind", [Cache, HerdClient, ShardClient])
@pytest.mark.parametrize("name", ABSENT)
async def test_a_dead_server_is_an_empty_one(nowhere, face, kind, name):
    """The value is what a page can go on with, and a count is none at all."""
    if kind is HerdClient and name in {"incr", "decr"}:
        return  # it cannot count
    cache = Face(careless(nowhere, kind), face)

    found = await result(cache, name)

    expected = ABSENT[name][1]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("option", ["left out", "set, but client"])
async def test_without_the_option_each_method_raises(nowhere, face, option):
    """Nobody takes a dead server for an empty one unasked, nor by way of django-redis' ``cache.client``."""
    whole = Cache(nowhere, {"OPTIONS": HASTY}) if option == "left out" else careless(nowhere).client
    cache = Face(whole, face)

    for name in ABSENT.keys() - {"close", "fence"}:  # which have nothing to say to a server, or never raise
        error = await settled(result(cache, name))
        assert isinstance(error, ServerGone), name
        assert nowhere.partition("//")[2] in str(error), name


async def test_variants_with_other_types(nowhere, face):
    """What an argument makes another type of, falls back to that type."""
    cache = Face(careless(nowhere), face)

    assert await cache.lpop("a", 2) == []
    assert await cache.spop("a") is None
    assert await cache.srandmember("a") is None
    assert await cache.zpopmax("a", 2) == []
    assert await cache.zadd("a", {"m": 1}, incr=True) is None
    assert await cache.zrank("a", "m", withscore=True) is None
    assert await cache.zrange("a", 0, -1, withscores=True) == []
    assert await cache.incr("a", 1.5) is None
    assert await cache.incr("a", default=5) is None
    assert await cache.set("a", 1, nx=True) is False
    assert await cache.get_many([]) == {}


async def test_pipelines_and_locks(nowhere, face):
    """A pipeline's results are the operations' own fallbacks; a lock cannot be had, and says so."""
    cache = Face(careless(nowhere), face)
    pipe = cache.pipeline()
    pipe.set("a", 1).get("a", "default").get_many("ab").incr("a").hgetall("h")

    assert await pipe.execute() == [False, "default", {}, None, {}]
    transaction = cache.pipeline(transaction=True)
    transaction.set("a", 1).get("a")
    assert await transaction.execute() == [False, None]
    lock = cache.lock("lock", timeout=5, blocking_timeout=0.1)
    assert await lock.acquire() is False
    assert await lock.locked() is False
    assert await lock.owned() is False


async def test_the_whole_table_in_a_stopped_server(face, mortal):
    """With the server stopped all methods together wait for three timeouts at most."""
    cache = Face(careless(mortal.tcp_url()), face)
    await cache.set("b", 1)
    mortal.pause()
    started = time.monotonic()

    for name, (_, expected) in ABSENT.items():
        assert await result(cache, name) == expected, name

    took = time.monotonic() - started
    mortal.resume()
    # Every cooldown of a second, one more call tries.
    assert took <= 4 * LIMIT + SLACK


async def test_a_refusal_is_ignored_and_logged(face, mortal, caplog):
    """What the server refuses is ignored too; each failure is logged where LOGGER says, if asked."""
    quiet = Face(careless(mortal.tcp_url()), face)
    loud = Face(careless(mortal.tcp_url(), LOG_IGNORED_EXCEPTIONS=True, LOGGER="site.cache"), face)
    await quiet.rpush("list", 1)
    caplog.set_level(logging.DEBUG)

    assert await quiet.get("list", "default") == "default"
    assert caplog.records == []
    assert await loud.get("list", "default") == "default"
    assert [record.name for record in caplog.records] == ["site.cache"]
    assert "WRONGTYPE" in caplog.text


async def test_an_outage_is_logged_once(face, mortal, caplog):
    """A hundred ignored calls and one outage make one line, and its end another, and no more."""
    cache = Face(careless(mortal.tcp_url(), BREAKER_COOLDOWN=0.1), face)
    await cache.set("a", 1)
    mortal.kill()

    for _ in range(100):
        assert await cache.get("a", "default") == "default"
        assert await cache.incr("a") is None
    mortal.restart()
    time.sleep(0.1)
    assert await cache.set("a", 1) is True

    ours = [record for record in caplog.records if record.name.startswith("fleetcache")]
    assert [record.event for record in ours] == ["outage", "recovery"]


async def test_each_ignored_failure_is_logged_if_asked(nowhere, face, caplog):
    """With LOG_IGNORED_EXCEPTIONS each is one record, as in django-redis: "Exception ignored", an error, with its traceback."""
    cache = Face(careless(nowhere, LOG_IGNORED_EXCEPTIONS=True, LOGGER="site.cache"), face)

    await cache.get("a")
    await cache.set_many({"a": 1, "b": 2})
    await cache.incr("a")

    records = [record for record in caplog.records if record.name == "site.cache"]
    assert [(record.levelname, record.getMessage()) for record in records] == [("ERROR", "Exception ignored")] * 3
    assert all(isinstance(record.exc_info[1], ServerGone) for record in records)


async def test_a_wrong_password_is_ignored_and_logged(face, mortal, caplog):
    """A password that is refused is a refusal: ignored, and logged without the password."""
    url = mortal.tcp_url().replace("//", "//:s3cr3t@")
    cache = Face(careless(url, LOG_IGNORED_EXCEPTIONS=True), face)
    raw = Cache(mortal.tcp_url()).get_client()
    raw.config_set("requirepass", "other")
    raw.close()

    assert await cache.get("a", "default") == "default"

    assert "refused the password" in caplog.text
    assert "s3cr3t" not in caplog.text
