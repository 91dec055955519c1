"""What a setting may be: None, text of any kind, numbers within their range, equal values, and what is none of these."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from time import time
from urllib.parse import urlsplit

import fakeredis
import pytest
import redis
from tests.django_settings import configure
from tests.faces import Face, settled

configure()

from django.core.cache import caches as django_caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.functional import lazystr

from fleetcache import Cache, CacheHandler, SettingsError
from fleetcache.client import HerdClient, SentinelClient
from fleetcache.codec import compressors, serializers
from fleetcache.django.checks import check_caches
from fleetcache.errors import InvalidTimeout
from fleetcache.kinds import COMPRESSORS, SERIALIZERS, imported
from fleetcache.settings import NearOptions, Options, Settings, from_url, read_setting, spellings
from fleetcache.sharing import frozen
from fleetcache.signatures import defaults

INF, NAN = float("inf"), float("nan")


def refusal(location="memory://kinds", **params) -> str:
    """Return the message with which these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        CacheHandler({"pages": {"LOCATION": location, **params}})["pages"]
    assert str(caught.value).startswith("CACHES['pages']")
    return str(caught.value)


def options(**written) -> Options:
    """Return the options that are read."""
    return Settings.read("redis://host", {"OPTIONS": written}).options


# --- None ---------------------------------------------------------------------------------------------

NONE_MEANS = {"SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT", "TOUCH"}


@pytest.mark.parametrize("name", [name for each in fields(Options) for name in spellings(each)])
def test_none_is_what_was_left_out(name):
    """An option written as None is as if it were not there, unless None has a meaning of its own."""
    left_out, none = options(), options(**{name: None})

    if name.upper() in NONE_MEANS:
        assert getattr(none, name.lower()) is None
    else:
        assert none == left_out
    Cache("redis://127.0.0.1:1/0", {"OPTIONS": {name: None}})


def test_none_of_everything(valkey, face):
    """All of them at once: such a cache works, in every codec."""
    for serializer in (None, "json", "msgpack", "msgspec"):
        for compressor in (None, "zlib", "lz4", "zstd", "gzip", "lzma"):
            given = dict.fromkeys((name for each in fields(Options) for name in spellings(each)), None)
            chosen = {"SERIALIZER": serializer, "COMPRESSOR": compressor}
            cache = Cache(valkey.tcp_url(3), {"OPTIONS": {**given, **chosen}, "KEY_PREFIX": f"{chosen}"})
            assert cache.set("a", ["b" * 200]) is True
            assert cache.get("a") == ["b" * 200]


@pytest.mark.parametrize("where", ["OPTIONS", "CONNECTION_POOL_KWARGS", "URL"])
def test_none_beside_a_password(where):
    """What is None in one place does not hide what another place says."""
    with_password = {"PASSWORD": "right", "username": None, "USERNAME": "shop"}
    if where == "CONNECTION_POOL_KWARGS":
        with_password["CONNECTION_POOL_KWARGS"] = {"password": None, "username": None, "max_connections": None}
    url = "redis://shop:right@host" if where == "URL" else "redis://host"
    if where == "URL":
        with_password = {"PASSWORD": None, "USERNAME": None}
    pool = Cache(url, {"OPTIONS": with_password}).topology.servers[0].pool

    assert pool.connection_kwargs["password"] == "right"
    assert pool.connection_kwargs["username"] == "shop"


@pytest.mark.parametrize("name", [name for each in fields(NearOptions) for name in spellings(each)])
def test_none_of_the_near_cache(name):
    """So it is with the fields of NEAR."""
    means = NearOptions(**{name.lower(): None}) if name.upper() in NONE_MEANS else NearOptions()

    assert options(NEAR={name: None}).near == means


def test_none_lets_a_django_setting_stand_in():
    """A setting of the project stands in for an option that is None, as for one that is not there."""
    read = Settings.read(
        "redis://host",
        {"OPTIONS": {"IGNORE_EXCEPTIONS": None, "SCAN_ITERSIZE": None}},
        defaults={"DJANGO_REDIS_IGNORE_EXCEPTIONS": True, "DJANGO_REDIS_SCAN_ITERSIZE": None},
    ).options

    assert read.ignore_exceptions is True
    assert read.scan_itersize == 1000


def test_none_as_a_prefix_or_a_version():
    """Both stand in names as Django and django-redis put them there, so that one may replace the other."""
    assert Cache("memory://kinds", {"KEY_PREFIX": None}).make_key("a") == "None:1:a"
    assert Cache("memory://kinds", {"VERSION": None}).make_key("a") == ":None:a"
    Cache("memory://kinds", {"KEY_FUNCTION": None, "REVERSE_KEY_FUNCTION": None, "OPTIONS": None})


@pytest.mark.parametrize(
    "written", [{"ssl_cert_reqs": None}, {"CONNECTION_POOL_KWARGS": {"ssl_cert_reqs": None}}], ids=["", "kwargs"]
)
def test_none_that_redis_py_understands(written):
    """A None that says more than leaving it out is passed on."""
    pool = Cache("rediss://host", {"OPTIONS": written}).topology.servers[0].pool

    assert pool.connection_kwargs["ssl_cert_reqs"] == "none"
    assert not pool.connection_kwargs.get("ssl_check_hostname")


def test_none_as_keep_alive():
    """redis-py's own keep-alive options are not put in for a None."""
    pool = Cache("redis://host", {"OPTIONS": {"socket_keepalive_options": None}}).topology.servers[0].pool

    usual = defaults(redis.Connection)["socket_keepalive_options"]
    assert pool.connection_kwargs.get("socket_keepalive_options", usual) is None


# --- short names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERIALIZERS)
@pytest.mark.parametrize("option", ["SERIALIZER", "serializer"])
def test_a_serializer_by_its_short_name(name, option):
    """In both dialects, in any case."""
    for written in (name, name.upper()):
        cache = Cache("memory://kinds", {"OPTIONS": {option: written}})
        assert type(cache.codec.serializer) is getattr(serializers, SERIALIZERS[name].rpartition(".")[2])


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("option", ["COMPRESSOR", "compressor"])
def test_a_compressor_by_its_short_name(name, option):
    """With the options that it takes."""
    cache = Cache.from_url(f"memory://kinds?{option.lower()}={name}&compress_min_length=3&max_value_bytes=1MB")

    assert type(cache.codec.compressor) is getattr(compressors, COMPRESSORS[name].rpartition(".")[2])
    if name != "identity":
        assert cache.codec.compressor.min_length == 3
        assert cache.codec.compressor.limit == 1_000_000


@pytest.mark.parametrize("option", ["SERIALIZER", "COMPRESSOR"])
@pytest.mark.parametrize("value", ["yaml", "brotli", 3, object(), "json.dumpz", "fleetcache.codec.nothing", [], True])
def test_an_unknown_codec(option, value):
    """The error lists the built-in ones."""
    message = refusal(OPTIONS={option: value})

    assert f"OPTIONS']: {option}" in message
    assert re.search(r"[.?] Built in are ", message)
    assert ("'msgpack'" if option == "SERIALIZER" else "'zstd'") in message


def test_a_misspelled_codec():
    """The nearest one is named."""
    assert "Did you mean 'zstd'?" in refusal(OPTIONS={"COMPRESSOR": "zstdd"})
    assert "Did you mean 'msgpack'?" in refusal(OPTIONS={"SERIALIZER": "messagepack"})


# --- text ---------------------------------------------------------------------------------------------


class Dsn:
    """A URL object that has nothing but its text, as those of settings libraries."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url


class Secret:
    """A secret that does not tell itself by accident."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __str__(self) -> str:
        return "**********"

    def get_secret_value(self) -> str:
        return self.value


URL = "redis://127.0.0.1:6379/1"


@pytest.mark.parametrize(
    "location",
    [
        URL,
        URL.encode(),
        Dsn(URL),
        Secret(URL),
        lazystr(URL),
        urlsplit(URL),
        [Dsn(URL)],
        (URL,),
        iter([URL]),
        [b"", URL],
    ],
    ids=["str", "bytes", "object", "secret", "lazy", "split", "objects", "tuple", "iterator", "an empty one"],
)
def test_what_is_a_url(location):
    """Whatever has the text of a URL is one."""
    assert [each.url for each in Settings.read(location, {}).location] == [URL]


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        (Path("/var/tmp/django_cache"), "'/var/tmp/django_cache' is no URL"),
        (Path("cache"), "is no URL"),
        (11211, "'11211' is no URL|is no URL"),
        (3.5, "is no URL"),
        (True, "bool is neither"),
        pytest.param(object(), "object is neither", id="object"),
        (Cache, "type is neither"),
        ({"url": URL}, "dict is neither"),
        ({URL}, "set is neither"),
        ([(URL, 1)], "tuple is neither"),
        ([[URL]], "list is neither"),
        ([5], "is no URL"),
        (lazystr("redis"), "is no URL"),
        (b"\xff", "bytes is neither"),
    ],
    ids=str,
)
def test_what_is_no_url(location, fault):
    """The error names the alias and the setting."""
    message = refusal(location)

    assert re.search(fault, message)
    assert "LOCATION" in message


def test_none_in_a_url():
    """A URL spells None as text, for whatever may be None."""
    names = ("max_connections", "serializer", "socket_timeout", "ssl_ca_certs", "timeout", "key_function", "password")
    cache = Cache.from_url("redis://host?" + "&".join(f"{name}=None" for name in names))

    assert (cache.default_timeout, cache.settings.options.socket_timeout) == (None, None)
    assert "password" not in cache.topology.servers[0].pool.connection_kwargs
    for nothing in (None, True, {}):
        with pytest.raises(SettingsError, match="a URL is expected"):
            Cache.from_url(nothing)


@pytest.mark.parametrize("url", [Dsn(URL), URL.encode(), lazystr(URL)], ids=["object", "bytes", "lazy"])
def test_a_url_for_an_entry(url):
    """Of a whole entry too."""
    assert from_url(url)[0] == URL
    assert CacheHandler({"pages": url})["pages"].settings.location[0].url == URL
    assert CacheHandler(url)["default"].settings.location[0].url == URL


@pytest.mark.parametrize(
    ("prefix", "name"), [(5, "5:1:a"), (lazystr("shop"), "shop:1:a"), (Path("a/b"), "a/b:1:a"), ("", ":1:a")], ids=repr
)
def test_a_prefix(prefix, name):
    """Its text, as Django has it; `clear` knows it as well."""
    cache = Cache("memory://kinds", {"KEY_PREFIX": prefix})

    assert cache.make_key("a") == name
    cache.set("a", 1)
    cache.clear()
    assert cache.get("a") is None


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"KEY_PREFIX": b"shop"}, "KEY_PREFIX cannot be b'shop': text is expected"),
        ({"KEY_PREFIX": ["shop"]}, "KEY_PREFIX cannot be ['shop']"),
        ({"VERSION": [1]}, "VERSION cannot be [1]"),
        ({"KEY_FUNCTION": 3}, "KEY_FUNCTION cannot be 3: a function, or its dotted path, is expected"),
        ({"KEY_FUNCTION": "fleetcache.settings.__doc__"}, "KEY_FUNCTION cannot be 'fleetcache.settings.__doc__'"),
        ({"KEY_FUNCTION": "nowhere.to.be.found"}, "KEY_FUNCTION: 'nowhere.to.be.found' cannot be imported"),
        ({"REVERSE_KEY_FUNCTION": 3}, "REVERSE_KEY_FUNCTION cannot be 3"),
        ({"OPTIONS": "text"}, "OPTIONS must be a dict, not a str"),
        ({"OPTIONS": [1]}, "OPTIONS must be a dict, not a list"),
        ({"OPTIONS": {5: 1}}, "unknown option 5"),
        ({"OPTIONS": {"CLIENT_CLASS": 3}}, "CLIENT_CLASS"),
        ({"OPTIONS": {"CLIENT_CLASS": dict}}, "is not derived from"),
        (
            {"OPTIONS": {"CONNECTION_POOL_CLASS": 3}},
            "CONNECTION_POOL_CLASS cannot be 3: a class of redis-py's pools, or its dotted path",
        ),
        ({"OPTIONS": {"CONNECTION_FACTORY": 3}}, "CONNECTION_FACTORY cannot be 3"),
        ({"OPTIONS": {"REDIS_CLIENT_CLASS": 3}}, "REDIS_CLIENT_CLASS cannot be 3"),
        ({"OPTIONS": {"CONNECTION_POOL_CLASS": "redis.Redis"}}, "has no attribute"),
        ({"OPTIONS": {"CONNECTION_FACTORY": "builtins.dict"}}, "CONNECTION_FACTORY cannot be 'builtins.dict'"),
        ({"OPTIONS": {"REDIS_CLIENT_CLASS": "builtins.dict"}}, "REDIS_CLIENT_CLASS: <class 'dict'> makes no clients"),
        ({"OPTIONS": {"REDIS_CLIENT_KWARGS": {"bogus": 1}}}, "REDIS_CLIENT_KWARGS: "),
        ({"OPTIONS": {"protocol": INF}}, "protocol cannot be inf: a whole number from 2 to 3 is expected"),
        ({"OPTIONS": {"PARSER_CLASS": 3}}, "PARSER_CLASS cannot be 3"),
        ({"OPTIONS": {"ADDRESS_REMAP": 3}}, "ADDRESS_REMAP cannot be 3: a function"),
        ({"OPTIONS": {"SENTINEL_KWARGS": 3}}, "SENTINEL_KWARGS cannot be an int: a dict is expected"),
        ({"OPTIONS": {"LOGGER": [3]}}, "LOGGER cannot be [3]"),
        ({"OPTIONS": {"IGNORE_EXCEPTIONS": 0.5}}, "IGNORE_EXCEPTIONS cannot be 0.5"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_an_entry_of_another_type(params, fault):
    """Each works, or is an error that names the alias and the setting; under Django it is one of the system check."""
    assert fault in refusal("redis://h", **params)

    caches = {"pages": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "redis://h", **params}}
    with override_settings(
        CACHES={"default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://"}, **caches}
    ):
        (error,) = check_caches()
        assert fault in error.msg
        assert error.msg.startswith("CACHES['pages']")
        with pytest.raises(ImproperlyConfigured, match=r"^CACHES\['pages'\]") as caught:
            django_caches["pages"]
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("location", "written"),
    [
        ("redis://host?bogus=1", {}),
        ("redis://host", {"CLIENT_CLASS": "fleetcache.client.SentinelClient"}),
        ("redis+cluster://host", {"CLIENT_CLASS": "fleetcache.client.ShardClient"}),
        ("redis://host", {"COMPRESSOR": "zlib", "COMPRESS_LEVEL": 77}),
        ("redis://host", {"PICKLE_VERSION": 99}),
        ("redis://host", {"ssl_ca_certs": "x"}),
    ],
    ids=str,
)
def test_the_alias_is_named(location, written):
    """By errors as well that only opening servers, or making a codec, finds out."""
    assert refusal(location, OPTIONS=written)
    caches = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": location, "OPTIONS": written}
    with override_settings(CACHES={"default": caches}):
        with pytest.raises(ImproperlyConfigured, match=r"^CACHES\['default'\]"):
            django_caches["default"]
        (error,) = check_caches()
        assert error.msg.startswith("CACHES['default']")


@pytest.mark.parametrize(
    "password",
    ["right", b"right", lazystr("right"), Secret("right"), Dsn("right")],
    ids=lambda value: type(value).__name__,
)
def test_a_password_of_any_kind_of_text(password):
    """Whatever has a text is one, in each place; what has none is refused without being shown."""
    for written in ({"PASSWORD": password}, {"password": password}, {"CONNECTION_POOL_KWARGS": {"password": password}}):
        pool = Cache("redis://host", {"OPTIONS": written}).topology.servers[0].pool
        assert pool.connection_kwargs["password"] == "right"
    assert options(PASSWORD=1234).password == "1234"


# --- numbers ------------------------------------------------------------------------------------------

TOO_MUCH = (INF, -INF, NAN, -1, 1e12, "inf", "nan", "-1", True, [], "soon", Decimal("sNaN"))
NUMBERS = {
    "SOCKET_TIMEOUT": (*TOO_MUCH, 10**30, timedelta(days=-1)),
    "SOCKET_CONNECT_TIMEOUT": TOO_MUCH,
    "socket_timeout": TOO_MUCH,
    "MAX_CONNECTIONS": (*TOO_MUCH, 0, 1.5, "1.5", 10**12),
    "BREAKER_FAILURES": (*TOO_MUCH, 0, 1.5),
    "BREAKER_COOLDOWN": TOO_MUCH,
    "SCAN_ITERSIZE": (*TOO_MUCH, 0),
    "HERD_TIMEOUT": (*TOO_MUCH, 0, 1.5),
    "MAX_VALUE_BYTES": (INF, NAN, -1, 0, True, "soon", 10**30, 1.5),
    "COMPRESS_MIN_LENGTH": (INF, NAN, -1, True, "short", 1e12),
    "COMPRESS_LEVEL": (INF, NAN, True, "high", 1e12, 1.5),
    "PICKLE_VERSION": (INF, NAN, -2, True, "highest", 1e12, 99, 1.5),
    "db": (INF, NAN, -1, "one", True, 1.5),
    "health_check_interval": (INF, NAN, -1, "soon"),
    "NEAR": (-5, 1.5, "1e9", 10**30, {"T_LIVE": INF}, {"T_LIVE": 1e12}, {"T_LIVE": 0}, {"MAX_BYTES": -1})
    + ({"MAX_TTL": NAN}, {"MAX_TTL": -1}, {"MAX_TTL": 0}, {"CANARY": 0}, {"CANARY": 1e12}, {"T_TOPO": -1})
    + ({"UNTRACKED_TTL": -1}, {"UNTRACKED_TTL": INF}, {"MAX_BYTES": 10**30}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range(name):
    """It is refused when the cache is made, wherever it stands, with what is expected."""
    for value in NUMBERS[name]:
        message = refusal("redis://host", OPTIONS={name: value})
        assert name in message
        assert re.search("expected|highest|a size is", message)
        if name.lower() in {"socket_timeout", "socket_connect_timeout", "max_connections", "db"}:
            assert "expected" in refusal("redis://host", OPTIONS={"CONNECTION_POOL_KWARGS": {name.lower(): value}})


@pytest.mark.parametrize(
    "query", ["socket_timeout=-1", "socket_timeout=inf", "socket_connect_timeout=nan", "max_connections=0", "db=-1"]
)
def test_a_number_out_of_range_in_a_url(query):
    """Nor does the query of a URL get past."""
    assert "expected" in refusal(f"redis://host?{query}")
    with pytest.raises(SettingsError, match="expected"):
        Cache.from_url(f"redis://host?{query}")


@pytest.mark.parametrize("timeout", [INF, NAN, 1e18, 10**30, -(10**30), "inf", "abc", True], ids=repr)
def test_a_timeout_out_of_range(timeout):
    """TIMEOUT is what the server can count; None is for ever, and 0 or less is not at all."""
    assert "TIMEOUT cannot be" in refusal(TIMEOUT=timeout)


@pytest.mark.parametrize("timeout", [0, -1, "60", 10**12, timedelta.max, Decimal("1.5"), 0.001, None], ids=repr)
async def test_a_timeout_within_range(valkey, face, timeout):
    """Whatever passes, the server takes."""
    cache = Face(Cache(valkey.tcp_url(3), {"TIMEOUT": timeout, "KEY_PREFIX": "range"}), face)

    assert not isinstance(await settled(cache.set("a", 1)), Exception)


def test_numbers_that_are_fine():
    """Text of an environment variable, Decimals and whole floats are numbers."""
    read = options(MAX_CONNECTIONS="10", SCAN_ITERSIZE=10.0, SOCKET_TIMEOUT=Decimal("1.5"), BREAKER_COOLDOWN=0, db="3")

    assert (read.max_connections, read.scan_itersize, read.socket_timeout, read.breaker_cooldown) == (10, 10, 1.5, 0)
    assert read.connection["db"] == 3
    assert options(SOCKET_TIMEOUT=0).socket_timeout is None
    assert options(MAX_VALUE_BYTES="64MiB").max_value_bytes == 64 << 20


# --- what is equal ------------------------------------------------------------------------------------


@dataclass
class Point:
    """A value without a hash."""

    x: int


@dataclass(frozen=True)
class Fixed:
    """A value with one, until what it holds has none."""

    x: object


EQUAL = {
    "timedelta": lambda: {"TIMEOUT": timedelta(minutes=5)},
    "Decimal": lambda: {"TIMEOUT": Decimal("1.5")},
    "a dict": lambda: {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_keepalive_options": {}}}},
    "a list": lambda: {"OPTIONS": {"RAISE_FOR": ["a", "b"]}},
    "a path": lambda: {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"client_name": Path("a")}}},
    "a set": lambda: {"OPTIONS": {"retry_on_error": {ValueError, TypeError}}},
    "a frozenset": lambda: {"OPTIONS": {"retry_on_error": frozenset({ValueError})}},
    "bytes": lambda: {"OPTIONS": {"PASSWORD": bytes(bytearray(b"a"))}},
    "a bytearray": lambda: {"OPTIONS": {"PASSWORD": bytearray(b"a")}},
    "a lazy string": lambda: {"KEY_PREFIX": lazystr("a")},
    "a partial": lambda: {"KEY_FUNCTION": partial(named, tail=["a"])},
}


def named(key, prefix, version, tail=()):
    return f"{prefix}:{version}:{key}"


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("near", [False, True], ids=["", "near"])
def test_equal_settings_are_one_configuration(name, near):
    """However often they are written anew, there is one server, one pool, one codec and one near cache."""
    made = [Cache("redis://127.0.0.1:1/0", EQUAL[name](), near=near) for _ in range(3)]
    before = set(sys.modules["fleetcache.cache"]._shared.known)
    made += [Cache("redis://127.0.0.1:1/0", EQUAL[name](), near=near) for _ in range(20)]

    assert len({id(cache.topology) for cache in made}) == 1
    assert len({id(cache.near) for cache in made}) == 1
    assert set(sys.modules["fleetcache.cache"]._shared.known) <= before  # those of other tests may leave meanwhile


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (timedelta(1), timedelta(days=1), True),
        (datetime(2030, 1, 1), datetime(2030, 1, 1), True),
        (re.compile("a"), re.compile("a"), True),
        ({1, 2}, {2, 1}, True),
        ([{1}], [{1}], True),
        (Point(1), Point(1), True),
        (Point(1), Point(2), False),
        (Fixed([1]), Fixed([1]), True),
        (Fixed(1), Fixed(1), True),
        (1, True, False),
        (1, 1.0, False),
        ({1}, {True}, False),
        ("1", 1, False),
        (b"a", "a", False),
        pytest.param(object(), object(), False, id="objects"),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (partial(int, base=2), partial(int, base=2), True),
        (partial(int, base=2), partial(int, base=3), False),
    ],
    ids=str,
)
def test_what_is_equal(one, other, same):
    """Values are told apart by what they mean, and objects without an idea of equality by which they are."""
    assert (frozen(one) == frozen(other)) is same
    assert not same or hash(frozen(one)) == hash(frozen(other))


# --- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        ["10.0.0.1:26380", "h2"],
        "10.0.0.1:26380,h2",
        [("10.0.0.1", "26380"), ["h2", 26379]],
        ("10.0.0.1:26380", ("h2", 26379)),
    ],
    ids=["texts", "one text", "pairs", "mixed"],
)
def test_sentinels(written):
    """Pairs, or texts of which the port may be left out."""
    assert options(SENTINELS=written).sentinels == (("10.0.0.1", 26380), ("h2", 26379))
    SentinelClient("redis://service/0", {"OPTIONS": {"SENTINELS": written}})


@pytest.mark.parametrize(
    "written",
    [
        5,
        [5],
        ["h:port"],
        ["h:0"],
        [("h", 1, 2)],
        [("h",)],
        [("", 1)],
        [("h", 70000)],
        {"h": 1},
        [None],
        ["redis://h:1"],
        [(":password@h", 1)],
    ],
)
def test_sentinels_that_are_none(written):
    """The error shows how they are written."""
    assert re.search(
        r"SENTINELS.*\('10\.0\.0\.1', 26379\)|1 to 65535", refusal("redis://s/0", OPTIONS={"SENTINELS": written})
    )


@pytest.mark.parametrize("scheme", ["redis", "valkey", "unix", "redis+cluster"])
@pytest.mark.parametrize(
    "written", [{"ssl_cert_reqs": None}, {"ssl_ca_certs": "x"}, {"CONNECTION_POOL_KWARGS": {"ssl_cert_reqs": "none"}}]
)
def test_options_of_tls_without_tls(scheme, written):
    """The error names the scheme that they need."""
    place = "/run/x.sock" if scheme == "unix" else "host"
    assert "rediss://" in refusal(f"{scheme}://{place}", OPTIONS=written)
    if "ssl_ca_certs" not in written:
        assert "rediss://" in refusal("redis://host?ssl_cert_reqs=none")


@pytest.mark.parametrize(
    "given",
    [fakeredis.FakeConnection, fakeredis.FakeRedis, object, 3],
)
def test_a_connection_class_without_a_server(given):
    """fakeredis' is told to use ``memory://``; what is no connection class at all is told as well."""
    message = refusal("redis://127.0.0.1:1/0", OPTIONS={"CONNECTION_POOL_KWARGS": {"connection_class": given}})

    assert "connection_class" in message
    if "fakeredis" in str(getattr(given, "__module__", "")):
        assert "memory://" in message


def test_options_are_given_to_classes_as_they_were_read():
    """A serializer of the site's own is given no None, and numbers as numbers."""

    class Noting(serializers.JSONSerializer):
        def __init__(self, options):
            self.options = options

    written = {"SERIALIZER": Noting, "MAX_VALUE_BYTES": "1MB", "COMPRESS_LEVEL": None, "PICKLE_VERSION": "2"}
    cache = Cache("memory://kinds", {"OPTIONS": written})

    assert cache.codec.serializer.options == {"SERIALIZER": Noting, "MAX_VALUE_BYTES": 1_000_000, "PICKLE_VERSION": 2}
    HerdClient("memory://kinds", {"OPTIONS": {**written, "SERIALIZER": None}})


@pytest.mark.parametrize("location", ["redis://127.0.0.1:1/0", "redis+cluster://127.0.0.1:1", "redis+sentinel://h:1/s"])
def test_options_are_read_once(monkeypatch, location):
    """Codec, pools, Sentinels and all further caches of the same settings take the options as they were read."""
    written = {"SERIALIZER": "msgspec", "COMPRESSOR": "zlib", "COMPRESS_LEVEL": "3", "READ_FROM": "replica"}
    params = {"KEY_PREFIX": "once", "OPTIONS": {**written, "CLIENT_CLASS": "HerdClient"}}
    reads = []

    def noting(where, name, described, value):
        reads.append(name)
        return read_setting(where, name, described, value)

    monkeypatch.setattr("fleetcache.settings.read_setting", noting)
    handler = CacheHandler({"a": {"LOCATION": location, **params}, "b": {"LOCATION": location, **params}})
    first, second = handler["a"], handler["b"]

    assert type(first) is type(second) is HerdClient
    assert first.codec is second.codec
    assert first.codec.compressor.preset == 3
    assert {name: reads.count(name) for name in params["OPTIONS"]} == dict.fromkeys(params["OPTIONS"], 1)


def test_a_client_under_options_in_small_letters():
    """CLIENT_CLASS is found wherever options are."""
    entry = {"LOCATION": "memory://kinds", "options": {"CLIENT_CLASS": "HerdClient"}}
    assert type(CacheHandler({"pages": entry})["pages"]) is HerdClient


@pytest.mark.parametrize("kind", ["int8", "uint64", "int64", "float16", "float32", "float64", "longdouble"])
def test_a_scalar_of_numpy(kind):
    """It is a number like any other, in calls and in settings; its own arithmetic would overflow."""
    numpy = pytest.importorskip("numpy")
    sixty = getattr(numpy, kind)(60)
    cache = Cache("memory://numpy", {"TIMEOUT": sixty, "OPTIONS": {"SOCKET_TIMEOUT": sixty, "SCAN_ITERSIZE": sixty}})

    assert cache.settings.timeout == cache.settings.options.socket_timeout == 60
    assert cache.set("a", 1, sixty) is cache.expire("a", sixty) is True
    assert cache.ttl("a") in (59, 60)
    assert cache.expire_at("a", numpy.float64(time()) + sixty) is True
    assert cache.incr("a", 1, timeout=sixty) == 2
    with pytest.raises(InvalidTimeout):
        cache.set("a", 1, numpy.float64("nan"))


def test_no_option_is_read_in_vain():
    """Each option, once read, is used from there by some other module."""
    package = Path(sys.modules["fleetcache"].__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "settings.py")

    assert [each.name for each in fields(Options) if not re.search(rf"\.{each.name}\b", code)] == []


def test_a_right_path_whose_module_fails_is_not_suggested_again(monkeypatch):
    """The reason is the module's, and stands in the message."""
    monkeypatch.setitem(sys.modules, "fleetcache.client", None)

    with pytest.raises(SettingsError) as raised:
        imported("django_redis.client.DefaultClient")

    assert "Did you mean" not in str(raised.value)
    assert "import of fleetcache.client halted" in str(raised.value)
