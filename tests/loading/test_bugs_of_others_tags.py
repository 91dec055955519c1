"""Bugs of other caches, by their reports: each shows that tags and invalidation here do what was missing there.

Other tests, whose docstrings name a report, show the same of its bug.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.caches import TRANSPORTS, own_prefix
from tests.faces import AWAITING, Face
from tests.loading.entries import MINUTE, called, put
from tests.loading.gates import Gated, calling, two_processes, until
from tests.test_pipeline import counted

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.keys import epoch_name
from fleetcache.loading import wishes
from fleetcache.loading.load import current_load


@pytest.fixture(params=["valkey-tcp", "valkey-near", "memory"])
def url(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """A Valkey, the same with a near cache, and memory."""
    return lambda db=0: TRANSPORTS[request.param](request.getfixturevalue, db)


async def heard(cache: Face) -> None:
    """Let the near cache, if there is one, hear of everything that was written before."""
    if cache.whole.near is not None:
        await cache.fence()


def evict(cache: Face, name: str) -> None:
    """Let the server lose *name*, as if its memory were full."""
    cache.topology.home(name).exchange(((c.DEL, name),))


# --- an invalidation and a load at the same time ------------------------------------------------------


@pytest.mark.parametrize("left", [9_000, -1_000], ids=["early", "stale"])
async def test_a_tag_that_is_given_up_during_a_renewal(make, left, monkeypatch):
    """FusionCache #628: a removal by tag is lost during an eager refresh.  Versions are captured before any renewal begins."""
    monkeypatch.setattr(wishes, "drawn", lambda stamp: 1.0)
    one, two = two_processes(make)
    options = {"timeout": 60, "tags": ["x"], "stale_while_revalidate": 60, "early": 1.5}
    versions = await called(one, "_capture", ("x",), MINUTE)
    await put(one, "key", "old", fresh=left, cost=4_000, early=1.5, tags=versions)

    load = Gated("read before", "read before")
    renewing = calling(one, "get_or_set", "key", load.of(one), **options)
    await load.entered()
    await two.invalidate_tags("x")
    load.gate.set()
    await renewing
    await until(lambda: not one.whole._flights.running)

    assert one.whole.stats.early == (left > 0)
    for cache in (one, two):
        await heard(cache)
        assert await cache.get("key", stale=True) is None
    assert await two.get_or_set("key", lambda: "read after", **options) == "read after"
    assert await one.get_or_set("key", load.of(one), **options) == "read after"


async def test_a_tag_that_is_given_up_while_a_value_is_stored(make, monkeypatch):
    """Laravel #61328, lada-cache PR#124: a write meets a flush, and what it stores can never be flushed.  It is invalid, once and for all."""
    cache = make()
    name = cache.whole._tag_name("x")
    capture = type(cache.whole)._capture

    async def captured(self: Any, *args: Any) -> Any:
        found = await capture(self, *args)
        evict(cache, name)  # what an invalidation by another process does
        return found

    monkeypatch.setattr(type(cache.whole), "_capture", captured)
    await cache.set("key", "written across", tags=["x"])
    await cache.set_many({"other": "written across"}, tags=["x"])
    monkeypatch.undo()
    await heard(cache)

    assert await cache.get_many(["key", "other"]) == {}
    await cache.set("key", "new", tags=["x"])
    assert await cache.get_many(["key", "other"]) == {"key": "new"}
    await cache.invalidate_tags("x")
    assert await cache.get_many(["key", "other"]) == {}


async def test_what_is_stored_late_has_the_versions_of_its_beginning(make):
    """symfony PR#27007, openfga PR#3155: a deferred value is stored with the version, or the time, of the end of its query."""
    cache = make()
    load, options = Gated("read before", "read after"), {"tags": ["x"]}
    first = calling(cache, "get_or_set", "key", load.of(cache), 60, **options)
    await load.entered()
    await cache.invalidate_tags("x")
    await cache.set("another", 1, tags=["x"])  # the tag has a version again
    load.gate.set()

    assert await first == "read before"
    assert await cache.get("key") is None
    assert await cache.get_or_set("key", load.of(cache), 60, **options) == "read after"


async def test_two_invalidations_at_once(make):
    """django-cms #4101: a version is read, changed and written back, which annuls another invalidation.  Each one counts."""
    one, two = two_processes(make)
    await one.set("old", 1, tags=["x"])
    before = await called(two, "_versions", ("x",))  # who would write back what he has read would revive the entry

    await one.invalidate_tags("x")
    await one.set("between", 2, tags=["x"])
    await two.invalidate_tags("x")
    await two.set("new", 3, tags=["x"])
    await heard(one)

    assert await called(two, "_versions", ("x",)) != before
    assert await one.get_many(["old", "between", "new"]) == {"new": 3}


# --- versions that are lost ---------------------------------------------------------------------------


async def test_a_version_that_is_evicted(make):
    """symfony #33953, PR#42997, PR#43301: versions are evicted, begin anew and revive old items.  Old entries never come back."""
    cache = make()
    await cache.set("old", 1, tags=["x", "y"])
    assert await cache.get("old") == 1

    evict(cache, cache.whole._tag_name("x"))
    await heard(cache)
    assert await cache.get("old") is None
    for number in range(3):
        await cache.set("new", number, tags=["x"])
        assert await cache.get("old") is None
        assert await cache.get("old", stale=True) is None
        assert await cache.get("new") == number
        evict(cache, cache.whole._tag_name("x"))
        await heard(cache)


async def test_a_lost_marker_costs_its_own_entries_only(make):
    """FusionCache #627: a lost marker is made anew as of "now", and the fleet loses all entries.  What does not need it stays."""
    cache = make()
    for key in ("plain", "loaded"):
        await cache.get_or_set(key, lambda: "value", 60)
    await cache.set("x", "value", tags=["x"])
    await cache.set("y", "value", tags=["y"])

    evict(cache, epoch_name(cache.whole.key_prefix))
    evict(cache, cache.whole._tag_name("x"))
    await heard(cache)
    await cache.set("more", "value", tags=["x"])
    await cache.get_or_set("another", lambda: "value", 60)

    found = await cache.get_many(["plain", "loaded", "x", "y", "more", "another"])
    assert sorted(found) == ["another", "loaded", "more", "plain", "y"]


async def test_an_entry_with_a_short_life_shortens_no_tag(make):
    """cashews 7.6: a member with a short life shortens the set of its tag, and longer ones cannot be invalidated any more."""
    cache = make()
    await cache.set("long", 1, 600, tags=["x"])
    await cache.set("short", 2, 0.02, tags=["x"])
    await cache.get_or_set("short", lambda: 3, 0.02, tags=["x"])
    left = await cache.pttl(cache.whole.make_key("~tag:x"))

    assert left > 600_000
    assert await cache.get("long") == 1
    assert await cache.invalidate_tags("x") == 1
    assert await cache.get("long") is None


@pytest.mark.parametrize("life", [5000, None])
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_a_loader_that_lengthens_a_life(make, life, many):
    """cashews 7.6: a tag lives for a shorter time than an entry that has it.  A loader's own timeout counts for the tag too."""
    cache = make()

    def load(*keys: Any) -> Any:
        current_load().timeout = life
        return dict.fromkeys("ab", 1) if many else 1

    if many:
        await cache.get_or_set_many("ab", load, 60, tags=["x"])
    else:
        await cache.get_or_set("a", load, 60, tags=["x"])
    left = await cache.ttl(cache.whole.make_key("~tag:x"))

    assert await cache.get("a") == 1
    assert left is None if life is None else left > life


# --- who hears of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-3600, 3600])
async def test_no_read_is_answered_by_what_was_given_up(make, skew, monkeypatch):
    """HybridCache #7771: pending tags are compared with the reader's clock, and 97 % of reads get old data.  No clock decides."""
    real = time.time
    one, two = two_processes(make)
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    for round_ in range(5):
        for key in "ab":
            assert await two.get_or_set(key, lambda round_=round_: round_, 600, tags=["x"]) == round_
        await one.invalidate_tags("x")
        await heard(two)
        for key in "ab":
            assert [await two.get(key) for _ in range(3)] == [None] * 3
            assert await two.has_key(key) is False


async def test_what_another_process_gives_up(make):
    """HybridCache #7411, FusionCache #419, #573: tag state stays in each node's memory.  It is at the server, for all to see."""
    one, two = two_processes(make)
    for key in "ab":
        await one.set(key, 1, tags=["x", key])
    for cache in (one, two):
        for _ in range(3):  # both know the tags, and with a near cache their versions
            assert await cache.get_many("ab") == {"a": 1, "b": 1}

    await one.invalidate_tags("a")
    await heard(two)
    assert await two.get_many("ab") == {"b": 1}
    await two.invalidate_tags("x")
    await heard(one)
    assert await one.get_many("ab") == {}
    await one.set("a", 2, tags=["x"])
    assert await two.get_many("ab", fresh=True) == {"a": 2}


async def test_an_entry_that_was_given_up_is_missing_everywhere(make):
    """Bentocache 0a2b25c: `has` is true after its tag was deleted.  Every operation that reads agrees."""
    cache = make()
    await cache.set("key", 1, tags=["x"])
    assert await cache.has_key("key") is True
    await cache.invalidate_tags("x")

    assert await cache.has_key("key") is False
    assert await cache.get_many(["key"]) == {}
    assert await cache.lookup("key") == await cache.lookup("never there")
    assert await cache.add("key", 2) is True


# --- what an invalidation costs, and what it reaches --------------------------------------------------


async def piped(cache: Face) -> None:
    """Store in a pipeline."""
    pipe = cache.pipeline()
    pipe.set("key", 1, tags=["x"])
    await pipe.execute()


WRITERS: dict[str, Callable[[Face], Any]] = {
    "set": lambda cache: cache.set("key", 1, tags=["x"]),
    "set nx": lambda cache: cache.set("key", 1, nx=True, tags=["x"]),
    "set_many": lambda cache: cache.set_many({"key": 1}, tags=["x"]),
    "get_or_set": lambda cache: cache.get_or_set("key", lambda: 1, tags=["x"]),
    "a constant": lambda cache: cache.get_or_set("key", 1, tags=["x"]),
    "get_or_set_many": lambda cache: cache.get_or_set_many(["key"], lambda keys: {"key": 1}, tags=["x"]),
    "a pipeline": lambda cache: piped(cache),
    "soft": lambda cache: cache.get_or_set("key", lambda: 1, 60, stale_if_error=60, tags=["x"]),
}


@pytest.mark.parametrize("write", WRITERS)
async def test_whatever_has_stored_it(make, write):
    """aspnetcore #56719: a store calls the wrong method, and tags do nothing.  Every operation with tags= stores them."""
    cache = make()
    await WRITERS[write](cache)
    assert await cache.get("key") == 1
    assert (await cache.lookup("key")).tags == ("x",)

    assert await cache.invalidate_tags("x") == 1

    assert await cache.get("key") is None


@pytest.mark.parametrize("tag", ["*", "?", "a*", "[x]", "{x}", "}{", "~tag:x", "a-b", "a b", "ä", ":", "\\"])
async def test_no_letter_of_a_tag_is_special(make, tag):
    """FusionCache #600: the tag "*" is special.  Here it is a tag like any other, and gives up its own entries only."""
    cache = make()
    await cache.set("key", 1, tags=[tag])
    await cache.set("other", 2, tags=["x", "a", "ab"])

    assert await cache.invalidate_tags(tag) == 1

    assert await cache.get_many(["key", "other"]) == {"other": 2}


@pytest.mark.parametrize(
    ("prefix", "like_it"), [("my-app", "my-app2"), ("a*b", "a-b"), ("[ab]", "a"), ("{a}b", "b"), ("a\\b", "ab")]
)
async def test_no_letter_of_a_prefix_is_special(make, prefix, like_it):
    """Laravel PR#57927: the tags of a prefix with "-" cannot be flushed.  Any prefix has tags, and keeps them to itself."""
    own = own_prefix()
    cache, other = make(KEY_PREFIX=prefix + own), make(KEY_PREFIX=like_it + own)
    for each in (cache, other):
        await each.set("key", 1, tags=["x"])
    await cache.invalidate_tags("x")
    assert [await cache.get("key"), await other.get("key")] == [None, 1]

    await cache.set("key", 1, tags=["x"])
    await cache.clear()

    assert [await cache.get("key"), await other.get("key")] == [None, 1]


async def test_the_size_of_a_group_does_not_matter(valkey, face, monkeypatch):
    """Laravel PR#57098, PR#57562, #61181, medusa PR#14869: a flush searches, overflows, is not atomic, or blocks the server with KEYS."""
    cache = Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()}), face)
    names = [f"key{number}" for number in range(3000)]
    await cache.set_many(dict.fromkeys(names, 1), tags=["x"])
    assert len(await cache.get_many(names)) == 3000
    with redis.Redis(unix_socket_path=str(valkey.socket)) as raw:
        before = raw.info("commandstats")
        asked = counted(monkeypatch)

        assert await cache.invalidate_tags("x", "y") == 1

        assert asked == [1]  # one command, so nobody sees a part of the group without the rest
        ran = {name for name, found in raw.info("commandstats").items() if found != before.get(name)}
    assert ran - {"cmdstat_info", "cmdstat_set", "cmdstat_ping"} <= {"cmdstat_del", "cmdstat_unlink"}
    assert await cache.get_many(names) == {}


@pytest.mark.parametrize("face", [AWAITING])
async def test_invalidations_that_meet(make):
    """Laravel PR#57098: two flushes that meet leave a part.  However many come at once, nothing of the group is left."""
    one, two = two_processes(make)
    for _ in range(5):
        await one.set_many(dict.fromkeys("abcd", 1), tags=["x"])
        await asyncio.gather(*(cache.invalidate_tags("x") for cache in (one, two) * 3))
        await asyncio.gather(heard(one), heard(two))
        assert await one.get_many("abcd") == await two.get_many("abcd") == {}
