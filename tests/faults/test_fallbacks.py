"""With IGNORE_EXCEPTIONS a dead server stops no page: every public method has a value to return, and no count that is wrong."""

from __future__ import annotations

import inspect
import logging
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import LockError
from tests.faces import Face, settled
from tests.operations import ABSENT, PAGES

from fleetcache import Cache
from fleetcache.client import HerdClient, ShardClient
from fleetcache.errors import ServerGone

from .deadlines import HASTY, LIMIT, SLACK

pytestmark = pytest.mark.timeout(30)


def operations(kind: type) -> set[str]:
    """Return the names of all public methods that have an awaiting face."""
    names = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    return {name for name in names if f"a{name}" in names} - {"lock", "invalidate_tags"}  # which is never ignored


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
    with pytest.raises(LockError, match=f"the server is away or refused: .*{urlsplit(nowhere).port}"):
        async with lock:
            pass


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
