"""What goes wrong while processes read and write; and how stale an answer may be then.

Outages are long, compared to the bound, and writes during them few: what is written often is
invalidated often, which hides that something was missed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.coherence.runs import CANARY, T_LIVE, Run

from fleetcache.near.tracking import DOUBT, PATIENCE
from fleetcache.testing.proxy import tracked
from fleetcache.testing.proxy import untracked as not_tracked


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
        with run.loss():
            run.foreign.flush()
    run.sleep(0.5)


def cleared(run: Run) -> None:
    """The processes empty the cache themselves now and then."""
    run.sleep(1.5)


def restarted(run: Run) -> None:
    """The server is killed, and comes back empty."""
    run.sleep(0.4)
    with run.loss():
        run.server.restart()
    run.sleep(0.4)
    run.foreign.seed(10_000_000)
    run.sleep(1.0)


def moved(run: Run) -> None:
    """The address leads to another server, while the listener's connection to the old one lives on."""
    run.sleep(0.4)
    other = run.another_server()
    with run.loss():
        run.proxy.repoint(other.socket, keep=tracked)
        run.foreign.moves(other.url())
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
        run.foreign.client.client_kill_filter(_type="normal", skipme=True)


def downgraded(run: Run) -> None:
    """New connections lead to a server that does not know RESP3, for a while."""
    run.sleep(0.3)
    run.proxy.rewrite("HELLO 3", "HELLO 9")
    run.proxy.reset()
    run.sleep(0.8)
    run.proxy.heal()
    run.sleep(0.8)


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
        Scenario(server_stopped, **HASTY, deadline=2.0),
        Scenario(client_stopped, **QUIET),
        Scenario(flushed, **QUIET),
        Scenario(cleared, load={"clears": 0.001, "writes": 0.1, "counts": 0.0}),
        Scenario(restarted, **QUIET),
        Scenario(moved, delta=LOST, **QUIET),
        Scenario(
            moved_in_use,
            delta=IN_USE,
            rate=50.0,
            load=STILL | {"shared": 500, "writes": 0.05, "counts": 0.0},
            near={"CANARY": 10},
        ),
        Scenario(forked, rate=20),
        Scenario(many, rate=20, load={"workers": 8, "loops": 2, "pause": 0.004}),
        Scenario(
            expiring,
            load={"expiring": 4},
            server={"arguments": ["--enable-debug-command", "yes"]},
        ),
        Scenario(refused, rate=20),
        Scenario(untracked, delta=UNTRACKED, rate=20, near={"UNTRACKED_TTL": UNTRACKED}),
        Scenario(kicked, **QUIET),
        Scenario(downgraded, rate=20),
    )
}
