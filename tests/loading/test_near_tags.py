"""Near copies of tagged entries: a hit asks nobody, and no copy outlives one of its tags."""

from __future__ import annotations

import pytest
from tests.near.conftest import calls, copied, copies, copy, listeners, near, one_face, raw, trips
from tests.near.test_own_writes import DEAF
from tests.nearby import wait_until_live
from tests.waiting import until

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.near.store import ENDED, GONE, Bound, Epoch, Store
from fleetcache.near.touching import PAID
from fleetcache.twin import complete

__all__ = ["copies", "near", "raw", "trips"]  # fixtures of the near cache's tests

TAGS = ["x", "y", "z"]


def tag(cache, tag: str) -> str:
    return cache.whole._tag_name(tag)


async def tagged(cache, key: str, value: object = "value", tags: list[str] = TAGS, **options: object) -> None:
    """Store *key* with *tags*, and read it so that there is a copy."""
    await cache.set(key, value, tags=tags, **options)
    assert await copied(cache, key) == value


@pytest.mark.parametrize("value", ["text", 5, None, {"a": [1]}, 2**80, b"\x00", 1.5])
async def test_a_hit_asks_nobody(near, trips, value):
    """Whatever the value, and in every reading operation."""
    await tagged(near, "a", value)
    await near.fence()
    trips.clear()

    assert await near.get("a", "none") == value
    assert await near.get_many(["a"]) == {"a": value}
    assert await near.has_key("a") is True
    assert trips == []
    assert type(near.near.copies[near.make_key("a")].epoch) is Bound


async def test_our_own_invalidation_is_seen_at_once(near):
    """By every reading operation, as soon as it returns; before it, the copies are used."""
    for key in ("a", "b"):
        await tagged(near, key)

    await near.invalidate_tags("y")

    assert await near.get("a") is None
    assert await near.get_many("ab") == {}
    assert await near.has_key("a") is False


async def test_copies_that_hear_nothing_see_our_own_invalidation(copies):
    """No announcement is needed for it, nor for a new entry with the tag."""
    cache = copies(near=DEAF)
    with cache.near.lock:
        cache.near.sole.tracking.invalidated = lambda name: None
    await tagged(cache, "a")

    await cache.invalidate_tags("x")
    assert await cache.get("a") is None

    await cache.set("b", 2, tags=["x"])
    assert await cache.get("b") == 2
    assert await cache.get("a") is None


async def test_another_client_invalidates(near, raw):
    """Behind a fence, what another process gave up is gone; a raw DEL of the tag's name is as good."""
    await tagged(near, "a")

    raw.delete(tag(near, "z"))
    await near.fence()

    assert near.near.copies[near.make_key("a")].epoch.until == GONE
    assert await near.get("a") is None


async def test_a_tag_that_is_made_anew_revives_nothing(near, copies):
    """The new version is another one."""
    other = Cache(copies.server.url(9), {"KEY_PREFIX": near.key_prefix})
    await tagged(near, "a")

    other.invalidate_tags("x")
    other.set("b", 2, tags=["x"])
    await near.fence()

    assert await copied(near, "b") == 2
    assert await near.get("a") is None


async def test_a_version_that_is_behind_gives_up_no_newer_entry(copies):
    """Another process invalidates and stores anew before its announcement is here: the entry is read, not loaded again."""
    cache = copies(near=DEAF)
    with cache.near.lock:
        cache.near.sole.tracking.invalidated = lambda name: None
    other = Cache(copies.server.url(9), {"KEY_PREFIX": cache.key_prefix})
    await tagged(cache, "known", tags=["x"])
    other.invalidate_tags("x")
    for key in "abc":
        other.set(key, key, tags=["x"])

    assert await cache.get("a") == "a"
    assert await cache.get_many("bc") == {"b": "b", "c": "c"}

    other.invalidate_tags("x")
    assert other.get_or_set("d", lambda: "one load", tags=["x"]) == "one load"
    assert await cache.get_or_set("d", lambda: "two", tags=["x"]) == "one load"


async def test_a_tag_that_lives_longer_keeps_its_entries(near, trips):
    """`PEXPIRE` is announced, and only the version is read anew: the next reader binds the copies to the new copy."""
    await tagged(near, "a", timeout=100)
    await tagged(near, "b", timeout=100)
    await near.set("long", 1, 5000, tags=TAGS)
    await near.fence()
    assert near.near.copies[near.make_key("a")].epoch.until == GONE
    await copied(near, "long")
    await near.fence()
    trips.clear()

    assert await near.get("a") == "value"
    assert await near.get("b") == "value"
    assert trips == []
    assert near.near.copies[near.make_key("a")].epoch.until > GONE


async def test_a_copy_ends_with_the_first_of_its_tags(near, raw):
    """A version that the server will forget sooner is not relied on for longer."""
    await near.set("a", 1, tags=TAGS)
    raw.pexpire(tag(near, "y"), 3000)
    await copied(near, "a")

    found = copy(near, near.make_key("a"))

    assert found.deadline <= copy(near, tag(near, "y")).deadline


async def test_a_tag_that_is_evicted_near_costs_one_trip(near, trips):
    """The entry and the versions are read anew, and then nobody is asked again."""
    await tagged(near, "a")
    with near.near.lock:
        near.near.store.drop(tag(near, "x"))
    trips.clear()

    assert await near.get("a") == "value"
    assert len(trips) == 2  # the entry, then the version that is missing here

    await copied(near, "a", deaf=True)
    trips.clear()
    assert await near.get("a") == "value"
    assert trips == []


async def test_the_first_reader_asks_for_all_versions_at_once(near, trips):
    """One trip for the entry, one for its versions; further entries with the tags need only their own."""
    await near.set("a", 1, tags=TAGS)
    await near.set("b", 1, tags=TAGS)
    await near.fence()
    trips.clear()
    await near.get("a")
    assert trips == [["GET", "PTTL"], ["MGET", "PTTL", "PTTL", "PTTL"]]
    await copied(near, "a", deaf=True)
    trips.clear()

    await near.get("b")

    assert trips == [["GET", "PTTL"]]


async def test_fresh_asks_for_the_versions_too(near, trips):
    """With *fresh* no copy decides, neither of the entry nor of its tags."""
    await tagged(near, "a")
    trips.clear()

    assert await near.get("a", fresh=True) == "value"

    assert [words[0] for words in trips] == ["GET", "MGET"]


async def test_a_copy_for_each_tag_list(near, raw):
    """An entry that is stored anew with other tags does not depend on the old ones."""
    await tagged(near, "a", "old", ["x"])
    await tagged(near, "a", "new", ["y"])

    await near.invalidate_tags("x")
    assert await near.get("a") == "new"

    await near.invalidate_tags("y")
    assert await near.get("a") is None


def spread(cache) -> list[str]:
    """Return tags, three on each primary."""
    found: dict[str, list[str]] = {}
    for number in range(200):
        found.setdefault(cache.whole.topology.home(tag(cache, f"t{number}")).address, []).append(f"t{number}")
    assert len(found) == len(cache.whole.topology.primaries)
    return [each for tags in found.values() for each in tags[:3]]


async def test_shards_and_fences(copies, valkey, redis_debian):
    """Versions are on other servers than the entry: a fence waits for all of them."""
    servers = [valkey.url(9), redis_debian.url(9)]
    cache = copies(servers, kind=ShardClient)
    other = ShardClient(servers, {"KEY_PREFIX": cache.key_prefix})
    keys, tags = [f"k{number}" for number in range(8)], spread(cache)
    for key in keys:
        await tagged(cache, key, tags=tags)

    for number, key in enumerate(keys):
        bound = cache.near.copies[cache.make_key(key)].epoch
        assert len(bound.others) == 1
        await cache.set(key, "value", tags=tags)
        other.invalidate_tags(tags[number % len(tags)])
        await cache.fence()
        assert await cache.get_many(keys) == {}
        for each in keys:
            await tagged(cache, each, tags=tags)


async def test_a_cluster(copies, valkey_cluster):
    """The same where names move; the versions of one entry's tags are asked for on all nodes at once."""
    cache = copies(valkey_cluster.url(), live=False)
    await cache.set_many(dict.fromkeys(map(str, range(50)), 1))
    until(lambda: complete(cache.whole._still._read_many({str(cache.make_key(str(key))): key for key in range(50)})))
    until(lambda: {each.tracking.state for each in listeners(cache.near)} == {"live"})
    other = Cache(valkey_cluster.url(), {"KEY_PREFIX": cache.key_prefix})
    tags = spread(cache)
    await tagged(cache, "a", tags=tags)
    assert len(cache.near.copies[cache.make_key("a")].epoch.others) == 2
    other.invalidate_tags(tags[5])
    await cache.fence()

    assert await cache.get("a") is None
    assert await cache.get_many(["a"]) == {}


async def test_one_primary_that_is_lost_ends_the_copies(copies, valkey, redis_debian):
    """What cannot be announced any more is not served: the entry's server lives, but not one of its tags'."""
    servers = [valkey.url(9), redis_debian.url(9)]
    cache = copies(servers, kind=ShardClient)
    await tagged(cache, "a", tags=spread(cache))
    bound = cache.near.copies[cache.make_key("a")].epoch
    (elsewhere,) = bound.others
    assert bound.until > 0

    with cache.near.lock:
        for reads in cache.near.reads.values():
            if reads.tracking.epoch is elsewhere:
                reads.tracking.end_epoch("connection")

    assert bound.until == ENDED


@one_face
async def test_versions_are_touched_with_their_entries(copies, raw):
    """The server does not evict versions that only copies use: it hears of them, after their entries."""
    near = copies(near={"TOUCH": 0.05, "MAX_TTL": 3600, "CANARY": 3600})
    await tagged(near, "a", timeout=None)
    versions = near.near.copies[near.make_key("a")].epoch.tags
    touched = near.near.stats()["touched"]

    for _ in range(PAID):
        await near.get("a")

    until(lambda: near.near.stats()["touched"] >= touched + 1 + len(TAGS))
    assert calls(raw, "touch") >= 2
    assert [version.hits for version in versions] == [0, 0, 0]
    assert [version.told for version in versions] == [0, 0, 0]


def test_versions_are_evicted_after_their_entries() -> None:
    """Copies of versions get no hits of their own; those of entries that are hit keep them."""
    store, epoch = Store(40_000), Epoch(1e9)
    store.put("tag", b"version1", None, 1e9, epoch)
    version = store.copies["tag"]
    for number in range(50):
        store.put(f"a{number}", "x" * 100, None, 1e9, Bound(epoch, (version,)))
    for number in range(3000):
        for key in range(50):
            if (entry := store.copies.get(f"a{key}")) is not None:
                entry.hits += 1
        store.put(f"once{number}", "x" * 300, None, 1e9, epoch)

    assert sum(f"a{number}" in store.copies for number in range(50)) > 40
    assert store.copies.get("tag") is version


def test_the_bytes_of_a_bound_copy_are_counted() -> None:
    """The list of tags is part of the copy."""
    store, epoch = Store(1_000_000), Epoch(1e9)
    for name in TAGS:
        store.put(name, b"version1", None, 1e9, epoch)
    store.put("plain", "x" * 100, None, 1e9, epoch)
    store.put("tagged", "x" * 100, None, 1e9, Bound(epoch, tuple(store.copies[name] for name in TAGS)))

    more = store.copies["tagged"].weight - store.copies["plain"].weight

    assert 64 + 64 <= more <= 160


async def test_a_doorkeeper_lets_the_second_read_in(copies):
    """Versions that are read again and again pass it as entries do."""
    cache = copies(near={"DOORKEEPER": True})
    wait_until_live(cache.near)
    await cache.set("a", 1, tags=TAGS)
    await cache.fence()

    assert [await cache.get("a") for _ in range(4)] == [1, 1, 1, 1]
    found = copy(cache, cache.make_key("a"))
    assert type(found.epoch) is Bound
    assert len(found.epoch.tags) == 3


async def test_a_copy_without_tags_is_not_given_to_who_asks_with_tags(near):
    """An entry that was stored without tags is loaded anew with them, so that they can give it up: near copies too."""
    many = {"a": "old", "b": "old", "c": "old"}
    await near.set_many(many)
    for key in many:
        assert await copied(near, key) == "old"

    assert await near.get_or_set("a", lambda: "new", tags=["x"]) == "new"
    assert await near.get_or_set("a", lambda: "another", tags=["x"]) == "new"
    assert await near.get_or_set_many(["b", "c"], lambda keys: dict.fromkeys(keys, "new"), tags=["x"]) == {
        "b": "new",
        "c": "new",
    }

    await near.invalidate_tags("x")
    assert await near.get_many("abc") == {}
