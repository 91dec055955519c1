"""``python -m tests.topology.ordeal``: what happens to calls in both faces while machines die, change roles, and return.

A row is an event under a steady load.  *Without* is for how long there was no primary for some entries,
as the servers themselves say; *after* is when the last call failed, counted from the moment there was
one again (or from the event, if there always was one).  The exit code is 1 if a value was wrong.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.load import NOTHING, RECENT, Load

from fleetcache import Cache
from fleetcache.client import SentinelClient
from fleetcache.testing import ServerCluster, WatchedServers, cluster, sentinels
from fleetcache.testing.clusters import role, wait_for
from fleetcache.topology.cluster import slot_of

PAUSE = 10.0
TIMEOUT = 1.0
"""SOCKET_TIMEOUT of the caches: what no exchange may outlast."""

_numbers = count()


class Event:
    """When something happened, and when there was a primary for everything again."""

    def __init__(self) -> None:
        self.began = self.over = time.monotonic()

    @contextmanager
    def without(self) -> Iterator[None]:
        """In this time a primary is missing."""
        self.began = time.monotonic()
        yield
        self.over = time.monotonic()


# --- a cluster ------------------------------------------------------------------------------------


def promoted(heir: Any) -> None:
    wait_for(lambda: role(heir)[0] == b"master", f"{heir.port} is primary")


def kill(servers: ServerCluster, event: Event, load: Load) -> None:
    victim = servers.primaries[0]
    heir = servers.replica(victim)
    with event.without():
        victim.kill()
        promoted(heir)
    time.sleep(3)
    victim.restart()
    servers.settle()


def failover(servers: ServerCluster, event: Event, load: Load) -> None:
    with event.without():
        servers.failover(servers.primaries[0])
    time.sleep(1)


def move_slots(servers: ServerCluster, event: Event, load: Load) -> None:
    names = [load.cache.make_key(key) for key in load.some_keys(5)]
    for _ in range(3):
        for name in names:
            slot = slot_of(name)
            servers.move_slot(slot, next(node for node in servers.primaries if node is not servers.owner(slot)))
    event.over = time.monotonic()


def join_and_leave(servers: ServerCluster, event: Event, load: Load) -> None:
    node = servers.add_node()
    for key in load.some_keys(1):
        servers.move_slot(slot_of(load.cache.make_key(key)), node)
    time.sleep(1)
    servers.remove_node(node)
    event.over = time.monotonic()


def stop(servers: ServerCluster, event: Event, load: Load) -> None:
    victim = servers.primaries[0]
    heir = servers.replica(victim)
    with event.without():
        victim.pause()
        promoted(heir)
    time.sleep(PAUSE - (time.monotonic() - event.began))
    victim.resume()
    time.sleep(1)
    servers.settle()


def restart(servers: ServerCluster, event: Event, load: Load) -> None:
    with event.without():
        for node in servers.nodes:
            node.kill()
        for node in servers.nodes:
            node.restart()
        servers.settle()


CLUSTER = (kill, failover, move_slots, join_and_leave, stop, restart)
LOSSLESS = {failover, move_slots, join_and_leave}
"""In these no acknowledged write may be lost."""

# --- under Sentinels ------------------------------------------------------------------------------


def primary_dies(servers: WatchedServers, event: Event, load: Load) -> None:
    victim = servers.primary
    with event.without():
        victim.kill()
        another(servers, victim)
    time.sleep(3)
    victim.restart()
    servers.settle()


def another(servers: WatchedServers, victim: Any) -> None:
    wait_for(lambda: servers.primary is not victim and role(servers.primary)[0] == b"master", "another is primary")


def by_command(servers: WatchedServers, event: Event, load: Load) -> None:
    with event.without():
        servers.failover()
    time.sleep(2)
    servers.settle()


def primary_stops(servers: WatchedServers, event: Event, load: Load) -> None:
    victim = servers.primary
    with event.without():
        victim.pause()
        another(servers, victim)
    time.sleep(max(0.0, PAUSE - (time.monotonic() - event.began)))
    victim.resume()
    time.sleep(2)
    servers.settle()


def sentinel_dies(servers: WatchedServers, event: Event, load: Load) -> None:
    servers.sentinels[2].kill()
    time.sleep(2)
    servers.sentinels[2].restart()


def all_restart(servers: WatchedServers, event: Event, load: Load) -> None:
    with event.without():
        for server in servers.servers:
            server.kill()
        for server in servers.servers:
            server.restart()
        wait_for(lambda: role(servers.primary)[0] == b"master", "there is a primary")
    time.sleep(3)
    servers.settle()


SENTINEL = (primary_dies, by_command, primary_stops, sentinel_dies, all_restart)

# --- the table ------------------------------------------------------------------------------------


def row(servers: Any, happen: Callable[..., None], make: Callable[[dict[str, Any]], Cache], near: bool) -> bool:
    """Let it *happen* under load, print what came of it, and return whether every value was right."""
    number = next(_numbers)
    options = {"SOCKET_TIMEOUT": TIMEOUT + number / 10000, **({"NEAR": {"T_TOPO": 2}} if near else {})}
    cache = make({"KEY_PREFIX": f"ordeal{number}", "OPTIONS": options})
    event = Event()
    with Load(cache, loses=NOTHING if happen in LOSSLESS else RECENT) as load:
        time.sleep(1)
        event.began = event.over = time.monotonic()
        happen(servers, event, load)
        time.sleep(2)
    failed = [when for when, _ in load.failures]
    after = f"{max(failed) - event.over:6.2f}" if failed else "     -"
    kinds = ", ".join(f"{kind} {times}" for kind, times in Counter(type(e).__name__ for _, e in load.failures).items())
    print(
        f"{happen.__name__:15} {'near' if near else '    '} {load.calls:8} {len(load.failures):6} "
        f"{event.over - event.began:8.2f} {after} {load.slowest:8.2f} {len(load.wrong):6}  {kinds}",
        flush=True,
    )
    for wrong in load.wrong[:5]:
        print("   ", wrong)
    return not load.wrong


def main() -> int:
    """Run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", choices=["valkey", "redis"], default="valkey")
    parser.add_argument("--only", choices=["cluster", "sentinel"])
    parser.add_argument("--event", action="append", help="only these")
    chosen = parser.parse_args()
    binary = {"binary": shutil.which("redis-server")} if chosen.server == "redis" else {}
    print(f"{'event':15} NEAR {'calls':>8} {'failed':>6} {'without':>8}  after  slowest  wrong")
    fine = True
    for near in (False, True):
        if chosen.only != "sentinel":
            with cluster(**binary) as servers:
                for happen in CLUSTER:
                    if not chosen.event or happen.__name__ in chosen.event:
                        fine &= row(servers, happen, lambda params: Cache(servers.url(), params), near)
        if chosen.only != "cluster":
            with sentinels(**binary) as watched:

                def watching(params: dict[str, Any]) -> Cache:
                    options = {**params["OPTIONS"], "SENTINELS": watched.addresses}
                    return SentinelClient(f"redis://{watched.service}/0", {**params, "OPTIONS": options})

                for happen in SENTINEL:
                    if not chosen.event or happen.__name__ in chosen.event:
                        fine &= row(watched, happen, watching, near)
    return not fine


if __name__ == "__main__":
    sys.exit(main())
