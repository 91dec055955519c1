"""What can be seen of a cache: the figures of ``info()``, and each exchange with a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.errors import ServerGone
from fleetcache.near.stages import State
from fleetcache.servers.observed import Observed
from fleetcache.servers.remote import RemoteServer
from fleetcache.stats import Exchange, exchanges, listen
from fleetcache.stats.exchanges import is_heard
from fleetcache.stats.figures import MEANINGS
from fleetcache.stats.payloads import Said
from fleetcache.testing import FaultProxy, empty_memory

PAGE = Path(__file__).resolve().parent.parent / "docs/observing.md"


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.heard.append(exchange)

    def take(self) -> list[list[str]]:
        """Return the names of the commands of each exchange, and forget them."""
        names = [[command[0].decode() for command in each.commands] for each in self.heard]
        self.heard.clear()
        return names


@pytest.fixture
def ear() -> Iterator[Ear]:
    """An observer that listens while the test runs."""
    ear = Ear()
    end = listen(ear)
    yield ear
    end()


# --- figures --------------------------------------------------------------------------------------


def test_each_figure_is_explained():
    """The page says of each figure of ``info()`` what its registration says, and lists no others."""
    section = PAGE.read_text().partition("## Figures")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, re.MULTILINE)

    assert dict(rows) == MEANINGS
    assert len(rows) == len(MEANINGS)


def test_each_state_and_attribute_is_explained():
    """The page lists the states of a near cache, the best first, and the attributes of an `Exchange`."""
    page = PAGE.read_text()

    assert re.findall(r"^- `(\w+)`: ", page, re.MULTILINE) == list(State)
    assert re.findall(r"^- `exchange\.(\w+)`: ", page, re.MULTILINE) == [each.name for each in fields(Exchange)]


def test_info_has_the_figures_that_are_registered(valkey):
    """``info()`` holds a figure for each name, and no others."""
    info = Cache(valkey.url(), {"KEY_PREFIX": "figures", "OPTIONS": {"NEAR": True}}).info()

    names = {f"servers.{name}" for name in info.pop("servers")[0]}
    names |= {f"{part}.{name}" for part in ("near", "loading") for name in info.pop(part)}
    assert names | set(info) == set(MEANINGS)


def test_figures_are_kept_by_who_asked(valkey):
    """What ``info()`` returned does not change when more is counted."""
    near = Cache(valkey.url(), {"KEY_PREFIX": "kept", "OPTIONS": {"NEAR": True}}).near
    stats = near.stats()
    near.counts.invalidations["push"] += 1

    assert stats["invalidations"]["push"] == 0
    assert type(stats["state"]) is str


# --- exchanges ------------------------------------------------------------------------------------


async def test_what_is_heard(valkey, face, ear):
    """Each exchange is told with its commands, replies and time."""
    cache = Face(Cache(valkey.url(), {"KEY_PREFIX": f"heard {face}"}), face)
    await cache.set("a", 1)
    assert await cache.get("a") == 1

    stored, read = ear.heard
    assert stored.commands[0][:2] == (b"SET", f"heard {face}:1:a")
    assert (stored.replies, read.replies) == ([b"OK"], [b"1"])
    assert stored.error is read.error is None
    assert 0 < read.seconds < 5
    assert read.server == cache.topology.primaries[0].address


async def test_pipelines_and_transactions(valkey, face, ear):
    """Operations of a pipeline are one exchange."""
    cache = Face(Cache(valkey.url(), {"KEY_PREFIX": f"piped {face}"}), face)
    async with cache.pipeline() as pipe:
        pipe.whole.set("a", 1).get("a")
        await pipe.execute()
    async with cache.pipeline(transaction=True) as pipe:
        pipe.whole.set("a", 1).get("a")
        await pipe.execute()

    assert ear.take() == [["SET", "GET"], ["MULTI", "SET", "GET", "EXEC"]]


async def test_several_servers(valkey, face, ear):
    """Of servers that are asked at once each is told of, and a refusal is a reply."""
    urls = [valkey.url(db) for db in (8, 9)]
    cache = Face(ShardClient(urls, {"KEY_PREFIX": f"shards {face}"}), face)
    keys = {str(number): number for number in range(20)}
    await cache.set_many(keys)
    ear.take()

    assert await cache.get_many(keys) == keys
    assert ear.take() == [["MGET"], ["MGET"]]
    assert isinstance(await settled(cache.lpush("1", 2)), ResponseError)
    assert isinstance(ear.heard[0].replies[0], ResponseError)
    await cache.delete_many(keys)


async def test_memory(face, ear):
    """A server in this process is told of as well."""
    cache = Face(Cache("memory://observed"), face)
    await cache.add("a", 1)

    assert ear.take() == [["SET"]]
    empty_memory()


async def test_an_embedded_server(valkey, face, ear, tmp_path, monkeypatch):
    """A server that is started by the first command is told of."""
    monkeypatch.chdir(tmp_path)
    cache = Face(Cache("embedded://"), face)
    await cache.set("a", 1)

    assert ear.take() == [["SET"]]


async def test_outages(valkey, face, ear):
    """A failure is told with its error, and so are calls that the breaker refuses."""
    with FaultProxy(valkey.socket) as proxy:
        cache = Face(Cache(proxy.url(), {"KEY_PREFIX": "away"}), face)
        assert await cache.get("a") is None
    for _ in range(5):
        assert isinstance(await settled(cache.incr("a")), ServerGone)

    answered, *failed = ear.heard
    assert answered.error is None
    assert all(isinstance(each.error, ServerGone) and each.replies is None for each in failed)
    assert len(failed) == 5


async def test_one_of_several_servers_is_away(valkey, face, ear):
    """Of servers that are asked at once each is told of, also one that cannot be reached."""
    with FaultProxy(valkey.socket) as proxy:
        gone = proxy.url(9)
    params = {"KEY_PREFIX": f"partly {face}", "OPTIONS": {"IGNORE_EXCEPTIONS": True}}
    cache = Face(ShardClient([valkey.url(8), gone], params), face)
    await cache.get_many([str(number) for number in range(20)])

    outcomes = {type(each.error) for each in ear.heard}
    assert len(ear.heard) == 2
    assert type(None) in outcomes
    assert any(issubclass(outcome, ServerGone) for outcome in outcomes)


async def test_a_cancelled_call(valkey, ear):
    """A call that was cancelled is told with its CancelledError."""
    with FaultProxy(valkey.socket) as proxy:
        cache = Cache(proxy.url(), {"KEY_PREFIX": "cancelled"})
        await cache.aget("a")
        proxy.hold()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aget("a"), 0.05)
        proxy.heal()

    assert [type(each.error) for each in ear.heard] == [type(None), asyncio.CancelledError]


async def test_redirections_of_a_cluster(valkey_cluster, face, ear, monkeypatch):
    """On a cluster each node that was asked is told of."""
    cache = Face(Cache(valkey_cluster.url(), {"KEY_PREFIX": f"nodes {face}"}), face)
    await cache.set("a", 1)
    topology = cache.whole.topology
    home = topology.home(str(cache.make_key("a")))
    wrong = next(node for node in topology.primaries if node is not home)
    for name in ("slots", "readers"):
        monkeypatch.setattr(topology, name, [wrong] * len(topology.slots))
    topology.rest = 0.0  # so the map is learnt anew at once
    ear.take()

    assert await cache.get("a") == 1
    asked = [each.server for each in ear.heard if each.commands[0][0] == b"GET"]
    assert asked == [wrong.address, home.address]
    assert ["CLUSTER"] in ear.take()


async def test_sentinels(watched_servers, face, ear):
    """A primary that Sentinels name is told of under the name of its service."""
    cache = Face(Cache(watched_servers.url(), {"KEY_PREFIX": f"service {face}"}), face)
    await cache.set("a", 1)

    assert ear.take() == [["SET"]]
    assert "primary" in cache.topology.primaries[0].address


async def test_copies(valkey, face, ear):
    """A near cache works while somebody listens; a hit asks no server, and so nobody hears of it."""
    cache = Face(Cache(valkey.url(), {"KEY_PREFIX": f"near {face}", "OPTIONS": {"NEAR": True}}), face)
    await cache.set("a", 1)
    for _ in range(2000):
        assert await cache.get("a") == 1
        if cache.near.stats()["hits"]:
            break
    hits = cache.near.stats()["hits"]
    ear.take()

    assert await cache.get("a") == 1
    assert (cache.near.stats()["hits"], ear.take()) == (hits + 1, [])
    assert len({type(server) for server in cache.near.listeners}) == 1


async def test_nobody_listens(valkey, face):
    """Without listeners nothing stands between a cache and its server; one that ended hears no more."""
    ear, params = Ear(), {"KEY_PREFIX": f"nobody {face}"}
    before = Cache(valkey.url(), params)
    end = listen(ear)
    during = Face(Cache(valkey.url(), params), face)
    await during.set("a", 1)
    end()
    end()
    await during.set("a", 2)

    assert ear.take() == [["SET"]]
    after = Cache(valkey.url(), params)
    assert type(before.topology.primaries[0]) is type(after.topology.primaries[0]) is RemoteServer
    assert type(during.whole.topology.primaries[0]) is Observed
    assert during.whole.topology.primaries[0].remote is before.topology.primaries[0]


async def test_a_listener_that_fails(valkey, face, ear, caplog, monkeypatch):
    """An exception of a listener is logged, and neither the caller nor other listeners notice it."""
    # A function of the last case may have had the same address, and been logged within the minute.
    monkeypatch.setattr(exchanges, "_said", Said())

    def fail(exchange: Exchange) -> None:
        raise KeyError(exchange)

    end = listen(fail)
    cache = Face(Cache(valkey.url(), {"KEY_PREFIX": f"failing {face}"}), face)
    await cache.set("a", 1)
    await cache.set("a", 2)
    end()

    assert ear.take() == [["SET"], ["SET"]]
    assert len([each for each in caplog.records if each.name == "fleetcache.stats"]) == 1


async def coroutine_function(exchange: Exchange) -> None:
    raise AssertionError(exchange)


class Awaitable:
    async def __call__(self, exchange: Exchange) -> None:
        raise AssertionError(exchange)


@pytest.mark.parametrize(
    "hearing, fault",
    [
        (3, "a function is expected, not int"),
        (coroutine_function, "a coroutine function would never be awaited"),
        (Awaitable(), "a coroutine function would never be awaited"),
    ],
    ids=["number", "coroutine function", "object"],
)
def test_what_cannot_listen(hearing: Any, fault: str) -> None:
    """What cannot be called, or would have to be awaited, is refused at once, and not at every exchange."""
    with pytest.raises(TypeError, match=fault):
        listen(hearing)

    assert not is_heard()


def test_configurations_share_a_listener(valkey: Any, ear: Callable[..., Any]) -> None:
    """Caches of two configurations on one server have one `Observed` in common, and so one near cache's listener."""
    one, other = (Cache(valkey.url(), {"KEY_PREFIX": prefix}) for prefix in ("one", "other"))

    assert one.topology.primaries[0] is other.topology.primaries[0]


def test_a_listener_ends_only_itself():
    """One that ends itself while it is called keeps no other from hearing, and its end ends no second registration."""
    cache_url, heard = "memory://ends", []

    def first(exchange: Exchange) -> None:
        heard.append("first")
        end_first()

    def second(exchange: Exchange) -> None:
        heard.append("second")

    end_first, ends = listen(first), [listen(second), listen(second)]
    try:
        Cache(cache_url).get("a")
        assert heard == ["first", "second", "second"]

        heard.clear()
        ends[0]()
        ends[0]()
        Cache(cache_url).get("a")
        assert heard == ["second"]
    finally:
        for end in ends:
            end()
