"""The doctor finds clocks that differ, replicas that lag, Sentinels without a quorum, and clusters with holes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import redis
from tests.inspection.doctors import USUAL, cache_at, findings

from fleetcache import Cache
from fleetcache.inspection.doctor import asking, examine, places
from fleetcache.testing import cluster, sentinels, valkey_server
from fleetcache.testing.clusters import wait_for


def ids(cache: Cache) -> set[str]:
    return findings(cache).keys() - USUAL


# --- clocks ---------------------------------------------------------------------------------------


def clock(monkeypatch, *differences: float) -> None:
    """Let this machine's clock differ from the servers', for each server in turn."""
    turns = iter(differences)
    monkeypatch.setattr(
        asking,
        "time",
        SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + next(turns, differences[-1])),
    )


def test_clock_that_differs(good, monkeypatch):
    """A server's clock that is ahead or behind by more than a second is a finding."""
    cache = cache_at(good.tcp_url())
    assert "clock-apart" not in findings(cache)

    clock(monkeypatch, -100.0)
    assert "100.0 s ahead" in findings(cache)["clock-apart"].found
    clock(monkeypatch, 100.0)
    assert "100.0 s behind" in findings(cache)["clock-apart"].found
    clock(monkeypatch, 0.5)
    assert "clock-apart" not in findings(cache)


def test_clocks_of_a_cluster(valkey_cluster, monkeypatch):
    """Clocks of primaries that differ from each other are a finding."""
    cache = cache_at(valkey_cluster.url())
    cache.get("a")
    assert "clocks-differ" not in findings(cache)

    clock(monkeypatch, 0.0, 60.0, 0.0)

    assert "60.0 s ahead" in findings(cache)["clocks-differ"].found


# --- replicas -------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    """A primary and its replica."""
    with valkey_server() as primary, valkey_server() as replica:
        raw = redis.Redis.from_url(replica.tcp_url())
        raw.execute_command("REPLICAOF", "127.0.0.1", primary.port)
        wait_for(lambda: raw.info("replication")["master_link_status"] == "up", "the replica follows")
        of = redis.Redis.from_url(primary.tcp_url())
        wait_for(lambda: of.info("replication").get("slave0", {}).get("state") == "online", "the primary knows")
        yield primary, replica


def test_replica_that_follows(pair):
    """A replica that follows is no finding."""
    primary, replica = pair
    cache = Cache([primary.tcp_url(), replica.tcp_url()], {"KEY_PREFIX": "p"})

    assert ids(cache) == set()


def test_replica_in_place_of_the_primary(pair):
    """A replica that is named as the primary is an error."""
    primary, replica = pair

    found = findings(cache_at(replica.tcp_url()))

    assert f"127.0.0.1:{primary.port}" in found["not-primary"].found


def test_replica_without_its_primary(pair):
    """A replica that has lost its primary is a finding."""
    primary, replica = pair
    cache = Cache([primary.tcp_url(), replica.tcp_url()], {"KEY_PREFIX": "p"})
    primary.stop()
    raw = redis.Redis.from_url(replica.tcp_url())
    wait_for(lambda: raw.info("replication")["master_link_status"] == "down", "the replica notices")

    assert ids(cache) >= {"server-away", "replica-away"}


def test_replica_that_lags(pair, monkeypatch):
    """A replica that does not report is a finding; the limit is shorter here than in life."""
    monkeypatch.setattr(places, "LAG", 2)
    primary, replica = pair
    cache = cache_at(primary.tcp_url())
    assert ids(cache) == set()

    replica.pause()
    of = redis.Redis.from_url(primary.tcp_url())
    wait_for(lambda: of.info("replication")["slave0"]["lag"] >= 2, "the replica lags")
    found = findings(cache)
    replica.resume()

    assert "has not heard" in found["replica-behind"].found


# --- Sentinels ------------------------------------------------------------------------------------


def test_sentinels():
    """A Sentinel that is away, and too few for a quorum, are findings; too few in LOCATION as well."""
    with sentinels(replicas=1) as servers:
        cache = cache_at(servers.url())
        assert ids(cache) == set()

        one = f"redis+sentinel://127.0.0.1:{servers.addresses[0][1]}/service/0"
        assert ids(cache_at(one)) == {"sentinels-few"}

        first, second, _ = servers.sentinels
        first.stop()
        assert ids(cache) == {"sentinel-away"}
        second.stop()
        wait_for(lambda: "quorum-missing" in ids(cache), "the last Sentinel notices")


# --- clusters -------------------------------------------------------------------------------------


def test_cluster_with_a_node_away():
    """A node that is away is told by the others, with the slots that nobody holds."""
    with cluster(primaries=3, replicas=0, arguments=["--cluster-node-timeout", "500"]) as servers:
        cache = cache_at(servers.url())
        cache.get("a")
        assert ids(cache) == set()

        lost = servers.primaries[-1]
        lost.stop()
        wait_for(lambda: {"node-away", "slots-uncovered"} <= ids(cache), "the others notice")

        found = findings(cache)
        assert found["node-away"].severity == "error"
        assert str(lost.port) in found["node-away"].subject
        assert "server-away" in found
        assert len([each for each in examine(cache, probes=False) if each.id == "memory-unlimited"]) == 2


def test_slots_without_a_node():
    """Slots that were never given to a node are told."""
    with cluster(primaries=2, replicas=0) as servers:
        cache = cache_at(servers.url())
        node = servers.primaries[0]
        raw = redis.Redis.from_url(node.tcp_url())
        assert "slots-uncovered" not in ids(cache)
        first = int(raw.execute_command("CLUSTER", "SLOTS")[0][0])
        for server in servers.primaries:
            redis.Redis.from_url(server.tcp_url()).execute_command("CLUSTER", "DELSLOTS", first)

        assert "1 slots have no node" in findings(cache)["slots-uncovered"].found


# --- near cache -----------------------------------------------------------------------------------


def test_near_cache(good):
    """With NEAR a server that offers what it needs is no finding; without NEAR it is a note."""
    assert not {"near-refused", "near-possible"} & findings(cache_at(good.tcp_url(), NEAR=True), probes=True).keys()
    assert "near-possible" in findings(cache_at(good.tcp_url()), probes=True)
    assert "near-possible" not in findings(cache_at(good.tcp_url()), probes=False)


def test_near_cache_that_is_refused(good):
    """A user who may not track is an error with the rule, if NEAR is on; else nothing."""
    admin = redis.Redis.from_url(good.tcp_url())
    admin.execute_command("ACL", "SETUSER", "far", "reset", "on", ">pw", "~*", "+@all", "-client|tracking")
    url = good.tcp_url().replace("://", "://far:pw@")

    assert "+client|tracking" in findings(cache_at(url, NEAR=True), probes=True)["near-refused"].advice
    assert not {"near-refused", "near-possible"} & findings(cache_at(url), probes=True).keys()


def test_near_cache_that_is_off(good):
    """A near cache of this process that is refused says why."""
    admin = redis.Redis.from_url(good.tcp_url())
    admin.execute_command("ACL", "SETUSER", "far", "reset", "on", ">pw", "~*", "+@all", "-client|tracking")
    cache = cache_at(good.tcp_url().replace("://", "://far:pw@"), NEAR=True)
    cache.set("a", 1)
    cache.get("a")
    wait_for(lambda: cache.info()["near"]["state"] == "off", "the server refuses")

    assert "tracking" in findings(cache)["near-off"].found.lower()
    assert "near-off" not in findings(cache_at(good.tcp_url(), NEAR=True))


def test_protocol(good):
    """RESP2 is told, unless NEAR says more about it."""
    assert "protocol-old" in findings(cache_at(good.tcp_url(), protocol=2))
    assert "protocol-old" not in findings(cache_at(good.tcp_url()))
    assert "protocol-old" not in findings(cache_at(good.tcp_url(), protocol=2, NEAR=True))
