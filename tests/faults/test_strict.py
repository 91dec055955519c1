"""What must not take an outage for a no raises, though IGNORE_EXCEPTIONS is set: `strict`, and RAISE_FOR."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest
from redis.exceptions import ConnectionError
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache.client import ClusterClient, HerdClient
from fleetcache.errors import SettingsError
from fleetcache.testing import cluster

from .deadlines import HASTY
from .test_fallbacks import careless, result

pytestmark = pytest.mark.timeout(30)


async def test_strict_raises(nowhere, face, caplog):
    """The strict face of a cache raises what the cache ignores; it is the same cache otherwise."""
    whole = careless(nowhere, NEAR=True, LOG_IGNORED_EXCEPTIONS=True)
    cache, strict = Face(whole, face), Face(whole.strict, face)

    assert await cache.get("a", 5) == 5
    for call in (strict.get("a", 5), strict.incr("a"), strict.lock("a").acquire(), piped(strict, "a")):
        assert isinstance(await settled(call), ConnectionError)
    assert whole.strict.near is whole.near
    assert whole.strict.strict._failsafe is whole.strict._failsafe
    assert await cache.get("a", 5) == 5
    assert [record.getMessage() for record in caplog.records if record.name == "fleetcache"] == [
        "Exception ignored"
    ] * 2


async def piped(cache: Any, *keys: Any) -> Any:
    pipe = cache.pipeline()
    for key in ("page", *keys):
        pipe.get(key)
    return await pipe.execute()


RAISED: dict[str, Any] = {
    "get": lambda cache, key: cache.get(key),
    "get of a version": lambda cache, key: cache.get(key, version=7),
    "get fresh": lambda cache, key: cache.get(key, fresh=True),
    "get_many": lambda cache, key: cache.get_many(["page", key]),
    "set_many": lambda cache, key: cache.set_many({"page": 1, key: 2}),
    "delete_many": lambda cache, key: cache.delete_many(["page", key]),
    "get_or_set": lambda cache, key: cache.get_or_set(key, 5),
    "add": lambda cache, key: cache.add(key, 1),
    "set": lambda cache, key: cache.set(key, 1),
    "delete": lambda cache, key: cache.delete(key),
    "touch": lambda cache, key: cache.touch(key),
    "ttl": lambda cache, key: cache.ttl(key),
    "incr": lambda cache, key: cache.incr(key),
    "incr by a float": lambda cache, key: cache.incr(key, 1.5),
    "incr_version": lambda cache, key: cache.incr_version(key),
    "a made key": lambda cache, key: cache.get(cache.make_key(key)),
    "lock": lambda cache, key: cache.lock(key, timeout=1).acquire(),
    "zcard": lambda cache, key: cache.zcard(key),
    "sunion": lambda cache, key: cache.sunion("page", key),
    "smove": lambda cache, key: cache.smove("page", key, 1),
    "keys": lambda cache, key: cache.keys(key),
    "delete_pattern": lambda cache, key: cache.delete_pattern(key),
    "pipeline": lambda cache, key: piped(cache, key),
}


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("name", RAISED)
async def test_raise_for(nowhere, face, name, near):
    """Where one of the keys is one that RAISE_FOR names, the failure is raised; for other keys it is ignored."""
    cache = Face(careless(nowhere, RAISE_FOR=["login:*", "*.lock"], NEAR=near), face)

    assert isinstance(await settled(RAISED[name](cache, "login:anna")), ConnectionError)
    assert isinstance(await settled(RAISED[name](cache, "a.lock")), ConnectionError)
    assert not isinstance(await settled(RAISED[name](cache, "other:login:anna")), Exception)


async def test_raise_for_and_fields(nowhere, face):
    """Fields, members and values are no keys."""
    cache = Face(careless(nowhere, RAISE_FOR=["login:*"]), face)

    assert await cache.hset("page", "login:field", "login:value") == 0
    assert await cache.hmget("page", ["login:a", ":1:login:b"]) == [None, None]
    assert await cache.sismember("page", "login:member") is False
    assert await cache.clear() is None


def hidden(key: Any, prefix: str, version: Any) -> str:
    return hashlib.sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


@pytest.mark.parametrize(
    ("params", "other"),
    [
        ({"KEY_PREFIX": "shop:eu"}, True),
        ({"KEY_PREFIX": "sho[p]", "VERSION": "a:b"}, True),
        ({"KEY_FUNCTION": lambda key, prefix, version: f"{key}@{prefix}/{version}", "KEY_PREFIX": "p"}, True),
        ({"KEY_FUNCTION": hidden, "REVERSE_KEY_FUNCTION": lambda name: "login:x"}, False),
        ({"KEY_FUNCTION": hidden}, False),
    ],
)
async def test_raise_for_and_key_functions(nowhere, face, params, other):
    """Globs are of keys as the caller gives them; where a name does not tell its key, every failure is raised."""
    cache = Face(
        Cache(nowhere, {**params, "OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": True, "RAISE_FOR": ["login:*"]}}), face
    )

    assert isinstance(await settled(cache.incr("login:x")), ConnectionError)
    assert (await settled(cache.get("page")) is None) is other
    if params.get("KEY_FUNCTION") is not hidden:  # no glob finds what that makes
        assert isinstance(await settled(cache.keys("login:*")), ConnectionError)


@pytest.mark.parametrize("wrong", ["login:*", [1], 5])
def test_raise_for_is_a_list(wrong):
    """Anything but a list of texts is refused."""
    with pytest.raises(SettingsError, match="RAISE_FOR cannot be"):
        Cache("redis://127.0.0.1:1/0", {"OPTIONS": {"RAISE_FOR": wrong}})


@pytest.mark.few(1)
async def test_a_dead_cluster(face):
    """What asks all primaries has its fallback on a cluster that cannot be found, too; strict, it raises."""
    with cluster(replicas=0) as servers:
        url = servers.url()
    whole = careless(url, ClusterClient)
    cache, strict = Face(whole, face), Face(whole.strict, face)

    for name in ("keys", "iter_keys", "scan", "delete_pattern", "clear"):
        found = await result(cache, name)
        assert found in (None, [], (0, [])), name
        assert isinstance(await settled(result(strict, name)), ConnectionError), name


async def test_a_herd_client_is_strict(nowhere, face):
    """Client classes have the face too."""
    assert isinstance(await settled(Face(careless(nowhere, HerdClient).strict, face).get("a")), ConnectionError)


def test_nothing_is_logged_unasked(nowhere, caplog):
    """Without LOG_IGNORED_EXCEPTIONS an ignored failure is no record."""
    caplog.set_level(logging.DEBUG)
    careless(nowhere, SOCKET_TIMEOUT=0.41).get("a")

    assert [record.event for record in caplog.records] == ["outage"]
