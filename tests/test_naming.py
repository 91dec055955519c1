"""A site's class that names entries itself: every operation uses its names, and its own `make_key` may call that of the library."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.core.cache.backends.base import CacheKeyWarning
from tests.caches import own_prefix
from tests.django_settings import configure
from tests.near.conftest import Copies, asked, copies, copy, raw  # noqa: F401 - fixtures

from fleetcache import Cache, cached
from fleetcache.errors import InvalidKey, SettingsError
from fleetcache.keys import CacheKey
from fleetcache.stats.operations import watch

configure()

from fleetcache.django import RedisCache  # noqa: E402 - needs the settings
from fleetcache.django.backend import with_client  # noqa: E402


class Tenants(Cache):
    """Names as a site makes them: around those of the library."""

    tenant = "acme"

    def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> Any:
        return f"{self.tenant}/{super().make_key(key, version, prefix)}.v"


class Named(Cache):
    """The same by the method that operations call."""

    def name(self, key: Any, version: Any = None, prefix: Any = None) -> str:
        return f"acme/{super().name(key, version, prefix)}.v"


class Django(RedisCache):
    """Django's own lines, changed, with Django's arguments."""

    def make_key(self, key: Any, version: Any = None) -> str:
        return "acme/" + self.key_func(key, self.key_prefix, self.version if version is None else version) + ".v"


class Checked(RedisCache):
    """Both steps of Django in one method."""

    def make_and_validate_key(self, key: Any, version: Any = None) -> str:
        return f"acme/{super().make_and_validate_key(key, version=version)}.v"


ALL = pytest.mark.parametrize("kind", [Tenants, Named, Django, Checked], ids=lambda kind: kind.__name__)


@pytest.fixture
def site(copies: Copies):  # noqa: F811 - it is a fixture
    """Make a cache of a class, on a server, and say under which prefix: ``site(kind, near)``."""
    return lambda kind, near=None, **params: copies(near=near, kind=kind, **params)


def entries(raw: redis.Redis, prefix: str) -> set[str]:  # noqa: F811
    """Return the names under *prefix* on the server, without what only fleetcache reads."""
    return {name.decode() for name in raw.keys(f"*{prefix}:*") if not (b"fleetcache:" in name or b"~near:" in name)}


@ALL
@pytest.mark.parametrize("near", [None, True], ids=["far", "near"])
async def test_every_operation_uses_the_names(site, raw, kind, near):  # noqa: F811
    """Operations of one key and of many, structures, loads, locks and pipelines: nothing is stored under another name."""
    cache = site(kind, near)
    prefix, whole = cache.key_prefix, cache.whole

    await cache.set("set", 1)
    await cache.set_many({"many": 2, "other": 3})
    await cache.set("version", 4, version=7)
    await cache.get_or_set("loaded", lambda: 5)
    await cache.get_or_set_many(["batch"], lambda keys: dict.fromkeys(keys, 6))
    await cache.sadd("members", 1)
    await cache.hset("hash", "field", 1)
    await cache.rpush("list", 1)
    await cache.zadd("scores", {"a": 1})
    await cache.set("tagged", 7, tags=["tag"])
    lock = cache.lock("lock", timeout=5)
    await lock.acquire()
    pipeline = whole.pipeline()
    pipeline.set("piped", 8)
    pipeline.execute()
    cached(60, key="call:{number}", cache=whole)(lambda number: number)(9)

    one = ["set", "many", "other", "loaded", "batch", "members", "hash", "list", "scores", "tagged", "lock", "piped"]
    names = {f"acme/{prefix}:1:{key}.v" for key in [*one, "call:9", "~tag:tag"]} | {f"acme/{prefix}:7:version.v"}
    assert entries(raw, prefix) == names
    assert await cache.get_many(["set", "many", "none"]) == {"set": 1, "many": 2}
    assert await cache.get_many(["version"], version=7) == {"version": 4}
    assert sorted(await cache.keys("*")) == sorted([*one, "call:9"])
    assert await cache.keys("vers*", version=7) == ["version"]
    assert sorted([key async for key in whole.aiter_keys("l*")]) == ["list", "loaded", "lock"]
    await lock.release()
    assert await cache.incr("set") == whole.client.get("set") == await whole.client.aget("set") == 2
    assert whole.client.name("set") == whole.client.make_key("set") == f"acme/{prefix}:1:set.v"
    assert whole.client.keys("set") == await whole.strict.akeys("set") == ["set"]
    assert await cache.incr_version("set", 6) == 7
    assert await cache.get("set", version=7) == 2
    assert await cache.invalidate_tags("tag") == 1
    assert await cache.get("tagged") is None
    assert await cache.delete_pattern("*", version=7) == 2
    assert await cache.delete_many(["many", "other"]) == 2
    await cache.clear()
    assert entries(raw, prefix) == set()


@ALL
async def test_copies_are_of_the_names(site, raw, asked, kind):  # noqa: F811
    """A near cache listens to the class's names: reads come from copies, until another program writes."""
    cache = site(kind, True)
    name = f"acme/{cache.key_prefix}:1:a.v"
    assert cache.near.prefixes == (f"acme/{cache.key_prefix}:1:",)
    await cache.set("a", "first")
    await cache.fence()
    while copy(cache, name) is None:
        assert await cache.get("a") == "first"
    asked()

    assert [await cache.get("a"), await cache.get_many(["a"]), await cache.has_key("a")] == [
        "first",
        {"a": "first"},
        True,
    ]
    assert asked() == 0
    raw.set(name, cache.whole.encode("second"))
    await cache.fence()
    assert await cache.get("a") == "second"


# --- what a site's method may do ------------------------------------------------------------------


def made(body: Any, base: Any = Cache) -> Any:
    """Return a cache in memory of a class with this `make_key`."""
    return type("Site", (base,), {"make_key": body})(f"memory://{own_prefix()}", {"KEY_PREFIX": "p"})


def test_what_make_key_returns():
    """Text of any class, and bytes, are names; anything else says which method is wrong."""
    assert made(lambda self, key, version=None: CacheKey(f"x{key}")).name("a") == "xa"
    assert type(made(lambda self, key, version=None: CacheKey(f"x{key}")).name("a")) is str
    assert made(lambda self, key, version=None: f"x{key}".encode()).name("a") == "xa"
    with pytest.raises(InvalidKey, match=r"Site\.make_key\(\) has to return text, not NoneType"):
        made(lambda self, key, version=None: None).get("a")


def test_make_key_gets_what_the_caller_gave():
    """As in Django: the key itself, and no version where the caller gave none; a complete name does not come by."""
    seen = []
    cache = made(lambda self, key, version=None, prefix=None: seen.append((key, version, prefix)) or f"x{key}")

    seen.clear()  # samples, for statistics
    cache.get("a")
    cache.get(["any", "thing"], version=2)
    cache.get_many(["b"], version="beta")
    cache.delete("c", prefix="other")
    cache.get(CacheKey("whole"))

    assert seen == [("a", None, None), (["any", "thing"], 2, None), ("b", "beta", None), ("c", None, "other")]


def test_a_prefix_for_a_make_key_that_takes_none():
    """Django's `make_key` has no prefix; Python's error says whose argument it is."""
    cache = made(lambda self, key, version=None: f"x{key}")

    with pytest.raises(TypeError, match="unexpected keyword argument 'prefix'"):
        cache.delete("a", prefix="other")


def test_the_base_still_refuses_what_is_no_key():
    """What has no useful name has none if the site's method asks that of the library."""
    cache = made(lambda self, key, version=None: f"x{Cache.make_key(self, key, version)}")

    assert cache.name("a") == "xp:1:a"
    with pytest.raises(InvalidKey):
        cache.get(None)


def test_names_that_differ_from_call_to_call():
    """A tenant of the moment: nobody reads another's entries."""
    tenant = ["first"]
    cache = made(lambda self, key, version=None: f"{tenant[0]}:{Cache.make_key(self, key, version)}")

    cache.set("secret", 1)
    tenant[0] = "second"

    assert (cache.get("secret"), cache.get_many(["secret"]), cache.keys("*"), cache.client.get("secret")) == (
        None,
        {},
        [],
        None,
    )


def test_names_without_a_prefix():
    """Entries that no glob tells from others': `clear` is refused, and removes nothing."""
    cache = made(lambda self, key, version=None: key)
    cache.set("a", 1)

    assert cache.keys("*") == ["a"]
    with pytest.raises(SettingsError, match=r"make_key\(\), makes names by which"):
        cache.clear()
    assert cache.get("a") == 1


def test_hashed_names():
    """Names that hide the key: entries are found by it, and a glob is refused."""
    cache = made(lambda self, key, version=None: f"{hash(key)}")
    cache.set_many({"a": 1, "b": 2})

    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    with pytest.raises(SettingsError, match=r"make_key\(\), does not leave"):
        cache.keys("a*")


def test_settings_that_names_depend_on_may_be_set():
    """The cache's and its client's names follow `key_prefix`, `version` and `key_func`, as Django's tests set them."""
    cache = made(lambda self, key, version=None: "x" + Cache.make_key(self, key, version), RedisCache)

    cache.key_prefix, cache.version = "q", 7
    assert cache.name("a") == cache.client.name("a") == cache._still.name("a") == "xq:7:a"
    cache.key_func = lambda key, prefix, version: f"{prefix}-{version}-{key}"
    assert cache.name("a") == cache.client.name("a") == "xq-7-a"


def test_reverse_key_of_ones_own():
    """A class that overrides it too decides which keys `keys` returns."""

    class Both(Tenants):
        def reverse_key(self, name: str) -> str:
            return super().reverse_key(name).upper()

    cache = Both("memory://reverse")
    cache.set("a", 1)

    assert cache.keys("*") == cache.scan()[1] == cache.client.keys("*") == ["A"]


# --- which class's method -------------------------------------------------------------------------


def test_client_class(valkey):
    """The client class that CLIENT_CLASS names names the entries of the backend; a backend that overrides too comes first."""
    params = {"KEY_PREFIX": own_prefix(), "OPTIONS": {"CLIENT_CLASS": Tenants}}
    one, both = RedisCache(valkey.url(9), params), Django(valkey.url(9), params)

    assert one.name("a") == one.client.name("a") == f"acme/{one.key_prefix}:1:a.v"
    assert isinstance(both, Tenants) and both.name("a") == one.name("a")
    assert with_client(RedisCache, one.settings)._names_itself and not RedisCache._names_itself
    with pytest.raises(AttributeError, match="a client has no client"):
        both.client.client  # noqa: B018 - asking is what raises


def test_name_comes_before_make_key():
    """A class with both is asked for `name`; one that only adds a `make_key` to a `name` is told that nobody calls it."""

    class Both(Cache):
        def name(self, key: Any, version: Any = None, prefix: Any = None) -> str:
            return f"tenant:{key}"

        def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> CacheKey:
            return CacheKey(self.name(key))

    cache = Both("memory://")
    assert cache.make_key("a") == cache.name("a") == "tenant:a"
    with pytest.warns(RuntimeWarning, match=r"Late\.make_key\(\) names no entry, because .*Named\.name\(\) does"):

        class Late(Named):
            def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> CacheKey:
                return CacheKey(key)


def test_a_class_further_down_that_overrides_name():
    """A `name` above a `make_key` is asked first, and may ask that."""

    class Further(Tenants):
        def name(self, key: Any, version: Any = None, prefix: Any = None) -> str:
            return super().name(key, version, prefix) + "!"

    assert Further("memory://", {"KEY_PREFIX": "p"}).name("a") == "acme/p:1:a.v!"


@ALL
def test_a_watched_cache_keeps_its_names(kind):
    """While there is a watcher, caches are of other classes, and their entries have the same names."""
    params = {"KEY_PREFIX": own_prefix()}
    end = watch(lambda operation: None)
    try:
        cache = kind("memory://watched", params)
        assert type(cache) is not kind
        assert cache.name("a") == cache.client.name("a") == cache.strict.name("a") == f"acme/{cache.key_prefix}:1:a.v"
        cache.set_many({"a": 1})
    finally:
        end()

    assert kind("memory://watched", params).get_many(["a"]) == {"a": 1}


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_methods_that_change_no_payload_are_warned_of(method):
    """A class that means to encrypt, say, is not left to think that it does."""
    with pytest.warns(RuntimeWarning, match=rf"Site\.{method}\(\) changes no payload\. Name a SERIALIZER"):
        type("Site", (Cache,), {method: lambda self, value: value})
    with pytest.warns(RuntimeWarning, match="changes no payload"):
        type("Site", (type("Mixin", (), {method: lambda self, value: value}), Cache), {})


# --- warnings of names ----------------------------------------------------------------------------


def test_the_made_name_is_warned_of(recwarn):
    """Only the name that is sent counts: a site that shortens names is not warned of the long ones."""
    short = made(lambda self, key, version=None: super(RedisCache, self).make_key(key, version)[:20], RedisCache)
    long = made(lambda self, key, version=None: "x" * 300, RedisCache)

    short.set("k" * 300, 1)
    short.get_many(["k" * 300])
    short.keys("k*")
    assert [str(each.message) for each in recwarn] == []
    with pytest.warns(CacheKeyWarning, match="longer than 250"):
        long.get("a")


def test_validate_key_of_ones_own_sees_every_name():
    """Django documents this override: it is asked for each name, and may refuse it."""
    seen = []

    class Strict(RedisCache):
        def validate_key(self, key: str) -> None:
            seen.append(key)
            if "secret" in key:
                raise ValueError(key)

    cache = Strict("memory://strict", {"KEY_PREFIX": "p"})
    cache.set("a", 1)
    cache.get("a")
    cache.get_many(["a", "b"])
    assert seen == ["p:1:a", "p:1:a", "p:1:a", "p:1:b"]
    for action in (lambda: cache.set("secret", 1), lambda: cache.set_many({"b": 1, "secret": 1})):
        with pytest.raises(ValueError, match="secret"):
            action()
    assert cache.keys("*") == ["a"]


# --- near caches and statistics -------------------------------------------------------------------


def test_names_that_need_more_than_the_settings(valkey):
    """Before there is a cache, a near cache has to know what names begin with: PREFIXES says so if the class cannot."""

    class Late(Cache):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tenant = "acme"

        def make_key(self, key: Any, version: Any = None) -> str:
            return f"{self.tenant}:{super().make_key(key, version)}"

    with pytest.raises(SettingsError, match="NEAR: no sample of a name could be made: AttributeError.*'PREFIXES'"):
        Late(valkey.url(9), {"OPTIONS": {"NEAR": True}})
    cache = Late(valkey.url(9), {"OPTIONS": {"NEAR": {"PREFIXES": ["acme:"]}}})
    assert cache.near.prefixes == ("acme:",)
    assert cache.name("a") == "acme::1:a"
    cache.near.close()
    with pytest.raises(SettingsError, match="no common beginning"):
        type("Raw", (Cache,), {"make_key": lambda self, key, version=None: key})(
            valkey.url(9), {"OPTIONS": {"NEAR": True}}
        )


def test_groups_are_those_of_the_keys():
    """Statistics take the key out of a name of the site's own."""
    cache = made(lambda self, key, version=None: f"x/{key}/{version}")

    cache.set("users:1", 1)

    assert cache.tally.group(cache.name("users:1")).name == "users"


async def test_tags_of_names_that_format_the_version():
    """The version that an entry says it was stored in is the number again, for a function that formats it as one."""
    numbered = Cache(
        "memory://numbered", {"KEY_FUNCTION": lambda key, prefix, version: f"{prefix}/{version:03d}/{key}"}
    )

    numbered.set("a", 1, tags=["t"])
    numbered.set("b", 2, version=2, tags=["t"])
    assert (numbered.get("a"), numbered.get("b", version=2)) == (1, 2)
    numbered.invalidate_tags("t")
    numbered.invalidate_tags("t", version=2)
    assert (numbered.get("a"), numbered.get("b", version=2)) == (None, None)
