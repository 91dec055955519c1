"""Each kind of server and way to it: copies where they can be kept current, and otherwise a reason and no harm."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.caches import TRANSPORTS
from tests.faces import Face, settled
from tests.waiting import until

from fleetcache.client import SentinelClient, ShardClient
from fleetcache.near import listener as listening
from fleetcache.near import pauses
from fleetcache.near.stages import State
from fleetcache.servers.embedded import find_binary
from fleetcache.testing import FaultProxy, tracked, untracked, valkey_server
from fleetcache.testing.servers import EmbeddedServer

from .conftest import Copies, calls, copied, copy, listeners, one_face

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("transport", ["valkey-tcp", "redis-tcp", "redis-unix", "redis-tls"])
@one_face
async def test_transports(copies, request, transport):
    """On each server, and over TCP, a unix socket and TLS, copies are kept and kept current."""
    url = TRANSPORTS[transport](request.getfixturevalue, 9)
    near = copies(url)
    with redis.Redis.from_url(url) as raw:
        await near.set("key", {"a": 1})
        assert await copied(near, "key") == {"a": 1}
        before = calls(raw, "get")
        assert await near.get("key") == {"a": 1}
        assert calls(raw, "get") == before

        for number in range(5):
            raw.mset({f"{near.make_key(f'key{each}')}": number for each in range(300)})
            raw.set(near.make_key("key"), number)
            await near.fence()
            assert await near.get("key") == number
            assert set((await near.get_many([f"key{each}" for each in range(300)])).values()) == {number}
        await near.clear()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """What the near caches have logged, but for the end of the test."""
    caplog.set_level(logging.INFO, "fleetcache.near")

    def lines() -> list[tuple[str, str]]:
        found = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "fleetcache.near"]
        return [line for line in found if not line[1].endswith("closed")]

    return lines


async def works_without_copies(near: Face, raw: redis.Redis) -> None:
    def asked() -> int:
        return sum(calls(raw, name) for name in ("get", "mget", "exists"))

    await near.set("key", [1])
    before = asked()
    assert [await near.get("key") for _ in range(3)] == [[1]] * 3
    assert await near.get_many(["key", "missing"]) == {"key": [1]}
    assert await near.has_key("key") is True
    assert asked() == before + 5
    await near.fence()
    assert near.near.stats()["entries"] == 0
    assert await near.delete("key") is True


@one_face
async def test_without_resp3(copies, raw, lines):
    """What speaks RESP2 hears no announcements: the near cache is off, and says so once."""
    near = copies(protocol=2, live=False)
    await near.get("key")
    until(lambda: near.near.state == "off")

    await works_without_copies(near, raw)

    assert "RESP3" in near.info()["near"]["why"]
    assert [level for level, _ in lines()] == ["WARNING"]


@pytest.mark.parametrize("command", ["client|tracking", "info", "pttl"])
@one_face
async def test_a_user_who_may_not(copies, raw, lines, command, monkeypatch):
    """The cache works, its near cache is off with a reason that is logged once, however often it is tried again."""
    monkeypatch.setattr(pauses, "REFUSED_FOR", (0.01, 0.01))
    user = f"may-not-{command}"
    raw.execute_command("ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", f"-{command}")
    near = copies(USERNAME=user, PASSWORD="secret", live=False)
    await near.get("key")
    until(lambda: near.near.events.connects >= 4)

    await works_without_copies(near, raw)

    assert near.near.state == "off"
    assert "refused" in near.near.why
    assert len(lines()) == 1
    level, text = lines()[0]
    assert level == "WARNING"
    assert text.endswith(near.near.why.partition(": ")[2])

    raw.execute_command("ACL", "SETUSER", user, f"+{command}")
    until(lambda: [level for level, _ in lines()] == ["WARNING", "INFO"])
    assert near.near.state == "live"
    raw.execute_command("ACL", "DELUSER", user)


@one_face
async def test_a_user_who_may_not_write(copies, raw, asked, lines):
    """There is no near cache for who may not write, and the reason is to be seen in the log too."""
    raw.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-set")
    near = copies(USERNAME="reader", PASSWORD="secret", live=False)
    raw.set(near.make_key("key"), 1)
    await near.get("key")
    until(lambda: "SET" in near.near.why and "NOPERM" in near.near.why)
    asked()

    assert [await near.get("key") for _ in range(3)] == [1, 1, 1]

    assert asked() == 3
    assert near.near.state == "off"
    assert [level for level, _ in lines()] == ["WARNING"]


# Where nothing is announced -----------------------------------------------------------------------


async def test_short_lives_where_nothing_is_announced(copies, asked):
    """With UNTRACKED_TTL copies are used for so long, and a write of this process still ends them."""
    near = copies(near={"UNTRACKED_TTL": 0.3}, protocol=2, live=False)
    await near.get("key")
    until(lambda: near.near.state == "off")
    await near.set("key", 1)
    await copied(near, "key", deaf=True)
    entry, began = copy(near, near.make_key("key")), time.monotonic()
    asked()

    assert await near.get("key") == 1
    assert asked() == 0
    while near.near.copies.get(entry.name) is entry:
        await near.get("key")
        assert time.monotonic() - began < 1
        copy(near, entry.name)
    assert asked() >= 2
    await near.set("key", 2)
    assert await near.get("key") == 2


@one_face
async def test_who_was_refused_asks_again(copies, monkeypatch):
    """Also where copies are kept meanwhile, and after nobody has read for long."""
    monkeypatch.setattr(pauses, "REFUSED_FOR", (0.02, 0.02))
    near = copies(near={"UNTRACKED_TTL": 0.05, "MAX_TTL": 0.1}, protocol=2, live=False)
    (listener,) = listeners(near.near)
    await near.get("key")
    until(lambda: near.near.state == "off")
    until(lambda: listener.thread is None)
    refusals = near.near.events.connects

    until(lambda: near.whole.get("key") is None and near.near.events.connects > refusals, 2)


# Several servers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replica(valkey: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with redis.Redis(port=valkey.port) as raw:
        raw.config_set("repl-diskless-sync-delay", 0)
    with valkey_server(arguments=["--replicaof", f"127.0.0.1 {valkey.port}"]) as replica:
        with redis.Redis(port=replica.port) as raw:
            until(lambda: raw.info("replication")["master_link_status"] == "up", 20)
        yield replica


async def test_copies_come_from_the_primary(copies, valkey, replica, raw):
    """A replica may not know yet what was announced, so only reads that leave no copy go there."""
    with redis.Redis(port=replica.port) as other:
        near = copies([valkey.url(9), replica.url(9)])
        await near.set("key", 1)
        before = [calls(each, "get") + calls(each, "mget") for each in (raw, other)]

        await copied(near, "key")
        await near.get("a", fresh=True)
        await near.get_many(["b", "c"])
        after = [calls(each, "get") + calls(each, "mget") for each in (raw, other)]
        assert after[0] - before[0] >= 3
        assert after[1] == before[1]

        await near.get(near.make_key("key", prefix="elsewhere"))
        assert calls(other, "get") + calls(other, "mget") == before[1] + 1
        assert len(near.near.listeners) == 1


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("read", ["get", "get_many"])
async def test_what_a_replica_lacks(copies, valkey, raw, read, ignore):
    """What a replica does not have, while the primary is away, leaves no copy that says so."""
    with FaultProxy(valkey.socket) as proxy, valkey_server() as behind:
        location = [proxy.url(9), behind.url(9)]
        near = copies(location, NEVER_AGAIN, SOCKET_TIMEOUT=0.2, BREAKER_COOLDOWN=0.3, IGNORE_EXCEPTIONS=ignore)
        await away_for_a_while(near, proxy, raw, read)

        assert await getattr(near, read)(*asked_for(read)) == RIGHT[read]
        assert near.near.state == "live"


@pytest.mark.parametrize("read", ["get", "get_many"])
async def test_what_nobody_said(copies, valkey, raw, read):
    """With IGNORE_EXCEPTIONS, "nothing" because no server answered leaves no copy."""
    with FaultProxy(valkey.socket) as proxy, valkey_server() as behind, FaultProxy(behind.socket) as other:
        location = [proxy.url(9), other.url(9)]
        near = copies(location, NEVER_AGAIN, SOCKET_TIMEOUT=0.2, BREAKER_COOLDOWN=0.3, IGNORE_EXCEPTIONS=True)
        other.hold()
        await away_for_a_while(near, proxy, raw, read)
        other.heal()

        assert await getattr(near, read)(*asked_for(read)) == RIGHT[read]
        assert near.near.state == "live"


@one_face
async def test_what_a_replica_under_sentinels_lacks(copies, tmp_path):
    """There too it leaves no copy that says so."""
    with ExitStack() as stack:
        enter = stack.enter_context
        first = enter(valkey_server(arguments=["--repl-diskless-sync-delay", "0"]))
        proxy = enter(FaultProxy(("127.0.0.1", first.port)))
        enter(valkey_server(arguments=["--replicaof", f"127.0.0.1 {proxy.port}"]))
        sentinel = enter(valkey_server(binary=sentinel_program(tmp_path, proxy.port)))
        watching = enter(redis.Redis(port=sentinel.port, decode_responses=True))
        raw = enter(redis.Redis.from_url(first.url()))
        until(lambda: [each["master-link-status"] for each in watching.sentinel_slaves("service")] == ["ok"], 20)
        options = {"SENTINELS": [("127.0.0.1", sentinel.port)], "SOCKET_TIMEOUT": 0.2, "BREAKER_COOLDOWN": 0.3}
        near = copies("redis://service/0", NEVER_AGAIN, kind=SentinelClient, **options)
        await away_for_a_while(near, proxy, raw, "get")

        assert await near.get("key") == 1


NEVER_AGAIN = {"T_LIVE": 20, "CANARY": 60}
"""A canary that is written while the primary is away would end all copies, the wrong ones too."""

RIGHT = {"get": 1, "get_many": {"key": 1}}


def asked_for(read: str) -> tuple[Any, ...]:
    return ("key",) if read == "get" else (["key"],)


async def away_for_a_while(near: Face, proxy: FaultProxy, raw: redis.Redis, read: str) -> None:
    """Read what another program has written while ordinary connections to the primary hang, and announcements come."""
    assert await near.get("another") is None
    proxy.hold(untracked)
    raw.set(near.make_key("key"), 1)
    await near.fence()
    for _ in range(6):
        await settled(getattr(near, read)(*asked_for(read)))
    proxy.heal()
    until(lambda: written(near.whole))
    await near.fence()


def written(cache: Any) -> bool:
    with suppress(redis.ConnectionError, redis.TimeoutError):
        return bool(cache.set("another", 1))
    return False


@one_face
async def test_a_replica_is_no_primary(copies, replica, lines):
    """A cache that was led to a replica keeps no copies: announcements may come late there."""
    near = copies(replica.url(9), live=False)
    await near.get("key")

    until(lambda: near.near.events.connects >= 4)  # it may be promoted at any moment

    assert near.near.state == "dead"
    assert "replica" in near.near.why
    assert [level for level, _ in lines()] == ["WARNING"]


@pytest.fixture
def shards(copies: Copies, valkey: EmbeddedServer) -> Iterator[tuple[Face, EmbeddedServer]]:
    """A near cache over two servers, and the second of them."""
    with valkey_server() as second:
        near = copies([valkey.url(9), second.url(9)], kind=ShardClient)
        yield near, second


async def test_shards(shards, raw):
    """Each server has a listener of its own, and a fence waits for all."""
    near, second = shards
    keys = [f"key{number}" for number in range(40)]
    homes = {key: near.get_server(near.make_key(key)) for key in keys}
    assert len({id(home) for home in homes.values()}) == len(near.near.listeners) == 2
    await near.set_many(dict.fromkeys(keys, 0))
    for key in keys:
        await copied(near, key)
    misses = near.near.counts.misses

    assert await near.get_many(keys) == dict.fromkeys(keys, 0)
    assert near.near.counts.misses == misses
    for key in keys:
        homes[key].set(near.make_key(key), 1)
    await near.fence()
    assert await near.get_many(keys) == dict.fromkeys(keys, 1)
    assert [await near.get(key) for key in keys] == [1] * 40
    for key in keys:
        await copied(near, key)

    with redis.Redis.from_url(second.url(9)) as other:
        other.flushdb()
        await near.fence()
        left = await near.get_many(keys)
    assert left == {key: 1 for key in keys if homes[key].exists(near.make_key(key))}
    await near.clear()


@pytest.fixture
def three_ways(copies: Copies, valkey: EmbeddedServer) -> Iterator[tuple[Face, list[FaultProxy]]]:
    """A near cache over three servers, as far as it knows, and the ways to them."""
    with ExitStack() as stack:
        ways = [stack.enter_context(FaultProxy(valkey.socket)) for _ in range(3)]
        near = copies([way.url(9) for way in ways], {"T_LIVE": 20}, kind=ShardClient, SOCKET_TIMEOUT=0.5)
        assert len(listeners(near.near)) == 3
        yield near, ways
        near.near.close()


async def test_a_fence_asks_all_at_once(three_ways):
    """However many primaries there are, a fence takes as long as the way to the farthest."""
    near, ways = three_ways
    for way in ways:
        way.delay(0.2)
    await near.fence()
    began = time.monotonic()

    await near.fence()

    assert 0.2 <= time.monotonic() - began < 0.4


async def test_a_fence_waits_for_all_at_once(three_ways):
    """Primaries that do not answer keep a fence for one SOCKET_TIMEOUT, and the next one not at all."""
    near, ways = three_ways
    for way in ways:
        way.hold()
    began = time.monotonic()
    await near.fence()
    first = time.monotonic() - began
    await near.fence()

    assert 0.5 <= first < 0.95
    assert time.monotonic() - began - first < 0.4
    for way in ways:
        way.heal()


@one_face
async def test_the_state_is_that_of_the_worst(copies, valkey):
    """As long as one of several servers is not listened to, the near cache is not live."""
    with valkey_server() as second:
        near = copies([valkey.url(9), second.url(9)], kind=ShardClient, live=False)
        first, _ = listeners(near.near)
        for reads in near.near.reads.values():
            if reads.listener is first:
                first.serve(reads)
        until(lambda: first.tracking.state is State.LIVE)

        assert near.near.state != "live"
        for reads in near.near.reads.values():
            reads.listener.serve(reads)
        until(lambda: near.near.state == "live")
        second.kill()
        until(lambda: near.near.state == "dead")
        assert near.near.why


@one_face
async def test_copies_of_one_shard_outlive_the_other(copies, valkey):
    """What was read from a server that is well is served while another is away."""
    with valkey_server() as second:
        near = copies([valkey.url(9), second.url(9)], kind=ShardClient, socket_timeout=0.5)
        keys = [f"key{number}" for number in range(20)]
        await near.set_many(dict.fromkeys(keys, 0))
        well = [key for key in keys if near.near.home(near.make_key(key)) is near.topology.primaries[0]]
        for key in well:
            await copied(near, key)
        second.kill()
        until(lambda: near.near.state == "dead")
        misses = near.near.counts.misses

        assert [await near.get(key) for key in well] == [0] * len(well)

        assert near.near.counts.misses == misses
        await near.fence()
        for key in well:
            await near.delete(key)


@one_face
async def test_sentinel(copies, tmp_path):
    """Copies come from the primary that Sentinels name, and end when they name another."""
    with ExitStack() as stack:
        first = stack.enter_context(valkey_server(arguments=["--repl-diskless-sync-delay", "0"]))
        second = stack.enter_context(valkey_server(arguments=["--replicaof", f"127.0.0.1 {first.port}"]))
        sentinel = stack.enter_context(valkey_server(binary=sentinel_program(tmp_path, first.port)))
        with redis.Redis(port=sentinel.port, decode_responses=True) as watching:
            until(lambda: [each["master-link-status"] for each in watching.sentinel_slaves("service")] == ["ok"], 20)
            near = copies("redis://service/0", kind=SentinelClient, SENTINELS=[("127.0.0.1", sentinel.port)])
            await near.set("key", 1)
            await copied(near, "key")
            misses = near.near.counts.misses
            assert await near.get("key") == 1
            assert near.near.counts.misses == misses

            watching.sentinel_remove("service")
            with redis.Redis(port=second.port) as other, redis.Redis(port=first.port) as old:
                other.replicaof("NO", "ONE")
                other.set(near.make_key("key"), 2)
                watching.sentinel_monitor("service", "127.0.0.1", second.port, 1)
                old.client_kill_filter(_type="normal", skipme=True)
            until(lambda: near.whole.get("key") == 2 and near.near.state == "live", 10)
            await copied(near, "key")
            assert await near.get("key") == 2


def sentinel_program(place: Path, primary: int) -> Path:
    """Return a program that runs the server as a Sentinel: those want a file of their own."""
    configuration, program = place / "sentinel.conf", place / "sentinel"
    configuration.write_text(
        f"sentinel monitor service 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds service 60000\n"
    )
    program.write_text(f'#!/bin/sh\nexec "{find_binary()}" "{configuration}" --sentinel "$@"\n')
    program.chmod(0o700)
    return program


async def test_two_aliases_by_different_ways(copies, valkey, raw):
    """Caches that reach one server by different ways tell each other what they write, ahead of any announcement (G2)."""
    with FaultProxy(valkey.socket) as proxy:
        one = copies(proxy.url(9), {"T_LIVE": 50})
        prefix = one.key_prefix
        two = copies(valkey.url(9), {"T_LIVE": 50}, KEY_FUNCTION=lambda key, _, version: f"{prefix}:{version}:{key}")
        await one.set("key", "old")
        await copied(one, "key")
        proxy.hold(tracked)

        await two.set("key", "new")

        assert await one.get("key") == "new"
        proxy.heal()


# A faulty way -------------------------------------------------------------------------------------


@one_face
async def test_a_silent_server_ends_the_hits(copies, valkey, raw, asked):
    """T_LIVE after the last answer no copy is used; when answers come again, copies are, unless somebody has written."""
    with FaultProxy(valkey.socket) as proxy:
        near = copies(proxy.url(9), {"T_LIVE": 0.2})
        await near.set_many({"changed": 1, "same": 1})
        await copied(near, "changed")
        await copied(near, "same")
        proxy.hold(tracked)
        raw.set(near.make_key("changed"), 2)
        written = time.monotonic()

        while await near.get("changed") == 1:
            assert time.monotonic() - written < 0.3
        until(lambda: near.near.state == "suspect")
        asked()
        assert await near.get("same") == 1
        assert asked() == 2

        proxy.heal()
        until(lambda: near.near.state == "live")
        assert await near.get("changed") == 2


@one_face
async def test_who_stops_listening_to_a_server_that_is_away(copies, monkeypatch):
    """Nothing of it is left there, so that primaries that come and go do not collect listeners."""
    resting, usual = threading.Event(), listening.pause

    def pause(state: State, tried: int) -> float:
        if state is not State.DEAD:
            return usual(state, tried)
        resting.set()
        return 10

    with valkey_server() as server:
        near = copies(server.url(9))
        monkeypatch.setattr(listening, "pause", pause)
        (listener,) = listeners(near.near)
        remote = near.topology.primary
        assert remote.watchers
        server.kill()
        assert resting.wait(10)

        near.near.close()

        until(lambda: listener.thread is None)
        assert not remote.watchers


@one_face
async def test_lost_connections_are_logged_once_each(copies, lines):
    """However often it is tried, an outage is one line, and its end another."""
    with valkey_server() as server:
        near = copies(server.tcp_url(), socket_timeout=0.5)
        await copied(near, "key")
        server.kill()
        until(lambda: near.near.events.connects >= 4)
        server.restart()
        until(lambda: len(lines()) >= 3)

        assert [level for level, _ in lines()] == ["INFO", "WARNING", "INFO"]
        assert near.near.state == "live"
