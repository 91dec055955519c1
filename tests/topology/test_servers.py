"""The clusters and Sentinels that `fleetcache.testing` runs."""

from __future__ import annotations

import pytest
from tests.slots import elsewhere

from fleetcache.testing import cluster, redis_server, sentinels
from fleetcache.testing.clusters import role, run, wait_for

pytestmark = pytest.mark.flaky(reruns=2)


@pytest.mark.few(1)
@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_a_cluster(program, request):
    """It serves when it is there; slots move with their entries, replicas take over, nodes come and go."""
    binary = None
    if program == "redis":
        request.getfixturevalue("redis_debian")
        with redis_server() as server:
            binary = server.binary
    with cluster(binary=binary) as servers:
        one, two, _ = servers.primaries
        assert len(servers.nodes) == 6
        assert servers.url().count("127.0.0.1:") == 6

        slot = run(one, "CLUSTER", "KEYSLOT", "a")
        run(servers.owner(slot), "SET", "a", 1, "PX", 100_000)
        to = elsewhere(servers, slot)
        servers.move_slot(slot, to)
        assert servers.owner(slot) is to
        assert run(to, "GET", "a") == b"1"
        assert run(to, "PTTL", "a") > 90_000

        heir = servers.failover(one)
        assert heir in servers.primaries
        assert one not in servers.primaries
        two.kill()
        assert two not in servers.running
        assert role(servers.failover(two))[0] == b"master"
        two.restart()
        servers.settle()
        assert role(two) == (b"slave", b"connected")

        node = servers.add_node()
        assert node not in servers.primaries
        servers.move_slot(0, node)
        assert node in servers.primaries
        servers.remove_node(node)
        assert node not in servers.nodes
        assert servers.owner(0) in servers.primaries
    assert not servers.running


def test_sentinels():
    """They know each other and the servers, and make another one primary: by command, or when it dies."""
    with sentinels() as watched:
        first = watched.primary
        assert first is watched.servers[0]

        second = watched.failover()
        assert second is not first
        watched.settle()
        second.kill()
        wait_for(lambda: watched.primary is not second and role(watched.primary)[0] == b"master", "a third")
        assert len(watched.addresses) == 3
