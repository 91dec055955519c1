"""``get_redis_connection`` returns what django-redis' does; the cache's own exchange has deadlines all the same."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.django_settings import configure

configure()

from django.core.cache import caches
from django.test import override_settings
from django_redis.cache import RedisCache as Theirs

from fleetcache import Cache
from fleetcache.django import RedisCache, get_redis_connection
from fleetcache.errors import ServerTimeout

APART = ("command_packer", "ssl_check_hostname", "parser_class", "maint", "himport", "event_dispatcher")
"""What is ours on purpose, or redis-py's own default; and objects of redis-py's that each pool has for itself."""

RETRY = Retry(NoBackoff(), 2)

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "limits": {"SOCKET_TIMEOUT": 7, "SOCKET_CONNECT_TIMEOUT": 3},
    "limits of the pool": {"CONNECTION_POOL_KWARGS": {"socket_timeout": 4, "socket_connect_timeout": None}},
    "retries": {"CONNECTION_POOL_KWARGS": {"retry": RETRY, "retry_on_timeout": True}},
    "health": {"CONNECTION_POOL_KWARGS": {"health_check_interval": 30, "socket_keepalive": True}},
    "names": {"USERNAME": "me", "PASSWORD": "secret", "CONNECTION_POOL_KWARGS": {"client_name": "shop", "db": 3}},
    "at most": {"CONNECTION_POOL_KWARGS": {"max_connections": 9}},
    "text": {"CONNECTION_POOL_KWARGS": {"decode_responses": True, "encoding": "latin-1"}},
}


def kwargs(cache: Any) -> dict[str, Any]:
    """Return what connections of the raw client are made with."""
    found = cache.client.get_client().connection_pool.connection_kwargs
    return {name: value for name, value in found.items() if not name.startswith(APART) and value is not None}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
@pytest.mark.parametrize("said", OPTIONS)
def test_connections_are_made_as_django_redis_makes_them(said, scheme):
    """Nothing is passed that the site has not said, in no scheme: redis-py's own defaults hold."""
    place = "unix:///run/raw.sock?db=1" if scheme == "unix" else f"{scheme}://127.0.0.1:1/{len(said)}"
    options = OPTIONS[said]
    if scheme == "unix" and "socket_keepalive" in options.get("CONNECTION_POOL_KWARGS", {}):
        return
    theirs = Theirs(f"{place}", {"OPTIONS": dict(options)})
    theirs.client.connection_factory._pools = {}  # which would be found by the URL alone

    assert kwargs(RedisCache(place, {"OPTIONS": options})) == kwargs(theirs)
    assert kwargs(Cache(place, {"OPTIONS": options})) == kwargs(theirs)
    limit = RedisCache(place, {"OPTIONS": options}).client.get_client().connection_pool.max_connections
    assert limit == theirs.client.get_client().connection_pool.max_connections


def test_a_cluster_and_a_sentinel_pass_no_limit_either(valkey_cluster, watched_servers):
    """Raw clients of clusters and services have redis-py's limits, unless the site has set some."""
    cluster = Cache(valkey_cluster.url()).get_client()
    service = Cache(watched_servers.url()).get_client()

    assert "socket_timeout" not in service.connection_pool.connection_kwargs
    usual = redis.Connection().socket_timeout
    assert cluster.get_default_node().redis_connection.connection_pool.make_connection().socket_timeout == usual
    limited = Cache(valkey_cluster.url(), {"OPTIONS": {"SOCKET_TIMEOUT": 9}}).get_client()
    assert limited.get_default_node().redis_connection.connection_pool.make_connection().socket_timeout == 9
    for client in (cluster, service, limited):
        client.close()


@pytest.mark.alone
def test_raw_clients_wait_and_the_cache_does_not(mortal_server, monkeypatch):
    """A raw client waits for as long as it is told and listens; a get over the same pool's address has 5 seconds."""
    monkeypatch.setattr("fleetcache.exchange.connecting.DEADLINE", 0.2)
    monkeypatch.setattr("fleetcache.servers.remote.DEADLINE", 0.2)
    cache = Cache(mortal_server.tcp_url())
    raw = cache.get_client()
    assert cache.get("a") is None

    started = time.monotonic()
    assert raw.blpop("nothing", 0.5) is None
    assert time.monotonic() - started > 0.45
    listening = raw.pubsub()
    listening.subscribe("news")
    assert listening.get_message(timeout=1)["type"] == "subscribe"
    told = threading.Timer(0.4, raw.publish, ("news", "it works"))
    told.start()
    assert next(listening.listen())["data"] == b"it works"
    told.join()
    listening.close()

    mortal_server.pause()
    for ask in (lambda: cache.get("a"), lambda: asyncio.run(cache.aget("a"))):
        started = time.monotonic()
        with pytest.raises((ServerTimeout, redis.ConnectionError)):
            ask()
        assert time.monotonic() - started < 2
    mortal_server.resume()
    raw.close()
    raw.connection_pool.disconnect()


@pytest.fixture
def mortal_server():
    """A server of this test alone."""
    from fleetcache.testing import valkey_server

    with valkey_server() as server:
        yield server


def test_the_pool_of_an_alias_is_one(valkey):
    """Each client of an alias, in whatever thread, has the process's pool; another alias shares it if it says the same."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": valkey.tcp_url(4)}
    other = {**entry, "OPTIONS": {"SOCKET_TIMEOUT": 8}}
    with override_settings(CACHES={"default": entry, "same": {**entry, "KEY_PREFIX": "x"}, "other": other}):
        pool = get_redis_connection().connection_pool
        found = []
        thread = threading.Thread(target=lambda: found.append(get_redis_connection().connection_pool))
        thread.start()
        thread.join()

        assert found == [pool]
        assert get_redis_connection("same", write=False).connection_pool is pool
        assert get_redis_connection("other").connection_pool is not pool
        assert get_redis_connection().ping() is True
        caches["default"].client.get_client().set(caches["default"].make_key("raw"), 5)
        assert caches["default"].get("raw") == 5
        caches["default"].delete("raw")
        pool.disconnect()


def test_reading_and_writing_clients(valkey, redis_debian):
    """``write=False`` leads to a replica if LOCATION names one; without a server there is no raw client."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": [valkey.tcp_url(4), redis_debian.tcp_url(4)]}
    memory = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://raw"}
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": entry, "memory": memory, "local": local}):
        ports = [
            get_redis_connection("default", write=write).connection_pool.connection_kwargs["port"]
            for write in (True, False)
        ]
        assert ports == [valkey.port, redis_debian.port]
        for alias in ("memory", "local"):
            with pytest.raises(NotImplementedError):
                get_redis_connection(alias)


def test_a_client_of_a_cluster_that_was_closed(valkey_cluster):
    """Who asks for a raw client later gets another one: a closed `redis.RedisCluster` knows no nodes any more."""
    cache = Cache(valkey_cluster.url())
    with cache.get_client() as raw:
        raw.set("closed", 1)

    assert cache.get_client().get("closed") == b"1"
    assert cache.get_client() is cache.get_client()
