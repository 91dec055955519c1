"""The tokens of locks grow, so that a store can refuse a writer whose lock is another's by now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.keys import LAST_NUMBER, last_number
from fleetcache.topology.cluster import slot_of

DAY = 86_400_000_000
"""A day in microseconds."""
_users = count()


async def holders(cache: Any, times: int, **arguments: Any) -> list[bytes]:
    """Let *times* holders have the lock, one after another, and return their tokens."""
    tokens = []
    for _ in range(times):
        lock = cache.lock("lock", timeout=10, **arguments)
        assert await lock.acquire(blocking=False) is True
        tokens.append(lock.token)
        await lock.release()
    return tokens


def number(token: bytes) -> int:
    return int(token[:16], 16)


def grow(tokens: list[bytes]) -> bool:
    """Whether each token is above the one before, as bytes and as a number."""
    numbers = [*map(number, tokens)]
    return tokens == sorted(set(tokens)) and numbers == sorted(set(numbers))


def last(cache: Any, *command: Any) -> Any:
    """Run *command*, which lacks its key, on the number of the last token of the lock."""
    name = last_number(cache.make_key("lock")) if cache.topology.one_by_one else LAST_NUMBER
    verb, *arguments = command
    (reply,) = cache.topology.home(name).exchange([(verb, name, *arguments)])
    return reply


@pytest.mark.also(server="oldest")
async def test_tokens_grow_with_every_holder(cache):
    """Each holder's token is above all that were before, and is a text of 32 digits."""
    tokens = await holders(cache, 20)

    assert grow(tokens)
    assert {len(token) for token in tokens} == {32}
    assert abs(number(tokens[-1]) / 1e6 - time.time()) < 60
    assert 6 * DAY / 1000 < last(cache, c.PTTL) <= 7 * DAY / 1000


async def test_tokens_grow_while_the_clock_is_behind(cache):
    """The last number is remembered, so a clock that stepped back does not matter."""
    (before,) = await holders(cache, 1)
    last(cache, c.SET, b"%016x" % (number(before) + DAY))
    try:
        tokens = await holders(cache, 5)
    finally:
        last(cache, c.DEL)

    assert [number(token) - number(before) - DAY for token in tokens] == [1, 2, 3, 4, 5]


async def test_tokens_grow_when_the_last_number_is_lost(cache):
    """If the last number is evicted, or is none, the server's clock is ahead of it anyway."""
    tokens = await holders(cache, 3)
    assert last(cache, c.DEL) == 1
    await asyncio.sleep(0.01)  # the clock of memory:// counts milliseconds
    tokens += await holders(cache, 3)
    last(cache, c.SET, b"zzzz" * 4)
    await asyncio.sleep(0.01)
    tokens += await holders(cache, 3)

    assert grow(tokens)


async def test_locks_of_one_server_share_a_number(cache):
    """However many names are locked, one key remembers the last number; in a cluster one in each slot."""
    names = [f"{{same}}{number}" for number in range(10)]
    tokens = []
    for name in names:
        async with cache.lock(name, timeout=10) as lock:
            tokens.append(lock.token)

    assert grow(tokens)
    assert len({last_number(cache.make_key(name)) for name in names}) == 1


@pytest.mark.parametrize("name", ["plain", "a{b}c", "{}odd", "{}{x}", "{open", "}closed", "", "ünï{cö}de", "{a}{b}"])
def test_the_number_is_in_the_slot_of_the_lock(name):
    """A script may use both keys."""
    assert slot_of(last_number(name)) == slot_of(name)


# --- servers that refuse --------------------------------------------------------------------------


@pytest.fixture
def restricted(valkey) -> Iterator[Any]:
    """Make caches as a user with certain rights."""
    admin, users = redis.Redis.from_url(valkey.url()), []

    def make(*rules: str) -> Cache:
        user = f"locker{next(_users)}"
        users.append(user)
        admin.acl_setuser(user, enabled=True, passwords=["+p"], reset=True)
        admin.execute_command("ACL", "SETUSER", user, *rules)
        options = {"USERNAME": user, "PASSWORD": "p"}
        return Cache(valkey.tcp_url(), {"KEY_PREFIX": user, "OPTIONS": options})

    yield make
    admin.acl_deluser(*users)
    admin.close()


NARROW = {
    "its own keys": ("~locker*", "+@all"),
    "no time": ("~*", "+@all", "-time"),
    "no get": ("~*", "+@all", "-get"),
}


@pytest.mark.parametrize("rules", NARROW.values(), ids=NARROW)
async def test_a_user_with_narrow_rights(restricted, face, rules, caplog):
    """Who may not touch the last number, or not ask the time, has locks with tokens that grow as a clock does."""
    cache = Face(restricted(*rules), face)
    tokens = []
    for _ in range(5):
        lock = cache.lock("lock", timeout=10)
        assert await lock.acquire(blocking=False) is True
        assert await cache.lock("lock", timeout=10).acquire(blocking=False) is False
        tokens.append(lock.token)
        released = await settled(lock.release())
        assert released is None or ("-get" in rules and await cache.delete("lock"))

    assert grow(tokens)
    assert [record.event for record in caplog.records if record.name == "fleetcache.locks"] == ["tokens"]


async def test_a_user_without_scripts(restricted, face):
    """Without scripts a lock is taken by SET; to release it needs a script, as with redis-py."""
    cache = Face(restricted("~*", "+@all", "-@scripting"), face)
    lock = cache.lock("lock", timeout=10)

    assert await lock.acquire(blocking=False) is True
    assert len(lock.token) == 32
    assert await lock.owned() is True
    assert await cache.lock("lock", timeout=10).acquire(blocking=False) is False
    with pytest.raises(NoPermissionError):
        await lock.release()
    await cache.delete("lock")


async def test_a_server_that_refuses_is_not_asked_each_time(restricted, valkey):
    """What a server refused is not asked of it with every lock."""
    cache = restricted("~locker*", "+@all")
    await holders(Face(cache, "blocking"), 5)

    admin = redis.Redis.from_url(valkey.url())
    refused = [entry for entry in admin.acl_log() if entry["username"] == cache.key_prefix]
    admin.close()
    assert sum(entry["count"] for entry in refused if entry["object"] == LAST_NUMBER) == 1


async def test_a_lock_in_a_slot_that_moves(valkey_cluster, face):
    """While its slot moves to another node a lock can be had, once, and its tokens grow."""
    cache = Face(Cache(valkey_cluster.url(), {"KEY_PREFIX": f"moving-{face}"}), face)
    tokens = await holders(cache, 2)
    slot = slot_of(cache.make_key("lock"))
    there = next(node for node in valkey_cluster.primaries if node is not valkey_cluster.owner(slot))
    with valkey_cluster.moving(slot, there):
        tokens += await holders(cache, 2)
        async with cache.lock("lock", timeout=10) as lock:
            assert await cache.lock("lock", timeout=10).acquire(blocking=False) is False
            tokens.append(lock.token)
    tokens += await holders(cache, 2)

    assert grow(tokens)


async def test_a_lock_through_a_client_of_the_caller(valkey, face):
    """A client of the caller's takes locks with the same tokens; a pipeline, which replies later, with its own."""
    cache = Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": f"through-{face}"}), face)
    with redis.Redis.from_url(valkey.url()) as client:
        blocking = Face(cache.whole, "blocking")
        tokens = [*await holders(cache, 1), *await holders(blocking, 2, client=client), *await holders(cache, 1)]
        assert grow(tokens)

        pipe = client.pipeline(transaction=False)
        lock = blocking.lock("lock", timeout=10, client=pipe)
        assert await lock.acquire() is True
        pipe.execute()
        assert client.get(cache.make_key("lock")) == lock.token
        client.delete(cache.make_key("lock"))
