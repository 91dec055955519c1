"""Why is a key missing?  ``get``, ``ttl`` and ``keys`` tell."""

from __future__ import annotations

import pickle
import time
from shlex import quote

import pytest
import redis
from tests.caches import own_prefix

from fleetcache import Cache
from fleetcache.codec.metadata import Metadata
from fleetcache.masking import masked_url


@pytest.fixture
def raw(site):
    """A client of the site's server."""
    with redis.Redis.from_url(site.server.tcp_url(12)) as client:
        yield client


@pytest.fixture
def key() -> str:
    """A key that no other test has."""
    return f"user:{own_prefix()}"


def alike(say, site, key: str, command: str = "get") -> list[tuple[str, str, str]]:
    """Return the similar names that *command* finds for *key*, which is not there."""
    said = say(*site.run(command, key, "--json"))
    assert said.code == 1
    assert said.document["there"] is False
    assert said.document["asked"] == {"prefix": site.cache.key_prefix, "version": "1", "key": key}
    return [(each["name"], each["how"], each["advice"]) for each in said.document["alike"]]


@pytest.mark.parametrize("command", ["get", "ttl"])
def test_in_another_version(say, site, key, command):
    """The other version is named, and how to read it."""
    site.cache.set(key, 1, 300, version=7)

    ((name, how, advice),) = alike(say, site, key, command)
    said = say(*site.run(command, key))

    assert name == f"{site.cache.key_prefix}:7:{key}"
    assert how == "in version 7"
    assert f"fleetcache get {key} --version 7" in advice
    assert f"There is {name}: in version 7." in said.out
    assert f"prefix   {site.cache.key_prefix}\nversion  1\nkey      {key}" in said.out


def test_under_another_prefix(say, site, raw, key):
    """The other prefix is named, whether or not it has a colon in it, or is empty."""
    prefix = own_prefix()
    for other in (prefix, f"{prefix}:eu", ""):
        raw.set(f"{other}:1:{key}", b"1", ex=60)
    raw.set(f"{prefix}:3:{key}", b"1", ex=60)

    found = {name: how for name, how, _ in alike(say, site, key)}

    assert found == {
        f"{prefix}:1:{key}": f"under the prefix {prefix!r}",
        f"{prefix}:eu:1:{key}": f"under the prefix '{prefix}:eu'",
        f":1:{key}": "under the prefix ''",
        f"{prefix}:3:{key}": f"under the prefix {prefix!r} and in version 3",
    }


def test_nearly_the_same_key(say, site, raw, key):
    """Other capitals, a longer key, and a name without prefix; a name that only ends in the same letters is none."""
    site.cache.set(key.upper(), 1, 300)
    site.cache.set(f"v2:{key}", 1, 300)
    site.cache.set(f"super{key}", 1, 300)
    raw.set(key, b"1", ex=60)

    found = {name: (how, advice) for name, how, advice in alike(say, site, key)}

    head, url = f"{site.cache.key_prefix}:1:", f" --url '{site.url}'"
    assert found == {
        f"{head}{key.upper()}": ("with other capitals", f"fleetcache get {key.upper()}{url}"),
        f"{head}v2:{key}": ("a longer key", f"fleetcache get v2:{key}{url}"),
        key: ("without prefix and version: another program wrote it", f"fleetcache get {key} --name{url}"),
    }


def test_a_whole_name_for_a_key_and_a_key_for_a_whole_name(say, site, key):
    """Each is told what it is."""
    site.cache.set(key, 1, 300)
    name = site.cache.make_key(key)

    as_key = say(*site.run("get", str(name)))
    as_name = say(*site.run("get", key, "--name"))

    assert as_key.code == as_name.code == 1
    assert f"what you gave is a whole name, not a key.\n    fleetcache get {name} --name" in as_key.out
    assert f"leave out --name.\n    fleetcache get {key} --url '{site.url}'\n" in as_name.out


NAMES = """
def piped(key, prefix, version):
    return f"{prefix}|v{version:03d}|{key}"

def swapped(key, prefix, version):
    return f"{key}@{version}@{prefix}"

def hidden(key, prefix, version):
    return f"{prefix}:{version}:{hash(key)}"

def strict(key, prefix, version):
    return f"{prefix}|{ {1: 'a', 2: 'b'}[version] }|{key}"
"""


@pytest.mark.parametrize(("function", "in_two"), [("piped", "{0}|v002|{1}"), ("swapped", "{1}@2@{0}")])
def test_names_of_a_function_of_the_site(say, valkey, module, key, function, in_two):
    """Versions, prefixes, capitals and longer keys are found wherever a KEY_FUNCTION puts them."""
    module("shop_names", NAMES)
    prefix, other = own_prefix(), own_prefix()
    made = {
        name: f"{valkey.tcp_url(12)}?key_prefix={name}&key_function=shop_names.{function}" for name in (prefix, other)
    }
    cache = Cache.from_url(made[prefix])
    cache.set(key, 1, 300, version=2)
    cache.set(key.upper(), 1, 300)
    cache.set(f"v2:{key}", 1, 300)
    cache.set(f"super{key}", 1, 300)
    Cache.from_url(made[other]).set(key, 1, 300)

    said = say("get", key, "--url", made[prefix], "--json")

    url = f" --url {quote(masked_url(made[prefix]))}"
    assert {each["name"]: (each["how"], each["advice"]) for each in said.document["alike"]} == {
        in_two.format(prefix, key): (
            "in version 2",
            f"read it with version=2, or change VERSION; fleetcache get {key} --version 2{url}",
        ),
        cache.make_key(key.upper()): ("with other capitals", f"fleetcache get {key.upper()}{url}"),
        cache.make_key(f"v2:{key}"): ("a longer key", f"fleetcache get v2:{key}{url}"),
        cache.make_key(key).replace(prefix, other): (
            f"under the prefix {other!r}",
            f"set KEY_PREFIX to {other!r} if this is the same site; fleetcache get {quote(cache.make_key(key).replace(prefix, other))} --name{url}",
        ),
    }


def test_a_whole_name_of_a_function_of_the_site(say, valkey, module, key):
    """A whole name in the place of a key is told as such."""
    module("shop_names", NAMES)
    url = f"{valkey.tcp_url(12)}?key_prefix={own_prefix()}&key_function=shop_names.piped"
    cache = Cache.from_url(url)
    cache.set(key, 1, 300)

    said = say("get", str(cache.make_key(key)), "--url", url)

    assert f"There is {cache.make_key(key)}: what you gave is a whole name, not a key." in said.out


@pytest.mark.parametrize("function", ["hidden", "strict"])
def test_a_function_of_the_site_that_hides_the_key(say, valkey, module, key, function):
    """What was not looked for is not said to be missing, by ``get`` and by ``keys``."""
    module("shop_names", NAMES)
    url = f"{valkey.tcp_url(12)}?key_prefix={own_prefix()}&key_function=shop_names.{function}"

    said, listed = say("get", key, "--url", url), say("keys", key, "--url", url)

    assert "No similar name" not in said.out
    assert "KEY_FUNCTION, or make_key(), is your own, and its names do not show the key: other versions" in said.out
    assert listed.err == (
        "fleetcache: no name of this version matches. KEY_FUNCTION, or make_key(), is your own: "
        "other versions and prefixes were not looked for.\n"
    )


def test_in_another_database(say, site, key):
    """The other databases of the server are looked into for the same name."""
    name = site.cache.make_key(key)
    with redis.Redis.from_url(site.server.tcp_url(13)) as other:
        other.set(name, b"1", ex=60)

    assert alike(say, site, key) == [
        (
            name,
            "in database 13 of the same server",
            "let the server's URL (LOCATION) end in /13 if the value belongs to this cache",
        )
    ]


def test_in_another_cache_of_the_settings(say, site, module, valkey, key):
    """The other aliases are asked, and one whose server is away is left out."""
    place = valkey.tcp_url(12)
    prefix = own_prefix()
    entries = {
        "default": {"LOCATION": place, "KEY_PREFIX": f"{prefix}a"},
        "pages": {"LOCATION": place, "KEY_PREFIX": f"{prefix}b", "VERSION": 4},
        "away": {"LOCATION": "redis://127.0.0.1:1/0", "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.2}},
    }
    module("shop_caches", f"CACHES = {entries!r}")
    Cache(place, {"KEY_PREFIX": f"{prefix}b", "VERSION": 4}).set(key, 1, 300)

    said = say("get", key, "--settings", "shop_caches")

    assert said.code == 1
    assert "in the cache 'pages'.\n    use caches['pages']; fleetcache get" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda cache, key: cache.set(key, 1, 300), ""),
        (lambda cache, key: _given_up(cache, key), "Given up: invalidate_tags() was called for 't' after"),
        (lambda cache, key: _stale(cache, key), "Stale: its fresh life has ended."),
        (lambda cache, key: _outlived(cache, key), "Given up: its stale life has ended too."),
        (lambda cache, key: cache.hset(key, "f", 1), "get() reads strings, and this is a hash"),
        (
            lambda cache, key: cache.client.get_client().set(cache.make_key(key), b'{"a": 1}', ex=60),
            "The configured serializer (PickleSerializer) cannot read this: the cache treats it as a miss. Found: JSON.",
        ),
        (lambda cache, key: cache.lock(key, timeout=60).acquire(), "Found: the token of a lock: it is held now."),
    ],
    ids=["there", "given-up", "stale", "outlived", "hash", "json", "lock"],
)
def test_an_entry_that_get_does_not_return(say, site, key, make, reason):
    """What ``get`` of the command line says is what the cache does."""
    make(site.cache, key)

    found = say(*site.run("get", key, "--json")).document
    shown = say(*site.run("get", key)).out
    life = say(*site.run("ttl", key)).out

    assert found["why_not"].startswith(reason) or reason in found["why_not"]
    assert found["returned"] is (reason == "")
    assert reason in shown
    assert reason in life
    if "hash" not in reason:
        assert (site.cache.get(key) is not None) is found["returned"]


def _given_up(cache, key):
    cache.set(key, 1, 300, tags=["t"])
    cache.invalidate_tags("t")


def _stale(cache, key):
    cache.get_or_set(key, lambda: 1, 0.01, stale_while_revalidate=60)
    time.sleep(0.02)


def _outlived(cache, key):
    """Store an entry that a raw client let live for longer than its stale life."""
    payload = cache.codec.describe(1, Metadata(fresh_until=1, stale=1))
    cache.client.get_client().set(cache.make_key(key), payload, ex=60)


def test_the_serializer_reads_something_else(say, site, key):
    """With JSON a pickle is a miss, and one who wants to hear of it is told that it is an error."""
    url = f"{site.url}&serializer=fleetcache.codec.serializers.JSONSerializer"
    with redis.Redis.from_url(site.server.tcp_url(12)) as raw:
        raw.set(site.cache.make_key(key), pickle.dumps({"a": 1}), ex=60)

    miss = say("get", key, "--url", url).out
    error = say("get", key, "--url", f"{url}&unreadable=raise").out

    assert "(JSONSerializer) cannot read this: the cache treats it as a miss. Found: a pickle of protocol" in miss
    assert "(JSONSerializer) cannot read this: the cache raises UnreadableValue. Found: a pickle" in error


def test_nothing_is_there(say, site, key):
    """The usual causes are named, with the facts of this server; an empty place is called so."""
    said = say(*site.run("get", key))
    with redis.Redis.from_url(site.server.tcp_url(14)) as other:
        other.flushdb()
    empty = say("get", key, "--url", f"{site.server.tcp_url(14)}?key_prefix=nobody&timeout=77")

    assert "No similar name was found." in said.out
    assert "an entry lives for 300 s (TIMEOUT)" in said.out
    fact, guesses = said.out.split("\nPerhaps:\n")
    assert fact.endswith("The server has evicted no entry since it started.\n")
    assert all(" may " in guess or "perhaps" in guess for guess in guesses.splitlines())
    assert "It may have expired: " in guesses
    assert "evicted" not in guesses
    assert "It may have been deleted, also by clear(), or was perhaps never stored." in guesses
    assert f"no name there begins with '{site.cache.key_prefix}:1:'" in said.out
    assert "no name there begins with 'nobody:1:'. The database is empty." in empty.out
    assert "an entry lives for 77 s" in empty.out


def test_the_search_is_bounded(say, site, key):
    """No search at all with 0, and one that is cut off says how far it came."""
    site.cache.set(key, 1, 300, version=7)
    site.cache.set_many({f"{key}:{number}": 1 for number in range(5000)}, 60)

    none = say(*site.run("get", key, "--search", "0"))
    short = say(*site.run("get", "another", "--search", "0.1", "--json")).document["searched"]

    assert none.code == 1
    assert "No similar name was looked for." in none.out
    assert "in version 7" not in none.out
    assert 0 < short["names"] <= short["total"]


def test_a_user_who_may_not_search(say, own_user, key):
    """Whoever may read only gets the rest of the answer."""
    said = say("get", key, "--url", own_user)

    assert said.code == 1
    assert "The names cannot be searched: " in said.out
    assert "there is no entry" in said.out


@pytest.fixture
def own_user(valkey):
    """The URL of a user who may read entries, and search no names."""
    name = own_prefix().replace(":", "")
    with redis.Redis.from_url(valkey.tcp_url(12)) as raw:
        raw.execute_command("ACL", "SETUSER", name, "on", ">word", "~*", "+@read", "+@connection", "-scan", "-dbsize")
        yield f"redis://{name}:word@127.0.0.1:{valkey.port}/12?key_prefix={own_prefix()}"
        raw.execute_command("ACL", "DELUSER", name)


def test_keys_elsewhere(say, site, key):
    """``keys`` that finds nothing says which prefixes and versions have such keys, and how many."""
    site.cache.set_many({f"{key}:{number}": 1 for number in range(3)}, 60, version=2)

    said = say(*site.run("keys", f"{key}:*"))
    document = say(*site.run("keys", f"{key}:*", "--json")).document

    head = f"{site.cache.key_prefix}:2:"
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"fleetcache: no name that begins with '{site.cache.key_prefix}:1:' matches. "
        f"Names of other prefixes and versions match: {head!r} (3).\n"
    )
    assert document["elsewhere"] == {head: 3}


def test_on_every_topology(say, anywhere, key):
    """A cluster, shards of one, Sentinels, TLS and a socket are searched alike."""
    anywhere.cache.set(key, 1, 300, version=7)

    assert [how for _, how, _ in alike(say, anywhere, key)] == ["in version 7"]


def test_no_escape_sequence_reaches_the_terminal(say, valkey):
    """Neither from the prefix, nor from the version."""
    prefixed = f"{valkey.tcp_url(3)}?key_prefix=a%1b[2J"

    said = say("get", "nothing", "--search", "0", "--url", prefixed)

    assert said.code == 1
    assert "\x1b" not in said.out + said.err
