"""Reads from replicas: which server is asked, which one if that cannot answer, and which commands never go there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any

import pytest
from redis.exceptions import ClusterDownError, ConnectionError, MasterDownError
from tests.faces import Face, settled
from tests.load import RECENT, Load
from tests.nearby import wait_until_live

import fleetcache.topology.cluster
from fleetcache import Cache
from fleetcache.client import SentinelClient, ShardClient
from fleetcache.errors import ServerGone, ServerTimeout, SettingsError
from fleetcache.exchange.runtime import AWAITING
from fleetcache.testing import FaultProxy, ServerCluster, WatchedServers, cluster, sentinels, valkey_server
from fleetcache.testing.clusters import role, run, wait_for
from fleetcache.testing.servers import EmbeddedServer
from fleetcache.topology import replicas
from fleetcache.topology.cluster import MOMENT, slot_of

pytestmark = [pytest.mark.flaky(reruns=2), pytest.mark.newest]

_numbers = count(1)

KEYS = [f"key{number}" for number in range(30)]


def know(primary: EmbeddedServer, others: list[EmbeddedServer]) -> None:
    """Wait until *others* know all that was written to *primary*."""
    offset = run(primary, "ROLE")[1]

    def follows(server: EmbeddedServer) -> bool:
        said = run(server, "ROLE")
        return bool(said[0] == b"slave" and said[-1] >= offset)

    # One that was the primary until a fail-over may take a while.
    wait_for(lambda: all(map(follows, others)), "the replicas know")


class Trio:
    """A primary, two replicas of it, and ways to them that may be bad: for readers, and for what they are told."""

    def __init__(self, stack: ExitStack) -> None:
        enter = stack.enter_context
        self.primary = enter(valkey_server(arguments=["--repl-diskless-sync-delay", "0"]))
        self.stream = enter(FaultProxy(("127.0.0.1", self.primary.port)))
        follow = ["--replicaof", "127.0.0.1", str(self.stream.port)]
        self.replicas = [enter(valkey_server(arguments=follow)) for _ in range(2)]
        self.servers = [self.primary, *self.replicas]
        self.ways = [enter(FaultProxy(server.socket)) for server in self.servers]
        self.settle()

    def settle(self) -> None:
        for proxy in (self.stream, *self.ways):
            proxy.heal()
        for replica in self.replicas:
            if not replica.runs:
                replica.restart()
            run(replica, "CONFIG", "SET", "replica-serve-stale-data", "yes")
        wait_for(lambda: {role(replica)[1] for replica in self.replicas} == {b"connected"}, "the replicas follow")

    def told(self) -> None:
        """Wait until the replicas know all that was written."""
        know(self.primary, self.replicas)

    def url(self) -> list[str]:
        return [way.url() for way in self.ways]

    def apart(self) -> None:
        """Let the replicas lose their primary, and say so."""
        for replica in self.replicas:
            run(replica, "CONFIG", "SET", "replica-serve-stale-data", "no")
        self.stream.hold()
        self.stream.reset()
        wait_for(lambda: b"connected" not in {role(replica)[1] for replica in self.replicas}, "they are apart")


@pytest.fixture(scope="module")
def trio_of_module() -> Iterator[Trio]:
    with ExitStack() as stack:
        yield Trio(stack)


@pytest.fixture
def trio(trio_of_module: Trio) -> Iterator[Trio]:
    trio_of_module.settle()
    yield trio_of_module
    trio_of_module.settle()


@pytest.fixture(scope="module")
def cluster_of_module() -> Iterator[ServerCluster]:
    with cluster() as servers:
        yield servers


@pytest.fixture
def servers(cluster_of_module: ServerCluster) -> ServerCluster:
    """Three primaries with a replica each, of which every node knows."""
    servers = cluster_of_module
    wait_for(
        lambda: all(len(held) == 4 for node in servers.running for held in run(node, "CLUSTER", "SLOTS")),
        "all know all replicas",
    )
    return servers


@pytest.fixture(scope="module")
def watched() -> Iterator[WatchedServers]:
    with sentinels() as watched:
        yield watched


@pytest.fixture
def whole() -> Any:
    """Make a cache that shares nothing with others."""

    def whole(url: Any, read_from: str | None = "replica", kind: Any = Cache, **options: Any) -> Any:
        number = next(_numbers)
        options = {"SOCKET_TIMEOUT": 1 + number / 10000, "READ_FROM": read_from, **options}
        return kind(url, {"KEY_PREFIX": f"r{number}", "OPTIONS": options})

    return whole


@pytest.fixture
def fresh(whole: Any, face: str) -> Any:
    return lambda *args, **options: Face(whole(*args, **options), face)


class Asked:
    """How often each of *servers* was asked since then: for values, and at all."""

    def __init__(self, servers: Any) -> None:
        self.servers = list(servers)
        self.before = self._counts()

    def _counts(self) -> list[Counter[str]]:
        counts = []
        for server in self.servers:
            found = run(server, "INFO", "commandstats")
            counts.append(Counter({name.removeprefix("cmdstat_"): found[name]["calls"] for name in found}))
        return counts

    def __call__(self, *names: str) -> list[int]:
        after = self._counts()
        return [sum(now[name] - old[name] for name in names) for old, now in zip(self.before, after, strict=True)]


# --- which server is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read_from", [None, "primary", "replica", "nearest"])
async def test_who_is_asked(fresh, trio, read_from):
    """Left out and "replica": both replicas and not the primary; "primary": it alone; "nearest": here all are."""
    cache = fresh(trio.url(), read_from)
    await cache.set_many(dict.fromkeys(KEYS, 1))
    await cache.hset("hash", "field", 1)
    trio.told()
    asked = Asked(trio.servers)

    for _ in range(3):
        for key in KEYS:
            assert await cache.get(key) == 1
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert await cache.hget("hash", "field") == 1

    primary, *others = asked("get", "mget", "hget")
    assert primary + sum(others) == 3 * (len(KEYS) + 2)
    if read_from == "primary":
        assert others == [0, 0]
    elif read_from != "nearest":
        assert primary == 0
        assert min(others) > 20


@pytest.mark.few(1)
async def test_the_nearest_is_asked(fresh, trio):
    """The server that answers first gets nearly all reads, and loses them when another becomes faster."""
    cache = fresh(trio.url(), "nearest")
    await cache.set("a", 1)
    trio.told()
    for fast in (1, 0):
        for place, way in enumerate(trio.ways):
            way.heal()
            if place != fast:
                way.delay(0.02)
        reader = cache.whole.topology.reader
        for _ in range(60 * replicas.TIMED):
            await cache.get("a")
            if reader.turn > replicas.FIRST * 3 and reader.preferred == [reader.servers[fast]]:
                break
        asked = Asked(trio.servers)

        for _ in range(100):
            assert await cache.get("a") == 1

        assert asked("get")[fast] >= 95


async def test_pipelines(fresh, trio):
    """One that only reads asks a replica, once; one that writes asks the primary alone."""
    cache = fresh(trio.url())
    await cache.set_many(dict.fromkeys(KEYS, 1))
    trio.told()
    trio.stream.hold()
    asked = Asked(trio.servers)
    for transaction in (False, True):
        pipe = cache.pipeline(transaction=transaction)
        for key in KEYS:
            pipe.get(key)
        assert await pipe.execute() == [1] * len(KEYS)
    assert asked("get")[0] == 0
    assert set(asked("get")) <= {0, len(KEYS), 2 * len(KEYS)}

    for transaction in (False, True):
        pipe = cache.pipeline(transaction=transaction)
        pipe.set("key1", 2).get("key1").incr("key1").get("key2")
        assert await pipe.execute() == [True, 2, 3, 1]
    assert sum(asked("get")[1:]) == 2 * len(KEYS)


async def behind(fresh, trio) -> Face:
    """Return a cache whose replicas have not been told of its last writes."""
    cache = fresh(trio.url())
    await cache.set_many({"old": 1, "gone": 1, "float": 1.5, "big": 2**70, "taken": 1})
    trio.told()
    trio.stream.hold()
    await cache.set_many({"old": 2, "new": 2})
    await cache.delete("gone")
    return cache


async def test_reads_of_replicas_that_are_behind(fresh, trio):
    """A read may be old; with ``fresh=True`` it is not."""
    cache = await behind(fresh, trio)

    assert await cache.get_many(["old", "new", "gone"]) == {"old": 1, "gone": 1}
    assert await cache.has_key("new") is False

    assert await cache.get("old", fresh=True) == 2
    assert await cache.get_many(["old", "new", "gone"], fresh=True) == {"old": 2, "new": 2}
    assert await cache.has_key("new", fresh=True) is True


async def test_values_that_depend_on_what_was_read(fresh, trio):
    """Whatever stores a value only if there is none asks the primary, while its replicas are behind."""
    cache = await behind(fresh, trio)

    assert await cache.get_or_set("new", 3) == 2
    assert await cache.get_or_set("made", lambda: 4) == 4
    assert await cache.get_or_set("made", lambda: 5) == 4
    assert await cache.add("new", 5) is False
    assert await cache.set("new", 5, timeout=0, nx=True) is False
    assert await cache.touch("made", 100) is True


async def test_sums_that_depend_on_what_was_read(fresh, trio):
    """Sums that Python computes begin with the value of the primary, while its replicas are behind."""
    cache = await behind(fresh, trio)

    for total in (2.5, 3.5):
        assert await cache.incr("float") == total
    assert await cache.incr("float", 1, default=0) == 4.5
    for total in (1, 2):
        assert await cache.incr("big", total) == 2**70 + total * (total + 1) // 2
    for total in (1, 2):
        assert await cache.incr("number", default=0) == total


async def test_names_that_depend_on_what_was_read(fresh, trio):
    """Moves and deletions by pattern see the names that the primary has, while its replicas are behind."""
    cache = await behind(fresh, trio)

    assert await cache.incr_version("new") == 2
    with pytest.raises(ValueError, match="not found"):
        await cache.incr_version("gone")
    assert sorted(await cache.keys("*")) == ["big", "float", "old", "taken"]
    assert await cache.set("two", 1) is True
    assert await cache.delete_pattern("t*") == 2
    assert sorted(await cache.keys("*")) == ["big", "float", "old"]


async def test_locks_that_depend_on_what_was_read(fresh, trio):
    """A lock is asked for on the primary, while its replicas are behind."""
    cache = await behind(fresh, trio)
    lock, other = cache.lock("lock", timeout=10), cache.lock("lock", timeout=10, blocking=False)

    assert await lock.acquire() is True
    assert await other.acquire() is False
    assert (await lock.locked(), await lock.owned(), await other.owned()) == (True, True, False)
    await lock.extend(10)
    await lock.release()
    assert await lock.locked() is False


# --- servers that cannot answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("read_from", ["replica", "nearest"])
async def test_a_replica_dies(fresh, trio, read_from):
    """Nobody notices, of many or of one; and when it is back, it is asked again."""
    cache = fresh(trio.url(), read_from)
    await cache.set_many(dict.fromkeys(KEYS, 1))
    trio.told()
    await cache.get_many(KEYS)
    victim, other = trio.replicas
    victim.kill()

    for key in KEYS:
        assert await cache.get(key) == 1
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        pipe = cache.pipeline()
        pipe.get(key).has_key(key)
        assert await pipe.execute() == [1, True]
    assert len(cache.whole.topology.reader.resting) == 1

    victim.restart()
    asked = Asked([victim])
    deadline = time.monotonic() + 10
    while not asked("get")[0] and time.monotonic() < deadline:
        await settled(cache.get("key1"))
    assert asked("get")[0]
    other.kill()  # what is left of the replicas is the one that is back
    trio.settle()


async def test_a_replica_hangs(fresh, trio):
    """A caller that asked it waits for SOCKET_TIMEOUT; after that one caller a second does."""
    cache = fresh(trio.url(), SOCKET_TIMEOUT=0.3)
    await cache.set("a", 1)
    trio.told()
    trio.ways[1].hold()
    late, began = 0, time.monotonic()

    for _ in range(200):
        found = await settled(cache.get("a"))
        late += isinstance(found, ServerTimeout)
        assert found == 1 or isinstance(found, ServerTimeout)

    assert 1 <= late <= 2 + (time.monotonic() - began)


@pytest.mark.few(1)
async def test_replicas_that_lost_their_primary(fresh, trio):
    """Replicas that would rather say MASTERDOWN than old news are left alone, and the primary answers."""
    cache = fresh(trio.url())
    await cache.set_many(dict.fromkeys(KEYS, 1))
    trio.told()
    trio.apart()
    asked = Asked(trio.servers)

    for key in KEYS:
        assert await cache.get(key) == 1
    assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    transaction = cache.pipeline(transaction=True)
    transaction.get("key1").get("key2")
    assert await transaction.execute() == [1, 1]
    assert asked("get")[0] >= len(KEYS)

    trio.ways[0].reset()
    trio.ways[0].blackhole()
    trio.primary.kill()
    error = await settled(cache.get("key1"))
    assert isinstance(error, (ServerGone, ServerTimeout, MasterDownError))
    trio.primary.restart()


@pytest.mark.few(1)
async def test_all_replicas_die(fresh, trio, pass_time):
    """The primary answers; of "primary" nobody else does."""
    cache, strict = fresh(trio.url()), fresh(trio.url(), "primary")
    await cache.set("a", 1)
    await strict.set("a", 1)
    trio.told()
    for replica in trio.replicas:
        replica.kill()
    assert await cache.get("a") == 1
    trio.settle()

    trio.primary.kill()
    try:
        pass_time(replicas.REST)
        assert await cache.get("a") == 1
        assert await cache.get_many(["a"]) == {"a": 1}
        assert isinstance(await settled(strict.get("a")), ServerGone)
    finally:
        trio.primary.restart()


@pytest.mark.few(1)
async def test_writes_stay_with_the_primary(fresh, trio):
    """No write goes to a replica, even if that would take it, nor anything else that is not a read."""
    cache = fresh(trio.url())
    for replica in trio.replicas:
        run(replica, "CONFIG", "SET", "replica-read-only", "no")
    trio.primary.kill()
    try:
        for write in (
            cache.set("a", 1),
            cache.set_many({"a": 1}),
            cache.incr("a", default=1),
            cache.get_or_set("a", 1),
            cache.lock("a").acquire(),
            cache.get("a", fresh=True),
            cache.keys("*"),
        ):
            assert isinstance(await settled(write), ServerGone)
        assert [run(replica, "DBSIZE") for replica in trio.replicas] == [0, 0]
    finally:
        trio.primary.restart()
        for replica in trio.replicas:
            run(replica, "CONFIG", "SET", "replica-read-only", "yes")


@pytest.mark.few(1)
async def test_near(fresh, trio):
    """Copies come from the primary, whatever READ_FROM says; while it is away replicas answer and nothing is kept."""
    cache = fresh([server.tcp_url() for server in trio.servers], NEAR={"T_LIVE": 0.5}, BREAKER_COOLDOWN=0.2)
    near = cache.whole.near
    wait_until_live(near)
    await cache.set_many(dict.fromkeys(KEYS, 1))
    trio.told()
    asked = Asked(trio.servers)
    for key in KEYS:
        await cache.get(key)
    await cache.get_many(KEYS)
    await cache.has_key("none")
    assert asked("get", "mget", "exists")[1:] == [0, 0]
    assert asked("get", "mget", "exists")[0]

    trio.primary.kill()
    try:
        wait_for(lambda: near.state == "dead", "the near cache knows")
        copies = len(near.copies)
        for key in KEYS:
            assert await cache.get(key) == 1
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert len(near.copies) <= copies
        assert all(near.copy(cache.make_key(key)) is None for key in KEYS)
    finally:
        trio.primary.restart()
        near.close()


# --- clusters -------------------------------------------------------------------------------------


def sides(servers: ServerCluster) -> tuple[list[EmbeddedServer], list[EmbeddedServer]]:
    primaries = servers.primaries
    return primaries, [servers.replica(primary) for primary in primaries]


def told(servers: ServerCluster) -> None:
    """Wait until the replicas of a cluster know all that was written."""
    for primary, replica in zip(*sides(servers), strict=True):
        know(primary, [replica])


@pytest.mark.parametrize("read_from", [None, "primary", "replica", "nearest"])
async def test_a_cluster(fresh, servers, read_from):
    """Each slot's replicas answer for it, in one exchange each; without the setting primaries do."""
    cache = fresh(servers.url(), read_from)
    assert await cache.set_many(dict.fromkeys(KEYS, 1)) == []
    told(servers)
    primaries, others = sides(servers)
    asked = Asked([*primaries, *others])

    for key in KEYS:
        assert await cache.get(key) == 1
    assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    pipe = cache.pipeline()
    for key in KEYS:
        pipe.get(key)
    assert await pipe.execute() == [1] * len(KEYS)
    transaction = cache.pipeline(transaction=True)
    transaction.get("{a}1").get("{a}2")
    assert await transaction.execute() == [None, None]

    counts = asked("get", "mget")
    assert sum(counts) == 3 * len(KEYS) + 2
    if read_from in {None, "primary"}:
        assert sum(counts[3:]) == 0
    elif read_from == "replica":
        assert sum(counts[:3]) == 0
        assert min(counts[3:]) > 5
    assert not cache.whole.topology.redirects["moved"]


async def test_writes_in_a_cluster(fresh, servers):
    """Pipelines that write ask primaries; what is moved from slot to slot is read from one."""
    cache = fresh(servers.url())
    pipe = cache.pipeline()
    pipe.set("a", 1).get("a").set("b", 2).get("b").get_many("ab")
    asked = Asked(sides(servers)[1])

    assert await pipe.execute() == [True, 1, True, 2, {"a": 1, "b": 2}]
    assert await cache.incr_version("a") == 2
    assert await cache.get_or_set("c", 1) == 1
    lock = cache.lock("lock", timeout=10)
    assert await lock.acquire() is True
    assert await lock.owned() is True
    await lock.release()
    assert sum(asked("get")) == 1  # get_or_set's first look
    assert cache.get_client(write=False).get(cache.make_key("b")) == b"2"
    cache.get_client().close()


async def test_near_in_a_cluster(fresh, servers):
    """Copies come from primaries there too."""
    cache = fresh(servers.url(), NEAR=True)
    await cache.set_many(dict.fromkeys(KEYS, 1))
    told(servers)
    asked = Asked(sides(servers)[1])

    for key in KEYS:
        assert await cache.get(key) == 1
    assert await cache.get_many(KEYS, fresh=True) == dict.fromkeys(KEYS, 1)
    assert await cache.has_key("none") is False
    assert asked("get", "mget", "exists") == [0, 0, 0]
    cache.whole.near.close()


async def test_a_slot_moves_away_from_a_replica(fresh, servers, pass_time):
    """A replica says MOVED as its primary does: the map is corrected, and another replica is asked from then on."""
    cache = fresh(servers.url())
    await cache.set_many({"{a}1": 1, "{a}2": 2})
    told(servers)
    assert await cache.get("{a}1") == 1
    slot = slot_of(cache.make_key("{a}"))
    to = next(node for node in servers.primaries if node is not servers.owner(slot))

    with servers.moving(slot, to) as old:
        run(old, "MIGRATE", "127.0.0.1", to.port, cache.make_key("{a}1"), 0, 5000)
        know(old, [servers.replica(old)])
        assert await cache.get_many(["{a}1", "{a}2"]) == {"{a}1": 1, "{a}2": 2}
        assert cache.whole.topology.redirects["ask"]
    servers.settle()
    told(servers)
    assert await cache.get_many(["{a}1", "{a}2"]) == {"{a}1": 1, "{a}2": 2}
    assert cache.whole.topology.redirects["moved"]
    pass_time(MOMENT)
    await cache.get("{a}1")
    before, asked = cache.whole.topology.redirects["moved"], Asked([servers.replica(to)])

    assert await cache.get("{a}1") == 1
    assert cache.whole.topology.redirects["moved"] == before
    assert asked("get") == [1]


@pytest.mark.few(1)
async def test_a_replica_of_a_cluster_dies(fresh, servers, monkeypatch, pass_time):
    """Its primary answers, and nobody notices; when it is back, it is asked again."""
    cache = fresh(servers.url())
    await cache.set_many(dict.fromkeys(KEYS, 1))
    told(servers)
    assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    victim = servers.replica(servers.primaries[0])
    victim.kill()
    try:
        for key in KEYS:
            assert await cache.get(key) == 1
            assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert cache.whole.topology.redirects["away"]
        wait_for(
            lambda: any(len(held) == 3 for node in servers.running for held in run(node, "CLUSTER", "SLOTS")),
            "it is given up",
        )
        pass_time(MOMENT)
        await cache.whole.topology.refresh(AWAITING)
    finally:
        victim.restart()
        servers.settle()
    monkeypatch.setattr(fleetcache.topology.cluster, "REVIEW", MOMENT)
    asked, deadline = Asked([victim]), time.monotonic() + 20
    while asked("get", "mget") == [0]:
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert time.monotonic() < deadline


async def test_nobody_is_left_of_a_shard(whole, servers):
    """Callers hear what is wrong, or with IGNORE_EXCEPTIONS nothing, also while the cluster is down for it."""
    strict, lax = whole(servers.url()), whole(servers.url(), IGNORE_EXCEPTIONS=True)
    primary = servers.primaries[0]
    replica = servers.replica(primary)
    keys = dict.fromkeys(KEYS, 1)
    for cache in (strict, lax):
        cache.set_many(keys)
        cache.get_many(KEYS)
    replica.kill()
    primary.kill()
    try:
        down, errors = time.monotonic() + 10, []
        while not any(isinstance(error, ClusterDownError) for error in errors) and time.monotonic() < down:
            found = [await settled(strict.aget(key)) for key in KEYS]
            for key in KEYS:
                with suppress(ClusterDownError, ConnectionError):
                    found.append(strict.get(key))
            errors += [error for error in found if error != 1]
            assert {lax.get(key) for key in KEYS} | {await lax.aget(key) for key in KEYS} <= {None, 1}
            assert lax.get_many(KEYS).items() <= keys.items()

        assert errors
        assert [error for error in errors if not isinstance(error, (ConnectionError, ClusterDownError))] == []
        assert isinstance(await settled(strict.aget_many(KEYS)), (ConnectionError, ClusterDownError))
    finally:
        primary.restart()
        replica.restart()
        servers.settle()


@pytest.mark.few(1)
async def test_replicas_of_a_cluster_lose_their_primary(fresh, servers, pass_time):
    """A primary that is gone does not keep its replica from answering, and the heir is found."""
    cache = fresh(servers.url())
    await cache.set_many(dict.fromkeys(KEYS, 1))
    told(servers)
    assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    victim = servers.primaries[0]
    pass_time(MOMENT)  # the map may be learnt again
    victim.kill()
    try:
        servers.failover(victim)
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert await cache.set_many(dict.fromkeys(KEYS, 2)) == []
        assert await cache.get_many(KEYS, fresh=True) == dict.fromkeys(KEYS, 2)
    finally:
        victim.restart()
        servers.settle()


async def test_a_primary_becomes_a_replica(fresh, servers, pass_time):
    """What the primary has to be asked, it is not asked any more, though it would answer reads now."""
    cache = fresh(servers.url())
    await cache.set("a", 1)
    assert await cache.get("a", fresh=True) == 1
    told(servers)
    old = servers.owner(slot_of(cache.make_key("a")))
    heir = servers.failover(old)
    servers.settle()
    asked = Asked([old, heir])

    assert await cache.get("a", fresh=True) == 1
    assert asked("get") == [0, 1]
    pass_time(MOMENT)
    await cache.whole.topology.refresh(AWAITING)
    assert await cache.get("a") == 1
    assert asked("get") == [1, 1]


@pytest.mark.few(1)
@pytest.mark.parametrize("read_from", ["replica", "nearest"])
def test_a_failover_under_load(whole, servers, read_from):
    """A replica takes over by command, and nobody sees an error or a value that never was."""
    cache = whole(servers.url(), read_from)
    with Load(cache, loses=RECENT) as load:
        time.sleep(0.2)
        for primary in servers.primaries[:2]:
            servers.failover(primary)
            time.sleep(0.2)
    servers.settle()

    assert (load.wrong, load.failures) == ([], [])
    assert load.calls > 100


# --- Sentinels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_from", [None, "primary", "nearest"])
async def test_sentinels(fresh, watched, read_from):
    """Left out, a replica answers; READ_FROM says otherwise."""
    cache = fresh("redis://service/0", read_from, kind=SentinelClient, SENTINELS=watched.addresses)
    await cache.set("a", 1)
    others = [server for server in watched.servers if server is not watched.primary]
    know(watched.primary, others)
    asked = Asked([watched.primary, *others])

    for _ in range(20):
        assert await cache.get("a") == 1

    primary, *rest = asked("get")
    assert primary + sum(rest) == 20
    if read_from != "nearest":
        assert primary == (20 if read_from == "primary" else 0)


def test_sentinels_promote_a_replica_under_load(whole, watched):
    """Reads go on while a replica becomes primary; none gets a value that never was."""
    cache = whole("redis://service/0", kind=SentinelClient, SENTINELS=watched.addresses)
    reads: list[Any] = []
    with Load(cache, loses=RECENT) as load:
        time.sleep(0.2)
        watched.failover()
        watched.settle()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            reads.append(cache.get("none"))

    assert load.wrong == []
    assert set(reads) == {None}


# --- what cannot be -------------------------------------------------------------------------------


def test_settings():
    """A choice that does not exist is refused, and one that shards cannot make; None means left out."""
    with pytest.raises(
        SettingsError, match="READ_FROM cannot be 'slave': one of None, 'primary', 'replica', 'nearest'"
    ):
        Cache("redis://h", {"OPTIONS": {"READ_FROM": "slave"}})
    with pytest.raises(SettingsError, match="READ_FROM.*ShardClient"):
        ShardClient("redis://h,redis://i", {"OPTIONS": {"READ_FROM": "replica"}})
    assert Cache("redis://h", {"OPTIONS": {"READ_FROM": None}}).settings.options.read_from is None
    assert Cache.from_url("redis://h?read_from=nearest").settings.options.read_from == "nearest"
