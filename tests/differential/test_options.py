"""Every option and setting of django-redis: the same entry of ``CACHES`` does the same in both."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django_redis import get_redis_connection as their_connection
from django_redis.cache import RedisCache as TheirCache
from django_redis.compressors.base import BaseCompressor
from django_redis.exceptions import CompressorError
from django_redis.pool import ConnectionFactory as TheirFactory
from tests.nearby import EVERYWHERE

from fleetcache import client as clients
from fleetcache.django import get_redis_connection as our_connection
from fleetcache.pool import ConnectionFactory as OurFactory

from .conftest import close_their_pools
from .setups import Setups
from .sides import Cache, OurCache, agreeing, plainly

pytestmark = pytest.mark.also(near=True)

COVERED: dict[str, set[str]] = {}
"""Which tests are about an option or setting."""


def about(*options: str) -> Callable[[Any], Any]:
    """Say that a test is about *options*."""

    def mark(test: Any) -> Any:
        for option in options:
            COVERED.setdefault(option, set()).add(test.__name__)
        return test

    return mark


SIDES = ["theirs", "ours"]

without_near = pytest.mark.skipif(EVERYWHERE, reason="is about what a near cache does without, or adds to")


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whose backend is made."""
    close_their_pools()  # they know only their URL, not the options of the next test
    yield request.param
    close_their_pools()


@pytest.fixture
def make(side: str, setups: Setups) -> Callable[..., Any]:
    """Make a backend of one side."""

    def make(options: dict[str, Any] | None = None, location: Any = None, **params: Any) -> Any:
        backend = TheirCache if side == "theirs" else OurCache
        location = setups.servers.single.tcp_url(7) if location is None else location
        return backend(location, {"OPTIONS": {**(options or {})}, **params})

    raw = setups.raw(7)
    raw.flushdb()
    return make


def arguments(cache: Any) -> dict[str, Any]:
    """What the connections of a cache are made of."""
    return cache.client.get_client().connection_pool.connection_kwargs


def refused(make: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Expect that Django is told of a wrong setting, at the latest by the first call."""
    with pytest.raises(ImproperlyConfigured):
        make(*args, **kwargs).get("a")


# --- clients, serializers, compressors ------------------------------------------------------------


@about("CLIENT_CLASS")
@pytest.mark.parametrize("name", ["DefaultClient", "HerdClient", "ShardClient", "SentinelClient"])
@pytest.mark.parametrize("path", ["django_redis.client.{}", "django_redis.client.{module}.{}"])
def test_client_class(make, side: str, name: str, path: str, setups) -> None:
    """Both paths of each client name it."""
    modules = {"DefaultClient": "default", "HerdClient": "herd", "ShardClient": "sharded", "SentinelClient": "sentinel"}
    options = {"CLIENT_CLASS": path.format(name, module=modules[name])}
    if name == "SentinelClient":
        options |= setups["sentinel"].params["OPTIONS"] | options

    client = make(options, "redis://service/1" if name == "SentinelClient" else None).client

    if side == "theirs":
        assert type(client).__name__ == name
    else:
        assert isinstance(client, getattr(clients, name))


class Backwards:
    """A serializer of the site's own."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.mark = options["BACKWARDS_MARK"] if "BACKWARDS_MARK" in options else "!"

    def dumps(self, value: Any) -> bytes:
        return f"{value}{self.mark}"[::-1].encode()

    def loads(self, value: bytes) -> Any:
        return value.decode()[::-1].removesuffix(self.mark)


class Prefixing(BaseCompressor):
    """A compressor of the site's own, derived from django-redis'."""

    def compress(self, value: bytes) -> bytes:
        return b"<" + value

    def decompress(self, value: bytes) -> bytes:
        if not value.startswith(b"<"):
            raise CompressorError
        return value[1:]


@about("SERIALIZER", "COMPRESSOR")
def test_own_serializer_and_compressor(make, setups) -> None:
    """Classes that were written for django-redis are used as they are."""
    cache = make({"SERIALIZER": f"{__name__}.Backwards", "COMPRESSOR": f"{__name__}.Prefixing"})
    raw = setups.raw(7)

    cache.set("a", "value")
    raw.set(":1:b", b"!ylniart")

    assert raw.get(":1:a") == b"<!eulav"
    assert cache.get_many(["a", "b"]) == {"a": "value", "b": "trainly"}


@about("PICKLE_VERSION")
@pytest.mark.parametrize("version", ["highest", 99])
def test_wrong_pickle_version(make, version: Any) -> None:
    """A protocol that does not exist is told."""
    refused(make, {"PICKLE_VERSION": version})


@about("SERIALIZER", "CLIENT_CLASS")
def test_herd_of_json(make) -> None:
    """HerdClient's marker can only be pickled."""
    cache = make(
        {
            "CLIENT_CLASS": "django_redis.client.HerdClient",
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
        }
    )

    with pytest.raises(TypeError):
        cache.set("a", 1, 10)
    cache.set("a", [1], None)

    assert cache.get("a") == [1]


# --- names ----------------------------------------------------------------------------------------


def backwards_name(key: str, prefix: str, version: int) -> str:
    return f"{key}/{prefix}/{version}"


def key_of_backwards_name(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


@about("KEY_FUNCTION", "REVERSE_KEY_FUNCTION", "KEY_PREFIX", "VERSION")
@without_near
@pytest.mark.parametrize("spelling", [lambda it: it, lambda it: f"{__name__}.{it.__name__}"], ids=["itself", "path"])
def test_key_functions(make, setups, spelling: Any) -> None:
    """A site may name keys its own way; given as functions or by their paths."""
    cache = make(
        None,
        KEY_PREFIX="site",
        VERSION=4,
        KEY_FUNCTION=spelling(backwards_name),
        REVERSE_KEY_FUNCTION=spelling(key_of_backwards_name),
    )

    cache.set("user", 1)
    cache.incr_version("user", version=4)

    assert setups.raw(7).keys("*") == [b"user/site/5"]
    assert cache.keys("*", version=5) == list(cache.iter_keys("u*", version=5)) == ["user"]
    assert cache.client.reverse_key("user/site/4") == "user"
    assert cache.delete_pattern("us*", version=5) == 1


@about("TIMEOUT")
@pytest.mark.parametrize(("timeout", "left"), [(50, 50), ("50", 50), (None, None), (0, 0)], ids=repr)
def test_timeout(make, timeout: Any, left: int | None) -> None:
    """The default lifetime of entries."""
    cache = make(None, TIMEOUT=timeout)

    cache.set("a", 1)

    assert cache.ttl("a") == left or cache.ttl("a") in range(left - 2, left)


@about("OPTIONS")
def test_no_options(make, side: str, setups) -> None:
    """OPTIONS may be left out."""
    cache = (TheirCache if side == "theirs" else OurCache)(setups.servers.single.tcp_url(7), {})

    assert cache.set("a", 1)


# --- servers --------------------------------------------------------------------------------------


@about("LOCATION")
@without_near
@pytest.mark.parametrize("spelling", [",".join, list, tuple], ids=["text", "list", "tuple"])
def test_location_of_several(make, setups, spelling: Any) -> None:
    """The first server is written to, the second is read."""
    cache = make(None, spelling([setups.servers.single.tcp_url(db) for db in (7, 8)]))
    setups.raw(8).flushdb()

    cache.set("a", 1)

    assert cache.get("a") is None
    assert cache.client.get_client(write=True).get(":1:a") == b"1"
    assert cache.client.get_client(write=False).get(":1:a") is None


@about("LOCATION")
@pytest.mark.parametrize("location", ["", [], ()], ids=repr)
def test_empty_location(make, location: Any) -> None:
    """There has to be a server."""
    refused(make, None, location)


@about("LOCATION")
@pytest.mark.parametrize("database", ["/8", "/?db=8", "/7?db=8", ""], ids=repr)
def test_database(make, setups, database: str) -> None:
    """The database stands in the path or in the query."""
    for number in (0, 8):
        setups.raw(number).flushdb()
    cache = make(None, f"redis://127.0.0.1:{setups.servers.single.port}{database}")

    cache.set("a", 1)

    assert setups.raw(8 if database else 0).get(":1:a") == b"1"


@about("LOCATION")
def test_unix_socket(make, setups) -> None:
    """unix:// is a server too."""
    cache = make(None, setups.servers.single.url(7))

    cache.set("a", 1)

    assert cache.get("a") == 1
    assert setups.raw(7).get(":1:a") == b"1"


@about("LOCATION", "CONNECTION_POOL_KWARGS")
def test_tls(make, tls) -> None:
    """rediss:// is TLS, and its options stand in the URL or in CONNECTION_POOL_KWARGS."""
    by_url = make(None, tls.tls_url(1))
    by_option = make({"CONNECTION_POOL_KWARGS": {"ssl_ca_certs": str(tls.ca)}}, f"rediss://127.0.0.1:{tls.tls_port}/1")

    by_url.set("a", 1)

    assert by_option.get("a") == 1


@about("REPLICA_READ_ONLY")
@without_near
@pytest.mark.parametrize("read_only", [True, False])
def test_replica_read_only(make, setups, read_only: bool) -> None:
    """Only if replicas are not read-only do writes go to them while the primary is away."""
    cache = make({"REPLICA_READ_ONLY": read_only}, ["redis://127.0.0.1:1/1", setups.servers.single.tcp_url(7)])

    if read_only:
        with pytest.raises(redis.ConnectionError):
            cache.set("a", 1)
    else:
        assert cache.set("a", 1, None)
        assert cache.add("b", 1, None)
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 1}


# --- connections ----------------------------------------------------------------------------------


@about("USERNAME", "PASSWORD")
def test_username_and_password(make, setups) -> None:
    """The URL's have precedence, as to the user and as to the password."""
    raw, port = setups.raw(7), setups.servers.single.port
    for user in ("alice", "bob"):
        raw.acl_setuser(user, enabled=True, passwords=[f"+of {user}"], keys="*", channels="*", commands=["+@all"])
    options = {"USERNAME": "alice", "PASSWORD": "of alice"}
    given = [
        (make(options), "alice"),
        (make(options, f"redis://bob:of%20bob@127.0.0.1:{port}/7"), "bob"),
        (make({"USERNAME": "alice"}, f"redis://:of%20alice@127.0.0.1:{port}/7"), "alice"),
        (make({"PASSWORD": "of alice"}, f"redis://alice@127.0.0.1:{port}/7"), "alice"),
    ]

    for cache, user in given:
        close_their_pools()
        assert cache.set("a", user)
        assert cache.get("a") == user
        assert cache.client.get_client().acl_whoami() == user


@about("PASSWORD")
def test_wrong_password(make) -> None:
    """The server's refusal is redis-py's AuthenticationError."""
    cache = make({"USERNAME": "nobody", "PASSWORD": "wrong"})

    with pytest.raises(redis.AuthenticationError):
        cache.get("a")


@about("SOCKET_TIMEOUT")
def test_socket_timeout(make) -> None:
    """A server that says nothing is waited for that long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = make({"SOCKET_TIMEOUT": 0.05}, f"redis://127.0.0.1:{silent.getsockname()[1]}/1")

        with pytest.raises(redis.TimeoutError):
            cache.get("a")

    assert arguments(cache)["socket_timeout"] == 0.05


@about("SOCKET_CONNECT_TIMEOUT")
def test_socket_connect_timeout(make) -> None:
    """The limit for connecting reaches the connections."""
    cache = make({"SOCKET_CONNECT_TIMEOUT": 3, "SOCKET_TIMEOUT": 7})

    assert arguments(cache)["socket_connect_timeout"] == 3
    assert arguments(cache)["socket_timeout"] == 7


@about("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")
@pytest.mark.parametrize("option", ["SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"])
def test_wrong_socket_timeouts(make, option: str) -> None:
    """They are numbers."""
    refused(make, {option: "soon"})


@about("PARSER_CLASS")
def test_parser_class(make) -> None:
    """The parser of raw clients may be chosen."""
    cache = make({"PARSER_CLASS": "redis._parsers._RESP3Parser"})

    cache.set("a", 1)

    assert arguments(cache)["parser_class"] is redis._parsers._RESP3Parser
    assert cache.client.get_client().get(":1:a") == b"1"
    assert cache.get("a") == 1


class OwnPool(redis.ConnectionPool):
    """A pool of the site's own."""


@about("CONNECTION_POOL_CLASS", "CONNECTION_POOL_KWARGS")
def test_connection_pool(make, setups) -> None:
    """The class of pools, and their arguments and their connections'."""
    cache = make(
        {
            "CONNECTION_POOL_CLASS": f"{__name__}.OwnPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": 7, "client_name": "of-the-site"},
        }
    )

    cache.set("a", 1)
    pool = cache.client.get_client().connection_pool

    assert type(pool) is OwnPool
    assert pool.max_connections == 7
    assert "of-the-site" in connected(setups)


@about("CONNECTION_POOL_CLASS")
def test_blocking_pool(make) -> None:
    """redis-py's pool that lets callers wait."""
    cache = make(
        {
            "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": 1, "timeout": 0.05},
        }
    )

    assert cache.set("a", 1)
    assert cache.get("a") == 1


def connected(setups: Setups) -> list[str]:
    """The names of all connections to the server."""
    return [client["name"] for client in setups.raw(7).client_list() if client["name"]]


class OwnClient(redis.Redis):
    """A client of the site's own."""

    def __init__(self, *, greeting: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.greeting = greeting


@about("REDIS_CLIENT_CLASS", "REDIS_CLIENT_KWARGS")
def test_redis_client(make) -> None:
    """The class of raw clients, and their arguments."""
    cache = make({"REDIS_CLIENT_CLASS": f"{__name__}.OwnClient", "REDIS_CLIENT_KWARGS": {"greeting": "hello"}})

    raw = cache.client.get_client()
    cache.set("a", 1)

    assert (type(raw), raw.greeting) == (OwnClient, "hello")
    assert raw.get(":1:a") == b"1"


class Overrides:
    """What sites override in a connection factory; *calls* says which of it was used."""

    calls: list[str] = []
    client_name = ""

    def connect(self, url: str) -> Any:
        self.calls.append("connect")
        return super().connect(url)

    def disconnect(self, connection: Any) -> None:
        self.calls.append("disconnect")
        super().disconnect(connection)

    def make_connection_params(self, url: str) -> dict[str, Any]:
        self.calls.append("make_connection_params")
        return {**super().make_connection_params(url), "client_name": self.client_name}

    def get_connection(self, params: dict[str, Any]) -> Any:
        self.calls.append("get_connection")
        return super().get_connection(params)

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        self.calls.append("get_or_create_connection_pool")
        return super().get_or_create_connection_pool(params)

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        self.calls.append("get_connection_pool")
        return super().get_connection_pool(params)


class TheirOwnFactory(Overrides, TheirFactory):
    """A factory derived from django-redis'."""


class OurOwnFactory(Overrides, OurFactory):
    """The same, derived from fleetcache's."""


@about("CONNECTION_FACTORY", "DJANGO_REDIS_CONNECTION_FACTORY")
@pytest.mark.parametrize("where", ["option", "setting"])
def test_connection_factory(make, side: str, setups, where: str) -> None:
    """The documented methods of a site's own factory are used."""
    factory = f"{__name__}.{'Their' if side == 'theirs' else 'Our'}OwnFactory"
    Overrides.client_name = name = f"made-by-{side}-{where}"
    Overrides.calls.clear()

    if where == "option":
        cache = make({"CONNECTION_FACTORY": factory})
        cache.set("a", 1)
    else:
        with override_settings(DJANGO_REDIS_CONNECTION_FACTORY=factory):
            cache = make()
            cache.set("a", 1)

    assert name in connected(setups)
    assert {*Overrides.calls} >= {
        "connect",
        "make_connection_params",
        "get_connection",
        "get_or_create_connection_pool",
        "get_connection_pool",
    }


@about("CLOSE_CONNECTION", "DJANGO_REDIS_CLOSE_CONNECTION")
@without_near
@pytest.mark.parametrize("where", ["option", "setting", "neither"])
def test_close_connection(make, side: str, setups, where: str) -> None:
    """Connections are closed at the end of a request if the site says so."""
    name = f"{side}-{where}"
    options = {"CONNECTION_POOL_KWARGS": {"client_name": name}}
    with override_settings(**({"DJANGO_REDIS_CLOSE_CONNECTION": True} if where == "setting" else {})):
        cache = make(options | ({"CLOSE_CONNECTION": True} if where == "option" else {}))
        cache.set("a", 1)
        before = connected(setups).count(name)
        cache.close()
        wait = 50
        while (after := connected(setups).count(name)) and where != "neither" and (wait := wait - 1):
            pass

    assert (before, after) == (1, 1 if where == "neither" else 0)
    assert cache.get("a") == 1


# --- Sentinel -------------------------------------------------------------------------------------


@about("SENTINELS", "SENTINEL_KWARGS", "CONNECTION_FACTORY")
def test_sentinels(make, setups) -> None:
    """Primary and replica are found by their service, as one URL or as two."""
    options = setups["sentinel"].params["OPTIONS"] | {"SENTINEL_KWARGS": {"socket_timeout": 3.5}}
    one = make(options, "redis://service/1")
    two = make(options, ["redis://service/1?is_master=1", "redis://service/1?is_master=0"])

    for cache in (one, two):
        primary, replica = cache.client.get_client(write=True), cache.client.get_client(write=False)
        assert primary.info("replication")["role"] == "master"
        assert replica.info("replication")["role"] == "slave"
        assert primary.connection_pool.sentinel_manager.sentinel_kwargs["socket_timeout"] == 3.5


@about("SENTINELS")
@pytest.mark.parametrize(
    "options",
    [
        {"SENTINELS": []},
        {"SENTINELS": None},
        {"CONNECTION_FACTORY": "django_redis.pool.ConnectionFactory"},
        {"CONNECTION_POOL_CLASS": "redis.ConnectionPool", "CONNECTION_FACTORY": "django_redis.pool.ConnectionFactory"},
    ],
    ids=["empty", "none", "factory", "pool"],
)
def test_wrong_sentinels(make, setups, options: dict[str, Any]) -> None:
    """Without Sentinels, or with pools that do not ask them, there is no SentinelClient."""
    refused(make, setups["sentinel"].params["OPTIONS"] | options, "redis://service/1")


@about("DJANGO_REDIS_CONNECTION_FACTORY")
def test_sentinel_factory_for_the_project(make, setups) -> None:
    """The factory may be named for the whole project."""
    options = {**setups["sentinel"].params["OPTIONS"]}
    with override_settings(DJANGO_REDIS_CONNECTION_FACTORY=options.pop("CONNECTION_FACTORY")):
        cache = make(options, "redis://service/1")

        assert cache.set("a", 1)


# --- exceptions -----------------------------------------------------------------------------------


@about("IGNORE_EXCEPTIONS", "DJANGO_REDIS_IGNORE_EXCEPTIONS")
@pytest.mark.parametrize(
    ("option", "setting", "ignored"),
    [(None, None, False), (True, None, True), (None, True, True), (False, True, False), (True, False, True)],
)
def test_ignore_exceptions(make, option: bool | None, setting: bool | None, ignored: bool) -> None:
    """The option has precedence over the setting."""
    options = {} if option is None else {"IGNORE_EXCEPTIONS": option}
    named = {} if setting is None else {"DJANGO_REDIS_IGNORE_EXCEPTIONS": setting}
    with override_settings(**named):
        cache = make(options, "redis://127.0.0.1:1/1")

    if ignored:
        assert cache.get("a", "default") == "default"
    else:
        with pytest.raises(redis.ConnectionError):
            cache.get("a", "default")


@about("DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS", "DJANGO_REDIS_LOGGER")
@without_near
@pytest.mark.parametrize("logged", [True, False])
def test_log_ignored_exceptions(make, caplog, logged: bool) -> None:
    """What the server refuses is ignored, and logged as an error by the logger of the site's choice."""
    named = {"DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS": logged, "DJANGO_REDIS_LOGGER": "of.the.site"}
    with override_settings(**named):
        cache = make({"IGNORE_EXCEPTIONS": True})
    cache.sadd("a", 1)

    with caplog.at_level(logging.INFO):
        assert cache.get("a", "default") == "default"

    errors = [record for record in caplog.records if record.name == "of.the.site"]
    assert [(error.levelname, bool(error.exc_info)) for error in errors] == [("ERROR", True)] * logged
    assert all(error.getMessage() == "Exception ignored" for error in errors)
    assert (cache.logger is not None) is logged


# --- the rest -------------------------------------------------------------------------------------


@about("DJANGO_REDIS_SCAN_ITERSIZE")
@pytest.mark.parametrize(("itersize", "several"), [(10, True), (100_000, False)])
def test_scan_itersize(make, setups, itersize: int, several: bool) -> None:
    """How many entries delete_pattern lets the server look at in one step."""
    with override_settings(DJANGO_REDIS_SCAN_ITERSIZE=itersize):
        cache = make()
    raw = setups.raw(7)
    cache.set_many(dict.fromkeys(map(str, range(300)), 1))
    raw.config_resetstat()

    assert cache.delete_pattern("*") == 300

    assert (raw.info("commandstats")["cmdstat_scan"]["calls"] > 1) is several


@about("CACHE_HERD_TIMEOUT")
@pytest.mark.parametrize(("setting", "left"), [({}, 160), ({"CACHE_HERD_TIMEOUT": 1000}, 1100)])
def test_herd_timeout(make, setting: dict[str, int], left: int) -> None:
    """For how long HerdClient keeps an entry beyond its timeout."""
    with override_settings(**setting):
        cache = make({"CLIENT_CLASS": "django_redis.client.HerdClient"})
        cache.set("a", 1, 100)

    assert cache.ttl("a") in range(left - 2, left + 1)


@about("MAX_ENTRIES", "CULL_FREQUENCY")
def test_options_of_other_caches(make) -> None:
    """Django's options for caches that have to be culled are accepted, and mean nothing."""
    cache = make({"MAX_ENTRIES": 10, "CULL_FREQUENCY": 2})

    assert cache.set("a", 1)


def test_get_redis_connection(setups) -> None:
    """The raw client of an alias, to the primary or to a replica."""
    locations = [setups.servers.single.tcp_url(db) for db in (7, 8)]
    sharded = {"CLIENT_CLASS": "django_redis.client.ShardClient"}
    for backend, connection in ((TheirCache, their_connection), (OurCache, our_connection)):
        path = "django_redis.cache.RedisCache" if backend is TheirCache else "fleetcache.django.RedisCache"
        entries = {
            "default": {"BACKEND": path, "LOCATION": locations},
            "other": {"BACKEND": path, "LOCATION": locations[1]},
            "sharded": {"BACKEND": path, "LOCATION": locations, "OPTIONS": sharded},
            "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        }
        with override_settings(CACHES=entries):
            databases = [
                connection().connection_pool.connection_kwargs["db"],
                connection("default", write=False).connection_pool.connection_kwargs["db"],
                connection(alias="other").connection_pool.connection_kwargs["db"],
            ]
            assert databases == [7, 8, 8]
            assert connection().ping()
            for alias in ("sharded", "local"):
                with pytest.raises(NotImplementedError):
                    connection(alias)
            caches.close_all()


def test_lock_excludes_the_other(setups) -> None:
    """What one backend has locked the other cannot lock, nor release."""
    setup = setups["default"]
    setup.databases[0].flushdb()
    for one, other in ((setup.theirs(), setup.ours()), (setup.ours(), setup.theirs())):
        mine, yours = one.lock("l", timeout=100), other.lock("l", timeout=100)

        assert mine.acquire()
        assert not yours.acquire(blocking=False)
        assert yours.locked()
        assert not yours.owned()
        with pytest.raises(redis.exceptions.LockError):
            yours.release()
        assert mine.owned()
        mine.release()
        assert yours.acquire(blocking_timeout=1)
        yours.release()


def test_shards_are_placed_alike(setups) -> None:
    """Every name lies on the server where the other would look for it."""
    setup = setups["shard"]
    theirs, ours = setup.theirs().client, setup.ours().client

    for number in range(500):
        for name in (f":1:key-{number}", f":1:{{tag-{number}}}:key", f":1:{{}}{number}"):
            assert theirs.get_server_name(name) == ours.get_server_name(name)
            assert type(theirs.get_server(name)) is type(ours.get_server(name))


def test_the_entry_of_the_readme(setups, faces) -> None:
    """Only BACKEND has to be changed: everything else of an entry stays as it was."""

    def script(cache: Cache) -> None:
        cache.set("a", {"b": [1, "text"]}, timeout=100)
        cache.get("a")
        cache.ttl("a")

    setup = setups.single(
        "everything",
        {
            "CLIENT_CLASS": "django_redis.client.DefaultClient",
            "CONNECTION_FACTORY": "django_redis.pool.ConnectionFactory",
            "SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer",
            "COMPRESSOR": "django_redis.compressors.zstd.ZStdCompressor",
            "CONNECTION_POOL_CLASS": "redis.connection.ConnectionPool",
            "REDIS_CLIENT_CLASS": "redis.client.Redis",
            "SOCKET_TIMEOUT": 5,
            "SOCKET_CONNECT_TIMEOUT": 5,
            "IGNORE_EXCEPTIONS": True,
            "PICKLE_VERSION": -1,
        },
        REVERSE_KEY_FUNCTION="django_redis.util.default_reverse_key",
        KEY_PREFIX="site",
        TIMEOUT=None,
    )

    agreeing(setup.run(script, setup.theirs()), setup.run(script, setup.ours(), face=plainly))
