"""A key that everybody reads and that expires every second: who waits, and how often is it loaded?

A caller waited if his call took more than half of a load's time: for his own load or for somebody else's.  By what a
thread that only pings the server was delayed meanwhile, his call is taken for shorter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.contest import QUICK, Pace, Table, not_run, reason, times
from benchmarks.loading.fleet import PROCESSES, Fleet, Seen
from benchmarks.loading.peers import AWAITING, BLOCKING, NAMES, Life

CALLERS = 10
"""In each process."""
COST = 0.15
TIMEOUT = 1
LIFE = Life(TIMEOUT, early=True)
PAUSE = 0.012
"""Seconds between two calls of a caller, on average."""
TURNS, SECONDS = 3, 10.0
QUICK_SECONDS = 8.0
PICTURE = "![Over 8 seconds, for each cache: how many callers wait, and when loads begin](loading.svg)"


@dataclass
class Turn:
    """What was seen in one turn; moments are seconds since it began."""

    seconds: float
    loads: list[float]
    waits: list[tuple[float, float]]
    """When each call began and ended that waited."""
    calls: int
    latencies: list[float]
    oldest: float
    """How many seconds after it was made a value was still returned."""


@dataclass
class Hot:
    """The turns of each contender."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def waited(self, name: str) -> float | None:
        """Return how many calls waited in all."""
        return sum(len(turn.waits) for turn in self.turns[name]) if name in self.turns else None

    def loads(self, name: str) -> float | None:
        """Return the number of loads for each timeout."""
        if name not in self.turns:
            return None
        turns = self.turns[name]
        return sum(len(turn.loads) for turn in turns) / sum(turn.seconds / TIMEOUT for turn in turns)


def measure(fleet: Fleet, pace: Pace) -> Hot:
    """Let the contenders take turns in random order."""
    found = Hot()
    order = random.Random(2)
    turns, seconds = (1, QUICK_SECONDS) if pace == QUICK else (TURNS, SECONDS)
    for number in range(turns):
        for name in order.sample(NAMES, len(NAMES)):
            if name in found.absent:
                continue
            try:
                found.turns.setdefault(name, []).append(_turn(fleet, name, f"hot:{number}", seconds))
            except Exception as error:  # any failure of a peer is a line in the table
                found.absent[name] = reason(error)
                found.turns.pop(name, None)
    return found


def _turn(fleet: Fleet, name: str, key: str, seconds: float) -> Turn:
    fleet.meet(name, LIFE, COST, f"{key}:warm", CALLERS)  # connections
    fleet.alone(name, LIFE, COST, key)
    begin, seen = fleet.meet(name, LIFE, COST, key, CALLERS, seconds=seconds, pause=PAUSE)
    if seen.errors or not seen.calls:
        raise RuntimeError(f"{len(seen.errors)} calls failed: {(seen.errors or ['?'])[0]}")
    return _seen(begin, seen, seconds)


def _seen(begin: int, seen: Seen, seconds: float) -> Turn:
    def since(moment: int) -> float:
        return (moment - begin) / 1e9

    return Turn(
        seconds,
        sorted(map(since, seen.loads)),
        sorted((since(began), since(ended)) for began, ended in seen.waits),
        len(seen.calls),
        sorted((ended - began) / 1e9 for began, ended, _ in seen.calls),
        max((ended - made) / 1e9 for _, ended, made in seen.calls),
    )


def tables(found: Hot) -> list[Table]:
    """Write one table for each face, and show the plot."""
    blocking, awaiting = _table("blocking", tuple(BLOCKING), found), _table("awaiting", tuple(AWAITING), found)
    return [blocking, replace(awaiting, notes=[*awaiting.notes, "", PICTURE])]


def _table(face: str, names: Sequence[str], found: Hot) -> Table:
    rows = []
    for name in sorted({*names} & {*found.turns}, key=lambda name: (found.waited(name) or 0, found.loads(name) or 0)):
        turns = found.turns[name]
        latencies = sorted(latency for turn in turns for latency in turn.latencies)
        waits = sorted(ended - began for turn in turns for began, ended in turn.waits)
        rows.append(
            (
                name,
                str(found.waited(name)),
                f"{waits[-1] * 1e3:.0f}" if waits else "-",
                times(found.loads(name)),
                times(latencies[int(0.99 * len(latencies))] * 1e3),
                times(max(turn.oldest for turn in turns)),
                f"{len(latencies):,}",
            )
        )
    columns = ("", "callers who waited", "longest, ms", "loads / timeout", "p99, ms", "oldest value, s", "calls")
    callers = f"{PROCESSES} processes of {CALLERS} {'threads' if face == 'blocking' else 'tasks'}"
    seconds = max((sum(turn.seconds for turn in turns) for turns in found.turns.values()), default=0)
    note = (
        f"{seconds:.0f} s in turns. A load takes {COST * 1e3:.0f} ms; a caller waited if his call took more than half of that, "
        "not counting what delayed a thread that only pings the server. "
        "Oldest value: how long after it was made a value was still returned."
    )
    absent = {name: why for name, why in found.absent.items() if name in names}
    return Table(f"Loading: a hot key that expires every second, {callers}", columns, rows, [note, *not_run(absent)])
