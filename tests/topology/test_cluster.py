"""The cluster topology: routing, redirections, and nodes that come and go under load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ResponseError,
    TryAgainError,
)
from tests.faces import AWAITING, Face, settled
from tests.load import RECENT, Load
from tests.slots import elsewhere, unheld

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import ClusterClient, HerdClient, SentinelClient, ShardClient
from fleetcache.errors import (
    CircuitOpen,
    ConnectionLost,
    CrossServer,
    NeverSent,
    NoSuchDatabase,
    ServerGone,
    ServerTimeout,
    SettingsError,
    TooManyConnections,
    UnsupportedServer,
)
from fleetcache.exchange.repeating import to_another_node
from fleetcache.exchange.runtime import AWAITING as AWAITING_RUNTIME
from fleetcache.exchange.runtime import BLOCKING as BLOCKING_RUNTIME
from fleetcache.exchange.wire import refusal
from fleetcache.testing import FaultProxy, ServerCluster, cluster
from fleetcache.testing.clusters import free_ports, role, run, wait_for
from fleetcache.topology import cluster as topologies
from fleetcache.topology.cluster import MOMENT, Redirect, redirected, slot_of, units

pytestmark = pytest.mark.flaky(reruns=2)

_numbers = count(1)


@pytest.fixture(scope="module")
def servers() -> Iterator[ServerCluster]:
    """Three primaries with a replica each, to which things are done."""
    with cluster() as servers:
        yield servers


@pytest.fixture
def whole(servers: ServerCluster) -> Any:
    """Make a cache that knows nothing of the cluster yet."""

    def whole(url: Any = "", kind: Any = Cache, **options: Any) -> Any:
        number = next(_numbers)
        options = {"SOCKET_TIMEOUT": 1 + number / 10000, **options}  # shares nothing with others
        return kind(url or servers.url(), {"KEY_PREFIX": f"c{number}", "OPTIONS": options})

    return whole


def counts(cache: Face) -> Any:
    return cache.whole.topology.redirects


# --- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "", "ключ", "{a}b", "x{a}b", "{}a", "{a", "a}b{c}", "{{a}}", b"\xff{\x00}"])
def test_slots(valkey_cluster, name):
    """A name's slot is the one that the server finds."""
    assert slot_of(name) == run(valkey_cluster.nodes[0], "CLUSTER", "KEYSLOT", name)


@pytest.mark.parametrize(
    ("reply", "redirect"),
    [
        (refusal("MOVED 866 10.0.0.1:7001"), Redirect("moved", ("10.0.0.1", 7001), 866)),
        (refusal("MOVED 866 :7001"), Redirect("moved", ("", 7001), 866)),
        (refusal("MOVED 866 ::1:7001"), Redirect("moved", ("::1", 7001), 866)),
        (refusal("ASK 866 10.0.0.1:7001"), Redirect("ask", ("10.0.0.1", 7001), asking=True)),
        (TryAgainError("TRYAGAIN …"), Redirect("tryagain")),
        (ClusterDownError("CLUSTERDOWN …"), Redirect("away")),
        (BusyLoadingError("LOADING …"), Redirect("away")),
        (refusal("READONLY You can't write against a read only replica."), Redirect("away")),
        (ConnectionLost("…"), Redirect("away")),
        (ServerTimeout("…"), Redirect("away")),
        (TooManyConnections("…"), None),
        (ResponseError("WRONGTYPE …"), None),
        (b"MOVED 866 10.0.0.1:7001", None),
        (None, None),
    ],
)
def test_where_to_ask_again(reply, redirect):
    """A reply is final, or says where to ask again."""
    assert redirected(reply) == redirect


def test_what_is_asked_again_by_itself():
    """A command is asked again by itself, a transaction as a whole."""
    get, multi, execute = (c.GET, "a"), (c.MULTI,), (c.EXEC,)

    assert units([get, multi, get, get, execute, get]) == [slice(0, 1), slice(1, 5), slice(5, 6)]
    assert units([multi, execute]) == [slice(0, 2)]


@pytest.mark.parametrize(
    ("verb", "reply", "may"),
    [
        (c.SET, ConnectionLost("…"), True),
        (c.SET, ServerTimeout("…"), False),
        (c.LPUSH, ConnectionLost("…"), False),
        (c.LPUSH, ServerGone("…"), False),
        (c.LPUSH, NeverSent("…"), True),
        (c.LPUSH, CircuitOpen("…"), True),
        (c.LPUSH, ClusterDownError("…"), True),
    ],
)
def test_what_may_run_twice(verb, reply, may):
    """What may have run is asked of another node only if it does no harm, and nothing when time is over."""
    assert to_another_node([(verb, "a", 1)], [reply]) is may


# --- the map --------------------------------------------------------------------------------------


async def test_the_map_is_learnt_once(fresh):
    """Making a cache sends nothing; however many come at once, one of them asks for the map."""
    cache = fresh()
    assert not counts(cache)

    if cache.face == AWAITING:
        found = await asyncio.gather(*(cache.get_many(f"{each}{n}" for n in range(20)) for each in range(20)))
    else:
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(cache.whole.get_many(map(str, range(20))))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [{}] * 20
    assert counts(cache) == {"learnt": 1}


async def test_the_word_of_the_node_in_doubt(fresh, monkeypatch):
    """A map that was learnt a moment ago is not asked for again, unless the answer of another node is wanted."""
    monkeypatch.setattr(topologies, "monotonic", lambda now=time.monotonic(): now)  # the moment lasts
    cache = fresh()
    await cache.get("a")
    topology = cache.whole.topology
    runtime = AWAITING_RUNTIME if cache.face == AWAITING else BLOCKING_RUNTIME
    author, other = topology.witness, next(node for node in topology.primaries if node.address != topology.witness)

    await topology.survey(runtime, other)
    assert (counts(cache)["learnt"], topology.witness) == (1, author)
    await topology.survey(runtime, next(node for node in topology.nodes.values() if node.address == author))
    assert counts(cache)["learnt"] == 2
    assert topology.witness != author


async def test_the_first_is_a_pipeline(fresh):
    """A walk over all nodes and other operations may be what makes the map be learnt."""
    cache = fresh()
    pipe = cache.pipeline()
    pipe.keys("*").set("a", 1).clear().scan(0).incr("b", default=1)

    keys, stored, _, (_, page), count = await pipe.execute()

    assert (stored, count) == (True, 2)
    assert set(keys) | set(page) <= {"a", "b"}


async def test_any_start_node_will_do(fresh, servers):
    """Start nodes that are not there are passed over; if none is, the error says which was tried."""
    gone = free_ports(2)
    dead = ",".join(f"127.0.0.1:{port}" for port in gone)
    cache = fresh(f"valkey+cluster://{dead},127.0.0.1:{servers.nodes[-1].port}")
    lost = fresh(f"redis+cluster://{dead}")

    assert await cache.set_many({"a": 1, "b": 2, "c": 3}) == []
    assert await cache.get_many("abc") == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ServerGone, match=f"127.0.0.1:({gone[0]}|{gone[1]})"):
        await lost.get("a")
    with pytest.raises(ServerGone):
        await lost.keys("*")


async def test_who_learns_the_map_is_cancelled(whole, servers):
    """Callers that waited for it ask themselves."""
    with FaultProxy(("127.0.0.1", servers.nodes[0].port)) as proxy:
        cache = whole(f"redis+cluster://127.0.0.1:{proxy.port}")
        proxy.hold()
        first = asyncio.create_task(cache.aget("first"))
        await asyncio.sleep(0)
        others = [asyncio.create_task(cache.aget(f"other{number}", "none")) for number in range(3)]
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.sleep(0.02)
        proxy.heal()

        assert await asyncio.gather(*others) == ["none"] * 3
        assert first.cancelled()


async def test_all_get_new_addresses(fresh, servers, pass_time):
    """If no known node answers, and none even refuses a connection, the nodes of LOCATION are asked soon."""
    with ExitStack() as stack:
        enter = stack.enter_context
        old = {node.port: enter(FaultProxy(("127.0.0.1", node.port))) for node in servers.nodes}
        led = {port: proxy.port for port, proxy in old.items()}
        cache = fresh(
            f"redis+cluster://127.0.0.1:{servers.nodes[0].port}",
            SOCKET_TIMEOUT=0.1 + next(_numbers) / 100_000,
            address_remap=lambda place: (place[0], led.get(place[1], place[1])),
        )
        assert await cache.set("a", 1) is True
        for proxy in old.values():
            proxy.hold()
        led.clear()
        pass_time(MOMENT)

        found = []
        while True not in found and len(found) < 30:
            found.append(await settled(cache.set("a", 2)))

        assert len(found) <= 5


async def test_connections(fresh, servers):
    """Tasks share one connection to each node; the one by which the map was learnt goes if it has another name."""
    cache = fresh(servers.url().replace("127.0.0.1", "localhost"))
    await asyncio.gather(*(cache.get_many(map(str, range(20))) for _ in range(20)))

    for node in cache.whole.topology.primaries:
        assert len(node.remote.open) + len(node.remote.lines.values()) == 1
    await asyncio.sleep(0.01)
    assert not any(start.remote.open or start.remote.lines.values() for start in cache.whole.topology.starts)


async def test_aliases_share_the_nodes(fresh, servers):
    """Two caches with the same connection settings have the same map and connections."""
    one, other = (Cache(servers.url(), {"KEY_PREFIX": prefix}) for prefix in "ab")

    assert one.topology is other.topology
    assert fresh().whole.topology is not one.topology


# --- slots on the move ----------------------------------------------------------------------------


async def test_a_slot_has_moved(fresh, servers):
    """A cache with an old map is redirected, and remembers."""
    cache = fresh()
    await cache.set_many({f"{{a}}{number}": number for number in range(30)})
    slot = slot_of(cache.make_key("{a}"))
    servers.move_slot(slot, elsewhere(servers, slot))
    before = counts(cache)["moved"]

    assert len(await cache.get_many(f"{{a}}{number}" for number in range(30))) == 30
    assert counts(cache)["moved"] > before
    before = counts(cache)["moved"]
    assert await cache.get("{a}1") == 1
    assert await cache.incr("{a}1") == 2
    assert counts(cache)["moved"] == before


async def test_a_slot_is_on_its_way(fresh, servers):
    """What is still at the old place is found there, and what is new at the new one: nothing is lost."""
    cache = fresh()
    await cache.set("{a}old", 1)
    slot = slot_of(cache.make_key("{a}"))
    with servers.moving(slot, elsewhere(servers, slot)):
        assert await cache.get("{a}old") == 1
        assert await cache.set("{a}new", 2) is True
        assert await cache.get_many(["{a}old", "{a}new", "{a}none", "b"]) == {"{a}old": 1, "{a}new": 2}
        assert await cache.add("{a}new", 3) is False
        assert await cache.incr("{a}counter", default=5) == 6
        pipe = cache.pipeline(transaction=True)
        pipe.set("{a}x", 1).incr("{a}x")
        assert await pipe.execute() == [True, 2]
        assert counts(cache)["ask"] >= 5
        assert await cache.delete_many(["{a}old", "{a}none", "{a}counter"]) == 2

    assert await cache.get_many(["{a}old", "{a}new", "{a}x"]) == {"{a}new": 2, "{a}x": 2}


async def test_half_of_the_keys_are_on_their_way(fresh, servers):
    """A command whose keys are partly here and partly there waits until they are together."""
    cache = fresh()
    await cache.sadd("{a}1", 1)
    slot = slot_of(cache.make_key("{a}"))
    begun, over = threading.Event(), threading.Event()

    def move() -> None:
        with servers.moving(slot, elsewhere(servers, slot)):
            begun.set()
            over.wait(0.3)

    mover = threading.Thread(target=move)
    mover.start()
    begun.wait()
    await cache.sadd("{a}2", 2)  # at the new place, the first being at the old

    assert await cache.sunion("{a}1", "{a}2") == {1, 2}
    assert counts(cache)["tryagain"]
    mover.join()


async def test_nothing_runs_twice_while_a_slot_moves(fresh, servers):
    """Counters count each call once, in transactions too, wherever their slot is."""
    cache = fresh()
    slot = slot_of(cache.make_key("{a}"))
    over = threading.Event()

    def move() -> None:
        for _ in range(6):
            with servers.moving(slot, elsewhere(servers, slot)):
                time.sleep(0.02)
        over.set()

    mover = threading.Thread(target=move)
    mover.start()
    counted = 0
    while not over.is_set():
        pipe = cache.pipeline(transaction=True)
        pipe.incr("{a}n", default=0).incr(f"{{a}}{counted % 3}", default=0)
        assert len(await pipe.execute()) == 2
        await cache.incr("{a}n")
        counted += 1
    mover.join()

    assert await cache.get("{a}n") == 2 * counted
    assert sum((await cache.get_many(f"{{a}}{number}" for number in range(3))).values()) == counted
    assert counts(cache)["ask"]


def test_slots_move_under_load(whole, servers):
    """Slots go to and fro, and nobody sees an error or a wrong value."""
    cache = whole()
    with Load(cache) as load:
        slots = [slot_of(cache.make_key(key)) for key in load.some_keys(2)]
        for _ in range(2):
            for slot in slots:
                servers.move_slot(slot, elsewhere(servers, slot))

    assert (load.wrong, load.failures) == ([], [])
    assert cache.topology.redirects["moved"] >= 2
    assert load.slowest < 1


@pytest.mark.few(1)
async def test_a_slot_that_nobody_holds(fresh, servers):
    """Calls about it fail at once, and are no reason to learn the map again and again."""
    cache = fresh(SOCKET_TIMEOUT=2 + next(_numbers) / 10_000)
    await cache.get_many(map(str, range(20)))
    with unheld(servers, slot_of(cache.make_key("a"))):
        before, slowest, calls, began = counts(cache)["learnt"], 0.0, 0, time.monotonic()
        while (now := time.monotonic()) < began + 1:
            with pytest.raises((ClusterDownError, ServerGone), match="slot"):
                await cache.get("a")
            slowest, calls = max(slowest, time.monotonic() - now), calls + 1
        took = time.monotonic() - began

        assert slowest < 0.5
        assert calls > 5
        assert counts(cache)["learnt"] - before <= 2 + took / MOMENT
    assert await cache.get("a") is None


# --- nodes that come and go -----------------------------------------------------------------------


def test_a_failover_under_load(whole, servers):
    """A replica takes over by command, and nobody sees an error or a wrong value."""
    with Load(whole()) as load:
        time.sleep(0.2)
        servers.failover(servers.primaries[0])
        time.sleep(0.2)
    servers.settle()

    assert (load.wrong, load.failures) == ([], [])


def test_a_primary_dies_under_load(whole, servers):
    """Errors come at once and only while no primary is there; a moment after there is one, all is well."""
    victim = servers.primaries[1]
    heir = servers.replica(victim)
    with Load(whole(), loses=RECENT) as load:
        time.sleep(0.2)
        died = time.monotonic()
        victim.kill()
        wait_for(lambda: role(heir)[0] == b"master", "the replica is primary")
        promoted = time.monotonic()
        time.sleep(1.5)
    victim.restart()
    servers.settle()

    assert load.wrong == []
    assert load.failures
    assert all(isinstance(error, (ServerGone, ClusterDownError)) for _, error in load.failures)
    assert all(died <= when < promoted + 1 for when, _ in load.failures)
    assert load.slowest < 1.5


def test_a_primary_stops_under_load(whole, servers):
    """Nobody waits longer for a node that hangs than for one server; then its replica is asked."""
    cache = whole(SOCKET_TIMEOUT=0.501 + next(_numbers) / 10000)
    victim = servers.primaries[2]
    with Load(cache, loses=RECENT) as load:
        time.sleep(0.2)
        stopped = time.monotonic()
        victim.pause()
        time.sleep(4)
        victim.resume()
        time.sleep(0.5)
    servers.settle()

    assert load.wrong == []
    assert all(when < stopped + 4 for when, _ in load.failures)
    assert load.slowest < 1.1


@pytest.mark.few(1)
async def test_a_node_joins_and_leaves(fresh, servers):
    """A node that got slots is used, and its connections go when it has left."""
    cache = fresh()
    slot = slot_of(cache.make_key("{a}"))
    await cache.set("{a}", 1)
    node = servers.add_node()
    servers.move_slot(slot, node)
    time.sleep(0.2)

    assert await cache.keys("*") == ["{a}"]  # before anything has said that there is another node
    assert await cache.get("{a}") == 1
    there = next(each.remote for each in cache.whole.topology.servers if each.place[1] == node.port)
    assert there.idle or there.lines.values()
    servers.remove_node(node)
    time.sleep(0.2)
    assert await cache.get("{a}") == 1
    assert await cache.set_many({str(number): number for number in range(20)}) == []
    assert node.port not in [each.place[1] for each in cache.whole.topology.servers]
    if cache.face == AWAITING:
        await asyncio.sleep(0.01)
    assert not there.idle
    assert not there.lines.values()


@pytest.mark.few(1)
async def test_one_node_is_away(fresh, servers):
    """What the others hold is there nevertheless: with IGNORE_EXCEPTIONS among many, and in a pipeline."""
    cache = fresh(IGNORE_EXCEPTIONS=True)
    data = {str(number): number for number in range(30)}
    await cache.set_many(data)
    victim = servers.primaries[0]
    there = {key for key in data if servers.owner(slot_of(cache.make_key(key))) is not victim}
    victim.kill()
    try:
        assert await cache.get_many(data) == {key: data[key] for key in there}
        assert await cache.set_many(data) == [key for key in data if key not in there]
        pipe = Face(cache.whole.client, cache.face).pipeline()
        for key in data:
            pipe.get(key)
        results = await pipe.execute(raise_on_error=False)
        assert {key for key, found in zip(data, results, strict=True) if found == data[key]} == there
        assert await cache.delete_many(data) is None  # some of it was not counted
        assert await cache.get_many(data) == {}
    finally:
        victim.restart()
        servers.settle()


async def test_what_is_ignored(fresh):
    """With IGNORE_EXCEPTIONS a cluster that is not there answers as a missing key would."""
    (port,) = free_ports(1)
    cache = fresh(f"redis+cluster://127.0.0.1:{port}", IGNORE_EXCEPTIONS=True)

    assert await cache.get("a", "default") == "default"
    assert await cache.get_many("ab") == {}
    assert await cache.set("a", 1) is False
    assert await cache.delete_many("ab") is None


# --- what cannot be -------------------------------------------------------------------------------


async def test_what_has_to_be_together(fresh):
    """What one command needs must be of one slot, even on one node; the error says how."""
    cache = fresh()
    await cache.sadd("a", 1)
    await cache.hset("hash", "field", 1)
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).set("b", 2)

    for refused in (
        lambda: cache.sunion("a", "b"),
        lambda: cache.smove("a", "b", 1),
        lambda: cache.sdiffstore("c", "a", "b"),
        lambda: cache.incr_version("hash"),
        pipe.execute,
    ):
        with pytest.raises(CrossServer, match="common part in braces"):
            await refused()
    assert await cache.hget("hash", "field") == 1


async def test_an_entry_changes_its_slot(fresh):
    """A version is part of the name, so incr_version may move a value, with its timeout."""
    cache = fresh()
    await cache.set("a", {"x": 1}, 100)

    assert await cache.incr_version("a") == 2
    assert await cache.get("a") is None
    assert await cache.get("a", version=2) == {"x": 1}
    assert await cache.ttl("a", version=2) in (99, 100)


async def test_a_cluster_that_is_none(fresh, valkey):
    """A cluster URL to a single server says what to write instead, and is not ignored for long."""
    for cache in (
        fresh(valkey.tcp_url().replace("redis://", "redis+cluster://")),
        fresh(valkey.tcp_url(), ClusterClient),
    ):
        with pytest.raises(UnsupportedServer, match="no node of a cluster.*Write redis://"):
            await cache.get("a")


async def test_a_cluster_that_is_a_sentinel(fresh, watched_servers):
    """A cluster URL to a Sentinel says where, and what to write instead."""
    host, port = watched_servers.addresses[0]

    with pytest.raises(UnsupportedServer, match=rf"{host}:{port}/0: .*Write .*redis\+sentinel://"):
        await fresh(f"redis+cluster://{host}:{port}").get("a")


async def test_a_node_that_is_no_single_server(fresh, servers):
    """A plain URL to a node says what to write instead, at the first entry of another node."""
    cache = fresh(servers.primaries[0].tcp_url())

    with pytest.raises(MovedError, match=r"node of a cluster. Write redis\+cluster://"):
        for number in range(50):
            await cache.get(str(number))
    names = [str(number) for number in range(50)]
    for operation in (cache.get_many, cache.delete_many):
        with pytest.raises(ClusterCrossSlotError, match=r"node of a cluster. Write redis\+cluster://"):
            await operation(names)
    with pytest.raises(MovedError, match="node of a cluster"):
        await cache.set_many({str(number): number for number in range(50)})
    with pytest.raises(NoSuchDatabase):
        await fresh(servers.primaries[0].tcp_url(3)).get("a")


@pytest.mark.parametrize(
    ("location", "kind", "options", "message"),
    [
        ("redis+cluster://h:1/1", Cache, {}, "only database 0"),
        ("redis+cluster://h:1?db=2", Cache, {}, "only database 0"),
        ("redis+cluster://h:1", Cache, {"db": 2}, "only database 0"),
        ("redis://h:1/1", ClusterClient, {}, "only database 0"),
        ("redis+cluster://h:1,redis://i:2", Cache, {}, "either all"),
        ("redis+cluster://h:a", Cache, {}, "the port must be a number up to 65535"),
        ("memory://", ClusterClient, {}, "redis.cluster://"),
        ("unix:///tmp/s", ClusterClient, {}, "redis.cluster://"),
        ("redis+cluster://h:1", ShardClient, {}, "DefaultClient"),
        ("redis+cluster://s", SentinelClient, {"SENTINELS": [("h", 1)]}, "DefaultClient"),
    ],
)
def test_settings_that_contradict_themselves(location, kind, options, message):
    """What no cluster can be is refused before anything is sent."""
    with pytest.raises(SettingsError, match=message):
        kind(location, {"OPTIONS": options})


def test_urls():
    """One URL may name several nodes; what stands before and after the hosts is theirs alike."""
    cache = Cache("rediss+cluster://user:p,w@h1:7000,h2,[::1]:7002/0?ssl_cert_reqs=none")

    assert [start.address for start in cache.topology.starts] == ["h1:7000/0", "h2:6379/0", "[::1]:7002/0"]
    pools = [start.remote.pool.connection_kwargs for start in cache.topology.starts]
    assert {(pool["username"], pool["password"], pool["ssl_cert_reqs"]) for pool in pools} == {("user", "p,w", "none")}
    assert "p,w" not in repr(cache)
    cache = Cache("valkeys+cluster://h1,h2?ssl_ca_certs=/etc/a@b,c/ca.pem")
    assert [start.address for start in cache.topology.starts] == ["h1:6379/0", "h2:6379/0"]
    assert cache.topology.starts[1].remote.pool.connection_kwargs["ssl_ca_certs"] == "/etc/a@b,c/ca.pem"


async def test_clients(fresh, servers):
    """ClusterClient takes plain URLs; other clients take a cluster's; raw clients are of the cluster."""
    cache = fresh([node.tcp_url() for node in servers.nodes], ClusterClient)
    herd = fresh(kind=HerdClient)

    assert await cache.set_many({"a": 1, "b": 2}) == []
    assert await herd.set("a", 1) is True
    assert await herd.get("a") == 1
    assert cache.get_client().get(cache.make_key("a")) == b"1"
    with pytest.raises(TypeError, match="RedisCluster"):
        await cache.get("a", client=cache.get_client())
    cache.get_client().close()


def test_an_error_keeps_its_class():
    """A redirection that nobody follows is still redis-py's class, and says what to do."""
    error = refusal("MOVED 866 10.0.0.1:7001")

    assert isinstance(error, MovedError)
    assert not isinstance(error, ConnectionError)
    assert str(error).startswith("MOVED 866 10.0.0.1:7001: the server is a node")
    assert isinstance(refusal("ASK 866 10.0.0.1:7001"), AskError)
