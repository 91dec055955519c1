"""Ordinary connections that lead elsewhere, and more announcements than anybody can read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.faces import AWAITING
from tests.sockets import sockets
from tests.waiting import until

from fleetcache.commands import GET_NOW
from fleetcache.near import listener as listening
from fleetcache.near import pauses
from fleetcache.servers.remote import RemoteServer
from fleetcache.testing import FaultProxy, tracked, untracked, valkey_server
from fleetcache.testing.servers import EmbeddedServer

from .conftest import copied, copy, listeners, one_face


@pytest.fixture(scope="module")
def other() -> Iterator[EmbeddedServer]:
    """The server that takes the first one's place."""
    with valkey_server() as other:
        yield other


@pytest.fixture
def proxy(valkey: EmbeddedServer) -> Iterator[FaultProxy]:
    with FaultProxy(valkey.socket) as proxy:
        yield proxy


@pytest.fixture
def elsewhere(other: EmbeddedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(other.url(9)) as client:
        yield client


SLOW = {"CANARY": 100, "T_LIVE": 10}


def quiet(near: Any) -> None:
    """See to it that no canary is what notices."""
    until(lambda: near.near.events.canaries >= 1)
    with near.near.lock:
        near.near.sole.tracking._next_canary = float("inf")


async def test_a_connection_to_another_server_ends_the_epoch(copies, proxy, other, raw, elsewhere):
    """A new ordinary connection tells where it leads, before what it brings can be kept."""
    near = copies(proxy.url(9), SLOW)
    await near.set_many({"key": "here", "other": "here"})
    await copied(near, "key")
    await copied(near, "other")
    quiet(near)
    elsewhere.mset({near.make_key("key"): near.encode("there"), near.make_key("other"): near.encode("there")})
    listener = listeners(near.near)[0]
    proxy.repoint(other.socket, keep=tracked)
    assert await near.get("key") == "here"  # nobody can know yet: the old server is well, and vouches for it

    assert await near.get("key", fresh=True) == "there"

    assert await near.get("other") == "there"
    assert near.near.events.epochs.get("another server") == 1
    until(lambda: near.near.state == "live" and listener.tracking.run_id == elsewhere.info("server")["run_id"])
    assert await copied(near, "key") == "there"
    elsewhere.set(near.make_key("key"), 5)
    await near.fence()
    assert await near.get("key") == 5


async def test_what_came_from_the_old_server_is_not_kept(copies, proxy, other, elsewhere, monkeypatch):
    """A reply that was under way while another connection found a new server leaves no copy."""
    near = copies(proxy.url(9), SLOW)
    await near.set("key", "here")
    await near.fence()
    quiet(near)
    elsewhere.set(near.make_key("key"), near.encode("there"))

    def find_the_new_server() -> None:
        monkeypatch.undo()
        proxy.repoint(other.socket, keep=tracked)
        thread = threading.Thread(target=lambda: near.whole.get("another", fresh=True))
        near.topology.primary.close_idle()
        thread.start()
        thread.join()

    exchange, aexchange = RemoteServer.exchange, RemoteServer.aexchange

    def blocking(self: Any, commands: Any) -> Any:
        replies = exchange(self, commands)
        if threading.current_thread() is threading.main_thread():
            find_the_new_server()
        return replies

    async def awaiting(self: Any, commands: Any) -> Any:
        replies = await aexchange(self, commands)
        find_the_new_server()
        return replies

    monkeypatch.setattr(RemoteServer, "exchange", blocking)
    monkeypatch.setattr(RemoteServer, "aexchange", awaiting)

    assert await near.get("key") == "here"

    assert copy(near, near.make_key("key")) is None
    assert await near.get("key") == "there"


@one_face
async def test_the_listener_finds_the_new_server(copies, proxy, other, elsewhere):
    """If the listener is the first to be led elsewhere, ordinary connections go before anything is kept."""
    near = copies(proxy.url(9), SLOW)
    await near.set("key", "here")
    await copied(near, "key")
    elsewhere.set(near.make_key("key"), near.encode("there"))
    open_before = proxy.count(untracked)
    assert open_before >= 1

    proxy.upstream = other.socket
    proxy.reset(tracked)
    until(lambda: near.near.sole.tracking.run_id == elsewhere.info("server")["run_id"])
    until(lambda: near.whole.near.state == "live" or near.whole.get("key", fresh=True))

    assert await near.get("key") == "there"
    assert await copied(near, "key") == "there"


@one_face
async def test_idle_connections_go(copies, proxy, other, elsewhere):
    """As soon as one is known to lead elsewhere, those to the old server are not used any more."""
    near = copies(proxy.url(9), SLOW)
    server = near.topology.primary
    await near.set("key", "here")
    told = [server.tell([(GET_NOW, near.make_key("key"))]) for _ in range(3)]
    for each in told:
        server.hear(each)
    old = {known() for known in server.open}
    assert len(old) >= 3
    elsewhere.set(near.make_key("key"), near.encode("there"))

    proxy.upstream = other.socket
    server.idle.append(server._connect())

    assert not old & {known() for known in server.open}
    assert all(conversation.sock.fileno() == -1 for conversation in old)
    assert [await near.get("key", fresh=True) for _ in range(3)] == ["there"] * 3


async def test_a_connection_in_use_goes_after_its_reply(copies, proxy, other, face):
    """Who waits for a reply of the old server gets it; then its connection is closed."""
    near = copies(proxy.url(9), SLOW)
    server = near.topology.primary
    await near.set("key", "here")
    proxy.upstream = other.socket

    if face == AWAITING:
        line = await server._line()
        waiting = asyncio.ensure_future(server.aexchange([(GET_NOW, near.make_key("key"))]))
        await asyncio.sleep(0)
        assert line.waiting
        find = threading.Thread(target=lambda: server.reached("f" * 40))
        find.start()
        find.join()
        assert near.decode((await waiting)[0]) == "here"
        for _ in range(3):
            await asyncio.sleep(0)
        assert line.error is not None
        assert await server._line() is not line
    else:
        told = server.tell([(GET_NOW, near.make_key("key"))])
        server.reached("f" * 40)
        assert weakref.ref(told[0]) in server.open
        assert near.decode(server.hear(told)[0]) == "here"
        assert weakref.ref(told[0]) not in server.open
        assert told[0].sock.fileno() == -1


@one_face
async def test_no_sockets_are_left(copies, proxy, other):
    """However often the server changes, as many connections as before are open."""
    near = copies(proxy.url(9), {"CANARY": 100, "T_LIVE": 1})
    (listener,) = listeners(near.near)
    places = [proxy.upstream, other.socket]
    await near.get("key")

    for number in range(6):
        epoch = listener.tracking.epoch
        proxy.repoint(places[number % 2 - 1], keep=tracked)
        await near.get("key", fresh=True)
        assert listener.tracking.epoch is not epoch
        until(lambda: near.near.state == "live")
        await near.get("key", fresh=True)
        if number == 1:
            usual = until(sockets)
    until(lambda: sockets() <= usual + 3)
    assert proxy.count() <= 4
    assert len(near.topology.primary.open) <= 3


@one_face
async def test_a_promoted_run_id_is_no_other_server(copies, proxy, valkey):
    """Connections that are lost and made again to the same server cost no copy."""
    near = copies(proxy.url(9), SLOW)
    await near.set("key", "value")
    await copied(near, "key")
    misses = near.near.counts.misses

    proxy.reset(untracked)

    assert await near.has_key("other") is False
    assert await near.get("key") == "value"
    assert near.near.counts.misses == misses
    assert near.near.events.epochs == {}


# Floods -------------------------------------------------------------------------------------------


FLOOD = """
import sys, redis
url, prefix = sys.argv[1:]
lua = "for i = 1, 2000 do redis.call('SET', KEYS[1] .. ':1:' .. i % 500 .. ARGV[1], i) end"
raw = redis.Redis.from_url(url)
while True:
    raw.eval(lua, 1, prefix, "x" * 200)
"""


@pytest.fixture
def flood(valkey: EmbeddedServer) -> Iterator[Any]:
    """Write as much under a prefix as the server takes, until the test ends; in a process that no reader holds up."""
    writers: list[subprocess.Popen[bytes]] = []

    def begin(prefix: str) -> None:
        writers.append(subprocess.Popen([sys.executable, "-c", FLOOD, valkey.url(9), prefix]))

    def stop() -> None:
        for writer in writers:
            writer.kill()
            writer.wait()

    begin.stop = stop
    yield begin
    stop()
    with redis.Redis.from_url(valkey.url(9)) as raw:
        raw.flushdb()


async def test_a_flood(copies, flood, face):
    """While others write without end, readers get their answers, and afterwards copies are used again."""
    near = copies(near={"MAX_BYTES": 100_000})
    await near.set("calm", "value")
    flood(near.key_prefix)
    began, longest = time.monotonic(), 0.0

    while time.monotonic() - began < (0.7 if near.near.events.pushes > 1000 else 10):
        start = time.monotonic()
        assert await near.get("calm") == "value"
        longest = max(longest, time.monotonic() - start)
        assert near.near.stats()["bytes"] <= 100_000
    flood.stop()

    assert longest < 0.5
    assert near.near.events.pushes > 1000
    assert len(near.near.sole.tracking.journal.recent) <= 2048
    until(lambda: near.whole.get("calm") == "value" and near.near.state == "live")
    assert await copied(near, "calm") == "value"


@one_face
async def test_more_than_can_be_applied(copies, raw, monkeypatch, caplog):
    """Given up until it is calm: said once, counted, nothing stale is served, and then it is live again."""
    monkeypatch.setattr(pauses, "ASIDE", 0.05)
    near = copies()
    await near.set("key", 1)
    await copied(near, "key")
    monkeypatch.setattr(listening, "BACKLOG", 1)
    monkeypatch.setattr(listening, "SLICE", 1)

    def overwhelm() -> Any:
        raw.mset({f"{near.make_key('key')}{number}": 1 for number in range(4000)} | {near.make_key("key"): 2})
        return near.near.events.epochs.get("overload")

    until(overwhelm)

    assert await near.get("key") == 2
    monkeypatch.setattr(listening, "BACKLOG", 32)
    until(lambda: near.whole.get("key") == 2 and near.near.state == "live")
    assert await copied(near, "key") == 2
    assert any("more is announced than can be applied here" in each.getMessage() for each in caplog.records)
    await near.clear()
