"""What others write ends the copies here: after a fence at once, and otherwise before the lease is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from tests.waiting import eventually, until

from fleetcache import Cache
from fleetcache.testing import redis_server, valkey_server
from fleetcache.testing.servers import EmbeddedServer

from .conftest import Copies, copied, copy, one_face

pytestmark = pytest.mark.alone

LUA = "return redis.call('SET', KEYS[1], ARGV[1])"


def multi(raw: redis.Redis, name: str) -> None:
    with raw.pipeline(transaction=True) as pipe:
        pipe.set(name, 2).incr(name).execute()


FOREIGN: dict[str, Callable[[redis.Redis, str], Any]] = {
    "SET": lambda raw, name: raw.set(name, 2),
    "SET PX": lambda raw, name: raw.set(name, 2, px=100_000),
    "GETSET": lambda raw, name: raw.getset(name, 2),
    "DEL": lambda raw, name: raw.delete(name),
    "UNLINK": lambda raw, name: raw.unlink(name),
    "GETDEL": lambda raw, name: raw.getdel(name),
    "INCR": lambda raw, name: raw.incr(name),
    "APPEND": lambda raw, name: raw.append(name, "0"),
    "SETRANGE": lambda raw, name: raw.setrange(name, 0, "7"),
    "EXPIRE": lambda raw, name: raw.pexpire(name, 100_000),
    "EXPIRE at once": lambda raw, name: raw.pexpire(name, -1),
    "PERSIST": lambda raw, name: raw.persist(name),
    "RENAME away": lambda raw, name: raw.rename(name, "elsewhere"),
    "RENAME here": lambda raw, name: [raw.set("elsewhere", 2), raw.rename("elsewhere", name)],
    "COPY": lambda raw, name: [raw.set("elsewhere", 2), raw.copy("elsewhere", name, replace=True)],
    "RESTORE": lambda raw, name: raw.restore(name, 0, raw.dump(name), replace=True),
    "MOVE": lambda raw, name: raw.move(name, 15),
    "Lua": lambda raw, name: raw.eval(LUA, 1, name, 2),
    "MULTI": multi,
    "FLUSHDB": lambda raw, name: raw.flushdb(),
    "FLUSHALL": lambda raw, name: raw.flushall(),
    "another cache": lambda raw, name: Cache(raw.path, {"KEY_PREFIX": name.split(":")[0]}).set("key", 2),
}


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server that may be flushed, and told to forget."""
    kind = valkey_server if request.param == "valkey" else redis_server
    with kind(arguments=["--enable-debug-command", "yes"]) as server:
        yield server


@pytest.fixture
def copies(server: EmbeddedServer, face: str) -> Iterator[Copies]:
    copies = Copies(server, face)
    yield copies
    copies.close()


@pytest.fixture
def raw(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url(9)) as client:
        client.path = server.url(9)
        yield client
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)
        client.flushall()


@pytest.fixture
def asked(raw: redis.Redis) -> None:
    """The counts of the other server do not matter here."""


async def test_foreign_writes(near, raw):
    """However another program changes an entry, a read behind a fence sees it."""
    name = near.make_key("key")
    for what, write in FOREIGN.items():
        await near.set("key", 1, 1000)
        assert await copied(near, "key") == 1, what
        entry = copy(near, name)

        write(raw, name)
        await near.fence()

        assert near.near.copy(name) is not entry, what
        payload = raw.get(name)
        assert await near.get("key") == (None if payload is None else int(payload)), what


async def test_an_entry_that_was_missing(near, raw):
    """That something is there now is announced as well."""
    assert await copied(near, "key") is None

    raw.set(near.make_key("key"), 1)
    await near.fence()

    assert await near.get("key") == 1
    assert await near.has_key("key") is True


async def test_without_a_fence(near, raw):
    """Reads alone find out, long before the lease is over."""
    await near.set("key", 0)
    for number in range(20):
        await copied(near, "key")
        began = time.monotonic()

        raw.set(near.make_key("key"), number)
        await eventually(lambda: near.get("key"), number)

        assert time.monotonic() - began < 1


async def test_a_hit_sees_what_was_written_a_millisecond_ago(near, raw):
    """A reader looks for announcements itself, even if the thread that waits for them is not let in."""
    await near.set("key", 0)
    await copied(near, "key")
    listener = next(iter(near.near.listeners.values()))
    listener._catch_up = lambda: time.sleep(0.001)  # the thread reads nothing more

    for number in range(1, 10):
        raw.set(near.make_key("key"), number)
        time.sleep(0.002)
        assert await near.get("key") == number
        copy(near, near.make_key("key"))


async def test_expiry(near, raw):
    """A copy does not outlive its entry, on a server that never gets around to removing it either."""
    raw.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    name = near.make_key("key")
    raw.set(name, 1, px=150)
    written = time.monotonic()
    assert await near.get("key") == 1
    hits = near.near.store.hits

    while await near.get("key") == 1:
        assert time.monotonic() - written < 0.3

    assert near.near.store.hits > hits  # it was near all the while
    assert time.monotonic() - written >= 0.14
    assert raw.exists(name) == 0


@one_face
async def test_expiry_of_what_was_read_with_others(near, raw):
    """`get_many` asks for each time to live too."""
    raw.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    raw.set(near.make_key("a"), 1, px=150)
    await near.set("b", 2, None)
    await copied(near, "b")
    written = time.monotonic()

    while await near.get_many(["a", "b"]) == {"a": 1, "b": 2}:
        assert time.monotonic() - written < 0.3

    assert await near.get_many(["a", "b"]) == {"b": 2}
    assert await near.get("a") is None


@one_face
async def test_a_life_that_was_cut_short(near, raw):
    """EXPIRE on an entry that was read before bounds the copy that is read after it."""
    raw.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    await near.set("key", 1, 1000)
    await copied(near, "key")

    raw.pexpire(near.make_key("key"), 150)
    cut = time.monotonic()
    await near.fence()
    assert await near.get("key") == 1
    while await near.get("key") == 1:
        assert time.monotonic() - cut < 0.3


@one_face
async def test_eviction(near, raw):
    """What the server throws out for want of memory is not served any more."""
    await near.set("key", "value", 1000)
    await copied(near, "key")
    used = raw.info("memory")["used_memory"]
    raw.config_set("maxmemory-policy", "volatile-random")
    raw.config_set("maxmemory", used + 100_000)
    try:
        with suppress(redis.exceptions.OutOfMemoryError):
            while raw.exists(near.make_key("key")):
                raw.setrange("filler", raw.strlen("filler") + 20_000, "x")
        assert raw.exists(near.make_key("key")) == 0
        await near.fence()

        assert await near.get("key") is None
    finally:
        raw.config_set("maxmemory", 0)


@one_face
async def test_another_database(near, raw, server):
    """Tracking knows no databases: the same name in another one costs a copy, and changes nothing."""
    await near.set("key", "here")
    await copied(near, "key")
    with redis.Redis.from_url(server.url(8)) as other:
        other.set(near.make_key("key"), 1)
        await near.fence()
        assert await near.get("key") == "here"
        await copied(near, "key")
        other.flushdb()
        await near.fence()

    assert await near.get("key") == "here"
    assert near.near.stats()["epochs"].get("flush", 0) >= 1


@one_face
async def test_a_busy_server(near, raw):
    """What a script that runs for long keeps everybody from is no refusal of announcements: they are live again after it."""
    await near.set("key", 1)
    await copied(near, "key")
    raw.config_set("busy-reply-threshold", 20)
    raw.eval(
        "local t = redis.call('TIME'); local till = t[1] * 1000000 + t[2] + 450000;"
        "repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > till",
        0,
    )

    until(lambda: near.near.state != "off" and near.whole.get("key") == 1 and near.near.state == "live", 3)


async def test_a_time_to_live_that_is_refused(server, copies, raw):
    """A refusal in place of the time to live leaves no copy, and fails no read."""
    raw.execute_command("ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all")
    near = copies(USERNAME="bob", PASSWORD="secret")
    await near.set("key", 1)
    await near.fence()
    raw.execute_command("ACL", "SETUSER", "bob", "-pttl")

    assert [await near.get("key") for _ in range(3)] == [1, 1, 1]
    assert near.near.state == "live"
