"""The near cache's protocol in every order in which a few things can happen.

Load with faults meets many orders of events, by chance.  Here a server of a few lines, two or three readers, a
writer in the process, one elsewhere and the clock take steps in each possible order, up to a number of
steps; after each step it is asked what a hit would return now.  States that were met before, by whatever way, are
not entered again, and a promise that breaks is shown by the shortest way there.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

import pytest
from tests.coherence import mutants
from tests.near.world import STEP, TIME, Broken, Scope, World

from fleetcache.near import near
from fleetcache.near.journal import Journal
from fleetcache.near.reads import Reads
from fleetcache.near.tracking import Tracking

pytestmark = [pytest.mark.timeout(120), pytest.mark.newest]

SCOPES = {
    "reads": Scope(12, readers=3, reads=3, foreign=2),
    "first reads": Scope(12, readers=3, reads=3, foreign=2, door=True),
    "first reads and writes": Scope(10, readers=2, reads=3, own="set", door=True),
    "writes": Scope(9, foreign=1, own="set"),
    "flushes": Scope(12, foreign=1, flushes=1, halves=1),
    "own flushes": Scope(9, foreign=1, own="flush"),
    "losses": Scope(9, foreign=1, losses=1),
    "time": Scope(9, readers=1, reads=1, foreign=1, waits=3, begins="warm"),
    "fences": Scope(8, readers=1, reads=1, foreign=1, waits=1, fences=2, begins="warm"),
    "unproven": Scope(10, readers=1, reads=1, foreign=1, fences=2, begins="armed"),
    "lifetimes": Scope(8, readers=1, waits=3, lifetime=STEP * 1.5, begins="warm"),
    "joins": Scope(12, reads=3, foreign=2, joins=2),
    "deaf": Scope(8, readers=1, reads=1, foreign=1, waits=2, losses=1, begins="warm", deaf=True),
}
"""What can happen together, in so many steps that few states or none would be new after them, or that it takes a second."""

ALL = Scope(80, readers=3, reads=99, foreign=9, own="set", waits=9, fences=9, losses=2, halves=9, begins="warm")
"""Too much for every order of it."""


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(near, "clock", lambda: TIME[0])
    monkeypatch.setattr(logging.getLogger("fleetcache.near"), "disabled", True)


def explore(scope: Scope, kind: type[Tracking | Reads] = Tracking) -> tuple[int, int]:
    """Enter each state within *scope*; return how many there are, and in how many of them a copy is served."""
    first = World(scope, kind)
    ways: dict[object, tuple[object, tuple[str, int] | None]] = {first.fingerprint(): (None, None)}
    level = [(first.fingerprint(), first)]
    served = 0
    for _ in range(scope.steps):
        following = []
        for known, world in level:
            for move in world.moves():
                try:
                    after = world.after(move)
                    found = after.fingerprint()
                    if found in ways:
                        continue
                    if not scope.deaf:
                        after.clone().recover()
                except Exception as error:
                    steps = [*way(ways, known), named(move)]
                    raise Broken(f"{error}\n  after: {', '.join(steps)}") from error
                ways[found] = known, move
                served += after.served
                following.append((found, after))
        level = following
    return len(ways), served


def way(ways: Mapping[object, tuple[object, tuple[str, int] | None]], state: object) -> list[str]:
    """Return the steps that lead to *state*."""
    moves = []
    while (step := ways[state])[1] is not None:
        moves.append(named(step[1]))
        state = step[0]
    return moves[::-1]


def named(move: tuple[str, int]) -> str:
    return f"{move[0]} {move[1]}" if move[0] in {"deliver", "execute", "arrive"} else move[0]


@pytest.mark.few(4)
@pytest.mark.parametrize("name", SCOPES)
def test_every_order(name):
    """Whatever comes after whatever, promises hold, and whatever happened, copies are served again after it."""
    scope = SCOPES[name]

    states, served = explore(scope)

    assert states > 200
    assert (served > 20) != scope.deaf


RARELY = {"lose": 0.02, "wait": 0.1, "write": 0.3, "begin_fence": 0.2, "give_up_fence": 0.1}


@pytest.mark.parametrize("seed", range(4))
def test_some_long_orders(seed):
    """Where there are too many orders, of many more things, some are tried by chance."""
    chance = random.Random(seed)
    served = 0

    for _ in range(60):
        world, steps = World(ALL, Tracking), []
        for _ in range(ALL.steps):
            moves = list(world.moves())
            if not moves:
                break
            steps.append(chance.choices(moves, [RARELY.get(what, 1) for what, _ in moves])[0])
            try:
                world = world.after(steps[-1])
                served += world.served
            except Exception as error:
                raise Broken(f"{error}\n  after: {', '.join(map(named, steps))}") from error
        world.recover()

    assert served > 100


class ForgetfulJournal(Journal):
    """Two reads that contradict each other mean nothing to a third."""

    __slots__ = ()

    def read(self, name: str, departed: int, digest: int) -> bool:
        written, *_ = self.recent.get(name) or (0,)
        keeps = super().read(name, departed, digest)
        _, read, known = self.recent[name]
        self.recent[name] = (written, read, known)
        return keeps


class Forgetful(Tracking):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.journal = ForgetfulJournal()


class HastyFence(Tracking):
    """A fence shares a PING that was sent before it."""

    def fence(self, now: float, then: Any) -> bool:
        if self._expected and self.leased(now):
            now = self._asked
        return super().fence(now, then)


class NoDropOnReturn(Tracking):
    """An own write is noted before it is sent only."""

    begun = False

    def wrote(self, name: str) -> None:
        self.begun = not self.begun
        if self.begun:
            super().wrote(name)
        else:
            for reads in self.readers:
                reads.drop(name, "own write")


class KeepsPending(Reads):
    """What is still to be decided on outlives its epoch."""

    def forget(self) -> None:
        pending = self.pending.copy()
        super().forget()
        self.pending.update(
            {name: mutants.renumbered(read, self.tracking.journal.now) for name, read in pending.items()}
        )


class UnnotedFirstRead(Reads):
    """A first read is nobody's business, even if another is under way."""

    def knows(self, name: str) -> bool:
        return False


class ForgottenDeparture(Tracking):
    """A read is not noted before it is sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.journal = ForgetfulDeparture()


class ForgetfulDeparture(Journal):
    __slots__ = ()

    def depart(self, name: str) -> int:
        return self.now


class HastyPrefix(Tracking):
    """What the server was asked to announce counts as announced before it has agreed."""

    def _admit(self, reads: Reads) -> None:
        announced, self.announced = self.announced, self.asked
        super()._admit(reads)
        self.announced = announced


class KeepsOnLeaving(Reads):
    """Copies outlive that nobody is told of them any more."""

    def leave(self) -> None:
        self.covered = False


FOUND_IN = {
    mutants.NoToken: "reads",
    mutants.NoOwnWriteDrop: "writes",
    mutants.NoCompletedReadRule: "reads",
    mutants.NoEpochOnReconnect: "losses",
    mutants.NoLease: "time",
    mutants.LeaseFromReceipt: "time",
    mutants.PongFirst: "fences",
    mutants.NoCanary: "deaf",
    mutants.EndlessCopies: "lifetimes",
    mutants.NoFlush: "flushes",
    Forgetful: "reads",
    HastyFence: "fences",
    NoDropOnReturn: "writes",
    KeepsPending: "losses",
    UnnotedFirstRead: "first reads",
    ForgottenDeparture: "writes",
    HastyPrefix: "joins",
    KeepsOnLeaving: "joins",
}


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", FOUND_IN, ids=lambda kind: kind.__name__)
def test_a_broken_rule_is_found(kind):
    """A protocol without one of its rules breaks a promise in some order of few events."""
    with pytest.raises(Broken, match=r"^(G\d|expired)"):
        explore(SCOPES[FOUND_IN[kind]], kind)
