"""Messages: each names what was found, whose it is, and what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.exceptions import (
    ExecAbortError,
    LockError,
    LockNotOwnedError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from tests.caches import own_prefix
from tests.faces import Face

from fleetcache import Cache, CacheHandler
from fleetcache.client import DefaultClient, HerdClient
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import JSONSerializer
from fleetcache.errors import AccessDenied, NeverSent, SettingsError, UnstorableValue
from fleetcache.failsafe import explained
from fleetcache.keys import CacheKey
from fleetcache.testing.servers import EmbeddedServer


@pytest.fixture
def memory(face) -> Face:
    """A cache for cases that no server decides."""
    return Face(Cache("memory://messages", {"KEY_PREFIX": own_prefix()}), face)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind"), [(["a"], "a list"), ("abc", "a str"), ([("a", 1)], "a list"), (5, "an int")]
)
async def test_methods_that_take_mappings_say_so(memory, wrong, kind):
    """A list or a text in place of a mapping is refused by the name of the method."""
    with pytest.raises(TypeError, match=f"^set_many takes a mapping of keys and their values, not {kind}$"):
        await memory.set_many(wrong)
    with pytest.raises(TypeError, match=f"^zadd takes a mapping of members and their scores, not {kind}$"):
        await memory.zadd("z", wrong)

    assert await memory.keys("*") == []


@pytest.mark.parametrize(("wrong", "kind"), [(["ab1"], "a list"), ("abc", "a str"), (5, "an int")])
async def test_hset_takes_a_mapping(memory, wrong, kind):
    """What a dict cannot be updated with is refused by the name of the method; pairs are as good as a mapping."""
    with pytest.raises(TypeError, match=f"^hset takes a mapping of fields and their values, not {kind}$"):
        await memory.hset("h", mapping=wrong)

    assert await memory.hset("h", mapping=[("a", 1)]) == 1


def test_set_many_of_a_herd_takes_a_mapping():
    """A HerdClient packs the values first, and says the same."""
    with pytest.raises(TypeError, match="^set_many takes a mapping of keys and their values, not a list$"):
        HerdClient("memory://messages").set_many(["a"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("key_prefix", "{'KEY_PREFIX': …}"),
        ("TIMEOUT", "{'TIMEOUT': …}"),
        ("options", "{'OPTIONS': …}"),
        ("serializer", "{'OPTIONS': {'SERIALIZER': …}}"),
        ("socket_timeout", "{'OPTIONS': {'socket_timeout': …}}"),
    ],
)
def test_a_setting_as_an_argument(name, place):
    """The error says where the setting stands."""
    for kind in (Cache, DefaultClient):
        with pytest.raises(TypeError) as caught:
            kind("memory://messages", **{name: "secret"})

        assert str(caught.value) == (
            f"{kind.__name__}() takes no argument {name!r}. Settings are the second argument, a dict: Cache(url, {place}), "
            "or parameters of a URL: Cache.from_url(url)"
        )


def test_other_arguments():
    """A word that is no setting is only named; a class with arguments of its own takes these."""

    class Coloured(Cache):
        def __init__(self, location: Any, *, key_prefix: str) -> None:
            super().__init__(location, {"KEY_PREFIX": key_prefix})

    with pytest.raises(TypeError, match=r"^Cache\(\) takes no argument 'colour'\.$"):
        Cache("memory://messages", colour="red")  # type: ignore[call-arg]
    assert Coloured("memory://messages", key_prefix="red").name("a") == "red:1:a"


# --- serializers and compressors ------------------------------------------------------------------


@pytest.mark.parametrize(("value", "kind"), [(object(), "an object"), (iter([]), "a list_iterator")])
def test_a_value_has_its_article(value, kind):
    """The name of a class is read aloud: an object, a list."""
    text = f"cannot store {kind}:"
    with pytest.raises(UnstorableValue, match=text):
        Codec(JSONSerializer).encode(value)


class Own:
    """A serializer of a site's own: JSON."""

    def __init__(self, options: Any) -> None:
        pass

    def dumps(self, value: Any) -> Any:
        return json.dumps(value).encode()

    def loads(self, payload: bytes) -> Any:
        return json.loads(payload)


class OfText(Own):
    def dumps(self, value: Any) -> Any:
        return json.dumps(value)


class WithoutInit:
    dumps, loads = Own.dumps, Own.loads


class WithoutLoads:
    __init__, dumps = Own.__init__, Own.dumps


class Broken(Own):
    def __init__(self, options: Any) -> None:
        raise LookupError("LEVEL")


class Packing:
    """A compressor of a site's own, which leaves all as it is."""

    def __init__(self, options: Any) -> None:
        pass

    def compress(self, value: Any) -> Any:
        return value

    def decompress(self, value: bytes) -> bytes:
        return value


class PackingText(Packing):
    def compress(self, value: Any) -> Any:
        return value.decode("latin-1")


class PackingWithoutInit:
    compress, decompress = Packing.compress, Packing.decompress


class OnlyPacking:
    __init__, compress = Packing.__init__, Packing.compress


class Refusing(Packing):
    def compress(self, value: Any) -> Any:
        raise LookupError("no dictionary")


WRONG_PARTS: dict[type, str] = {
    WithoutLoads: "SERIALIZER '{}' has no loads(payload). It needs dumps and loads",
    WithoutInit: "SERIALIZER '{}': WithoutInit() takes no arguments. It is called with one argument, the OPTIONS: __init__(self, options)",
    OnlyPacking: "COMPRESSOR '{}' has no decompress(value). It needs compress and decompress",
    PackingWithoutInit: "COMPRESSOR '{}': PackingWithoutInit() takes no arguments. It is called with one argument, the OPTIONS: "
    "__init__(self, options)",
    PackingText: "COMPRESSOR '{}': compress() returned a str. It has to return bytes",
}


@pytest.mark.parametrize(("part", "text"), WRONG_PARTS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_wrong_serializer_or_compressor_is_refused(part, text):
    """When a cache is made, the error names its alias, the option, the class, and what is missing."""
    option, path = text[:10], f"{__name__}.{part.__name__}"
    for value in (part, path):
        with pytest.raises(SettingsError) as caught:
            CacheHandler({"pages": {"LOCATION": "memory://messages", "OPTIONS": {option: value}}})["pages"]

        assert str(caught.value) == f"CACHES['pages']['OPTIONS']: {text.format(path)}"


def test_a_serializer_in_the_dialect_of_django_is_called_without_arguments():
    """A class that needs the options is refused with the spelling that was used."""
    with pytest.raises(
        SettingsError,
        match=r"^cache settings\['OPTIONS'\]: serializer '.*Own': .*'options'. It is called with no argument$",
    ):
        Cache("memory://messages", {"OPTIONS": {"serializer": Own}})


def test_an_error_of_a_sites_own_class_keeps_its_class():
    """What its constructor raises is the site's; a note says when."""
    with pytest.raises(LookupError, match="LEVEL") as caught:
        Cache("memory://messages", {"OPTIONS": {"SERIALIZER": Broken}})

    assert caught.value.__notes__ == [f"cache settings['OPTIONS']: SERIALIZER '{__name__}.Broken' was called"]


@pytest.mark.parametrize(
    "options", [{"COMPRESSOR": "zlib", "COMPRESS_MIN_LENGTH": 0}, {"COMPRESSOR": Packing}, {}], ids=str
)
async def test_a_serializer_that_returns_text(face, options):
    """As with django-redis it does where the text is sent as it is; elsewhere the error says what is wrong, and nothing is stored."""
    cache = Face(
        Cache("memory://messages", {"KEY_PREFIX": own_prefix(), "OPTIONS": {"SERIALIZER": OfText, **options}}), face
    )
    wrong = f"^SERIALIZER '{__name__}.OfText': dumps\\(\\) returned a str. It has to return bytes$"

    with pytest.raises(UnstorableValue, match=wrong):
        await cache.set("a", [1], tags=["t"])
    if options.get("COMPRESSOR") == "zlib":
        with pytest.raises(UnstorableValue, match=wrong):
            await cache.set("a", [1])
        assert await cache.get("a") is None
    else:
        await cache.set("a", [1])
        assert await cache.get("a") == [1]


def test_a_compressor_that_raises_is_named():
    """Its error keeps its class, and a note names the option."""
    cache = Cache("memory://messages", {"OPTIONS": {"COMPRESSOR": Refusing}})

    with pytest.raises(LookupError, match="no dictionary") as caught:
        cache.set("a", [1])

    assert caught.value.__notes__[0].startswith(f"COMPRESSOR '{__name__}.Refusing' was given ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"COMPRESSOR": "zlib", "COMPRESS_LEVEL": 99}, "['OPTIONS']: COMPRESSOR 'zlib': COMPRESS_LEVEL 99: "),
        ({"PICKLE_VERSION": 99}, "['OPTIONS']: SERIALIZER 'pickle': PICKLE_VERSION is 99"),
        ({"SERIALIZER": "msgspec", "MSGSPEC_TYPE": 5}, "['OPTIONS']: SERIALIZER 'msgspec': MSGSPEC_TYPE: "),
    ],
)
def test_an_option_of_a_serializer_or_compressor(options, text):
    """The error names the alias, and the option in which the class is named that takes it."""
    with pytest.raises(SettingsError) as caught:
        CacheHandler({"pages": {"LOCATION": "memory://messages", "OPTIONS": options}})["pages"]
    with pytest.raises(SettingsError) as alone:
        Cache("memory://messages", {"OPTIONS": options})

    assert str(caught.value).startswith(f"CACHES['pages']{text}")
    assert str(alone.value).startswith(f"cache settings{text}")


def test_a_missing_package_is_told_with_its_option(monkeypatch):
    """The error names the option for whose sake the package is needed."""
    monkeypatch.setitem(sys.modules, "lz4.frame", None)

    with pytest.raises(
        SettingsError, match=r"^cache settings\['OPTIONS'\]: COMPRESSOR 'lz4': lz4.frame is not installed"
    ):
        Cache("memory://messages", {"OPTIONS": {"COMPRESSOR": "lz4"}})


def test_an_error_in_a_location_says_which_setting():
    """Also without an alias the error begins with where the settings are."""
    with pytest.raises(
        SettingsError, match=r"^cache settings: LOCATION 'redis://h:1/0\?foo=\*\*\*': unknown parameter"
    ):
        Cache("redis://h:1/0?foo=1")


# --- functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (
            {"KEY_FUNCTION": lambda key, version: key},
            "KEY_FUNCTION cannot be .*: it has to take (key, prefix, version)",
        ),
        (
            {"REVERSE_KEY_FUNCTION": lambda: ""},
            "REVERSE_KEY_FUNCTION cannot be .*: it has to take (name)",
        ),
        (
            {"OPTIONS": {"ADDRESS_REMAP": lambda host, port: (host, port)}},
            "ADDRESS_REMAP cannot be .*: it has to take (address)",
        ),
        ({"KEY_FUNCTION": lambda *_: None}, "KEY_FUNCTION has to return text, not NoneType"),
        ({"KEY_FUNCTION": lambda *_: b"a"}, "KEY_FUNCTION has to return text, not bytes"),
    ],
)
def test_a_function_that_cannot_be_called(params, text):
    """The signature of a site's function, and the kind of its result, are looked at when a cache is made."""
    with pytest.raises(SettingsError, match=text.replace("(", r"\(").replace(")", r"\)")):
        Cache("memory://messages", params)


def test_a_function_of_any_arguments():
    """A class, a partial and a function in C are taken as they are."""
    for function in (
        "{1}:{2}:{0}".format,
        lambda *parts: ":".join(map(str, parts)),
        partial(lambda sep, *parts: sep, "a"),
    ):
        Cache("memory://messages", {"KEY_FUNCTION": function}).set("a", 1)


# --- the way to the server ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "shown", "text"),
    [
        (
            "redis://127.0.0.1:1/2",
            "127.0.0.1:1/2",
            "Connection refused. Nothing listens there: start the server, or correct LOCATION",
        ),
        ("redis://[::1]:1/2", "[::1]:1/2", "Nothing listens there|Cannot assign|No address|not supported"),
        (
            "unix:///nowhere/a.sock?db=1",
            "/nowhere/a.sock/1",
            "There is no such socket: start the server, or correct LOCATION",
        ),
        (
            "redis://nowhere.invalid/0",
            "nowhere.invalid:6379/0",
            "No such host is known: correct LOCATION, or look to the name server",
        ),
    ],
)
async def test_a_server_that_cannot_be_reached(face, caplog, place, shown, text):
    """The error and the log line say what to do, and name the address once."""
    cache = Face(Cache(place, {"OPTIONS": {"BREAKER_FAILURES": 9, "client_name": own_prefix()}}), face)

    with pytest.raises(NeverSent, match=text) as caught:
        await cache.get("a")

    assert str(caught.value).startswith(f"{shown}: Error ")
    assert str(caught.value).count(shown.rpartition("/")[0]) == 1
    (line,) = [record.getMessage() for record in caplog.records if "lost" in record.getMessage()]
    assert line == str(caught.value).replace(f"{shown}: ", f"{shown}: lost: ", 1)


# --- refusals -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server that these tests set up as they need it."""
    one = EmbeddedServer(port=True)
    yield one
    one.stop()


@pytest.fixture
def told(server, face) -> Iterator[Callable[..., Any]]:
    """A function that sends a command to the server beside the cache; the server is as before at the end."""
    with redis.Redis(port=server.port) as raw:
        raw.execute_command("ACL", "SETUSER", "few", "reset", "on", ">pw", "~own:*", "+@read", "+@connection")
        yield raw.execute_command
        for name, value in {"maxmemory": "0", "min-replicas-to-write": "0", "replica-serve-stale-data": "yes"}.items():
            raw.config_set(name, value)
        raw.slaveof("NO", "ONE")


async def test_a_refusal_for_want_of_rights_says_who_asked_what(server, told, face):
    """It names the entry, masked, the server and the user, and the page with the rights; its class and its beginning stay."""
    cache = Face(Cache(f"redis://few:pw@127.0.0.1:{server.port}/0", {"KEY_PREFIX": "own"}), face)
    place = rf"at 127\.0\.0\.1:{server.port}/0 as user 'few'\)\. `fleetcache docs managed` lists the rights that a user needs$"

    for asked, call in {
        "SET of own:1:sec…#[0-9a-f]+": cache.set("secret", 1.5),
        "DEL of own:1:sec…#[0-9a-f]+": cache.delete("secret"),
        "ZADD of own:1:sec…#[0-9a-f]+": cache.zadd("secret", {"a": 1}),
        "MULTI": cache.set_many({"secret": 1, "b": 2}),
        "SET of own:1:loc…#[0-9a-f]+": cache.lock("lock").acquire(),
        "GET of oth…#[0-9a-f]+": cache.get(CacheKey("other:1:secret")),
    }.items():
        with pytest.raises(NoPermissionError, match=rf"^NOPERM .* \({asked} {place}"):
            await call


@pytest.mark.parametrize(
    ("commands", "kind", "begins", "advice"),
    [
        (
            [("CONFIG", "SET", "maxmemory", "1")],
            OutOfMemoryError,
            "OOM",
            "raise its maxmemory, shorten timeouts, or let it evict",
        ),
        ([("CONFIG", "SET", "min-replicas-to-write", "1")], ResponseError, "NOREPLICAS", "min-replicas-to-write"),
        ([("REPLICAOF", "127.0.0.1", "1")], ReadOnlyError, "READONLY", "name the primary first in LOCATION"),
        (
            [("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "replica-serve-stale-data", "no")],
            MasterDownError,
            "MASTERDOWN",
            "look to the primary",
        ),
    ],
)
async def test_a_refusal_says_what_to_do(server, told, face, commands, kind, begins, advice):
    """Its class and its beginning stay."""
    cache = Face(Cache(f"redis://127.0.0.1:{server.port}/0", {"KEY_PREFIX": "own"}), face)
    for command in commands:
        told(*command)

    operation = cache.get("secret") if kind is MasterDownError else cache.set("secret", 1.5)
    with pytest.raises(
        kind,
        match=rf"^{begins} .* \([SG]ET of own:1:sec…#\w+ at 127\.0\.0\.1:{server.port}/0 as user 'default'\)\. .*{advice}",
    ):
        await operation


def test_refusals_that_cannot_be_had_at_will():
    """A server that cannot save its data; a transaction in which a command is forbidden; one that needs no advice."""
    stuck = ResponseError(
        "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk."
    )
    forbidden = ExecAbortError("EXECABORT Transaction discarded because of: NOPERM User few has no permissions")
    other = ResponseError("ERR value is not an integer")

    assert str(explained(stuck, "SET", None)).endswith("set stop-writes-on-bgsave-error to no")
    assert type(explained(forbidden, "EXEC", None)) is ExecAbortError
    assert "docs managed" in str(explained(forbidden, "EXEC", None))
    assert explained(other, "INCR", None) is other


async def test_a_refused_password_may_hold_a_percent_sign(server, told, face):
    """In a URL this has to be escaped, which is easily forgotten."""
    cache = Face(Cache(f"redis://few:100%41@127.0.0.1:{server.port}/0"), face)

    with pytest.raises(
        AccessDenied, match="refused the password of user 'few'.* In a URL a % of the password is written %25$"
    ):
        await cache.get("a")


# --- locks ----------------------------------------------------------------------------------------

NAME = "[^ ]+:1:rep…#[0-9a-f]{8}"
"""How a message shows the name of the lock ``report``."""


async def test_a_value_under_the_key_of_a_lock(memory, caplog):
    """The log says that a token was overwritten, and the lock that a value stands in its place."""
    lock = memory.lock("report", timeout=10)
    await lock.acquire()
    await memory.get_or_set("report", lambda: {"a": 1}, 60)

    (line,) = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert line.endswith("It looks like the token of a lock: give the lock a key that no value has")
    wrong = (
        f"no longer owned: {NAME}. Its entry holds a value, no token of a lock: give the lock a key that no value has$"
    )
    with pytest.raises(LockNotOwnedError, match=f"^Cannot extend a lock that's {wrong}"):
        await lock.extend(5)
    with pytest.raises(LockNotOwnedError, match=f"^Cannot release a lock that's {wrong}"):
        await lock.release()


async def test_a_list_under_the_key_of_a_lock(memory):
    """An entry of another type is none of a lock either; a lock that waits for it says so."""
    await memory.rpush("report", 1)

    with pytest.raises(
        LockError, match=f"^Unable to acquire lock within the time specified: {NAME}. Its entry holds a value"
    ):
        async with memory.lock("report", blocking_timeout=0):
            pass


async def test_why_a_lock_is_not_owned(memory):
    """It is free, or another caller has it."""
    lock, other = memory.lock("report", timeout=10), memory.lock("report", timeout=10)
    await lock.acquire()
    await memory.delete("report")
    with pytest.raises(LockNotOwnedError, match=f"no longer owned: {NAME}. It has expired, or was deleted$"):
        await lock.extend(5)
    await other.acquire()
    with pytest.raises(LockNotOwnedError, match=f"no longer owned: {NAME}. Another caller holds it$"):
        await lock.release()

    with pytest.raises(
        LockError, match=f"^Unable to acquire lock within the time specified: {NAME}. Another caller holds it$"
    ):
        async with memory.lock("report", blocking_timeout=0):
            pass


async def test_errors_of_locks_name_the_key(memory):
    """Also those that need no server."""
    for operation in (
        memory.lock("report").release,
        memory.lock("report").reacquire,
        partial(memory.lock("report").extend, 5),
    ):
        with pytest.raises(LockError, match=f": {NAME}$"):
            await operation()
