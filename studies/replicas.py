"""Which servers answer reads, by READ_FROM: ``python -m studies.replicas``.

A primary with two replicas, the second of which is 1 ms away, and a cluster of three primaries with a replica
each.  The servers count the reads.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from fleetcache import Cache
from fleetcache.testing import FaultProxy, cluster, valkey_server
from fleetcache.testing.clusters import role, run, wait_for

READS = 30_000
KEYS = [f"key{number}" for number in range(300)]


def gets(servers: list[Any]) -> list[int]:
    return [run(server, "INFO", "commandstats").get("cmdstat_get", {"calls": 0})["calls"] for server in servers]


def measure(title: str, url: Any, servers: list[Any]) -> None:
    for choice in ("primary", "replica", "nearest"):
        cache = Cache(url, {"KEY_PREFIX": choice, "OPTIONS": {"READ_FROM": choice}})
        cache.set_many(dict.fromkeys(KEYS, 1))
        before, began = gets(servers), time.perf_counter()
        for number in range(READS):
            cache.get(KEYS[number % len(KEYS)])
        took = time.perf_counter() - began
        shares = (f"{(now - old) / READS:6.1%}" for old, now in zip(before, gets(servers), strict=True))
        print(f"{title:<10} {choice:<8} {took / READS * 1e6:7.1f} us  {' '.join(shares)}")


def main() -> None:
    with ExitStack() as stack:
        primary = stack.enter_context(valkey_server(arguments=["--repl-diskless-sync-delay", "0"]))
        follow = ["--replicaof", "127.0.0.1", str(primary.port)]
        replicas = [stack.enter_context(valkey_server(arguments=follow)) for _ in range(2)]
        wait_for(lambda: all(role(replica)[1] == b"connected" for replica in replicas), "the replicas follow")
        far = stack.enter_context(FaultProxy(replicas[1].socket))
        far.delay(0.001)
        measure("1+2", [primary.tcp_url(), replicas[0].tcp_url(), far.url()], [primary, *replicas])
    with cluster() as servers:
        primaries = servers.primaries
        measure("3+3", servers.url(), [*primaries, *map(servers.replica, primaries)])


if __name__ == "__main__":
    main()
