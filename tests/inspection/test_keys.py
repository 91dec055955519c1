"""Pages of entries: everything is found, whatever it is called, and no page takes long."""

from __future__ import annotations

import re
from time import monotonic

import pytest
from tests.caches import own_prefix

from fleetcache import Cache
from fleetcache.caches import CacheHandler
from fleetcache.inspection import keys
from fleetcache.inspection.names import belongs
from fleetcache.keys import CacheKey


def whole(cache, *args, **kwargs):
    """The rows of every page, and the pages."""
    pages = [keys.page(cache, *args, **kwargs)]
    while pages[-1].cursor:
        assert len(pages) < 10_000
        pages.append(keys.page(cache, *args, **kwargs, cursor=pages[-1].cursor))
    return [row for page in pages for row in page.entries], pages


async def awaited(cache, *args, **kwargs):
    """The same by the awaiting face."""
    pages = [await keys.apage(cache, *args, **kwargs)]
    while pages[-1].cursor:
        pages.append(await keys.apage(cache, *args, **kwargs, cursor=pages[-1].cursor))
    return [row for page in pages for row in page.entries], pages


@pytest.fixture
def filled(make):
    """A cache with entries of every kind and of two versions."""
    cache = make().whole
    cache.set_many({f"users:{number}": {"number": number} for number in range(40)}, timeout=100)
    cache.set("users:old", 1, version=2)
    cache.set("for ever", 1, timeout=None)
    cache.hset("hash", "field", 1)
    cache.sadd("set", 1)
    cache.zadd("zset", {"a": 1})
    cache.rpush("list", 1, 2)
    cache.set("tagged", 1, tags=["blue"])
    return cache


async def test_a_page_shows_each_entry_once(filled, face):
    """All entries of the cache's version come, with what the server says of them, and nothing else."""
    rows, pages = await awaited(filled, count=7) if face == "awaiting" else whole(filled, count=7)

    found = {row.key: row for row in rows}
    assert sorted(found) == sorted(
        [f"users:{number}" for number in range(40)] + ["for ever", "hash", "list", "set", "tagged", "zset"]
    )
    assert {found[key].kind for key in ("hash", "list", "set", "zset")} == {"hash", "list", "set", "zset"}
    assert found["users:1"].kind == "string" and 90 < found["users:1"].ttl <= 100
    assert found["for ever"].ttl is None
    assert found["for ever"].size >= 1
    assert len(pages) > 1
    assert pages[-1].complete and pages[-1].scanned == pages[-1].total


def test_a_page_is_of_the_wanted_names(filled):
    """A pattern, a type and a version choose, and a star for the version does not reach into the key."""
    filled.set("x:users:1", 1)

    assert {row.key for row in whole(filled, "users:?")[0]} == {f"users:{number}" for number in range(10)}
    assert {row.key for row in whole(filled, kind="hash")[0]} == {"hash"}
    assert {row.key for row in whole(filled, version=2)[0]} == {"users:old"}
    everything = whole(filled, "users:*", version=keys.ALL)[0]
    assert {row.version for row in everything} == {"1", "2"}
    assert {row.key for row in everything} == {"users:old", *(f"users:{number}" for number in range(40))}


def test_the_library_s_own_names_are_shown_when_asked_for(filled):
    """Tags, leases and the like are no entries of the site."""
    begins = f"{filled.key_prefix}:"

    hidden = whole(filled, version=keys.ALL)[0]
    shown = whole(filled, CacheKey(f"{begins}*"), library=True)[0]

    assert not [row for row in hidden if "~tag:" in row.key]
    assert [row.key for row in shown if "~tag:" in row.key] == ["~tag:blue"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"back\\slash", b"\\x41", "é\n€".encode(), b"", b"a b%2F?#&", b"\\\\xff"]
)
def test_any_bytes_are_shown_and_read_back(name):
    """The text of a name is printable, and says which bytes it stands for."""
    text = keys.shown(name)

    assert text.isprintable()
    assert keys.meant(text) == name


def test_a_site_s_own_names_are_told_from_the_library_s(valkey):
    """Where names are the keys themselves, a pattern neither lists nor deletes what the library keeps beside them."""
    prefix = own_prefix()
    entry = {"LOCATION": valkey.tcp_url(13), "KEY_PREFIX": prefix, "KEY_FUNCTION": lambda key, prefix, version: key}
    cache = CacheHandler({"default": entry})["default"]
    names = [f"fleetcache:{kind}:{{0}}:{prefix}" for kind in ("workers", "worker", "history", "token")]
    cache.set_many({CacheKey(name): 1 for name in [*names, prefix]}, 100)

    rows, _ = whole(cache, f"*{prefix}")
    steps = list(keys.delete_pattern(cache, f"*{prefix}", dry_run=False))

    assert [row.name.decode() for row in rows] == [prefix]
    assert steps[-1].deleted == 1
    assert set(cache.get_many([CacheKey(name) for name in names])) == set(names)


def test_names_that_are_no_text_are_in_the_page(valkey):
    """Other clients may store such names beside the cache's."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    name = f"{cache.key_prefix}:1:".encode() + b"\xff\x00\n\\"
    cache.get_client().set(name, 1)

    (row,) = whole(cache)[0]

    assert (row.key, row.version) == ("\\xff\\x00\\x0a\\\\", "1")
    assert keys.meant(row.shown) == name


def test_a_page_without_a_match_ends_in_time(valkey):
    """It says how far it came, and goes on from there."""
    cache = Cache(valkey.tcp_url(14), {"KEY_PREFIX": own_prefix()})
    raw = cache.get_client()
    raw.flushdb()
    script = "for i=1,ARGV[1] do redis.call('SET', 'other:' .. i, i) end"
    raw.eval(script, 0, 50_000)

    began = monotonic()
    page = keys.page(cache, "nothing", budget=0)
    took = monotonic() - began
    rows, pages = whole(cache, "nothing", budget=0)
    raw.flushdb()

    assert page.entries == [] and page.cursor and 0 < page.scanned < page.total == 50_000
    assert took < 0.2
    assert rows == [] and len(pages) > 1 and pages[-1].complete


def test_a_cursor_of_other_servers_begins_anew(valkey, redis_debian):
    """A cursor is of use only to the server that gave it."""
    first, other = (Cache(server.tcp_url(), {"KEY_PREFIX": "moved"}) for server in (valkey, redis_debian))
    for cache in first, other:
        cache.set_many({f"k{number}": number for number in range(50)})
    cursor = keys.page(first, count=5).cursor

    page = keys.page(other, count=5, cursor=cursor)
    onward = keys.page(other, count=5, cursor=page.cursor)

    assert page.restarted and not onward.restarted
    assert page.scanned < onward.scanned


def test_what_cannot_be_used_is_refused():
    """Nonsense in a link is an error of its author, not a walk through everything."""
    cache = Cache("memory://nonsense")

    with pytest.raises(ValueError, match="no cursor"):
        keys.page(cache, cursor="0")
    with pytest.raises(ValueError, match="pattern"):
        keys.page(cache, "*a" * 20)
    with pytest.raises(ValueError, match="pattern"):
        keys.page(cache, "a" * 600)


def test_masked_keys_are_told_apart():
    """The group shows, and not whose data it is."""
    assert keys.masked_key("users:1:name").startswith("users:…")
    assert keys.masked_key("users:1:name") != keys.masked_key("users:2:name")
    assert "secret" not in keys.masked_key("secret")
    assert len({keys.masked_key(f"users:{number}") for number in range(2000)}) == 2000


@pytest.mark.parametrize("key, group", [
    ("views.decorators.cache.cache_page..GET.0f1e.2d3c.en-us.UTC", "pages"),
    ("fleetcache.page.GET..0f1e.2d3c.en-us.UTC", "pages"),
    ("template.cache.menu.0f1e", "fragments"),
    ("django.contrib.sessions.cache0f1e", "sessions"),
])  # fmt: skip
def test_masked_keys_of_django_show_their_group(key, group):
    """Although they have no colon."""
    assert re.fullmatch(f"{group}:…[0-9a-f]{{8}}", keys.masked_key(key))


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("fleetcache:lease:{:1:a}", True),
        ("fleetcache:lease:{tag}:1:{tag}a", True),
        ("fleetcache:worker:{0}::host:1:a", True),
        ("fleetcache:lease:{bank:1:customer}", False),
        ("fleetcache:lease:{tag}bank:1:{tag}a", False),
        ("fleetcache:worker:{0}:bank:host:1:a", False),
        ("fleetcache:history:{5}:bank", False),
        ("fleetcache:epoch:bank", False),
    ],
)
def test_a_cache_without_a_prefix_has_its_own_names(key, ours):
    """It shares a database with the caches of others, whose leases and workers are not its own."""
    assert belongs(Cache("memory://prefixless"), key.encode()) is ours


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("fleetcache:lease:{shop:1:a}", True),
        ("fleetcache:lease:{tag}shop:1:{tag}a", True),
        ("fleetcache:gone:{fleetcache:epoch:shop}", True),
        ("fleetcache:epoch:shop", True),
        ("fleetcache:workers:{3}:shop", True),
        ("fleetcache:history:{5}:shop", True),
        ("fleetcache:worker:{0}:shop:host:7:ab", True),
        ("fleetcache:lease:{blog:1:posts:shop:ann}", False),
        ("fleetcache:lease:{shop}blog:1:{shop}a", False),
        ("fleetcache:gone:{fleetcache:epoch:blog:shop}", False),
        ("fleetcache:worker:{0}:blog:shop:7:ab", False),
        ("fleetcache:worker:{0}:shop:eu:host:7:ab", False),
        ("fleetcache:history:{5}:blog:shop", False),
        ("fleetcache:epoch:shop:eu", False),
    ],
)
def test_a_cache_has_the_names_of_its_prefix_only(name, ours):
    """The prefix may be a word of another site's key, or the name of its host."""
    assert belongs(Cache("memory://prefixed", {"KEY_PREFIX": "shop"}), name.encode()) is ours
