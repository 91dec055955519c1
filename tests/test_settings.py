"""Bad input: each fault has an error that names it, its place and its remedy, and tells no secret."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from tests.faces import Face, settled

from fleetcache import Cache, CacheHandler, InvalidCacheBackendError, SettingsError
from fleetcache import client as clients
from fleetcache.client import SentinelClient
from fleetcache.errors import (
    AccessDenied,
    InvalidKey,
    InvalidTimeout,
    NoSuchDatabase,
    ServerGone,
    UnstorableValue,
    UnsupportedServer,
)
from fleetcache.settings import DICTS, NearOptions, Options, Settings, from_url, masked_url
from fleetcache.testing import valkey_server

SECRET = "s3cr3t"


def refusal(location, **params) -> str:
    """Return the message with which these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        CacheHandler({"pages": {"LOCATION": location, **params}})["pages"]
    message = str(caught.value)
    assert SECRET not in message
    assert SECRET not in repr(caught.value.__cause__)
    return message


# --- what is wrong before anything connects -----------------------------------------------------------


def test_an_unknown_alias():
    """The error has a class of its own, and names what was asked for and what there is."""
    with pytest.raises(InvalidCacheBackendError, match=r"no cache 'page'\. Configured are 'pages'"):
        CacheHandler({"pages": "memory://"})["page"]


@pytest.mark.parametrize("location", ["", None, [], [""], "  ", ["", None]], ids=repr)
def test_an_empty_location(location):
    """The error names the setting, the alias and an example."""
    assert refusal(location) == (
        "CACHES['pages']: LOCATION is empty. Give the server's URL, such as 'redis://127.0.0.1:6379/1'"
    )


@pytest.mark.parametrize(
    "url, fault",
    [
        (f"redsi://:{SECRET}@host/1", "unknown URL scheme 'redsi'. Did you mean 'redis'?"),
        (f"http://user:{SECRET}@host/1", "unknown URL scheme 'http'."),
        (f"user:{SECRET}@127.0.0.1:6379", "'***@127.0.0.1:6379' is no URL. Write redis:// before it."),
        ("127.0.0.1:6379/1", "'***' is no URL. Write redis:// before it."),
        ("127.0.0.1:6379", "'127.0.0.1:6379' is no URL. Did you mean 'redis://127.0.0.1:6379'?"),
        ("localhost", "'localhost' is no URL. Did you mean 'redis://localhost'?"),
        ("/run/valkey.sock", "'/run/valkey.sock' is no URL. Did you mean 'unix:///run/valkey.sock'?"),
        (Path("/run/valkey.sock"), "'/run/valkey.sock' is no URL. Did you mean 'unix:///run/valkey.sock'?"),
        (["redis://fine", f"vlakey://:{SECRET}@host"], "unknown URL scheme 'vlakey'. Did you mean 'valkey'?"),
    ],
    ids=[
        "misspelled",
        "http",
        "bare, with password",
        "bare, with database",
        "bare",
        "host",
        "socket",
        "path",
        "second of two",
    ],
)
def test_an_unknown_url_scheme(url, fault):
    """The error names the scheme, the nearest one, and those that exist."""
    message = refusal(url)

    assert message.startswith(f"CACHES['pages']: LOCATION: {fault}")
    assert "rediss://" in message
    assert "memory://" in message


@pytest.mark.parametrize("hosts", ["", ",", "h,", ":1", "h:1,,i:2"])
@pytest.mark.parametrize("user", ["", f":{SECRET}@", f"user:{SECRET}@"])
def test_a_host_of_a_cluster_is_missing(user, hosts):
    """It is not taken for localhost, and neither the user nor the password is taken for a host."""
    message = refusal(f"redis+cluster://{user}{hosts}")

    assert "a host is missing" in message
    assert user.replace(SECRET, "***") in message


@pytest.mark.parametrize("url", [f"h:1,:{SECRET}@i:2", f"h,u:{SECRET}@i", f"u:{SECRET}@h,u:{SECRET}@i"])
def test_a_host_before_the_password(url):
    """No host is silently taken for a part of the user or the password, which stand once, in front."""
    assert "stands before the @; in a password , is written %2C" in refusal(f"redis+cluster://{url}")


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"SOCKET_TIMOUT": 1}, "unknown option 'SOCKET_TIMOUT'. Did you mean 'SOCKET_TIMEOUT'?"),
        ({"pasword": SECRET}, "unknown option 'pasword'. Did you mean 'PASSWORD'?"),
        ({"xyzzy": 1}, "unknown option 'xyzzy'."),
        (
            {"MAX_BYTES": "64MB"},
            "unknown option 'MAX_BYTES'. It is an option of NEAR: {'OPTIONS': {'NEAR': {'MAX_BYTES': …}}}.",
        ),
        (
            {"doorkeeper": False},
            "unknown option 'doorkeeper'. It is an option of NEAR: {'OPTIONS': {'NEAR': {'DOORKEEPER'",
        ),
        ({"ssl": True}, "unknown option 'ssl'. For TLS write rediss:// in LOCATION instead."),
        (
            {"CLIENT_CLASS": "HredClient"},
            "CLIENT_CLASS: 'HredClient' is unknown. Did you mean 'HerdClient'? Built in are 'DefaultClient', "
            "'SentinelClient', 'ClusterClient', 'ShardClient', 'HerdClient'",
        ),
        ({"SOCKET_TIMEOUT": "soon"}, "SOCKET_TIMEOUT cannot be 'soon'"),
        ({"MAX_CONNECTIONS": [1]}, "MAX_CONNECTIONS cannot be [1]"),
        ({"IGNORE_EXCEPTIONS": "perhaps"}, "IGNORE_EXCEPTIONS cannot be 'perhaps'"),
        ({"CLEAR": "everything"}, "CLEAR cannot be 'everything': one of 'auto', 'database', 'prefix' is expected"),
        ({"UNREADABLE": "ignore"}, "UNREADABLE cannot be 'ignore'"),
        ({"CONNECTION_POOL_KWARGS": 5}, "CONNECTION_POOL_KWARGS cannot be an int: a dict is expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option(options, fault):
    """The error names the option, what is wrong with it, and the nearest that exists."""
    assert refusal("memory://", OPTIONS=options).startswith(f"CACHES['pages']['OPTIONS']: {fault}")


def test_an_unknown_setting():
    """A misspelled name beside OPTIONS is found as well."""
    assert refusal("memory://", KEY_PREFFIX="a") == (
        "CACHES['pages']: unknown setting 'KEY_PREFFIX'. Did you mean 'KEY_PREFIX'?"
    )


SETTINGS = ["TIMEOUT", "VERSION", "KEY_PREFIX", "KEY_FUNCTION", "REVERSE_KEY_FUNCTION", "LOCATION", "BACKEND"]


@pytest.mark.parametrize("spelt", [str.upper, str.lower, str.title])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_among_the_options(name, spelt):
    """However it is spelt, the error says that it stands beside OPTIONS, and proposes no option that looks like it."""
    message = refusal("memory://", OPTIONS={spelt(name): 2})

    assert message == (
        f"CACHES['pages']['OPTIONS']: unknown option '{spelt(name)}'. {name} stands beside OPTIONS, not in it: "
        f"{{'{name}': …, 'OPTIONS': {{…}}}}. `fleetcache docs settings` lists all options"
    )


@pytest.mark.parametrize(
    "params, advice",
    [
        ({"OPTIONS": {"OPTIONS": {}}}, "'OPTIONS'. Write its options into the outer OPTIONS."),
        ({"OPTIONS": {"max_entries": 9}}, "'max_entries'. fleetcache has nothing to cull. Leave MAX_ENTRIES out."),
        ({"MAX_ENTRIES": 9}, "'MAX_ENTRIES'. fleetcache has nothing to cull. Leave MAX_ENTRIES out."),
        ({"cull_frequency": 9}, "'cull_frequency'. fleetcache has nothing to cull. Leave CULL_FREQUENCY out."),
        ({"ignore_exceptions": 1}, "'ignore_exceptions'. It is an option: {'OPTIONS': {'IGNORE_EXCEPTIONS': …}}"),
        ({"serializer": "json"}, "'serializer'. It is an option: {'OPTIONS': {'serializer': …}}"),
        ({"db": 1}, "'db'. It is an option: {'OPTIONS': {'db': …}}"),
        ({"backend": "x"}, "'backend'. Did you mean 'BACKEND'?"),
    ],
    ids=repr,
)
def test_a_name_in_a_wrong_place(params, advice):
    """Options beside OPTIONS, and what Django's own caches read, have advice of their own."""
    assert advice in refusal("memory://", **params)


@pytest.mark.parametrize("spelt", [str.upper, str.lower])
@pytest.mark.parametrize(
    "name, place",
    [
        *((name, f"a setting, which stands beside LOCATION: {{'{name}': …}}") for name in SETTINGS[:5]),
        *(
            (name, f"an option, which stands in OPTIONS: {{'OPTIONS': {{'{name}': …}}}}")
            for name in ("IGNORE_EXCEPTIONS", "NEAR", "SERIALIZER")
        ),
    ],
)
def test_a_setting_in_the_url_of_a_location(name, place, spelt):
    """The error says where it stands, and who reads it from a URL; that one does read it."""
    url = f"redis://:{SECRET}@host/1?{spelt(name)}=5"
    with pytest.raises(SettingsError) as caught:
        Cache(url)

    advice = (
        f"unknown parameter '{spelt(name)}'. {name} is {place}; or use Cache.from_url, which reads all settings from"
    )
    assert advice in str(caught.value)
    assert SECRET not in str(caught.value)
    location, params = from_url(url.replace(name, name.lower()))
    read = {setting.upper(): value for setting, value in (params | params["OPTIONS"]).items()}
    assert (location, str(read[name])) == (f"redis://:{SECRET}@host/1", "5")


@pytest.mark.parametrize(
    "parameter, advice",
    [
        ("TIMEOUT=5", "'TIMEOUT'. Did you mean 'timeout'?"),
        ("location=x", "'location'. The URL itself is the LOCATION."),
        ("OPTIONS=x", "'OPTIONS'. Write each option as a parameter: ignore_exceptions=yes."),
        ("backend=x", "'backend'. A URL has no BACKEND. Leave it out."),
        ("MAX_ENTRIES=9", "'MAX_ENTRIES'. A URL has no MAX_ENTRIES. Leave it out."),
    ],
)
def test_what_a_url_does_not_have(parameter, advice):
    """The parts of an entry of CACHES that are no parameters of a URL."""
    with pytest.raises(SettingsError) as caught:
        Cache.from_url(f"redis://host/1?{parameter}")

    assert str(caught.value).endswith(f"unknown parameter {advice}")


def test_an_option_of_the_near_cache_in_a_wrong_place():
    """Beside OPTIONS, and as a parameter of a URL, the error says where it belongs."""
    where = "It is an option of NEAR: {'OPTIONS': {'NEAR': {'MAX_BYTES': …}}}."

    assert refusal("memory://", MAX_BYTES="64MB") == f"CACHES['pages']: unknown setting 'MAX_BYTES'. {where}"
    with pytest.raises(
        SettingsError, match=r"unknown parameter 'max_bytes'\. It is an option of NEAR: near=max_bytes:…\.$"
    ):
        Cache.from_url("memory://?max_bytes=64MB")
    with pytest.raises(
        SettingsError, match=r"unknown parameter 'publish'\. It is an option of STATS: stats=publish:…\.$"
    ):
        Cache.from_url("memory://?publish=5")


@pytest.mark.parametrize(
    "name, path, near",
    [
        ("SERIALIZER", "fleetcache.codec.serializers.JSONSerialiser", "fleetcache.codec.serializers.JSONSerializer"),
        ("CLIENT_CLASS", "django_redis.client.DefualtClient", "django_redis.client.DefaultClient"),
        ("COMPRESSOR", "fleetcache.codec.compressors.ZlibCompresor", "fleetcache.codec.compressors.ZlibCompressor"),
        ("CONNECTION_POOL_CLASS", "no.such.module.Pool", ""),
        ("REDIS_CLIENT_CLASS", "justaname", ""),
    ],
)
def test_a_path_that_leads_nowhere(name, path, near):
    """The error names the option and the path, and the nearest path that exists."""
    message = refusal("memory://", OPTIONS={name: path})

    assert repr(path) in message
    assert "cannot be imported" in message
    if near:
        assert f"Did you mean {near!r}?" in message


@pytest.mark.parametrize("timeout", ["soon", [5], {}, True], ids=repr)
def test_a_timeout_of_the_wrong_type(timeout):
    """TIMEOUT is a number of seconds, a timedelta or None, and anything else is named."""
    assert refusal("memory://", TIMEOUT=timeout).startswith(f"CACHES['pages']: TIMEOUT cannot be {timeout!r}")


@pytest.mark.parametrize(
    "timeout, seconds",
    [(5, 5), ("5", 5), (1.5, 1.5), (None, None), ("None", None), (timedelta(minutes=1), 60.0)],
    ids=repr,
)
def test_timeouts_that_are_fine(timeout, seconds):
    """A URL spells numbers as text."""
    assert Settings.read("memory://", {"TIMEOUT": timeout}).timeout == seconds


def test_a_timeout_of_a_call_has_its_own_class():
    """What a call gives for a timeout is refused with another class than what a setting gives."""
    with pytest.raises(InvalidTimeout, match="not 'soon'"):
        Cache("memory://settings").set("a", 1, "soon")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@host:port/1",
        f"redis://user:{SECRET}@host/1?socket_timeout=soon",
        f"redis://host/one?password={SECRET}&socket_timeout=soon",
        f"rediss://:{SECRET}@host/1?ssl_cert_reqs=perhaps&nonsense=1",
        f"unix://:{SECRET}@/path?db=one",
    ],
)
def test_a_url_that_redis_py_cannot_read(url):
    """A fault in a URL is a SettingsError that shows the URL without its secrets."""
    with pytest.raises(SettingsError) as caught:
        Cache(url, {"OPTIONS": {"password": SECRET}})

    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "url, shown",
    [
        (f"redis://user:{SECRET}@host/1", "redis://user:***@host/1"),
        (f"redis://:{SECRET}@host/1", "redis://:***@host/1"),
        (f"redis://:{SECRET}@@host/1", "redis://:***@host/1"),
        (f"redis://host/1?password={SECRET}&db=2", "redis://host/1?password=***&db=2"),
        (f"redis://host/1?ssl_password={SECRET}", "redis://host/1?ssl_password=***"),
        ("redis://host/1", "redis://host/1"),
    ],
)
def test_secrets_are_masked(url, shown):
    """User names and hosts are shown, passwords never."""
    assert masked_url(url) == shown


def test_an_unknown_parameter_of_a_url():
    """A misspelled parameter is found, and the URL is shown without its password."""
    with pytest.raises(SettingsError) as caught:
        Cache.from_url(f"redis://:{SECRET}@host/1?key_prefx=a&password={SECRET}")

    assert "unknown parameter 'key_prefx'. Did you mean 'key_prefix'?" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_what_a_url_may_say():
    """Any setting in lower case; redis-py's own parameters stay with the URL."""
    location, params = from_url("redis://host/1?key_prefix=p&timeout=5&ignore_exceptions=yes&client_name=me&db=3")

    assert location == "redis://host/1?client_name=me&db=3"
    assert params == {"KEY_PREFIX": "p", "TIMEOUT": "5", "OPTIONS": {"IGNORE_EXCEPTIONS": "yes"}}


def test_sentinels_are_needed():
    """A SentinelClient without SENTINELS says what is missing."""
    with pytest.raises(SettingsError, match=r"SENTINELS must be a list of \(host, port\)"):
        SentinelClient("redis://service/0")


@pytest.mark.parametrize(
    "location, kind",
    [
        ("redis://service/0", "DefaultClient"),
        ("redis://service/0", "HerdClient"),
        ("redis://service/0", "ShardClient"),
        ("redis://service/0", "ClusterClient"),
        ("redis+cluster://service", "DefaultClient"),
    ],
)
def test_sentinels_that_nobody_asks(location, kind):
    """SENTINELS are not silently ignored: the error says what asks them."""
    options = {"CLIENT_CLASS": kind, "SENTINELS": [("127.0.0.1", 1)]}
    assert refusal(location, OPTIONS=options) == (
        "CACHES['pages']: SENTINELS needs CLIENT_CLASS SentinelClient or a redis+sentinel:// LOCATION"
    )


@pytest.mark.parametrize(
    "location, options",
    [
        ("redis://service/0", {"CLIENT_CLASS": "SentinelClient"}),
        ("redis://service/0", {"CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory"}),
        ("redis+sentinel://127.0.0.1:1/service", {}),
        ("memory://", {}),
    ],
    ids=["client", "factory", "URL", "no server"],
)
def test_sentinels_that_somebody_asks(location, options):
    """A client, a factory or a URL that asks Sentinels takes them; tests may put memory:// in their place."""
    entry = {"LOCATION": location, "OPTIONS": {**options, "SENTINELS": [("127.0.0.1", 1)]}}
    assert CacheHandler({"pages": entry})["pages"]


@pytest.mark.parametrize("name", clients.__all__)
def test_a_client_by_its_name(name):
    """CLIENT_CLASS takes the name of each client in fleetcache.client, in any case, as SERIALIZER does."""
    location = {"SentinelClient": "redis+sentinel://127.0.0.1:1/s", "ClusterClient": "redis://127.0.0.1:1"}
    for written in (name, name.lower()):
        entry = {"LOCATION": location.get(name, "memory://"), "OPTIONS": {"CLIENT_CLASS": written}}
        assert type(CacheHandler({"pages": entry})["pages"]) is getattr(clients, name)


def test_both_dialects_say_the_same():
    """django-redis' upper-case options, Django's lower-case ones and redis-py's arguments are all read."""
    options = Settings.read(
        "redis://host",
        {"OPTIONS": {"PASSWORD": "a", "socket_timeout": 2, "MAX_ENTRIES": 5, "ssl_ca_certs": "x", "db": 4}},
    ).options

    assert options.password == "a"
    assert options.socket_timeout == 2
    assert options.connection == {"ssl_ca_certs": "x", "db": 4}


def test_defaults_have_limits():
    """Nothing waits for ever unless it was told to."""
    options = Settings.read("redis://host", {}).options

    assert (options.socket_timeout, options.socket_connect_timeout) == (5.0, 5.0)


# --- NEAR ---------------------------------------------------------------------------------------------


def near_options(written) -> NearOptions | None:
    """Return the options of the near cache that NEAR = *written* gives."""
    return Settings.read("redis://host", {"OPTIONS": {"NEAR": written}}).options.near


@pytest.mark.parametrize("written", [None, False, "", 0, "0", "no", "off", "False"], ids=repr)
def test_the_near_cache_is_off(written):
    """Whatever says no means no near cache; nor is there one if nothing is said."""
    assert near_options(written) is None
    assert Settings.read("redis://host", {}).options.near is None


@pytest.mark.parametrize("written", [True, "true", 1, "1", "Yes", "on", {}], ids=repr)
def test_the_near_cache_by_default(written):
    """Whatever says yes takes the defaults, and so does a dict that says nothing."""
    assert near_options(written) == NearOptions(
        prefixes=(), max_bytes=64_000_000, max_ttl=60, t_live=1, canary=10, absent=True, untracked_ttl=0
    )


@pytest.mark.parametrize(
    "written, size",
    [
        (20_000, 20_000),
        ("20000", 20_000),
        ("64MB", 64_000_000),
        ("512 kB", 512_000),
        ("0.5gb", 500_000_000),
        (" 1GiB ", 1024**3),
        ("64 mib", 64 * 1024**2),
        ("20000B", 20_000),
    ],
    ids=repr,
)
def test_a_size_of_the_near_cache(written, size):
    """A size alone is MAX_BYTES; kB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024."""
    assert near_options(written) == NearOptions(max_bytes=size)
    assert near_options({"MAX_BYTES": written}) == NearOptions(max_bytes=size)


def test_fields_of_the_near_cache():
    """A dict sets fields, in upper or lower case; URLs and timedeltas spell values differently."""
    assert near_options(
        {
            "PREFIXES": ["shop:", "ab"],
            "max_ttl": timedelta(minutes=2),
            "T_LIVE": "0.05",
            "canary": 3,
            "ABSENT": "no",
            "untracked_ttl": 5,
        }
    ) == NearOptions(prefixes=("shop:", "ab"), max_ttl=120, t_live=0.05, canary=3, absent=False, untracked_ttl=5)


@pytest.mark.parametrize(
    "query, size", [("near=1", 64_000_000), ("near=256MB", 256_000_000), ("near=2MiB", 2 * 1024**2)]
)
def test_the_near_cache_in_a_url(query, size):
    """``?near=`` is a switch, a size, or fields."""
    location, params = from_url(f"redis://host/1?{query}")

    assert location == "redis://host/1"
    assert Settings.read(location, params).options.near == NearOptions(max_bytes=size)


@pytest.mark.parametrize(
    "query, option, written",
    [
        ("near=max_bytes:2MB,t_live:2,absent:no,touch:None", "NEAR", {"MAX_BYTES": "2MB", "T_LIVE": 2, "ABSENT": False, "TOUCH": None}),
        ("near=prefixes:shop:1:,max_ttl:9,prefixes:news:", "NEAR", {"PREFIXES": ["shop:1:", "news:"], "MAX_TTL": 9}),
        ("near=max_bytes:2MB", "NEAR", "2MB"),
        ("stats=publish:5,audit:1000,advise:off", "STATS", {"PUBLISH": 5, "AUDIT": 1000, "ADVISE": False}),
        (
            "stats=groups:user:*%3Dusers,publish:0,groups:*.html=pages",
            "STATS",
            {"PUBLISH": 0, "GROUPS": {"user:*": "users", "*.html": "pages"}},
        ),
        ("stats=no", "STATS", False),
        ("loading=early:1,wait:None,renew:thread", "LOADING", {"EARLY": 1, "WAIT": None, "RENEW": "thread"}),
        ("raise_for=login:*,lock:*", "RAISE_FOR", ["login:*", "lock:*"]),
    ],
)  # fmt: skip
def test_a_dict_or_a_list_in_a_url(query, option, written):
    """The same as the dict or the list in OPTIONS."""
    location, params = from_url(f"redis://host/1?{query}")

    read = Settings.read(location, params).options
    expected = Settings.read(location, {"OPTIONS": {option: written}}).options
    name = option.lower()
    assert getattr(read, name) == getattr(expected, name)


def test_every_option_can_stand_in_a_url():
    """As settings.md says: each option that is a dict or a list has a form for URLs, but those that the page names."""
    values = {
        "STATS": "publish:5",
        "NEAR": "t_live:2",
        "LOADING": "early:1",
        "RAISE_FOR": "a,b",
        "SENTINELS": "a:1,b:2",
    }
    kept = {each.name.upper() for each in dataclasses.fields(Options) if each.metadata} - values.keys()
    dicts = {name for name in kept if isinstance(getattr(Options(), name.lower()), (dict, tuple, list))}

    for name, value in values.items():
        location, params = from_url(f"redis://host/1?{name.lower()}={value}")
        assert Options.read("", params["OPTIONS"], {}) != Options()
    assert dicts | {"SENTINEL_KWARGS"} == DICTS
    for name in DICTS:
        with pytest.raises(SettingsError, match=f"{name} is a dict of any values, which a URL cannot hold"):
            from_url(f"redis://host/1?{name.lower()}=a:1")


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("stats=publish", "STATS cannot be 'publish': a dict or a switch is expected, or a text such as 'publish:5,audit:1000'"),
        ("stats=publsh:5", "STATS: unknown name 'publsh'. Did you mean 'PUBLISH'?"),
        ("stats=publish:often", "STATS: publish cannot be 'often': a number of seconds is expected"),
        ("stats=groups:user", "each group is written groups:GLOB=NAME, such as groups:user:*=users"),
        ("near=t_live:2,5", "a dict or a size is expected, or a text such as 'max_bytes:64MB,t_live:2'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_of_a_dict_in_a_url(query, fault):
    """The error says how it is written."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(*from_url(f"redis://host/1?{query}"))

    assert fault in str(caught.value)


@pytest.mark.parametrize(
    "written, fault",
    [
        ({"MAXTTL": 1}, ": unknown name 'MAXTTL'. Did you mean 'MAX_TTL'? Known: PREFIXES, MAX_BYTES"),
        ({"xyzzy": 1}, ": unknown name 'xyzzy'. Known: PREFIXES"),
        ({3: 1}, ": unknown name 3."),
        ({"PREFIXES": "shop:"}, ": PREFIXES cannot be 'shop:': a list is expected: ['shop:']"),
        ({"PREFIXES": [""]}, ": PREFIXES cannot be ['']: the server would announce every key of every application."),
        ({"PREFIXES": ["a", 1]}, ": PREFIXES cannot be ['a', 1]: a list of texts is expected"),
        ({"PREFIXES": [b"a"]}, ": PREFIXES cannot be [b'a']: a list of texts is expected"),
        ({"PREFIXES": {"a": 1}}, ": PREFIXES cannot be {'a': 1}: a list of texts is expected"),
        ({"PREFIXES": ["b", "a:c", "a"]}, ": PREFIXES cannot be ['b', 'a:c', 'a']: 'a:c' begins with 'a'. Keep 'a',"),
        ({"PREFIXES": ["a", "b", "a"]}, ": PREFIXES cannot be ['a', 'b', 'a']: 'a' is there twice. Keep one"),
        ({"MAX_BYTES": "15kB"}, ": MAX_BYTES cannot be '15kB': 16000 bytes or more are expected"),
        ({"MAX_BYTES": True}, ": MAX_BYTES cannot be True: a size is a number of bytes, or text such as '64MB'"),
        ({"MAX_TTL": 0}, ": MAX_TTL cannot be 0: more than 0 seconds are expected"),
        ({"MAX_TTL": True}, ": MAX_TTL cannot be True: a number of seconds is expected"),
        ({"MAX_TTL": "nan"}, ": MAX_TTL cannot be 'nan': a number of seconds is expected"),
        ({"MAX_TTL": "inf"}, ": MAX_TTL cannot be 'inf': a number of seconds is expected"),
        ({"T_LIVE": 0.04}, ": T_LIVE cannot be 0.04: 0.05 seconds or more are expected"),
        ({"t_live": "soon"}, ": t_live cannot be 'soon'"),
        ({"CANARY": 0}, ": CANARY cannot be 0: more than 0 seconds are expected"),
        ({"ABSENT": "perhaps"}, ": ABSENT cannot be 'perhaps': a switch is True or False"),
        ({"UNTRACKED_TTL": -1}, ": UNTRACKED_TTL cannot be -1: 0 seconds or more are expected"),
        ("perhaps", " cannot be 'perhaps': True, a size such as '64MB', or a dict is expected."),
        ("64M", " cannot be '64M': True, a size such as '64MB', or a dict is expected."),
        (2, " cannot be 2: True, a size such as '64MB', or a dict is expected. MAX_BYTES cannot be 2: 16000"),
        (-1, " cannot be -1:"),
        (1.5, " cannot be 1.5:"),
        ([1], " cannot be [1]:"),
    ],
    ids=lambda value: repr(value) if not isinstance(value, str) or len(value) < 10 else "",
)
def test_a_wrong_near_cache(written, fault):
    """The error names the field, what was found and what to do."""
    assert refusal("memory://", OPTIONS={"NEAR": written}).startswith(f"CACHES['pages']['OPTIONS']: NEAR{fault}")


def test_a_near_cache_beside_writes_to_replicas():
    """The two are refused together, and each is fine without the other."""
    message = refusal("memory://", OPTIONS={"NEAR": True, "REPLICA_READ_ONLY": False})
    assert message.startswith("CACHES['pages']['OPTIONS']: NEAR needs REPLICA_READ_ONLY.")

    Settings.read("memory://", {"OPTIONS": {"NEAR": False, "REPLICA_READ_ONLY": False}})
    Settings.read("memory://", {"OPTIONS": {"NEAR": True, "protocol": 2}})


# --- what only the server can know --------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """A server that wants a password."""
    with valkey_server(arguments=["--requirepass", "right"]) as server:
        yield server


@pytest.mark.parametrize(
    "credentials, options, fault",
    [
        (f":{SECRET}@", {}, "refused the password of user 'default'"),
        (f"somebody:{SECRET}@", {}, "refused the password of user 'somebody'"),
        ("", {"PASSWORD": SECRET}, "refused the password of user 'default'"),
        ("", {"USERNAME": "somebody", "password": SECRET}, "refused the password of user 'somebody'"),
        ("", {}, "wants a password of user 'default'"),
    ],
    ids=["URL", "user in URL", "PASSWORD", "USERNAME", "none"],
)
async def test_a_refused_password(guarded, face, credentials, options, fault):
    """The error has a class of its own, names server and user, says where to look, and never the password."""
    url = guarded.tcp_url(2).replace("://", f"://{credentials}")
    cache = Face(Cache(url, {"OPTIONS": options}), face)

    for operation in (cache.get("a"), cache.set("a", 1), cache.set_many({"a": 1}), cache.clear()):
        error = await settled(operation)
        assert type(error) is AccessDenied
        assert isinstance(error, redis.AuthenticationError)
        assert fault in str(error)
        assert f"127.0.0.1:{guarded.port}/2" in str(error)
        assert "OPTIONS['PASSWORD']" in str(error)
        assert SECRET not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


async def test_a_password_as_a_parameter(guarded, face):
    """``?password=`` is a password too."""
    wrong = Face(Cache(f"{guarded.tcp_url()}?password={SECRET}"), face)
    right = Face(Cache(f"{guarded.tcp_url()}?password=right"), face)

    error = await settled(wrong.get("a"))
    assert type(error) is AccessDenied
    assert SECRET not in str(error)
    assert await right.set("a", 1) is True


async def test_a_wrong_password_is_not_an_outage(guarded, face, caplog):
    """After any number of refusals the server is still asked, so that a mended password works at once."""
    cache = Face(Cache(guarded.tcp_url(4), {"OPTIONS": {"PASSWORD": SECRET}}), face)

    for _ in range(5):
        assert type(await settled(cache.get("a"))) is AccessDenied
    assert SECRET not in caplog.text


async def test_a_command_that_is_not_allowed(guarded, face):
    """A user without the right to a command gets the server's refusal, and others are unharmed."""
    Cache(guarded.tcp_url(), {"OPTIONS": {"PASSWORD": "right"}}).get_client().execute_command(
        "ACL", "SETUSER", "reader", "on", ">pass", "~*", "+get", "+hello", "+select", "+client"
    )
    cache = Face(Cache(guarded.tcp_url(), {"OPTIONS": {"USERNAME": "reader", "PASSWORD": "pass"}}), face)

    with pytest.raises(redis.exceptions.NoPermissionError):
        await cache.set("a", 1)
    assert await cache.get("missing") is None


async def test_a_database_that_does_not_exist(url, face):
    """The error has a class of its own, and names the server, the number and its place."""
    if url().startswith(("memory", "redis+cluster")):
        return
    cache = Face(Cache(url(99)), face)

    for operation in (cache.get("a"), cache.set("a", 1), cache.set_many({"a": 1})):
        error = await settled(operation)
        assert type(error) is NoSuchDatabase
        assert "/99: the server has no such database" in str(error)
        assert "at the end of the URL" in str(error)


@contextmanager
def old_server(answer: bytes) -> Iterator[int]:
    """A port that gives the same answer to everything."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                while connection.recv(4096):
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
        b"-NOPROTO unsupported protocol version\r\n",
    ],
    ids=["unknown command", "NOPROTO"],
)
async def test_a_server_that_speaks_no_resp3(face, answer):
    """The error has a class of its own, and names the server, what is needed, and the way to do without."""
    with old_server(answer) as port:
        cache = Face(Cache(f"redis://127.0.0.1:{port}/0"), face)
        for operation in (cache.get("a"), cache.set("a", 1)):
            error = await settled(operation)
            assert type(error) is UnsupportedServer
            assert f"127.0.0.1:{port}/0: the server does not speak RESP3" in str(error)
            assert "Redis 7.0+" in str(error)
            assert "protocol" in str(error)


async def test_resp2_does(url, face):
    """With OPTIONS["protocol"] = 2 everything works without RESP3."""
    cache = Face(Cache(url(), {"KEY_PREFIX": "resp2", "OPTIONS": {"protocol": 2}}), face)

    await cache.set_many({"a": 1, "b": [2]})
    await cache.hset("hash", mapping={"a": 1})
    await cache.zadd("z", {"m": 1.5})
    await cache.sadd("set", 1, 2)

    assert await cache.get_many("abc") == {"a": 1, "b": [2]}
    assert await cache.hgetall("hash") == {"a": 1}
    assert await cache.zrange("z", 0, -1, withscores=True) == [("m", 1.5)]
    assert await cache.zscore("z", "m") == 1.5
    assert await cache.zpopmin("z", 2) == [("m", 1.5)]
    assert await cache.smembers("set") == {1, 2}
    assert await cache.incr("a") == 2
    await cache.clear()


async def test_what_is_no_server_at_all(face):
    """A port that speaks something else is an error of the connection that says so."""
    with old_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        cache = Face(Cache(f"redis://127.0.0.1:{port}/0"), face)
        error = await settled(cache.get("a"))

    assert isinstance(error, ServerGone)
    assert f"127.0.0.1:{port}/0" in str(error)


async def test_a_value_that_cannot_be_pickled(make):
    """The error has a class of its own, names the kind of value and the remedy; nothing is written."""
    for options, serializer in (
        ({}, "PickleSerializer"),
        ({"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}, "JSONSerializer"),
    ):
        cache = make(**options)
        await cache.set("old", 1, 100)
        bad = threading.Lock()
        for operation in (
            cache.set("new", bad),
            cache.set("old", bad),
            cache.add("new", bad),
            cache.set_many({"old": 2, "new": bad}),
            cache.get_or_set("new", bad),
            cache.hset("new", "field", bad),
            cache.rpush("new", 1, bad),
            cache.sadd("new", 1, bad),
        ):
            error = await settled(operation)
            assert type(error) is UnstorableValue
            assert f"{serializer} cannot store a lock" in str(error)
            assert "SERIALIZER" in str(error)
        assert await cache.get_or_set("new", lambda: bad) is bad  # whoever made it gets it
        assert await cache.has_key("new") is False
        assert await cache.get_many(["old", "new"]) == {"old": 1}
        assert await cache.ttl("old") in (99, 100)
        assert await cache.keys("*") == ["old"]


async def test_bad_input_is_raised_even_where_outages_are_ignored(make):
    """IGNORE_EXCEPTIONS is about the server, not about the caller's mistakes."""
    cache = make(IGNORE_EXCEPTIONS=True)

    assert type(await settled(cache.set("a", threading.Lock()))) is UnstorableValue
    assert type(await settled(cache.set("a", 1, "soon"))) is InvalidTimeout
    assert type(await settled(cache.get(None))) is InvalidKey
    assert isinstance(await settled(cache.incr("missing")), ValueError)
