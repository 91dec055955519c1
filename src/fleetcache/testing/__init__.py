"""Servers and faults for tests: for your tests and fleetcache's own.

Each server runs on a unix socket and a free port of 127.0.0.1, so any number of test runs can go on
side by side.  It ends when the test process ends, even if that is killed::

    with valkey_server() as server, FaultProxy(server.socket) as proxy:
        cache = Cache(proxy.url())
        proxy.hold()

`cluster()` and `sentinels()` run several servers that know each other.

    servers      one server: Valkey, Redis, with TLS
    clusters     clusters, and primaries under Sentinels
    proxy        a proxy that fails on order
"""

from fleetcache.testing.clusters import ClusterNode, ServerCluster, WatchedServers, cluster, sentinels
from fleetcache.testing.proxy import FaultProxy, clients, tracked, untracked
from fleetcache.testing.servers import TLSServer, empty_memory, redis_server, tls_server, valkey_server

__all__ = [
    "ClusterNode",
    "FaultProxy",
    "ServerCluster",
    "TLSServer",
    "WatchedServers",
    "clients",
    "cluster",
    "empty_memory",
    "redis_server",
    "sentinels",
    "tls_server",
    "tracked",
    "untracked",
    "valkey_server",
]
