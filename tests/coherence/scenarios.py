"""What goes wrong while processes read and write; and how stale an answer may be then.

Outages are long, compared to the bound, and writes during them few: what is written often is
invalidated often, which hides that something was missed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.coherence import keys
from tests.coherence.runs import CANARY, T_LIVE, T_TOPO, Run
from tests.coherence.topologies import peers

from fleetcache.near.tracking import DOUBT, PATIENCE
from fleetcache.testing.clusters import role, wait_for
from fleetcache.testing.clusters import run as command
from fleetcache.testing.proxy import tracked
from fleetcache.testing.proxy import untracked as not_tracked
from fleetcache.topology.cluster import slot_of


@dataclass(frozen=True)
class Scenario:
    """A course of events, and what is promised during it."""

    script: Callable[[Run], None]
    delta: float = T_LIVE
    rate: float = 40.0
    """Foreign writes a second."""
    load: dict[str, Any] = field(default_factory=dict)
    near: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    topologies: tuple[str, ...] = ("one", "cluster", "sentinel")
    """On what it can happen."""
    servers: tuple[str, ...] = ("valkey", "redis")
    """On which servers."""
    replicas: int = 0
    """Of each primary of a cluster."""
    deadline: float | None = None
    """Seconds that no call may outlast."""
    settle: float = 0.3
    """Seconds until the servers are asked what is true."""

    @property
    def name(self) -> str:
        return self.script.__name__


def calm(run: Run) -> None:
    """Nothing goes wrong."""
    run.sleep(1.5)


def fenced(run: Run) -> None:
    """Each read has its fence, and nothing may be stale at all."""
    run.sleep(1.2)


def busy(run: Run) -> None:
    """Others write 2,000 times a second."""
    run.sleep(1.5)


def own_writes(run: Run) -> None:
    """Every fifth operation of many threads and tasks is a write, of which the server tells late."""
    run.proxy.delay(0.02, only=tracked)
    run.sleep(1.5)


def crowded(run: Run) -> None:
    """Many keys, of which some are popular, and room for few."""
    run.sleep(1.5)


def unordered(run: Run) -> None:
    """Replies overtake each other, and announcements lag behind all of them."""
    run.proxy.delay(0.02, jitter=0.03, only=not_tracked)
    run.proxy.delay(0.08, only=tracked)
    for _ in range(8):
        run.foreign.set("n0", None)
        run.sleep(0.085)
        # That has dropped all copies: many read at once, and what they read changes.
        for _ in range(3):
            run.foreign.set("n0", None)
            run.sleep(0.006)
        run.sleep(0.1)


def overtaken(run: Run) -> None:
    """Announcements overtake the replies to reads that were sent before."""
    run.proxy.delay(0.06, jitter=0.004, only=not_tracked)
    for _ in range(4):
        run.foreign.set("n0", None)
        run.sleep(0.05)
        run.foreign.set("n0", None)
        run.sleep(0.38)


def cancelled(run: Run) -> None:
    """Many tasks are cancelled in the middle of what they do."""
    run.proxy.delay(0.001, jitter=0.004)
    run.sleep(1.5)


def reset(run: Run) -> None:
    """Connections are reset, now the listener's, now all, and little is written."""
    for number in range(5):
        run.sleep(0.3)
        run.proxy.reset(tracked if number % 2 == 0 else lambda link: True)


def away(run: Run) -> None:
    """The listener is cut off for longer than the bound, and then comes back."""
    run.sleep(0.3)
    run.proxy.hold(tracked)
    run.proxy.reset(tracked)
    run.sleep(0.8)
    run.proxy.heal()
    run.sleep(0.7)


def half_closed(run: Run) -> None:
    """The server's side of the listener's connection is shut."""
    for _ in range(3):
        run.sleep(0.4)
        run.proxy.half_close(tracked)


def deaf(run: Run) -> None:
    """The listener's connection is half open: bytes neither come nor go, and nobody is told."""
    run.sleep(0.4)
    run.proxy.hold(tracked)
    run.sleep(1.2)
    run.proxy.heal()
    run.sleep(0.4)


def silent(run: Run) -> None:
    """The same for so long that the connection is given up, while canaries are due and others still write."""
    run.sleep(0.3)
    run.proxy.hold(tracked)
    run.sleep(PATIENCE + 0.5)
    run.proxy.heal()
    run.sleep(0.5)


def lagging(run: Run) -> None:
    """The listener's answers take most of the bound to arrive, and then do not."""
    for _ in range(2):
        run.proxy.delay(0.25, only=tracked)
        run.sleep(0.5)
        for key in run.foreign.shared:
            run.foreign.set(key, None)
        run.sleep(0.15)
        run.proxy.hold(tracked)
        run.sleep(0.5)
        run.proxy.heal()
        run.sleep(0.1)


def held(run: Run) -> None:
    """All connections are half open."""
    run.sleep(0.3)
    run.proxy.hold()
    run.sleep(1.0)
    run.proxy.heal()
    run.sleep(0.4)


def pushless(run: Run) -> None:
    """Replies pass, and announcements get lost."""
    run.sleep(0.3)
    run.proxy.drop_pushes()
    run.sleep(1.6)
    run.proxy.heal()
    run.sleep(0.3)


def server_stopped(run: Run) -> None:
    """The server is stopped, as by a debugger, and goes on."""
    run.sleep(0.3)
    run.server.pause()
    run.sleep(1.0)
    run.server.resume()
    run.sleep(0.4)


def client_stopped(run: Run) -> None:
    """A process is stopped, and has copies when it goes on."""
    for _ in range(2):
        run.sleep(0.3)
        os.kill(run.pids[0], signal.SIGSTOP)
        run.sleep(0.6)
        os.kill(run.pids[0], signal.SIGCONT)
    run.sleep(0.2)


def flushed(run: Run) -> None:
    """Everything is flushed, and little is written after it."""
    for _ in range(3):
        run.sleep(0.4)
        run.flush()
    run.sleep(0.5)


def cleared(run: Run) -> None:
    """The processes empty the cache themselves now and then."""
    run.sleep(1.5)


def restarted(run: Run) -> None:
    """The servers are killed, and come back empty."""
    run.sleep(0.4)
    with run.loss():
        run.ground.restart()
    run.sleep(0.4)
    run.foreign.seed(10_000_000)
    run.sleep(1.0)


def moved(run: Run) -> None:
    """The address leads to another server, while the listener's connection to the old one lives on."""
    run.sleep(0.4)
    other = run.another_server()
    with run.loss():
        run.proxy.repoint(other.socket, keep=tracked)
        run.ground.servers = [other]
        run.foreign.client = run.ground.client()
    run.foreign.seed(10_000_000)
    run.sleep(1.5)


def moved_in_use(run: Run) -> None:
    """The same, and new connections tell of it before the canary does."""
    run.sleep(DOUBT)  # the second canary comes soon after the first
    moved(run)


def forked(run: Run) -> None:
    """A process forks in the middle of all this."""
    run.sleep(0.3)
    run.fork()
    run.sleep(1.2)


def many(run: Run) -> None:
    """Threads and two event loops use one cache at once, and the process forks twice meanwhile."""
    run.sleep(0.2)
    run.fork()
    run.sleep(0.4)
    run.fork()
    run.sleep(1.2)


def expiring(run: Run) -> None:
    """Entries expire, and the server does not remove them."""
    for server in run.ground.primaries:
        command(server, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
    run.sleep(1.5)


def refused(run: Run) -> None:
    """The server does not track: every read goes to it."""
    run.sleep(0.3)
    run.proxy.rewrite("CLIENT TRACKING", "CLIENT NOTHING")
    run.proxy.reset(tracked)
    run.sleep(1.0)


def untracked(run: Run) -> None:
    """The same, where copies may be kept for a while all the same."""
    refused(run)


def kicked(run: Run) -> None:
    """The server hangs up on all clients, as it does when a user is deleted or a buffer is full."""
    for _ in range(4):
        run.sleep(0.3)
        command(run.server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def downgraded(run: Run) -> None:
    """New connections lead to a server that does not know RESP3, for a while."""
    run.sleep(0.3)
    run.proxy.rewrite("HELLO 3", "HELLO 9")
    run.proxy.reset()
    run.sleep(0.8)
    run.proxy.heal()
    run.sleep(0.8)


# --- clusters -----------------------------------------------------------------------------------------


def resharded(run: Run) -> None:
    """Slots move to and fro with what is in them, and are written at once."""
    for _ in range(2):
        source, target = run.chance.sample(run.cluster.primaries, 2)
        moved = run.cluster.held(run.foreign.shared, source)[:8]
        for there in (target, source):
            for key in moved:
                run.cluster.cluster.move_slot(slot_of(keys.name(key)), there)
                run.foreign.set(key, None)
            run.sleep(0.2)


def migrated(run: Run) -> None:
    """A third of a node's slots move at one moment, and back, while what is in them is written often."""
    source, target = run.chance.sample(run.cluster.primaries, 2)
    slots = sorted(run.cluster.slots(source))[:2000]
    moved = [key for key in run.foreign.shared if slot_of(keys.name(key)) in slots]
    for here, there in ((source, target), (target, source)):
        command(here, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slots[0], slots[-1], "NODE", there.name)
        until = time.monotonic() + 10
        while run.cluster.cluster.owner(slots[0]) is not there and time.monotonic() < until:
            run.write(moved)
        run.write(moved)
        run.sleep(0.3)


def taken(run: Run) -> None:
    """Slots move, their old owner says nothing, and the announcements of the new one do not arrive."""
    run.sleep(0.3)
    source, target = run.chance.sample(run.cluster.primaries, 2)
    moved = run.cluster.held(run.foreign.shared, source)[:12]
    for there in (target, source):
        proxy = run.cluster.proxy(there)
        proxy.hold(tracked)
        for key in moved:
            run.cluster.take_over(key, there)
        run.write(moved)
        run.sleep(TOLD + 0.5)
        proxy.heal()
        run.sleep(0.4)  # for copies


def on_its_way(run: Run) -> None:
    """Slots are on their way: what is in them, or comes to be, is at a node already whose announcements do not arrive."""
    source, target = run.chance.sample(run.cluster.primaries, 2)
    moved = run.cluster.held(run.foreign.shared, source)[:12]
    for key in moved[:6]:
        run.foreign.delete(key)
    run.sleep(0.3)  # for copies
    with ExitStack() as stack:
        for key in moved:
            stack.enter_context(run.cluster.cluster.moving(slot_of(keys.name(key)), target))
            names = keys.name(key), keys.floor(key)
            command(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
        run.sleep(0.4)
        run.cluster.proxy(target).hold(tracked)
        run.write(moved[6:])
        for key in moved[:6]:
            run.foreign.create(key)
        run.sleep(TOLD + 0.5)
        run.cluster.proxy(target).heal()


def added(run: Run) -> None:
    """A new node takes slots, of which nobody says anything, and gives them away again when it is removed."""
    node = run.cluster.cluster.add_node()
    moved = run.cluster.held(run.foreign.shared, run.server)[:12]
    for key in moved:
        run.cluster.take_over(key, node)
    run.write(moved)
    run.sleep(TOLD + 0.5)
    for key in moved:
        run.cluster.take_over(key, run.server)
    run.write(moved)
    run.cluster.cluster.remove_node(node)
    run.sleep(0.4)


def promoted(run: Run) -> None:
    """A primary hands over to its replica, follows it, and does not hear of what is written there."""
    run.sleep(0.4)
    heir = run.cluster.cluster.replica(run.server)
    run.cluster.proxy(heir).hold(peers)
    run.cluster.cluster.failover(run.server)
    run.write(run.cluster.held(run.foreign.shared, heir))
    run.sleep(TOLD + 0.5)


def killed(run: Run) -> None:
    """A primary dies, its replica takes over, and it comes back as a replica."""
    run.sleep(0.4)
    with run.replaced(run.server.kill):
        run.sleep(T_TOPO)
    run.server.restart()
    run.sleep(0.8)


def revived(run: Run) -> None:
    """A primary stands still while its replica takes over, and then goes on, with all its connections."""
    run.sleep(0.4)
    with run.replaced(run.server.pause) as heir:
        run.sleep(0.8)
    run.server.resume()
    run.write(run.cluster.held(run.foreign.shared, heir))
    run.sleep(TOLD + 0.5)


def isolated(run: Run) -> None:
    """A primary hears nothing of other nodes, one of which takes its place; processes reach them all."""
    run.sleep(0.4)
    with run.replaced(lambda: command(run.server, "DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)) as heir:
        run.write(run.cluster.held(run.foreign.shared, heir))
        run.sleep(2 * TOLD)
    command(run.server, "DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
    run.sleep(0.4)


# --- Sentinel -----------------------------------------------------------------------------------------


def switched(run: Run) -> None:
    """Sentinels make another server primary, and the old one goes on as if nothing had happened."""
    _another_primary(run, lambda: run.sentinel.watched.failover())


def died(run: Run) -> None:
    """The primary dies, and comes back when another has its place."""
    _another_primary(run, run.server.kill)
    run.server.restart()
    run.sleep(1.0)


def stopped(run: Run) -> None:
    """The primary stands still until another has its place, and then goes on, with all its connections."""
    _another_primary(run, run.server.pause)
    run.server.resume()
    run.write(run.foreign.shared)
    run.sleep(TOLD + 0.5)


def _another_primary(run: Run, happen: Callable[[], object]) -> None:
    run.sleep(0.4)
    with run.foreign.turn:  # nothing is lost that was acknowledged, so everything is demanded
        command(run.server, "WAIT", 2, 1000)
        happen()
        wait_for(lambda: run.server not in run.sentinel.named, "all Sentinels name another primary")
        wait_for(lambda: role(run.sentinel.watched.primary)[0] == b"master", "it knows")
        run.foreign.client = run.ground.client()
    run.write(run.foreign.shared)
    run.sleep(TOLD + 0.5)


LOST = CANARY + T_LIVE
"""It is noticed by the canary that announcements get lost."""

IN_USE = 0.9
"""Seconds in which, however busy the machine is, some worker has written, and connected anew for it."""

UNTRACKED = 0.4
"""Seconds for which copies are used where nothing is announced, longer than the bound elsewhere."""

# Where something may be missed, nobody asks the server, and there are many keys of which each is read and written
# seldom; else it would be mended by chance.
STILL: dict[str, Any] = {"writes": 0.001, "direct": 0.0}
QUIET: dict[str, Any] = {"rate": 50.0, "load": STILL | {"shared": 500}}
HASTY = QUIET | {"load": QUIET["load"] | {"timeout": 0.3}}
TOLD = T_TOPO + T_LIVE
"""Others are asked who the primary is, and have answered."""

READ_ONLY = QUIET["load"] | {"writes": 0.0, "timeout": 0.3}
"""Of a process that writes to a primary that is none any more nobody knows what becomes."""

CLUSTER: dict[str, Any] = {"topologies": ("cluster",), "delta": TOLD}
REPLICATED: dict[str, Any] = CLUSTER | {"rate": 50.0, "replicas": 1}
SENTINEL: dict[str, Any] = {"topologies": ("sentinel",), "delta": TOLD, "rate": 50.0, "load": READ_ONLY}
DEBUG = {"arguments": ["--enable-debug-command", "yes"]}
SLOW = {"arguments": ["--enable-debug-command", "yes", "--cluster-node-timeout", "8000"]}
"""A primary that hears of nobody goes on for so long."""
ONE: dict[str, Any] = {"topologies": ("one",)}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(calm, deadline=3.0),
        Scenario(fenced, delta=0.0, rate=200, load={"fenced": True}),
        Scenario(busy, rate=2000, load={"writes": 0.01, "shared": 5}),
        Scenario(own_writes, load={"writes": 0.2, "workers": 6, "shared": 1}),
        Scenario(crowded, rate=200, load={"zipf": True, "shared": 300}, near={"MAX_BYTES": 40_000}),
        Scenario(unordered, rate=0.5, load=STILL | {"shared": 1, "workers": 6}),
        Scenario(overtaken, rate=0.5, load=STILL | {"shared": 1, "workers": 6}),
        Scenario(cancelled, load={"cancels": 0.3, "writes": 0.2}),
        Scenario(reset, **QUIET),
        Scenario(away, **QUIET),
        Scenario(half_closed, **QUIET),
        Scenario(deaf, **QUIET),
        Scenario(silent, **QUIET),
        Scenario(lagging, rate=0.5, load=STILL),
        Scenario(held, **HASTY, deadline=2.0),
        Scenario(pushless, delta=LOST, **QUIET),
        Scenario(server_stopped, **HASTY, deadline=2.0, topologies=("one", "cluster")),
        Scenario(client_stopped, **QUIET),
        Scenario(flushed, **QUIET),
        Scenario(cleared, load={"clears": 0.001, "writes": 0.1, "counts": 0.0}),
        Scenario(restarted, **QUIET),
        Scenario(moved, delta=LOST, **QUIET, **ONE),
        Scenario(
            moved_in_use,
            delta=IN_USE,
            rate=50.0,
            load=STILL | {"shared": 500, "writes": 0.05, "counts": 0.0},
            near={"CANARY": 10, "T_TOPO": 10},
            **ONE,
        ),
        Scenario(forked, rate=20),
        Scenario(many, rate=20, load={"workers": 8, "loops": 2, "pause": 0.004}),
        Scenario(
            expiring,
            load={"expiring": 4},
            server=DEBUG,
        ),
        Scenario(refused, rate=20),
        Scenario(untracked, delta=UNTRACKED, rate=20, near={"UNTRACKED_TTL": UNTRACKED}),
        Scenario(kicked, **QUIET),
        Scenario(downgraded, rate=20),
        Scenario(resharded, **QUIET, **CLUSTER),
        Scenario(migrated, **QUIET, **CLUSTER, servers=("valkey",)),
        Scenario(taken, **QUIET, **CLUSTER),
        Scenario(on_its_way, **QUIET, **CLUSTER | {"delta": T_LIVE}),
        Scenario(added, **QUIET, **CLUSTER),
        Scenario(promoted, load=QUIET["load"], **REPLICATED | {"delta": T_LIVE}),
        Scenario(killed, load=READ_ONLY, **REPLICATED),
        Scenario(revived, load=READ_ONLY, **REPLICATED),
        Scenario(isolated, load=READ_ONLY, **REPLICATED, server=SLOW, servers=("valkey",)),
        Scenario(switched, **SENTINEL),
        Scenario(died, **SENTINEL),
        Scenario(stopped, **SENTINEL),
    )
}
