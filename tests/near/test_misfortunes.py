"""What befalls a server while there are copies of what it has."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import RedisError
from tests.near.conftest import copied, copy, eventually, until

from fleetcache.testing import valkey_server

pytestmark = pytest.mark.timeout(60)

NEAR = {"CANARY": 0.1, "T_LIVE": 0.3}


@pytest.fixture
def mortal():
    """A server that tests may do harm to."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def client(mortal):
    """Its administrator."""
    with redis.Redis.from_url(mortal.url()) as client:
        yield client


def mistakes(client):
    return client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"]


async def test_out_of_memory(copies, mortal, client):
    """A write that is refused ends the copy, and hits go on for as long as PINGs are answered."""
    cache = copies(mortal.url(), NEAR)
    await cache.set_many({"a": 1, "b": 2})
    await copied(cache, "a")
    await copied(cache, "b")

    client.config_set("maxmemory", 1)
    with pytest.raises(RedisError, match="OOM|maxmemory"):
        await cache.set("a", 3)

    assert copy(cache, cache.make_key("a")) is None
    assert await cache.get("a") == 1
    proven = cache.near.stats()["canaries"]
    # More than one canary is refused, and more than T_LIVE passes.
    refused = mistakes(client)
    until(lambda: mistakes(client) > refused + 4)
    await eventually(lambda: cache.get("b"), 2)
    assert cache.near.stats()["canaries"] == proven
    assert cache.near.state == "live"


async def test_a_primary_becomes_a_replica(copies, mortal, client, valkey):
    """It refuses the next canary, which ends all copies."""
    cache = copies(mortal.url(), NEAR)
    await cache.set("a", 1)
    await copied(cache, "a")

    host, port = valkey.tcp_url().split("//")[1].split("/")[0].split(":")
    client.replicaof(host, port)
    until(lambda: cache.near.state in {"dead", "off"})

    assert cache.near.copy(cache.make_key("a")) is None
    assert cache.near.stats()["epochs"]


async def test_a_user_is_deleted(copies, mortal, client):
    """The server hangs up on him, and copies end with that."""
    client.acl_setuser(
        "somebody", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], channels=["*"]
    )
    cache = copies(mortal.url(), NEAR, username="somebody", password="secret")
    await cache.set("a", 1)
    await copied(cache, "a")

    client.acl_deluser("somebody")
    until(lambda: cache.near.state in {"dead", "off"})

    assert cache.near.copy(cache.make_key("a")) is None
    with pytest.raises(RedisError):
        await cache.get("a")
