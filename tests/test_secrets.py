"""No message, log line, repr or traceback of ours holds a password, wherever and however it was written."""

from __future__ import annotations

import io
import json
import logging
import socket
import traceback
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry
from tests.faces import Face, settled

from fleetcache import Cache, CacheHandler, SettingsError, cli
from fleetcache.client import SentinelClient
from fleetcache.codec.serializers import JSONSerializer
from fleetcache.errors import AccessDenied
from fleetcache.keys import masked
from fleetcache.masking import masked_url
from fleetcache.settings import Settings, from_url
from fleetcache.testing import cluster, valkey_server

SECRET = "hunter2SECRET"

LOCATIONS = {
    "two with a space": f"redis://:{SECRET}@h1:6379/0 redis://:pw2@h2:6379/0",
    "two with |": f"redis://:{SECRET}@h1:6379/0|redis://:pw2@h2:6379/0",
    "two, the second": f"redis://:pw@h1:6379/0 redis://:{SECRET}@h2:6379/0",
    "two with a comma": f"redis://:{SECRET}@h1:6379/x,redis://:{SECRET}@h2:6379/x",
    "two with a newline": f"redis://:{SECRET}@h1:6379/0\nredis://:{SECRET}@h2:6379/0",
    "two in a list": [f"redis://:{SECRET}@h1:6379/0", f"redis://:{SECRET}@h2:port/0"],
    "a list of text and number": [f"redis://:{SECRET}@h1:6379/0", 5],
    "a tuple with a weight": (f"redis://:{SECRET}@h1:6379/0", 3),
    "a list in a list": [[f"redis://:{SECRET}@h1:6379/0"]],
    "a dict": {"url": f"redis://:{SECRET}@h1:6379/0"},
    "bytes": f"redis://:{SECRET}@h1:port/0".encode(),
    "bytes that are no text": f"redis://:{SECRET}@h1/0".encode() + b"\xff",
    "#": f"redis://:{SECRET}#x@h1:6379/0",
    "# before": f"redis://:x#{SECRET}@h1:6379/0",
    "/": f"redis://:a/{SECRET}@h1:6379/0",
    "/ with digits": f"redis://:12/{SECRET}@h1:6379/0",
    "/ first": f"redis://:/{SECRET}@h1:6379/0",
    "/ and :": f"redis://:12/{SECRET}:x@h1:6379/0",
    "?": f"redis://:a?{SECRET}@h1:6379/0",
    "? and =": f"redis://:a?{SECRET}=b@h1:6379/0",
    "? and a value": f"redis://:a?b={SECRET}@h1:6379/0",
    "? and a plain name": f"redis://:a?db={SECRET}@h1:6379/0",
    "@": f"redis://:a@{SECRET}@h1:port/0",
    "://": f"redis://:{SECRET}://x@h1:abc/0",
    "a URL in it": f"redis://:redis://{SECRET}@h1:abc/0",
    ":": f"redis://:a:{SECRET}@h1:abc/0",
    "[": f"redis://:{SECRET}[@h1:6379/0",
    "]": f"redis://:[{SECRET}@h1:6379/0",
    "%": f"redis://:{SECRET}%zz@h1:6379/x",
    "a port that is none": f"redis://:{SECRET}@h1:port/0",
    "a port too high": f"redis://:{SECRET}@h1:66666/0",
    "port 0": f"redis://:{SECRET}@h1:0/0",
    "as the user": f"redis://{SECRET}@h1:port/0",
    "as the user, colon": f"redis://{SECRET}:@h1:port/0",
    "as the user, in two": f"redis://{SECRET}:x:y@h1:port/0",
    "user with /": f"redis://u/{SECRET}:x@h1:6379/0",
    "no @": f"redis://:{SECRET}/0",
    "no @, user": f"redis://user:{SECRET}/0",
    "no @, a path": f"redis://:12/{SECRET}",
    "no scheme": f":{SECRET}@h1:6379",
    "no scheme, no @": f"user:{SECRET}",
    "nothing else": SECRET,
    "scheme": f"rediz://:{SECRET}@h1:6379",
    "scheme with a space": f"{SECRET} redis://h1:6379",
    "one slash": f"redis:/:{SECRET}@h1:6379/0",
    "database": f"redis://:{SECRET}@h1:6379/abc",
    "?password": f"redis://h1:6379/x?password={SECRET}",
    "?ssl_password": f"rediss://h1:6379/x?ssl_password={SECRET}",
    "?username": f"redis://h1:6379/x?username={SECRET}",
    "?pasword": f"redis://h1:6379/0?pasword={SECRET}",
    "?PASSWORD": f"redis://h1:6379/0?PASSWORD={SECRET}",
    "?pwd": f"redis://h1:6379/0?pwd={SECRET}",
    "?auth": f"redis://h1:6379/0?auth={SECRET}",
    "?=": f"redis://h1:6379/0?={SECRET}",
    "? bare": f"redis://h1:6379/0?{SECRET}",
    "?bogus": f"redis://:{SECRET}@h1:6379/0?bogus=1",
    "?credential_provider": f"redis://h1:6379/0?credential_provider={SECRET}",
    "?socket_timeout": f"redis://:{SECRET}@h1:6379/0?socket_timeout=abc",
    "?max_connections": f"redis://:{SECRET}@h1:6379/0?max_connections=0",
    "cluster": f"redis+cluster://u:{SECRET}@h1:6379,h2:6379/5",
    "cluster, /": f"redis+cluster://u:12/{SECRET}@h1:6379",
    "cluster, ,": f"redis+cluster://u:a,{SECRET}@h1:6379",
    "mixed": [f"redis+cluster://u:{SECRET}@h1:6379", f"redis://u:{SECRET}@h1:6379"],
    "Sentinel without a service": f"redis+sentinel://u:{SECRET}@h1:26379,h2:26379/",
    "Sentinel, two @": f"redis+sentinel://u:{SECRET}@h1:26379,u:{SECRET}@h2:26379/s",
    "NFKC": f"redis://:{SECRET}\u2100@h1:6379/0",
    "unix, NFKC": f"unix://:{SECRET}\u2100@/run/x.sock",
    "unix, database": f"unix://:{SECRET}@/run/x.sock?db=abc",
    "memory": f"memory://:{SECRET}@h",
    "embedded": f"embedded://:{SECRET}@/data.rdb?db=x",
    "embedded, ?password": f"embedded://?password={SECRET}",
    "unix, ?": f"unix:///run/x.sock?{SECRET}",
    "? and @ in a value": f"redis://h1:6379/0?password=a@{SECRET}&bogus=1",
    "? and ;": f"redis://h1:6379/0?db=1;password={SECRET}",
    "? and %26": f"redis://h1:6379/0?db=0%26password={SECRET}",
    "& without ?": f"redis://h1:6379/0&password={SECRET}",
    "/ for ?": f"redis://h1:6379/password={SECRET}",
    "# for ?": f"redis://h1:6379/0#password={SECRET}",
    "after the port": f"redis://h1:6379:{SECRET}/0",
    "backslashes": f"redis:\\\\:{SECRET}@h1:6379/0",
    "two hosts, each with one": f"redis://:{SECRET}@h1:6379,:{SECRET}@h2:6379/x",
    "IPv6": f"redis://:{SECRET}@[::1:6379/0",
    "a newline": f"redis://:{SECRET}\n@h1:port/0",
    "TLS without TLS": f"redis://:{SECRET}@h1:6379/0?ssl_cert_reqs=none",
    "fine": f"redis://user:{SECRET}@127.0.0.1:1/0",
    "fine, by parameter": f"redis://127.0.0.1:1/0?password={SECRET}",
    "fine, Sentinels": f"redis+sentinel://user:{SECRET}@127.0.0.1:1/service/0",
    "fine, cluster": f"redis+cluster://user:{SECRET}@127.0.0.1:1",
}

OPTIONS = {
    "CONNECTION_POOL_KWARGS as a list": {"CONNECTION_POOL_KWARGS": [("password", SECRET)]},
    "CONNECTION_POOL_KWARGS as text": {"CONNECTION_POOL_KWARGS": f"password={SECRET}"},
    "REDIS_CLIENT_KWARGS as text": {"REDIS_CLIENT_KWARGS": f"password={SECRET}"},
    "REDIS_CLIENT_KWARGS as bytes": {"REDIS_CLIENT_KWARGS": SECRET.encode()},
    "SENTINEL_KWARGS": {"SENTINEL_KWARGS": {"password": SECRET}},
    "SENTINEL_KWARGS as text": {"SENTINEL_KWARGS": f"password={SECRET}"},
    "SENTINELS with a password": {"SENTINELS": [f":{SECRET}@10.0.0.1:26379"]},
    "SENTINELS of three": {"SENTINELS": [("10.0.0.1", 26379, SECRET)]},
    "SENTINELS as a URL": {"SENTINELS": f"redis://:{SECRET}@10.0.0.1:26379"},
    "PASSWORD beside a fault": {"PASSWORD": SECRET, "SOCKET_TIMEOUT": "x"},
    "PASSWORD as a list": {"PASSWORD": [SECRET]},
    "PASSWORD as a dict": {"PASSWORD": {"value": SECRET}},
    "PASSWORD as bytes": {"PASSWORD": SECRET.encode()},
    "PASSWORD as bytes that are no text": {"PASSWORD": SECRET.encode() + b"\xff"},
    "PASSWORD of an environment that is no UTF-8": {"PASSWORD": SECRET + "\udcff"},
    "password in a pool": {"CONNECTION_POOL_KWARGS": {"password": SECRET, "bogus": 1}},
    "password in a pool, beside a fault": {"CONNECTION_POOL_KWARGS": {"password": SECRET, "socket_timeout": "x"}},
    "password in a pool, as a list": {"CONNECTION_POOL_KWARGS": {"password": [SECRET]}},
    "ssl_password": {"ssl_password": SECRET},
    "PASSWRD": {"PASSWRD": SECRET},
    "a URL as the name": {f"redis://:{SECRET}@h": 1},
    "USERNAME": {"USERNAME": SECRET},
    "USERNAME as a list": {"USERNAME": [SECRET]},
    "a URL for a number": {"SOCKET_TIMEOUT": f"redis://:{SECRET}@h"},
    "a URL for a whole number": {"MAX_CONNECTIONS": f"redis://:{SECRET}@h"},
    "a URL for a path": {"SERIALIZER": f"redis://:{SECRET}@h"},
    "a URL for a dotted path": {"PARSER_CLASS": f"redis://:{SECRET}@h.example.com"},
    "a URL for a choice": {"CLEAR": f"redis://:{SECRET}@h"},
    "a URL for NEAR": {"NEAR": f"redis://:{SECRET}@h"},
    "a dict for a number": {"SOCKET_TIMEOUT": {"password": SECRET}},
    "pairs for a number": {"SOCKET_TIMEOUT": [("password", SECRET)]},
    "credential_provider as text": {"credential_provider": SECRET},
    "credential_provider as a pair": {"credential_provider": ("user", SECRET)},
    "a URL for CLIENT_CLASS": {"CLIENT_CLASS": f"redis://:{SECRET}@h"},
    "OPTIONS as text": f"password={SECRET}",
    "OPTIONS as pairs": [("PASSWORD", SECRET)],
    "fine": {"USERNAME": "user", "PASSWORD": SECRET},
}


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    """All that is logged, at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    assert SECRET not in stream.getvalue()


def told(error: BaseException) -> str:
    """Return all that a traceback says of *error* but the lines of code, and the locals of frames in it.

    Those of our callers hold what they gave us, and so do ours while we read settings; later ours hold no secret.
    Foreign frames that we call never do.
    """
    found, chain = [], []
    given = ("/tests/", "/src/fleetcache/") if isinstance(error, SettingsError) else ("/tests/",)
    while error is not None and error not in chain:
        chain.append(error)
        found += [repr(error), *traceback.format_exception_only(error)]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if not any(place in frame.f_code.co_filename for place in given):
                found += [shown(value) for value in frame.f_locals.values()]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(found)


def shown(value) -> str:
    """Return what a debugger shows of *value*, which may be half made."""
    try:
        return repr(value)
    except Exception:
        return ""


def seen(location, params, kind=Cache) -> Iterator[str]:
    """Yield whatever a site can see of a cache with these settings."""
    try:
        handled = CacheHandler({"pages": {"LOCATION": location, **params}})["pages"]
        cache = kind(location, params)
    except SettingsError as error:
        yield told(error)
        yield repr(error)
        return
    yield repr(
        (cache, handled, cache.settings, cache.settings.options, cache.info(), cache.lock("a"), cache.pipeline())
    )
    for server in cache.topology.servers:
        yield repr((server, vars(server), getattr(server, "pool", None), server.address))
    for operation in (lambda: cache.get("a"), lambda: cache.set("a", 1), cache.get_client):
        try:
            yield repr(operation())
        except Exception as error:
            yield told(error)


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_password_in_a_location(name):
    """Whatever is wrong with a URL, or right, nothing that a cache says of it holds the password."""
    for text in seen(LOCATIONS[name], {"OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.1}}):
        assert SECRET not in text
    if isinstance(url := LOCATIONS[name], str):
        assert SECRET not in masked_url(url)


@pytest.mark.parametrize("name", [name for name, location in LOCATIONS.items() if isinstance(location, str)])
def test_a_password_in_a_url(name, capsys):
    """Nor does a URL that stands for a whole entry, and the command line shows no traceback."""
    url = LOCATIONS[name]
    try:
        repr(Settings.read(*from_url(url)))
        Cache.from_url(url)
    except SettingsError as error:
        assert SECRET not in told(error)
    if name.startswith(("fine", "memory", "embedded")):
        return

    for arguments in (["probe", url], ["probe", url, "--json"]):
        code = cli.main(arguments)
        written = capsys.readouterr()
        assert code == 2
        assert SECRET not in written.out + written.err


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", [Cache, SentinelClient], ids=lambda kind: kind.__name__)
def test_a_password_in_an_option(name, kind):
    """An option that may hold a password is never quoted, nor is one that holds a URL."""
    location = "redis://service/0" if kind is SentinelClient else "redis://127.0.0.1:1/0"
    options = OPTIONS[name]
    if kind is SentinelClient and isinstance(options, dict):
        options = {"SENTINELS": [("127.0.0.1", 1)], "SOCKET_CONNECT_TIMEOUT": 0.1, **options}
    for text in seen(location, {"OPTIONS": options}, kind):
        assert SECRET not in text


@pytest.fixture(scope="module")
def guarded():
    """A server that wants another password."""
    with valkey_server(arguments=["--requirepass", "right"]) as server:
        yield server


@pytest.mark.parametrize(
    ("user", "options"),
    [
        (f"{SECRET}@", {}),
        (f"{SECRET}:@", {}),
        (f":{SECRET}@", {}),
        (f"user:{SECRET}@", {}),
        ("", {"USERNAME": SECRET}),
        ("", {"PASSWORD": SECRET}),
        ("", {"CONNECTION_POOL_KWARGS": {"password": SECRET}}),
    ],
    ids=str,
)
async def test_a_password_that_is_refused(guarded, face, user, options):
    """Neither the error, nor the log, nor a local variable of redis-py's in the traceback shows it."""
    cache = Face(Cache(guarded.tcp_url().replace("://", f"://{user}"), {"OPTIONS": options}), face)

    error = await settled(cache.get("a"))

    assert type(error) is AccessDenied
    assert SECRET not in told(error)


class Provider(CredentialProvider):
    """A provider of the site."""

    def get_credentials(self):
        return "user", SECRET


REFUSED = {
    "in the URL": (f":{SECRET}@", {}),
    "in the URL, with a user": (f"user:{SECRET}@", {}),
    "in the user's place": (f"{SECRET}@", {}),
    "PASSWORD": ("", {"PASSWORD": SECRET}),
    "PASSWORD in bytes": ("", {"PASSWORD": SECRET.encode()}),
    "pool": ("", {"CONNECTION_POOL_KWARGS": {"password": SECRET}}),
    "provider": ("", {"credential_provider": Provider()}),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("case", REFUSED)
def test_a_password_of_a_raw_client_that_is_refused(guarded, case, protocol):
    """Frames of redis-py's show no password, neither does a command that could not be sent."""
    user, options = REFUSED[case]
    url = guarded.tcp_url().replace("://", f"://{user}")
    raw = Cache(url, {"OPTIONS": {"protocol": protocol, **options}}).get_client()

    with pytest.raises(redis.AuthenticationError) as refused:
        raw.get("a")
    assert SECRET not in told(refused.value)


def test_a_password_that_could_not_be_sent(guarded, monkeypatch):
    """Nor does the command in which it was to be sent."""
    raw = Cache(guarded.tcp_url().replace("://", f"://:{SECRET}@")).get_client()
    connection = raw.connection_pool.make_connection()
    connection.retry = Retry(NoBackoff(), 0)
    ends = socket.socketpair()
    ends[0].shutdown(socket.SHUT_WR)
    monkeypatch.setattr(connection, "_connect", lambda: ends[0])

    with ends[0], ends[1], pytest.raises(redis.ConnectionError) as failed:
        connection.connect()

    assert "writing to socket" in str(failed.value)
    assert SECRET not in told(failed.value)


def test_a_password_of_a_raw_client_of_a_cluster():
    """It shows no password that the servers do not take any more."""
    with cluster(primaries=3, replicas=0) as servers:
        admins = [redis.Redis(port=node.port) for node in servers.primaries]
        for admin in admins:
            admin.config_set("requirepass", SECRET)
        raw = Cache(servers.url().replace("://", f"://:{SECRET}@")).get_client()
        assert raw.get("a") is None
        for admin in admins:
            admin.execute_command("AUTH", SECRET)
            admin.config_set("requirepass", "another")
            admin.client_kill_filter(_type="normal", skipme=True)

        with pytest.raises(redis.RedisError) as refused:
            raw.get("a")
        assert SECRET not in told(refused.value)
        for admin in admins:
            admin.close()
        raw.close()


def test_a_password_of_sentinels():
    """Nor do those of the clients that ask Sentinels, and of those that they lead to."""
    options = {"SENTINELS": [("127.0.0.1", 1)], "PASSWORD": SECRET, "SENTINEL_KWARGS": {"password": SECRET}}
    pool = SentinelClient("redis://service/0", {"OPTIONS": options}).get_client().connection_pool
    manager = pool.sentinel_manager
    pools = [pool, *(each.connection_pool for each in manager.sentinels)]

    assert {each.connection_kwargs["password"] for each in pools} == {SECRET}
    assert SECRET not in repr([*(each.connection_kwargs for each in pools), vars(manager)])


def test_a_password_is_still_itself(guarded):
    """Only its repr differs: servers get it, and sites that read it find it."""
    right = guarded.tcp_url().replace("://", "://:right@")
    raw = Cache(right).get_client()

    assert raw.ping()
    assert raw.connection_pool.connection_kwargs["password"] == "right"
    assert f"{raw.connection_pool.connection_kwargs['password']}" == "right"
    assert "right" not in repr(raw.connection_pool.connection_kwargs)


async def test_a_password_in_the_users_place(guarded, face):
    """The commonest mistake is named with its remedy, and without the name of the user."""
    cache = Face(Cache(f"redis://{SECRET}@127.0.0.1:{guarded.port}/0"), face)

    assert "write redis://:password@host" in str(await settled(cache.get("a")))


def test_a_password_by_the_command_line(guarded, capsys):
    """``fleetcache probe`` with a wrong password says that it is wrong, and not which."""
    for user in (f":{SECRET}@", f"{SECRET}@", f"u:{SECRET}@"):
        assert cli.main(["probe", guarded.tcp_url().replace("://", f"://{user}"), "--json"]) == 2
        assert SECRET not in (written := capsys.readouterr().out)
        assert json.loads(written)["error"]


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda key, prefix, version: key, "ses…#"),
        (lambda key, prefix, version: f"{prefix}:{key}", "sit…#"),
        (None, "site:1:ses…#"),
    ],
    ids=["bare", "prefixed", "default"],
)
def test_a_key_in_the_log(caplog, function, shown):
    """Of the name of an unreadable value only so much is logged that entries can be told apart."""
    params = {"KEY_PREFIX": "site", "KEY_FUNCTION": function, "OPTIONS": {"SERIALIZER": "json"}}
    cache = Cache("memory://secrets", params)
    name = cache.make_key("session:" + SECRET)
    cache.topology.servers[0].exchange([(b"SET", name, b"{")])

    assert cache.get("session:" + SECRET) is None
    assert caplog.messages[0].startswith(shown)
    assert SECRET not in caplog.text
    assert masked(name) != masked(name + "x")
    assert isinstance(cache.codec.serializer, JSONSerializer)
