"""What do loading and tags cost, and what do they save?

`cold` and `hot` let a fleet ask for one key that is missing or expires, with the peers beside; `calls` compares calls
that find their value with the plain ones; `tags` invalidates.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contest import Pace, Table, once
from benchmarks.loading import calls, cold, hot, tags
from benchmarks.loading.fleet import fleet


@dataclass
class Outcome:
    """What was measured."""

    cold: cold.Cold
    hot: hot.Hot
    calls: calls.Calls
    tags: tags.Tags


def measure(pace: Pace) -> Outcome:
    """Measure everything, on servers of its own."""
    called, invalidated = calls.measure(pace), tags.measure(pace)
    with fleet() as processes:
        return Outcome(cold.measure(processes, pace), hot.measure(processes, pace), called, invalidated)


def tables(found: Outcome) -> list[Table]:
    """Write what is saved first, then what is paid."""
    return once(
        [*cold.tables(found.cold), *hot.tables(found.hot), *calls.tables(found.calls), *tags.tables(found.tags)]
    )
