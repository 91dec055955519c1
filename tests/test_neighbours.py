"""What stands around a cache in a Django site: tools that watch it, backends derived from it, packages that look inside."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from typing import Any
from unittest import mock

import pytest
import redis
from tests.django_settings import configure
from tests.faces import AWAITING, settled

configure()

from django.core.cache import caches
from django.test import override_settings

from fleetcache import Cache
from fleetcache.client import DefaultClient
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.django import RedisCache, omit_exception
from fleetcache.errors import ConnectionInterrupted
from fleetcache.twin import blocking

NOWHERE = "redis://127.0.0.1:1/0"
CARELESS = {"OPTIONS": {"IGNORE_EXCEPTIONS": True, "BREAKER_FAILURES": 1000}}


def watch(cache: Any) -> list[str]:
    """Replace the methods of *cache*, as sentry-sdk and django-debug-toolbar do; return where calls are noted."""
    called: list[str] = []

    def replace(name: str) -> None:
        method = getattr(cache, name)

        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return method(*args, **kwargs)

        setattr(cache, name, watched)

    for name in (name for name in dir(cache) if inspect.iscoroutinefunction(getattr(cache, f"a{name}", None))):
        replace(name)
        replace(f"a{name}")
    cache._watched = True
    return called


async def test_a_watched_cache_works(make, face):
    """Every operation does what it does unwatched, in both faces, in pipelines, with copies near, and on the client."""
    cache = make()
    called = watch(cache.whole)
    prefix = "a" if face == AWAITING else ""

    assert await cache.set("a", 1) is True
    assert [await cache.get("a"), await cache.get("a"), await cache.get("none", 5)] == [1, 1, 5]
    assert await cache.get_or_set("b", lambda: [2]) == [2]
    assert await cache.set_many({"c": 3, "d": None}) == []
    assert await cache.get_many(["a", "c", "d", "e"]) == {"a": 1, "c": 3, "d": None}
    assert await cache.incr("a") == 2
    assert await cache.touch("a", 60) is True
    assert await cache.delete("b") is True
    assert {f"{prefix}{name}" for name in ("set", "get", "get_or_set", "set_many", "get_many", "incr")} <= set(called)
    called.clear()
    pipe = cache.pipeline()
    pipe.whole.set("p", 1).get("p").incr("p").get_or_set("q", 7)
    assert await pipe.execute() == [True, 1, 2, 7]
    with cache.whole.client.pipeline() as pipe:
        assert pipe.get("p").execute() == [2]
    assert sorted([key async for key in cache.iter_keys("*")]) == ["a", "c", "d", "p", "q"]
    assert (cache.whole.client.get("p"), await cache.whole.client.aget("p")) == (2, 2)
    assert not {"get", "aget"} & set(called)


@pytest.mark.parametrize("first", ["client", "tool"])
@pytest.mark.parametrize("kind", [Cache, RedisCache])
async def test_the_client_raises_however_the_cache_is_watched(first, kind):
    """A tool that replaces methods of the cache changes none of the client's, which raises what the cache ignores."""
    cache = kind(NOWHERE, CARELESS)
    if first == "client":
        cache.client.make_key("a")
    called = watch(cache)

    assert (cache.get("a", 1), await cache.aget("a", 2), cache.get_many(["a"])) == (1, 2, {})
    for ask in (cache.client.get, cache.client.set, cache.client.incr):
        with pytest.raises(redis.ConnectionError):
            ask("a", 1)
    with pytest.raises(redis.ConnectionError):
        await cache.client.aget("a")
    assert sorted(called) == ["aget", "get", "get_many"]
    assert not vars(cache.client).keys() & called


def test_what_names_entries_is_set_on_all_faces(make):
    """``key_func``, ``key_prefix``, ``version`` and ``default_timeout`` may be set, as Django's tests do, and reset."""
    cache = make(TIMEOUT=None).whole
    client, own = cache.client, cache.key_func
    cache.set("a", 1)

    cache.key_prefix, cache.version, cache.default_timeout = "other", 7, 30
    cache.key_func = lambda key, prefix, version: f"{{x}}{prefix}-{version}-{key}"
    for face in (cache, cache._still, client, client._still):
        assert face.name("a") == "{x}other-7-a"
        assert face.get("a") is None
    cache.set("b", 2)
    client.set("c", 3)
    assert cache.get_many(["b", "c"]) == client.get_many(["b", "c"]) == {"b": 2, "c": 3}
    assert (cache.ttl("b"), client.ttl("c")) == (30, 30)
    cache.delete_many(["b", "c"])
    client.version = 8
    assert cache.version == 7
    cache.key_func = own

    assert cache.name("a") == client.make_key("a", version=7) == "other:7:a"


def test_a_method_that_was_replaced_can_be_put_back():
    """``mock.patch.object`` leaves no trace; a copy and a pipeline of a watched cache have its own methods."""
    cache = Cache("memory://neighbours")

    with mock.patch.object(cache, "get", return_value=5), mock.patch.object(cache, "aget"):
        assert cache.get("a") == 5
        assert cache.has_key("a") is cache.client.has_key("a") is False
        assert (cache.get_or_set("a", 1), cache.client.get("a"), copy.copy(cache).get("a")) == (1, 1, 1)
        assert cache.pipeline().get("a").execute() == [1]
    assert (cache.get("a"), asyncio.run(cache.aget("a"))) == (1, 1)
    assert not {"get", "aget"} & vars(cache).keys()


class Counting(RedisCache):
    """A backend as packages derive it from django-redis': its methods call the client's."""

    calls = 0

    @omit_exception
    def get(self, key, default=None, version=None, client=None):
        self.calls += 1
        value = self.client.get(key, default=None, version=version, client=client)
        return default if value is None else value

    @omit_exception(return_value={})
    def get_many(self, *args, **kwargs):
        return self.client.get_many(*args, **kwargs)

    async def aset(self, *args, **kwargs):
        self.calls += 1
        return await self.client.aset(*args, **kwargs)

    set = blocking(aset)

    @omit_exception
    def delete_pattern(self, *args, **kwargs):
        kwargs.setdefault("itersize", self._default_scan_itersize)
        return self.client.delete_pattern(*args, **kwargs)


class Journal(DefaultClient):
    """A client class of a site."""

    async def aget(self, key, *args, **kwargs):
        return f"read: {await super().aget(key, *args, **kwargs)}"

    get = blocking(aget)


class Circular(DefaultClient):
    def get(self, key, *args, **kwargs):
        return self.client.get(key, *args, **kwargs)


@pytest.mark.parametrize("near", [False, True])
async def test_a_backend_may_call_its_client(make, near):
    """A backend's override, plain or a coroutine, calls ``self.client``, which is the cache without the override."""
    location = make().whole.settings.location[0].url
    cache = Counting(location, {"KEY_PREFIX": f"{{counting-{near}}}", "OPTIONS": {"NEAR": near}})

    assert cache.set("a", 1) is True
    assert await cache.aset("b", 2) is True
    assert (cache.get("a"), cache.get("none", 5), await cache.aget("b"), cache.client.get("b")) == (1, 5, 2, 2)
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    assert cache.calls == 4
    assert (cache.strict.get("a"), cache.strict.calls) == (1, 5)
    assert cache.strict.strict is cache.strict is not cache.client
    assert cache.pipeline().set("c", 3).get("c").execute() == [True, 3]
    assert await cache.pipeline().set("c", 4).get("c").aexecute() == [True, 4]
    assert cache.delete_pattern("*") == 3


def test_a_backend_ignores_what_its_settings_ignore():
    """`omit_exception` answers an outage as the settings say, and knows that the client raises it."""
    careless, careful = Counting(NOWHERE, CARELESS), Counting(NOWHERE, {})

    assert (careless.get("a"), careless.get_many(["a"]), careless.delete_pattern("*")) == (None, {}, None)
    with pytest.raises(redis.ConnectionError):
        careful.get("a")
    with pytest.raises(ConnectionInterrupted):
        careless.client.get("a")
    with pytest.raises(redis.ConnectionError):
        careless.strict.get("a")
    careful._ignore_exceptions = True
    assert careful.get("a") is None
    guarded = Counting(NOWHERE, {"OPTIONS": {**CARELESS["OPTIONS"], "RAISE_FOR": ["limit:*"]}})
    assert guarded.get("page") is None
    with pytest.raises(redis.ConnectionError):
        guarded.get("limit:1")


def test_a_backend_keeps_the_client_that_is_named():
    """``self.client`` of a derived backend is of the class that CLIENT_CLASS names."""
    cache = Counting("memory://journal", {"OPTIONS": {"CLIENT_CLASS": f"{__name__}.Journal"}})
    cache.set("a", 1)

    assert cache.get("a") == "read: 1"
    assert isinstance(cache.client, Journal)
    assert not isinstance(cache.client, Counting)
    assert cache._client_cls is Journal
    with pytest.raises(AttributeError, match="CLIENT_CLASS"):
        cache._client_cls = DefaultClient


@pytest.mark.parametrize("kind", [Circular, RedisCache])
def test_a_client_that_calls_itself_is_told_how_to_write_it(kind):
    """A client class has no client; its override calls ``super()``, and says so instead of running for ever."""
    options = {} if kind is Circular else {"CLIENT_CLASS": f"{__name__}.Circular"}
    cache = kind("memory://circular", {"OPTIONS": options | {"CLIENT_CLASS": f"{__name__}.Circular"}})

    with pytest.raises(AttributeError, match=r"super\(\)"):
        cache.get("a")


def test_what_packages_look_for_is_right_or_not_there(valkey):
    """Names that other backends have mean what they mean there, or lead to an AttributeError, never to None."""
    entry = {"LOCATION": valkey.tcp_url(), "TIMEOUT": 40, "OPTIONS": {"SCAN_ITERSIZE": 7}}
    with override_settings(CACHES={"default": {"BACKEND": "fleetcache.django.RedisCache", **entry}}):
        cache = caches["default"]

        assert cache.get_master_client().ping() is True
        assert (cache._server, cache._params["TIMEOUT"], cache._default_scan_itersize) == (valkey.tcp_url(), 40, 7)
        assert (cache._ignore_exceptions, cache._log_ignored_exceptions, cache._client_cls) == (False, False, Cache)
        for name in ("_client", "_cache", "_servers", "_class", "_options", "_lib"):
            assert not hasattr(cache, name)
            assert not hasattr(cache.client, name)
        assert cache.milliseconds(DEFAULT_TIMEOUT) == 40_000
    assert isinstance(asyncio.run(settled(RedisCache(NOWHERE, {}).aget("a"))), ConnectionInterrupted)
