"""The handler: caches by alias, without Django."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

import fleetcache
from fleetcache import Cache, CacheHandler, InvalidCacheBackendError, SettingsError
from fleetcache.caches import CacheProxy, from_environment
from fleetcache.client import HerdClient

ONE = {"default": {"LOCATION": "memory://handler"}, "other": "memory://handler?key_prefix=o&timeout=7"}


@pytest.fixture
def caches():
    return CacheHandler(ONE)


def test_a_cache_is_made_on_first_use_and_kept(caches):
    """The same object comes back each time, and aliases differ."""
    default = caches["default"]

    assert isinstance(default, Cache)
    assert caches["default"] is default
    assert caches["other"] is not default
    assert caches["other"].key_prefix == "o"
    assert caches["other"].default_timeout == 7


def test_an_alias_that_does_not_exist(caches):
    """The error names the alias and the ones that exist; without any it says how to configure some."""
    with pytest.raises(InvalidCacheBackendError, match=r"no cache 'defualt'.*'default', 'other'"):
        caches["defualt"]
    with pytest.raises(InvalidCacheBackendError, match=r"none: call configure\(\), or set FLEETCACHE_URL"):
        CacheHandler({})["default"]


USES = """
import sys
import fleetcache
{before}
for use in (lambda: fleetcache.caches["default"], lambda: fleetcache.cache.get("a"), fleetcache.cached(5, key="a")(lambda: 1)):
    try:
        use()
    except fleetcache.InvalidCacheBackendError as error:
        print(error)
print("django" in sys.modules)
"""


@pytest.mark.parametrize(
    "before, ending, django",
    [
        ("", "", False),
        ("import django.conf", "", True),
        (
            "import django.conf; django.conf.settings.configure()",
            ". Under Django: from fleetcache.django import cached (caches, cache)",
            True,
        ),
    ],
    ids=["no Django", "Django without settings", "a Django project"],
)
def test_the_caches_of_a_django_project_are_elsewhere(before, ending, django):
    """Who takes `cached` from fleetcache in a project reads where that of Django is; elsewhere Django is not imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETCACHE_", "DJANGO_"))}
    ran = subprocess.run(
        [sys.executable, "-c", USES.format(before=before)], env=environment, capture_output=True, text=True, check=True
    )

    message = f"There is no cache 'default'. Configured are none: call configure(), or set FLEETCACHE_URL{ending}"
    assert ran.stdout.splitlines() == [message] * 3 + [str(django)]


def test_iteration_and_membership(caches):
    """A handler lists its aliases, whether or not their caches were made."""
    assert list(caches) == ["default", "other"]
    assert "default" in caches
    assert "missing" not in caches
    assert dict(caches.settings) == ONE


def test_all(caches):
    """all() makes every cache; with initialized_only it lists those that were used."""
    assert caches.all(initialized_only=True) == []

    default = caches["default"]
    assert caches.all(initialized_only=True) == [default]
    assert caches.all() == [default, caches["other"]]


def test_close_all_closes_what_was_used(caches, monkeypatch):
    """close_all() closes the caches of this thread, and makes none."""
    closed = []
    monkeypatch.setattr(Cache, "close", lambda self, **kwargs: closed.append(self))
    default = caches["default"]

    caches.close_all()

    assert closed == [default]


def test_each_thread_has_its_own(caches):
    """Threads do not share cache objects, and see each other's values."""
    mine = caches["default"]
    mine.set("key", "value")
    found = []

    thread = threading.Thread(target=lambda: found.extend([caches["default"], caches["default"].get("key")]))
    thread.start()
    thread.join(10)

    assert found[0] is not mine
    assert found[1] == "value"


async def test_each_task_has_its_own(caches):
    """Tasks that start before their parent uses a cache make their own; later ones share the parent's."""

    async def mine():
        first = caches["default"]
        await asyncio.sleep(0)
        return first is caches["default"], first

    (kept, one), (_, two) = await asyncio.gather(mine(), mine())
    parent = caches["default"]
    (_, shared) = await asyncio.create_task(mine())

    assert kept is True
    assert one is not two
    assert shared is parent


def test_objects_of_a_thread_go_with_it(caches):
    """A thread that ended leaves no cache object behind."""
    made = []

    def use():
        made.append(weakref.ref(caches["default"]))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    del thread
    gc.collect()

    assert made[0]() is None


def test_configure_replaces_settings(caches):
    """After configure() caches are made anew; those handed out before go on."""
    old = caches["default"]

    caches.configure("memory://handler-2?version=5")

    assert list(caches) == ["default"]
    assert caches["default"] is not old
    assert caches["default"].version == 5
    assert old.get("missing") is None


def test_a_single_url_is_the_default():
    """CacheHandler(url) has one cache, ``default``."""
    caches = CacheHandler("memory://single")

    assert list(caches) == ["default"]
    assert caches["default"].set("a", 1) is True


def test_settings_from_the_environment(monkeypatch):
    """FLEETCACHE_URL is the default cache, FLEETCACHE_URL_SESSIONS the cache ``sessions``."""
    monkeypatch.setenv("FLEETCACHE_URL", "memory://env")
    monkeypatch.setenv("FLEETCACHE_URL_SESSIONS", "memory://env?key_prefix=s")
    caches = CacheHandler()

    assert set(caches) == {"default", "sessions"}
    assert caches["sessions"].key_prefix == "s"
    assert from_environment({"FLEETCACHE_URLS": "x", "PATH": "y"}) == {}


def test_the_module_level_cache():
    """``fleetcache.cache`` is the default cache of ``fleetcache.caches``, whoever asks."""
    fleetcache.configure({"default": {"LOCATION": "memory://module", "KEY_PREFIX": "m"}})
    try:
        fleetcache.cache.set("key", 1)

        assert isinstance(fleetcache.cache, CacheProxy)
        assert "key" in fleetcache.cache
        assert fleetcache.caches["default"].get("key") == 1
        assert asyncio.run(fleetcache.cache.aget("key")) == 1
    finally:
        fleetcache.configure({})


def test_the_client_class_of_an_entry():
    """CLIENT_CLASS decides what is made; django-redis' BACKEND and client paths are understood."""
    caches = CacheHandler(
        {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "memory://clients",
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.HerdClient"},
            },
            "url": "memory://clients?client_class=fleetcache.client.HerdClient",
            "wrong": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "memory://x"},
        }
    )

    assert type(caches["default"]) is HerdClient
    assert type(caches["url"]) is HerdClient
    with pytest.raises(InvalidCacheBackendError, match=r"CACHES\['wrong'\].*LocMemCache"):
        caches["wrong"]


@pytest.mark.parametrize("entry", [None, 5, ["memory://"]], ids=repr)
def test_an_entry_of_the_wrong_kind(entry):
    """An entry is a dict or a URL."""
    with pytest.raises(SettingsError, match=r"CACHES\['default'\]: a dict or a URL"):
        CacheHandler({"default": entry})


def test_making_a_cache_connects_nowhere():
    """A cache of a server that does not exist is made without a word to it."""
    caches = CacheHandler({"default": {"LOCATION": "redis://192.0.2.1:1/0"}, "tls": "rediss://192.0.2.1:1/0"})

    assert caches.all()[0].make_key("a") == ":1:a"


def test_objects_share_connections_and_counters(valkey):
    """Two caches of the same settings share servers, codec and counters; other settings only what is the same."""
    one, two = Cache(valkey.url()), Cache(valkey.url())
    prefixed, hasty = Cache(valkey.url(), {"KEY_PREFIX": "p"}), Cache(valkey.url(), {"OPTIONS": {"socket_timeout": 1}})

    assert one.topology is two.topology
    assert one.stats is two.stats
    assert prefixed.topology.primaries[0] is one.topology.primaries[0]
    assert hasty.topology.primaries[0] is not one.topology.primaries[0]
