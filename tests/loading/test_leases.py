"""Loads in a fleet: leases, fills and voids, with caches that share nothing but the server."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError
from tests.caches import own_prefix, params
from tests.faces import AWAITING, Face, settled
from tests.loading.entries import called, put
from tests.loading.gates import Gated, calling, joined, two_processes, until

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import HerdClient, ShardClient
from fleetcache.keys import lease_name
from fleetcache.loading import leading
from fleetcache.owed import OWED
from fleetcache.policy import Policy
from fleetcache.testing.proxy import FaultProxy


async def lease_of(cache: Face, key: str) -> bytes | None:
    """Return the lease of *key*."""
    name = cache.name(key)
    return cache.topology.home(name).exchange(((c.GET_NOW, lease_name(name)),))[0]


def stored(cache: Face, key: str) -> bytes | None:
    """Return the payload of *key* on the server."""
    name = cache.name(key)
    return cache.topology.home(name).exchange(((c.GET_NOW, name),))[0]


async def waits(cache: Face) -> None:
    """Wait until a leader of *cache* has found that another process holds the lease."""
    await until(lambda: cache.whole.stats.waited)


# --- one load in the fleet --------------------------------------------------------------------------


async def test_one_load_in_the_fleet(make):
    """Another process waits for the value, and gets it.

    Laravel PR#60920, #61303: nothing protects a cold miss.
    """
    one, two = two_processes(make)
    load, other = Gated({"made": 1}), Gated("other", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    second = calling(two, "get_or_set", "key", other.of(two))
    await waits(two)
    assert await lease_of(one, "key") is not None
    load.gate.set()

    assert await asyncio.gather(first, second) == [{"made": 1}, {"made": 1}]
    assert other.calls == 0
    assert await lease_of(one, "key") is None
    assert await one.ttl("key") in {299, 300}


async def test_the_next_process_loads_after_a_failure(make):
    """A loader that fails frees the lease at once; whoever waits in another process tries."""
    one, two = two_processes(make)
    load, other = Gated(LookupError("away")), Gated("other", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    second = calling(two, "get_or_set", "key", other.of(two))
    await waits(two)
    load.gate.set()

    assert isinstance(await settled(first), LookupError)
    assert await second == "other"
    assert other.calls == 1


async def test_a_cancelled_leader_frees_the_lease(make):
    """Whoever waits in another process loads at once, and not when the lease ends."""
    one, two = two_processes(make)
    if one.face != AWAITING:
        pytest.skip("threads are not cancelled")
    load, other = Gated("made"), Gated("other", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    second = calling(two, "get_or_set", "key", other.of(two))
    await waits(two)
    first.cancel()

    assert await asyncio.wait_for(second, 3) == "other"


async def test_a_leader_that_is_slow(make):
    """After its lease another process takes over; what the slow one loads is stored all the same, if it is first."""
    one, two = two_processes(make)
    slow, other = Gated("slow"), Gated("taken over")
    first = calling(one, "get_or_set", "key", slow.of(one), lease=0.05)
    await slow.entered()
    second = calling(two, "get_or_set", "key", other.of(two), lease=0.05, wait=4)
    await other.entered()
    slow.gate.set()

    assert await first == "slow"
    assert await one.get("key") == "slow"
    other.gate.set()
    assert await second in {"slow", "taken over"}
    assert await one.get("key") == "slow"


async def test_impatient_callers_load_together(make):
    """Those of a process who lose patience with another process start one load."""
    one, two = two_processes(make)
    slow, other = Gated("slow"), Gated("impatient")
    first = calling(one, "get_or_set", "key", slow.of(one))
    await slow.entered()
    others = [calling(two, "get_or_set", "key", other.of(two), wait=0.1) for _ in range(5)]
    await joined(two, 4)
    await other.entered()
    other.gate.set()

    assert await asyncio.gather(*others) == ["impatient"] * 5
    assert other.calls == 1
    slow.gate.set()
    assert await first in {"slow", "impatient"}


async def test_impatient_callers_of_one_process(make):
    """Those who lose patience with a load of their own process start one new load together."""
    cache = make()
    slow, other = Gated("slow"), Gated("impatient")
    first = calling(cache, "get_or_set", "key", slow.of(cache))
    await slow.entered()
    others = [calling(cache, "get_or_set", "key", other.of(cache), wait=0.5) for _ in range(5)]
    await other.entered()
    await joined(cache, 9)
    other.gate.set()

    assert await asyncio.gather(*others) == ["impatient"] * 5
    assert other.calls == 1
    slow.gate.set()
    assert await first in {"slow", "impatient"}


# --- what is not stored -------------------------------------------------------------------------------

VOIDS: dict[str, Any] = {
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
    "a short set": lambda cache: cache.set("key", "other", 0.001),
    "touch": lambda cache: cache.touch("key", 1),
    "delete_pattern": lambda cache: cache.delete_pattern("k*"),
    "clear": lambda cache: cache.clear(),
    "invalidate": lambda cache: cache.invalidate("key"),
    "soft": lambda cache: cache.invalidate("key", soft=True),
}


@pytest.mark.parametrize("void", VOIDS)
async def test_what_was_given_up_is_not_stored(make, void):
    """A value whose load began before is not stored, and no later caller gets it: of this process or another.

    FusionCache #535: an invalidation during the first load is ignored.  Caffeine 46e1bd924: one of an absent key leaves
    its load, which resurrects it.
    """
    one, two = two_processes(make)
    load, new = Gated("given up"), Gated("new", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    await VOIDS[void](two)
    if void == "a short set":  # look beside the cache: with copies, a read is done twice, and may see its end
        await until(lambda: stored(two, "key") is None)
    later = [calling(each, "get_or_set", "key", new.of(each)) for each in (one, two)]
    if void != "touch":
        assert await asyncio.gather(*later) == ["new", "new"]
    load.gate.set()

    assert await first in {"given up", "new"}
    if void != "touch":
        assert await one.get("key") == "new"
        assert new.calls == 1
    await asyncio.gather(*later)


async def test_a_foreign_set_wins(make):
    """A program that knows no leases stores meanwhile: its value stays."""
    cache = make()
    load = Gated("made")
    first = calling(cache, "get_or_set", "key", load.of(cache))
    await load.entered()
    name = cache.name("key")
    cache.topology.home(name).exchange(((c.SET, name, pickle.dumps("foreign")),))
    load.gate.set()

    assert await first in {"made", "foreign"}
    assert await cache.get("key", fresh=True) == "foreign"
    assert await lease_of(cache, "key") is None
    assert cache.whole.stats.fills_refused == 1


async def test_a_tag_that_was_invalidated(make):
    """What was loaded with it is not stored, wherever the tag's version is.

    FusionCache #535: a removal by tag during the first load is ignored.
    """
    one, two = two_processes(make)
    load, new = Gated("old"), Gated("new", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one), tags=["a", "b"])
    await load.entered()
    await two.invalidate_tags("b")
    load.gate.set()

    assert await first == "old"
    assert await two.get_or_set("key", new.of(two), tags=["a", "b"]) == "new"
    assert new.calls == 1


async def test_a_lost_lease_fails_nobody(make):
    """The value is returned, not stored.

    c2corg/v6_api #368: the lock had expired before its release, and the finished value is lost in an exception.
    """
    cache = make()
    load = Gated("made")
    first = calling(cache, "get_or_set", "key", load.of(cache))
    await load.entered()
    name = cache.name("key")
    cache.topology.home(name).exchange(((c.DEL, lease_name(name)),))
    load.gate.set()

    assert await first == "made"
    assert await cache.get("key", fresh=True) is None


# --- servers that are away ----------------------------------------------------------------------------


@pytest.fixture
def link(valkey) -> Iterator[FaultProxy]:
    """The way to a server, which the test cuts."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        yield link


def distant(link: FaultProxy, face: str, **options: Any) -> Face:
    """Return a cache on the other side of *link*."""
    hasty = {"SOCKET_TIMEOUT": 0.5, "SOCKET_CONNECT_TIMEOUT": 0.5, "BREAKER_COOLDOWN": 0.05}
    return Face(Cache(link.url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {**hasty, **options}}), face)


def cut(link: FaultProxy) -> None:
    """Let the server be away."""
    link.repoint("/nowhere/server.sock")


@pytest.mark.parametrize("ignored", [False, True])
async def test_a_server_that_goes_away_during_a_load(link, face, ignored, caplog):
    """The value is returned; where errors are ignored, later callers load, once in each process."""
    cache, load = distant(link, face, IGNORE_EXCEPTIONS=ignored), Gated("made")
    first = calling(cache, "get_or_set", "key", load.of(cache))
    await load.entered()
    cut(link)
    load.gate.set()

    assert await first == "made"
    later = await settled(cache.get_or_set("key", lambda: "later"))
    assert later == "later" if ignored else isinstance(later, ConnectionError)
    if ignored:
        load = Gated("together")
        callers = [calling(cache, "get_or_set", "key", load.of(cache)) for _ in range(3)]
        await load.entered()
        await joined(cache, 2)
        load.gate.set()
        assert await asyncio.gather(*callers) == ["together"] * 3
        assert load.calls == 1
    else:
        assert "loaded, but not stored" in caplog.text


async def test_what_is_kept_in_an_outage(valkey, link, face):
    """With OUTAGE_TTL one load serves the process until the server is back, or until it writes the entry itself."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    load = Gated([1], [2], [3], [4], opened=True)
    cut(link)

    assert [await cache.get_or_set("key", load.of(cache)) for _ in range(5)] == [[1]] * 5
    await cache.delete("key")
    assert [await cache.get_or_set("key", load.of(cache)) for _ in range(5)] == [[2]] * 5
    with contextlib.suppress(ConnectionError):
        await cache.invalidate_tags("any")
    assert await cache.get_or_set("key", load.of(cache)) == [3]

    link.repoint(("127.0.0.1", valkey.port))
    await until(lambda: cache.whole.get("other") == 1)
    assert await cache.get_or_set("key", load.of(cache)) == [4]
    assert await cache.get("key") == [4]
    await cache.delete("key")
    cut(link)
    load.values.append([5])
    assert await cache.get_or_set("key", load.of(cache)) == [5]


@pytest.mark.parametrize("wish", [{"tags": ["x"]}, {"stale_while_revalidate": 60}, {"tags": ["x"], "early": 1.0}])
async def test_what_is_kept_in_an_outage_may_have_tags_and_a_stale_life(valkey, link, face, wish):
    """It is given up with its tags, also by an invalidation that is owed; nothing of it is stored afterwards."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    load = Gated([1], [2], [3], opened=True)
    cut(link)

    assert [await cache.get_or_set("key", load.of(cache), 60, **wish) for _ in range(3)] == [[1]] * 3
    if "tags" in wish:
        await cache.invalidate_tags("x", later=True)
        assert [await cache.get_or_set("key", load.of(cache), 60, **wish) for _ in range(3)] == [[2]] * 3

    link.repoint(("127.0.0.1", valkey.port))
    await until(lambda: cache.whole.get("other") == 1 and not OWED.names)
    assert await cache.get("key") is None
    made = await cache.get_or_set("key", load.of(cache), 60, **wish)
    assert made == ([3] if "tags" in wish else [2])
    assert await cache.get("key") == made


async def test_what_is_kept_in_an_outage_ages_from_when_it_was_made(link, face):
    """The end is known before it is kept, which may take longer: a silent server is waited for."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    cut(link)

    assert await cache.get_or_set("key", Gated([1], opened=True).of(cache), 60, stale_while_revalidate=60) == [1]

    ((made, until, _),) = cache.whole._flights.kept.values()
    assert until == made.moment + 30


async def test_what_was_loaded_before_an_outage_is_not_kept(link, face):
    """Only the server knew whether something had given it up: here this process, in an exchange that succeeded."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    load = Gated([1], [2])
    first = calling(cache, "get_or_set", "key", load.of(cache))
    await load.entered()
    assert await cache.delete("key") is False
    link.hold()
    load.gate.set()

    assert await first == [1]
    assert [await cache.get_or_set("key", load.of(cache)) for _ in range(3)] == [[2]] * 3


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("delete", ("key",)),
        ("set", ("key", 0)),
        ("clear", ()),
        ("delete_pattern", ("k*",)),
        ("invalidate_tags", ("x",)),
    ],
)
async def test_what_a_failed_write_overtakes_is_not_kept(link, face, operation, arguments, many):
    """In an outage a load that began before a write is for those who had joined it; whoever comes later loads anew."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    load = Gated([1], [2])

    def call():
        if not many:
            return calling(cache, "get_or_set", "key", load.of(cache), 60, tags=["x"])
        one = load.of(cache)

        async def aload_many(keys):
            return {key: await one() for key in keys}

        load_many = aload_many if face == AWAITING else lambda keys: {key: one() for key in keys}
        return calling(cache, "get_or_set_many", ["key"], load_many, 60, tags=["x"])

    cut(link)
    first = call()
    await load.entered()
    with contextlib.suppress(ConnectionError):
        await getattr(cache, operation)(*arguments)
    second = call()
    await load.entered(2)
    load.gate.set()

    results = [await first, await second, await call()]

    assert results == ([{"key": [1]}, *[{"key": [2]}] * 2] if many else [[1], [2], [2]])
    assert cache.whole._flights.running == {}


@pytest.mark.parametrize(("operation", "arguments"), [("clear", ()), ("delete_pattern", ("k*",))])
async def test_what_is_kept_in_an_outage_is_given_up_by_a_pattern(link, face, operation, arguments):
    """Operations that find names at the server give up what was kept as well, although they find none."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    load = Gated([1], [2], opened=True)
    cut(link)
    assert [await cache.get_or_set("key", load.of(cache)) for _ in range(2)] == [[1]] * 2

    await getattr(cache, operation)(*arguments)

    assert await cache.get_or_set("key", load.of(cache)) == [2]


async def test_nothing_is_kept_without_outage_ttl(link, face):
    """Each call loads, and nothing else is remembered."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True)
    load = Gated(1, 2, opened=True)
    cut(link)

    assert [await cache.get_or_set("key", load.of(cache)) for _ in range(2)] == [1, 2]
    assert cache.whole._flights.kept == {}


async def test_a_stale_value_when_the_lease_cannot_be_had(link, face):
    """Who allows an old value gets it if the server goes away between his look and the lease."""
    cache = distant(link, face)
    options = {"timeout": 60, "stale_if_error": 100}
    await put(cache, "key", "old", fresh=-1000)
    ask = type(cache.whole)._ask_lease

    async def ask_of_nobody(self: Any, *args: Any) -> Any:
        cut(link)
        return await ask(self, *args)

    for each in (cache.whole, cache.whole._still):
        object.__setattr__(each, "_ask_lease", partial(ask_of_nobody, each))

    assert await cache.get_or_set("key", lambda: "new", **options) == "old"
    assert isinstance(await settled(cache.get_or_set("other", lambda: "new", **options)), ConnectionError)


async def test_a_lease_that_a_task_of_this_thread_holds(make):
    """A blocking call on the loop's thread does not wait for it, also through another cache."""
    one, two = two_processes(make)
    load = Gated("task")
    task = asyncio.create_task(one.whole.aget_or_set("key", load.aload))
    await load.entered()
    began = time.monotonic()

    assert two.whole.get_or_set("key", lambda: "blocking") == "blocking"
    assert time.monotonic() - began < 3
    load.gate.set()
    assert await task in {"task", "blocking"}


# --- what delete_pattern is not about -------------------------------------------------------------------


async def test_a_load_of_another_entry_than_was_deleted_is_stored(make):
    """It goes on in the next epoch, and whoever comes after the deletion joins it."""
    one, two = two_processes(make)
    load = Gated("made")
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    for pattern in ("other*", "k?", "*:key:[a-z]*", "kéy*"):
        await two.delete_pattern(pattern)
    second = calling(one, "get_or_set", "key", load.of(one))
    await joined(one, 1)
    await two.delete_pattern("others*")
    load.gate.set()

    assert await asyncio.gather(first, second) == ["made", "made"]
    assert load.calls == 1
    assert await two.get("key") == "made"
    assert one.whole.stats.fills_refused == 0


@pytest.mark.parametrize("patterns", [("k*", "other*"), ("other*", "*y"), ("other*", "[a-k]ey", "more*")], ids=str)
async def test_one_glob_of_several_that_matches_refuses(make, patterns):
    """All that was deleted since the load began counts, also after a caller has found that the load still stands."""
    one, two = two_processes(make)
    load = Gated("made", "new")
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    await two.delete_pattern("others*")
    second = calling(one, "get_or_set", "key", load.of(one))
    await joined(one, 1)
    for pattern in patterns:
        await two.delete_pattern(pattern)
    load.gate.set()

    assert {await first, await second} <= {"made", "new"}  # he may have loaded anew, and have been done first
    assert await two.get("key") in {None, "new"}
    assert one.whole.stats.fills_refused == 1


async def test_more_deletions_than_are_noted_refuse(make):
    """What fell out of the list may have been about the entry."""
    one, two = two_processes(make)
    load = Gated("made")
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    for _ in range(101):
        await two.delete_pattern("other*")
    load.gate.set()

    assert await first == "made"
    assert await two.get("key") is None


async def test_an_invalidated_tag_refuses_whatever_else_was_deleted(make):
    """The epoch has ended as well, but not because of the entry."""
    one, two = two_processes(make)
    load = Gated("made")
    first = calling(one, "get_or_set", "key", load.of(one), tags=["tag"])
    await load.entered()
    await two.delete_pattern("other*")
    await two.invalidate_tags("tag")
    load.gate.set()

    assert await first == "made"
    assert await two.get("key") is None


@pytest.mark.parametrize("kind", ["shards", "cluster"])
async def test_deletions_on_several_servers(kind, face, request):
    """The list and the epoch are on one server, the entries on others."""
    prefix = own_prefix()
    if kind == "shards":
        urls = [f"memory://{prefix}{number}" for number in range(3)]
        one, two = (Face(ShardClient(urls, {"KEY_PREFIX": prefix, "TIMEOUT": timeout}), face) for timeout in (300, 301))
    else:
        url = request.getfixturevalue("valkey_cluster").url()
        one, two = (Face(Cache(url, params({"KEY_PREFIX": prefix, "HERD_TIMEOUT": time})), face) for time in (60, 61))
    for key in "abcdefgh":
        load = Gated("made")
        first = calling(one, "get_or_set", key, load.of(one))
        await load.entered()
        await two.delete_pattern("other*")
        if key > "e":
            await two.delete_pattern(f"{key}*")
        load.gate.set()

        assert await first == "made"
        assert await two.get(key) == (None if key > "e" else "made")


async def test_deletions_by_a_user_who_may_run_no_scripts(valkey, face):
    """What he deletes is not noted, so no load is stored, whatever others have noted before."""
    prefix = own_prefix()
    with redis.Redis(unix_socket_path=str(valkey.socket)) as admin:
        admin.execute_command(
            "ACL", "SETUSER", prefix, "reset", "on", "nopass", "~*", "&*", "+@all", "-eval", "-evalsha"
        )
    user = {"OPTIONS": {"USERNAME": prefix, "PASSWORD": "any"}}
    one, two = (Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": prefix, **of}), face) for of in ({}, user))
    load = Gated("made")
    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    await one.delete_pattern("other*")
    await two.delete_pattern("key*")
    await one.delete_pattern("other*")
    load.gate.set()

    assert await first == "made"
    assert await one.get("key") is None


async def test_the_value_of_who_was_done_first(make):
    """Whoever loads beside another, because his lease has passed, returns what that one has stored."""
    one, two = two_processes(make)
    load, other = Gated("late"), Gated("made", opened=True)
    first = calling(one, "get_or_set", "key", load.of(one), lease=0.05)
    await load.entered()
    assert await two.get_or_set("key", other.of(two)) == "made"
    load.gate.set()

    assert await first == "made"


# --- users with few rights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "protection"),
    [
        ("-eval -evalsha", "partial"),
        ("resetkeys ~{prefix}:*", "none"),
        ("resetkeys ~{prefix}:* ~fleetcache:lease:*", "none"),
    ],
)
async def test_users_with_few_rights(valkey, face, rules, protection, caplog):
    """Without scripts there are simpler leases, without leases each process loads; it is said once."""
    prefix = own_prefix()
    with redis.Redis(unix_socket_path=str(valkey.socket)) as admin:
        rights = rules.format(prefix=prefix).split()
        admin.execute_command("ACL", "SETUSER", prefix, "reset", "on", "nopass", "~*", "&*", "+@all", *rights)
    user = {"KEY_PREFIX": prefix, "OPTIONS": {"USERNAME": prefix, "PASSWORD": "any"}}
    one = Face(Cache(valkey.tcp_url(), user), face)
    two = Face(Cache(valkey.tcp_url(), {**user, "OPTIONS": {**user["OPTIONS"], "HERD_TIMEOUT": 61}}), face)
    load, other = Gated("made"), Gated("other", opened=True)

    first = calling(one, "get_or_set", "key", load.of(one))
    await load.entered()
    if protection == "partial":
        second = calling(two, "get_or_set", "key", other.of(two))
        await waits(two)
        load.gate.set()
        assert [await first, await second, other.calls] == ["made", "made", 0]
        assert await one.get("key") == "made"
        load = Gated("late")
        first = calling(one, "get_or_set", "gone", load.of(one))
        await load.entered()
        await two.delete("gone")
        load.gate.set()
        assert await first == "late"
        assert await one.get("gone") is None
    else:
        assert await two.get_or_set("key", other.of(two)) == "other"
        load.gate.set()
        assert await first in {"made", "other"}
        assert await one.get("key") == "other"
    await one.get_or_set("more", lambda: 1)
    assert one.info()["loading"]["protection"] == protection
    assert sum(record.event in {"scripts", "leases"} for record in caplog.records if hasattr(record, "event")) <= 4


# --- other client classes -------------------------------------------------------------------------------


async def test_herd(face):
    """A HerdClient's values have their soft expiry, and a cold key is loaded once."""
    cache = Face(HerdClient("memory://herd", {"KEY_PREFIX": own_prefix()}), face)
    load = Gated(["made"])
    callers = [calling(cache, "get_or_set", "key", load.of(cache), 100) for _ in range(3)]
    await load.entered()
    await joined(cache, 2)
    load.gate.set()

    assert await asyncio.gather(*callers) == [["made"]] * 3
    assert load.calls == 1
    assert await cache.get("key") == ["made"]
    assert await cache.ttl("key") == 160
    stored = await called(cache, "ask", (c.GET_NOW, cache.name("key")), None)
    assert b"django_redis.client.herd" in stored
    many = await cache.get_or_set_many(["key", "other"], lambda keys: {key: [key] for key in keys}, 100)
    assert many == {"key": ["made"], "other": ["other"]}
    assert await cache.ttl("other") == 160
    assert await cache.get("other") == ["other"]


async def test_shards(face):
    """A lease is on the server of its entry."""
    prefix = own_prefix()
    urls = [f"memory://{prefix}{number}" for number in range(3)]
    whole = ShardClient(urls, {"KEY_PREFIX": prefix})
    cache = Face(whole, face)
    for key in ("a", "b{1}", "{2}c", "d{}", "}e{", "f{{3}}"):
        load = Gated("made")
        first = calling(cache, "get_or_set", key, load.of(cache), tags=["tag"])
        await load.entered()
        name = whole.name(key)
        held = [each for each in whole.topology.servers if each.exchange(((c.GET_NOW, lease_name(name)),))[0]]
        load.gate.set()
        assert await first == "made"
        assert held == [whole.topology.home(name)]
        assert await cache.get(key) == "made"
    await cache.invalidate_tags("tag")
    assert await cache.get("a") is None


async def test_a_class_that_overrides_get(face):
    """Its own operations are called, as ever."""
    from fleetcache.twin import blocking

    class Loud(Cache):
        async def aget(self, key: Any, *args: Any, **kwargs: Any) -> Any:
            heard.append(key)
            return await super().aget(key, *args, **kwargs)

        get = blocking(aget)

    heard: list[Any] = []
    cache = Face(Loud("memory://loud", {"KEY_PREFIX": own_prefix()}), face)

    assert await cache.get_or_set("key", lambda: "made", Policy(timeout=60)) == "made"
    assert heard == ["key"]


def test_pauses_grow():
    """They begin with 10 ms, and end with 250."""
    pauses = [leading.pause_after(waited) for waited in (0, 0.1, 1, 4, 100)]

    assert pauses == [0.01, 0.01, 0.05, 0.2, 0.25]
