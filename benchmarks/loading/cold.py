"""A key that nobody has, and 200 callers at once: how often is it loaded, and when is the last caller done?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.contenders import TIMEOUT
from benchmarks.contest import QUICK, Pace, Table, not_run, reason, times
from benchmarks.loading.fleet import PROCESSES, Fleet, Seen
from benchmarks.loading.peers import AWAITING, BLOCKING, ITSELF, NAMES, Life

CALLERS = 50
"""In each process."""
COST = 0.5
"""Seconds that a load takes."""
LIFE = Life(TIMEOUT, early=False)
ROUNDS, FEW = 7, 2


@dataclass
class Cold:
    """For each contender and round: the number of loads, the seconds until the last caller was done, and the commands."""

    loads: dict[str, list[int]] = field(default_factory=dict)
    last: dict[str, list[float]] = field(default_factory=dict)
    commands: dict[str, list[int]] = field(default_factory=dict)
    """What the server was asked meanwhile."""
    absent: dict[str, str] = field(default_factory=dict)

    def most(self, name: str) -> float | None:
        """Return the most loads that there were in a round."""
        return max(self.loads[name]) if name in self.loads else None

    def late(self, name: str) -> float | None:
        """Return the median of when the last caller was done, in seconds."""
        return median(self.last[name]) if name in self.last else None


def measure(fleet: Fleet, pace: Pace) -> Cold:
    """Let the contenders take turns, each time with a new key; the first turn of each only opens connections."""
    found = Cold()
    order = random.Random(1)
    names = [name for name in NAMES if name != ITSELF]  # the same when nothing is old
    for number in range((FEW if pace == QUICK else ROUNDS) + 1):
        for name in order.sample(names, len(names)):
            if name in found.absent:
                continue
            try:
                before = fleet.commands(name)
                begin, seen = fleet.meet(name, LIFE, COST, f"cold:{number}", CALLERS)
                commands = fleet.commands(name) - before
                _check(seen)
            except Exception as error:  # any failure of a peer is a line in the table
                found.absent[name] = reason(error)
                for each in (found.loads, found.last, found.commands):
                    each.pop(name, None)
                continue
            if number:
                found.loads.setdefault(name, []).append(len(seen.loads))
                found.commands.setdefault(name, []).append(commands)
                found.last.setdefault(name, []).append((max(ended for _, ended, _ in seen.calls) - begin) / 1e9)
    return found


def _check(seen: Seen) -> None:
    if seen.errors or len(seen.calls) != PROCESSES * CALLERS:
        raise RuntimeError(f"{len(seen.errors)} of {PROCESSES * CALLERS} calls failed: {(seen.errors or ['?'])[0]}")


def tables(found: Cold) -> list[Table]:
    """Write one table for each face."""
    return [_table("blocking", tuple(BLOCKING), found), _table("awaiting", tuple(AWAITING), found)]


def _table(face: str, names: Sequence[str], found: Cold) -> Table:
    rows = []
    for name in sorted({*names} & {*found.loads}, key=lambda name: (found.most(name), found.late(name))):
        loads, late = found.loads[name], found.late(name) or 0
        commands = f"{median(found.commands[name]):,.0f}"
        rows.append((name, f"{median(loads):.0f}", str(max(loads)), f"{late * 1e3:.0f}", times(late / COST), commands))
    callers = f"{PROCESSES} processes of {CALLERS} {'threads' if face == 'blocking' else 'tasks'}"
    columns = ("", "loads, median", "most", "last caller done, ms", "/ a load's time", "server commands")
    absent = {name: why for name, why in found.absent.items() if name in names}
    note = f"A load takes {COST * 1e3:.0f} ms. Medians of {max(map(len, found.loads.values()), default=0)} rounds."
    return Table(f"Loading: a cold key, {callers}", columns, rows, [note, *not_run(absent)])
