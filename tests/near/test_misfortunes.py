"""What befalls a server while there are copies of what it has."""

from __future__ import annotations

import time

import pytest
import redis
from redis.exceptions import RedisError
from tests.near.conftest import copied, copy, one_face
from tests.waiting import eventually, until

from fleetcache.exchange.wire import refusal
from fleetcache.near.refusals import Refused, insist
from fleetcache.testing import FaultProxy, valkey_server

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


@one_face
async def test_a_name_moves_away_from_a_replica(copies, mortal, client):
    """While a name leads to what was the primary there are no copies; seconds after it leads to the new one there are."""
    with valkey_server() as successor, FaultProxy(mortal.socket) as name:
        cache = copies(name.url(), NEAR)
        await cache.set("a", 1)
        await copied(cache, "a")
        client.replicaof("127.0.0.1", successor.port)
        until(lambda: "replica" in cache.near.why)
        tried = cache.near.events.connects
        until(lambda: cache.near.events.connects > tried + 1)

        name.repoint(successor.socket)
        began = time.monotonic()
        await cache.set("a", 2)
        until(lambda: cache.whole.get("a") == 2 and cache.near.state == "live")

        assert time.monotonic() - began < 4
        assert await copied(cache, "a") == 2


@pytest.mark.parametrize("code", ["NOAUTH", "MISCONF", "LOADING", "MASTERDOWN", "BUSY", "READONLY", "DENIED"])
def test_what_passes_is_no_last_word(code):
    """A refusal that can be over in a moment is a connection that failed, so it is tried again within seconds."""
    with pytest.raises(RedisError):
        insist("INFO", refusal(f"{code} some text"))
    with pytest.raises(Refused, match="INFO is refused"):
        insist("INFO", refusal("ERR unknown command 'INFO'"))


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
