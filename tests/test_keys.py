"""What may name an entry, what is refused, and what a log says of it."""

from __future__ import annotations

import uuid
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis.strategies import text

from fleetcache import Cache
from fleetcache.errors import FleetcacheError, InvalidKey
from fleetcache.keys import CacheKey, default_reverse, escaped, masked, unique
from fleetcache.servers.arguments import glob

NO_KEYS = [None, b"bytes", bytearray(b"bytes"), ["list"], {"a": 1}, {"set"}, frozenset({1}), object()]


@pytest.mark.parametrize("key", NO_KEYS, ids=lambda key: type(key).__name__)
async def test_what_cannot_be_a_key(cache, key):
    """What has no text of its own is refused by every operation before anything is sent or written."""
    other = "fine"
    await cache.set(other, 1)

    refusals = [
        cache.get(key),
        cache.set(key, 1),
        cache.add(key, 1),
        cache.delete(key),
        cache.has_key(key),
        cache.incr(key),
        cache.incr_version(key),
        cache.touch(key),
        cache.ttl(key),
        cache.expire(key, 1),
        cache.get_or_set(key, 1),
        cache.hset(key, "a", 1),
        cache.sadd(key, 1),
        cache.sunion(other, key),
        cache.zadd(key, {"a": 1}),
        cache.rpush(key, 1),
        cache.get_many([other, key]),
        cache.delete_many([other, key]),
    ]
    if getattr(type(key), "__hash__", None):
        refusals.append(cache.set_many({other: 2, key: 1}))
    for refused in refusals:
        with pytest.raises(
            InvalidKey, match=f"not {type(key).__name__}.*{'missing value' if key is None else 'Use str'}"
        ):
            await refused
    with pytest.raises(InvalidKey):
        cache.lock(key)
    with pytest.raises(InvalidKey):
        cache.make_key(key)
    assert await cache.get(other) == 1
    assert await cache.keys("*") == [other]


def test_a_refused_key_is_a_type_error_and_a_value_error():
    """Callers that guard with either class are served, and with the package's own."""
    with pytest.raises(InvalidKey) as caught:
        Cache("memory://keys").get(None)

    assert isinstance(caught.value, (TypeError, ValueError, FleetcacheError))
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_a_refusal_does_not_show_a_long_key():
    """The message shows the beginning of what was given, not all of it."""
    with pytest.raises(InvalidKey) as caught:
        Cache("memory://keys").get([*range(1000)])

    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("key", [5, 1.5, uuid.UUID(int=7), PurePosixPath("a/b"), (1, 2)], ids=repr)
def test_objects_with_a_text_are_keys(key):
    """Numbers, UUIDs, paths and tuples are named by their text, as Django does."""
    cache = Cache("memory://keys", {"KEY_PREFIX": "p"})

    cache.set(key, "value")

    assert cache.get(str(key)) == "value"
    assert cache.make_key(key) == f"p:1:{key}"


def test_names_are_prefix_version_and_key():
    """The name is the one Django and django-redis give."""
    cache = Cache("memory://keys", {"KEY_PREFIX": "site", "VERSION": 3})

    assert cache.make_key("key") == "site:3:key"
    assert cache.make_key("key", version=4) == "site:4:key"
    assert cache.make_key("key", prefix="other") == "other:3:key"
    assert cache.make_key("key", version=0) == "site:0:key"
    assert Cache("memory://keys").make_key("key") == ":1:key"
    assert type(cache.make_key("key")) is CacheKey


@given(text())
def test_an_escaped_text_matches_only_itself(plain):
    """Whatever a prefix holds, as a pattern it finds itself and nothing else."""
    pattern = glob(escaped(plain).encode(errors="surrogatepass"))

    assert pattern.fullmatch(plain.encode(errors="surrogatepass"))
    assert not pattern.fullmatch(f"{plain}x".encode(errors="surrogatepass"))


@given(text(min_size=4))
def test_a_masked_name_hides_the_key(key):
    """A log tells entries apart by prefix, version and a digest; the key itself stays hidden."""
    shown = masked(f"site:1:{key}", "site")

    assert shown.startswith("site:1:")
    assert key not in shown.removeprefix("site:1:") or key in "…#0123456789abcdef"
    assert (
        shown == masked(f"site:1:{key}".encode(errors="surrogatepass"), "site")
        or "\ufffd" in shown
        or not key.isprintable()
    )
    assert shown != masked(f"site:1:{key}x", "site")
    assert masked(f"site:1:{key}").startswith("sit…#")


def test_default_reverse():
    """The key in a name is what follows the second colon."""
    assert default_reverse("p:1:a:b") == "a:b"


def test_unique_keeps_order():
    """Repetitions go, order stays."""
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


@pytest.mark.parametrize("near", [None, True])
@pytest.mark.parametrize("part", ["key_prefix", "version"])
def test_names_that_a_class_computes(valkey, part, near):
    """A prefix or version that is a property is asked for with each call: no tenant reads another's entries."""
    tenant = [f"{near} first"]
    computed = property(lambda self: tenant[0], lambda self, value: None)
    cache = type("TenantCache", (Cache,), {part: computed})(valkey.url(), {"OPTIONS": {"NEAR": near}})

    cache.set("secret", "of the first")
    assert (cache.get("secret"), cache.get("secret"), cache.get_many(["secret"])) == (
        "of the first",
        "of the first",
        {"secret": "of the first"},
    )
    tenant[0] = f"{near} second"
    assert (cache.get("secret"), cache.get_many(["secret"]), "secret" in cache) == (None, {}, False)
