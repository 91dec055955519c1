"""Contests: the same work done by several contenders in turns, and tables of the outcome.

Other work on the machine slows everyone down for a while, so a contest is many short rounds.  In
each round every contender has one turn, in a new random order, and ratios are taken within the round:
what disturbs one round disturbs all its turns alike, and the median over the rounds forgets it.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter, process_time
from typing import Any, Literal

from fleetcache.testing.servers import EmbeddedServer

Operation = Callable[[], Any]
Turn = Callable[[int], int]
"""Does about as many operations as asked for, and returns how many it did."""
Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Pace:
    """How long a contest takes: its number of rounds, and the seconds of each turn."""

    rounds: int
    turn: float


FULL = Pace(rounds=21, turn=0.05)
QUICK = Pace(rounds=5, turn=0.03)


@dataclass(frozen=True)
class Cost:
    """Seconds per operation.  ``cpu`` counts every thread of this process, none of the server."""

    wall: float
    cpu: float


@dataclass
class Contest:
    """What every contender's turns cost, round by round, and who could not take part."""

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def cost(self, name: str, clock: Clock = "wall") -> float | None:
        """Return the median cost of an operation in seconds, or None for an absent contender."""
        costs = self.costs.get(name)
        return median([getattr(cost, clock) for cost in costs]) if costs else None

    def ratio(self, name: str, to: str, clock: Clock = "wall") -> float | None:
        """Return the median over the rounds of *name*'s cost divided by *to*'s."""
        mine, theirs = self.costs.get(name), self.costs.get(to)
        if not mine or not theirs:
            return None
        return median([getattr(a, clock) / getattr(b, clock) for a, b in zip(mine, theirs, strict=True)])


def repeat(operation: Operation) -> Turn:
    """Return a turn that does nothing but *operation*."""

    def turn(count: int) -> int:
        for _ in range(count):
            operation()
        return count

    return turn


def hold(turns: Mapping[str, Turn], pace: Pace) -> Contest:
    """Let the contenders take turns; one that fails is absent from then on."""
    contest = Contest()
    counts: dict[str, int] = {}
    gc.collect()
    gc.freeze()
    for name, turn in turns.items():
        try:
            counts[name] = _calibrate(turn, pace.turn)
        except Exception as error:  # any failure of a peer is a line in the table
            contest.absent[name] = reason(error)
    order = random.Random(len(turns))  # the same shuffles in every run
    for _ in range(pace.rounds):
        names = [name for name in turns if name not in contest.absent]
        for name in order.sample(names, len(names)):
            try:
                cost = _timed(turns[name], counts[name])
            except Exception as error:
                contest.absent[name] = reason(error)
                contest.costs.pop(name, None)
            else:
                contest.costs.setdefault(name, []).append(cost)
    gc.unfreeze()
    return contest


def reason(error: Exception) -> str:
    """Return one line that says why a contender is absent."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def _calibrate(turn: Turn, span: float) -> int:
    """Warm up, and return how many operations take about *span* seconds."""
    turn(1)
    done = 1
    while True:
        started = perf_counter()
        done = turn(done)
        wall = perf_counter() - started
        if wall > span / 4:
            return max(1, round(done * span / wall))
        done *= 2


def _timed(turn: Turn, count: int) -> Cost:
    cpu, wall = process_time(), perf_counter()
    done = turn(count)
    return Cost(wall=(perf_counter() - wall) / done, cpu=(process_time() - cpu) / done)


@dataclass(frozen=True)
class Table:
    """Rows under a title, to be read on a terminal and in Markdown alike."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [f"## {self.title}", ""]
        for row in (self.columns, rule, *self.rows):
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, "", *(f"{note}  " for note in self.notes)]).rstrip()


def times(ratio: float | None) -> str:
    """Write a number to three digits; what was not measured is a dash."""
    if ratio is None:
        return "-"
    return f"{ratio:.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}"


def micros(seconds: float | None) -> str:
    """Write a time in microseconds."""
    return "-" if seconds is None else times(seconds * 1e6)


def not_run(*reasons: Mapping[str, str]) -> list[str]:
    """Return a note for each contender that did not take part."""
    merged: dict[str, str] = {}
    for mapping in reasons:
        merged |= mapping
    return [f"{name} was not run: {why}" for name, why in sorted(merged.items())]


def once(tables: Iterable[Table]) -> list[Table]:
    """Leave out of each table the notes that an earlier one has given."""
    given: set[str] = set()
    kept = []
    for table in tables:
        kept.append(replace(table, notes=[note for note in table.notes if note not in given]))
        given.update(table.notes)
    return kept


def arguments(description: str | None) -> argparse.Namespace:
    """Parse the options all scripts share; ``pace`` is the outcome of ``--quick``."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_const", dest="pace", const=QUICK, default=FULL, help="fewer rounds")
    return parser.parse_args()


def show(question: Callable[[EmbeddedServer, Pace], Iterable[Table]], description: str | None) -> None:
    """Ask one question on a server of its own, and print the answer: the main program of a script."""
    pace = arguments(description).pace
    with EmbeddedServer(port=True) as server:
        for table in question(server, pace):
            sys.stdout.write(f"{table}\n\n")
