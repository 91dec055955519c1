"""Copies of what several primaries hold, which change places."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import pytest
import redis
from tests.coherence.mutants import AbsentCopies
from tests.faces import Face, settled
from tests.near.conftest import copied, copy, listeners, one_face
from tests.slots import unheld
from tests.waiting import until

from fleetcache.near import audit
from fleetcache.near.near import Near
from fleetcache.near.store import ENDED
from fleetcache.near.tracking import CANARY
from fleetcache.testing import ServerCluster, cluster
from fleetcache.testing.clusters import run
from fleetcache.topology.cluster import MOMENT, slot_of

NEAR = {"T_LIVE": 1, "T_TOPO": 60, "CANARY": 60}
KEYS = [f"k{number}" for number in range(30)]

AWAY = (redis.ConnectionError, redis.exceptions.ClusterDownError)

_numbers = count(1)

pytestmark = [pytest.mark.timeout(60), pytest.mark.flaky(reruns=2)]


@pytest.fixture(scope="module")
def servers() -> Iterator[ServerCluster]:
    """Three primaries with a replica each, to which things are done."""
    with cluster() as servers:
        yield servers


@pytest.fixture
def make(copies: Any, servers: ServerCluster) -> Any:
    return lambda near=NEAR, **options: copies(servers.url(), near, live=False, **options)


@pytest.fixture
def whole(make: Any) -> Any:
    return make()


@pytest.fixture
def raw(servers: ServerCluster) -> Iterator[redis.RedisCluster]:
    """A client of another program."""
    with redis.RedisCluster(host="127.0.0.1", port=servers.primaries[0].port) as client:
        yield client


async def known(cache: Any, keys: Any = KEYS) -> None:
    """Let there be a copy of each of *keys*."""
    await cache.set_many({key: number for number, key in enumerate(keys)})
    await cache.get_many(keys)
    until(lambda: {each.tracking.state for each in listeners(cache.near)} == {"live"})
    for key in keys:
        await copied(cache, key)


def slot(cache: Any, key: str) -> int:
    return slot_of(str(cache.make_key(key)))


async def test_every_primary_announces(whole, raw):
    """Copies come from all, are used, and end when another program writes."""
    await known(whole)
    assert len(listeners(whole.near)) == 3
    hits = whole.near.stats()["hits"]
    assert [await whole.get(key) for key in KEYS] == list(range(30))
    assert await whole.get_many(KEYS) == dict(zip(KEYS, range(30), strict=True))
    assert whole.near.stats()["hits"] == hits + 60

    for number, key in enumerate(KEYS):
        raw.set(whole.make_key(key), number + 100)
    await whole.fence()

    assert await whole.get_many(KEYS) == {key: number + 100 for number, key in enumerate(KEYS)}


async def test_the_first_read_learns_the_map(make):
    """Before the map is known nobody can be listened to."""
    cache = make()
    assert cache.near.stats()["state"] == "asleep"
    assert await cache.get("key") is None
    assert await cache.get_many(["key", "other"]) == {}
    await known(cache, ["key"])


async def test_names_of_its_own(whole, servers):
    """Each primary is asked about, and given as canaries, names that it holds."""
    await known(whole)
    for each in listeners(whole.near):
        (held,) = {whole.near.home(each.tracking.own_name()) for _ in range(20)}
        assert held is each.server
        assert until(lambda each=each: each.tracking.stage.proven)
    assert whole.near.stats()["canaries"] >= 3
    assert whole.info()["redirects"].get("moved", 0) == 0


async def test_one_slot(copies, servers):
    """What is in one slot is of one primary, and only that is listened to."""
    cache = copies(servers.url(), NEAR, prefix="{tag}", live=False)
    await known(cache)
    (listener,) = listeners(cache.near)
    until(lambda: listener.tracking.stage.proven)


async def test_a_primary_is_silent(make, servers):
    """Of it there are no hits, and of the others there are."""
    whole = make({**NEAR, "T_LIVE": 0.3})
    await known(whole)
    stopped = servers.primaries[0]
    mine = [key for key in KEYS if servers.owner(slot(whole, key)) is stopped]
    others = [key for key in KEYS if key not in mine]
    listener = whole.near.reads_of(str(whole.make_key(mine[0]))).listener
    stopped.pause()
    try:
        until(lambda: listener.tracking.state == "suspect")
        assert whole.near.copy(str(whole.make_key(mine[0]))) is None
        hits = whole.near.stats()["hits"]
        assert await whole.get_many(others) == {key: KEYS.index(key) for key in others}
        assert whole.near.stats()["hits"] == hits + len(others)
    finally:
        stopped.resume()
    servers.settle()
    await copied(whole, mine[0])


@contextmanager
def away(cache: Face, servers: ServerCluster) -> Iterator[tuple[list[str], list[str]]]:
    """Let a primary not answer within the block, which is given its keys and those of the others."""
    stopped = servers.primaries[0]
    mine = [key for key in KEYS if servers.owner(slot(cache, key)) is stopped]
    # The others would hold an election, and refuse writes until it is over.
    before = node_timeouts(servers, [60_000] * len(servers.nodes))
    stopped.pause()
    try:
        for _ in range(3):
            with suppress(redis.ConnectionError, redis.TimeoutError):
                cache.whole.set(mine[0], KEYS.index(mine[0]))
        cache.whole.fence()  # which ends the copies
        yield mine, [key for key in KEYS if key not in mine]
    finally:
        stopped.resume()
        node_timeouts(servers, before)
        servers.settle()


def node_timeouts(servers: ServerCluster, wanted: list[int]) -> list[int]:
    """Set after how many milliseconds each node takes others for failed; return what was set before."""
    before = []
    for node, milliseconds in zip(servers.nodes, wanted, strict=True):
        with redis.Redis(port=node.port) as raw:
            before.append(int(raw.config_get("cluster-node-timeout")["cluster-node-timeout"]))
            raw.config_set("cluster-node-timeout", milliseconds)
    return before


def reads(nodes: Any) -> int:
    """Return how many reads *nodes* have answered."""
    found = [run(node, "INFO", "commandstats") for node in nodes]
    return sum(
        stats[f"cmdstat_{name}"]["calls"] for stats in found for name in ("get", "mget") if f"cmdstat_{name}" in stats
    )


async def test_a_replica_answers_for_a_primary_that_is_away(make, servers):
    """With READ_FROM, reads are answered although nobody can vouch for copies of them."""
    cache = make(READ_FROM="replica", SOCKET_TIMEOUT=0.5 + next(_numbers) / 10_000, BREAKER_COOLDOWN=20)
    await known(cache)
    with away(cache, servers) as (mine, _):
        assert [await cache.get(key) for key in mine] == [KEYS.index(key) for key in mine]
        assert await cache.get_many(mine) == {key: KEYS.index(key) for key in mine}


async def test_only_for_a_primary_that_is_away(make, servers):
    """Replicas are asked for its names alone: of those that are well, own writes are seen."""
    cache = make(READ_FROM="replica", SOCKET_TIMEOUT=0.5 + next(_numbers) / 10_000, BREAKER_COOLDOWN=20)
    await known(cache)
    others = [servers.replica(primary) for primary in servers.primaries[1:]]
    with away(cache, servers) as (mine, well):
        before = reads(others)
        for key in well:
            await cache.set(key, "new")
            assert await cache.get_many([key, mine[0]]) == {key: "new", mine[0]: KEYS.index(mine[0])}
        assert reads(others) == before


async def test_what_is_missing(whole):
    """That an entry is missing is not remembered: while its slot is on its way, it may be made where nobody listens."""
    await known(whole, ["there"])
    await whole.fence()
    assert await whole.get("missing") is None
    assert copy(whole, str(whole.make_key("missing"))) is None


async def test_a_slot_moves(whole, servers):
    """MOVED tells, and whatever was copied from its old holder is given up."""
    await known(whole)
    key = KEYS[0]
    old = servers.owner(slot(whole, key))
    neighbour = next(each for each in KEYS[1:] if servers.owner(slot(whole, each)) is old)
    await copied(whole, neighbour)
    before = copy(whole, str(whole.make_key(neighbour)))
    servers.move_slot(slot(whole, key), next(node for node in servers.primaries if node is not old))

    assert await whole.set(key, "new")

    assert before.epoch.until == ENDED
    assert whole.near.stats()["epochs"]["moved"] >= 1
    assert await copied(whole, key) == "new"


async def test_a_slot_is_on_its_way(whole, servers):
    """What another than the asked one answers leaves no copy."""
    await known(whole)
    key = KEYS[1]
    old = servers.owner(slot(whole, key))
    with servers.moving(slot(whole, key), next(node for node in servers.primaries if node is not old)) as old:
        await whole.delete(key)
        await whole.set(key, 1)
        for _ in range(3):
            assert await whole.get(key) == 1
            assert await whole.get_many([key]) == {key: 1}
            assert copy(whole, str(whole.make_key(key))) is None
    assert await whole.get(key) == 1
    assert whole.info()["redirects"]["ask"] >= 3


@one_face
async def test_the_audit_of_a_slot_on_its_way(make, servers, raw, monkeypatch):
    """The node that has the entry by now is asked: a copy that outlives its value there is a violation."""
    monkeypatch.setattr(Near, "reads_class", AbsentCopies)
    monkeypatch.setattr(audit, "PAUSE", 0.01)
    cache = make({**NEAR, "T_LIVE": 0.3, "T_TOPO": 0.3}, STATS={"AUDIT": 1})
    key = "made elsewhere"
    await copied(cache, key)
    old = servers.owner(slot(cache, key))

    with servers.moving(slot(cache, key), next(node for node in servers.primaries if node is not old)):
        raw.set(cache.make_key(key), cache.codec.encode("new"))
        until(lambda: cache.whole.get(key) == "new" and cache.near.audit()["violations"])

    (event,) = cache.near.audit()["events"]
    assert event["promise"] == "bound"
    assert cache.near.audit()["unanswered"] == 0


@one_face
async def test_a_move_that_nobody_tells_of(make, servers, raw):
    """Every T_TOPO it is asked who holds what, although all goes well."""
    cache = make({**NEAR, "T_TOPO": 0.3})
    await known(cache)
    key = KEYS[2]
    home, moved = cache.near.home(str(cache.make_key(key))), cache.info()["redirects"].get("moved", 0)
    old = servers.owner(slot(cache, key))
    raw.delete(cache.make_key(key))
    servers.move_slot(slot(cache, key), next(node for node in servers.primaries if node is not old))

    until(lambda: cache.near.home(str(cache.make_key(key))) is not home)
    until(lambda: cache.near.stats()["epochs"].get("moved"))  # its thread uses the map before it ends the copies

    assert cache.info()["redirects"].get("moved", 0) == moved


@one_face
async def test_a_promotion(make, servers):
    """A primary that becomes a replica does not take our questions any more, though it answers."""
    cache = make({**NEAR, "T_LIVE": 0.6})
    await known(cache)
    old = servers.primaries[1]
    mine = next(key for key in KEYS if servers.owner(slot(cache, key)) is old)
    listener = cache.near.reads_of(str(cache.make_key(mine))).listener
    await copied(cache, mine)
    before = copy(cache, str(cache.make_key(mine)))
    began = time.monotonic()
    servers.failover(old)

    until(lambda: not listener.wanted and listener.thread is None)

    assert time.monotonic() - began < 5
    assert before.epoch.until == ENDED
    assert listener.server not in cache.near.listeners
    servers.settle()
    await copied(cache, mine)
    assert len(listeners(cache.near)) <= 3


@pytest.mark.few(1)
async def test_a_slot_that_nobody_holds(make, servers):
    """Who asks about it ends no copies of what others hold."""
    cache = make()
    await known(cache)
    held = {slot(cache, key) for key in KEYS}
    key = next(f"lost{number}" for number in range(99) if slot(cache, f"lost{number}") not in held)
    with unheld(servers, slot(cache, key)):
        time.sleep(MOMENT)  # the map may be learnt again, and its holder was told to have lost it
        assert isinstance(await settled(cache.get(key)), AWAY)
        for each in KEYS:
            await copied(cache, each)
        moved = cache.near.stats()["epochs"].get("moved", 0)

        for _ in range(5):
            assert isinstance(await settled(cache.get(key)), AWAY)
            assert isinstance(await settled(cache.get_many([key])), AWAY)
            time.sleep(MOMENT)

        assert await cache.get_many(KEYS) == {key: number for number, key in enumerate(KEYS)}
        assert cache.near.stats()["epochs"].get("moved", 0) == moved


@one_face
async def test_a_change_of_primaries_within_another(make):
    """What interrupts who adopts a map, and adopts one as well, does no harm."""
    cache = make()
    await known(cache)
    near, topology = cache.near, cache.near.topology
    kept, *gone = listeners(near)
    give_up = gone[0].give_up

    def interrupted(*args: Any) -> None:
        gone[0].give_up = give_up
        topology._tell([each.server for each in gone])
        give_up(*args)

    primaries = topology.primaries
    gone[0].give_up = interrupted
    topology.primaries = [kept.server]
    try:
        topology._tell([each.server for each in gone])

        assert listeners(near) == [kept]
        until(lambda: [each.thread for each in gone] == [None, None])
    finally:
        topology.primaries = primaries
    await known(cache)


@one_face
async def test_nobody_else_answers(copies):
    """Copies that nobody but their own primary vouches for are not used for longer than twice T_TOPO."""
    with cluster(replicas=0, proxied=True) as servers:
        cache = copies(servers.url(), {**NEAR, "T_TOPO": 0.5}, live=False, SOCKET_TIMEOUT=0.2)
        await known(cache)
        listener = cache.near.reads_of(str(cache.make_key(KEYS[0]))).listener
        mine = [key for key in KEYS if cache.near.reads_of(str(cache.make_key(key))).listener is listener]
        others = [node for node in servers.nodes if node.proxy and node.proxy.port != listener.server.place[1]]
        assert len(others) == 2
        for node in others:
            node.proxy.hold()
        try:
            until(lambda: "no other server" in listener.tracking.why)
            hits = cache.near.stats()["hits"]
            assert [await cache.get(key) for key in mine] == [KEYS.index(key) for key in mine]
            assert cache.near.stats()["hits"] == hits
        finally:
            for node in others:
                node.proxy.heal()
        until(lambda: listener.tracking.state == "live")
        await copied(cache, KEYS[0])


async def test_what_another_program_creates(whole, servers):
    """No canary and no question is left behind, whatever the primary."""
    await known(whole)
    until(lambda: not any(run(node, "KEYS", f"*{CANARY}*") for node in servers.primaries))
