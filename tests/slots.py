"""Which nodes of a cluster hold a slot, and how to have none do so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleetcache.testing import ServerCluster
from fleetcache.testing.clusters import run, wait_for


def elsewhere(servers: ServerCluster, slot: int) -> Any:
    """Return a primary that does not hold *slot*."""
    return next(node for node in servers.primaries if node is not servers.owner(slot))


@contextmanager
def unheld(servers: ServerCluster, slot: int) -> Iterator[None]:
    """Let no node hold *slot* within the block, and the others be served all the same."""
    holder = servers.owner(slot)

    def nobody_does() -> bool:
        held = [run(node, "CLUSTER", "SLOTS") for node in servers.running]
        told = [any(first <= slot <= last for first, last, *_ in ranges) for ranges in held]
        for node, still in zip(servers.running, told, strict=True):
            if still:
                run(node, "CLUSTER", "DELSLOTS", slot)
        return not any(told)

    def need_all(whether: str) -> None:
        for node in servers.running:
            run(node, "CONFIG", "SET", "cluster-require-full-coverage", whether)

    need_all("no")
    wait_for(nobody_does, "nobody holds it")
    wait_for(lambda: all(b"cluster_state:ok" in run(node, "CLUSTER", "INFO") for node in servers.running), "all serve")
    try:
        yield
    finally:
        run(holder, "CLUSTER", "ADDSLOTS", slot)
        servers.settle()
        need_all("yes")
