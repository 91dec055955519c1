"""What does a near cache cost, and what does it save?

`hits` is what it saves, `misses` what it adds to calls that it cannot answer, `costs` what it takes beside the
calls: CPU, memory, and the time until the first hit; `advice` what the advice on its size adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.contenders import OURS
from benchmarks.contest import Pace, Table, once, reason
from benchmarks.near import advice, costs, hits, misses
from fleetcache.testing.servers import EmbeddedServer


@dataclass
class Outcome:
    """What was measured; *costs* is None if that failed."""

    hits: hits.Hits
    misses: misses.Misses
    costs: costs.Costs | None = None
    advice: advice.Advised = field(default_factory=advice.Advised)


def measure(server: EmbeddedServer, pace: Pace) -> Outcome:
    """Measure everything."""
    found = Outcome(hits.measure(pace), misses.measure(server, pace))
    try:
        found.costs = costs.measure(pace)
    except Exception as error:
        found.misses.absent[OURS] = reason(error)
    found.advice = advice.measure(pace)
    return found


def tables(found: Outcome) -> list[Table]:
    """Write hits first, then what is paid for them."""
    written = [*hits.tables(found.hits), *misses.tables(found.misses)]
    return once([*written, *(costs.tables(found.costs) if found.costs else ()), *advice.tables(found.advice)])
