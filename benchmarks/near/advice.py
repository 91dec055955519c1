"""What does the advice on MAX_BYTES cost?  Reads of pages by Zipf's law, with `ADVISE` and without.

20,000 pages of 8 kB, of which 64 MB hold about a third; `hits only` reads the most popular page alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice

from benchmarks.contenders import TIMEOUT, Backend
from benchmarks.contest import Contest, Pace, Table, hold, micros, not_run, reason, times
from benchmarks.eviction import NAMES, zipf
from benchmarks.near.caches import DJANGO_OURS, close_at_end, wait_until_live
from benchmarks.near.hits import calling
from benchmarks.near.misses import advancing
from fleetcache.testing.servers import EmbeddedServer

ADVISED, PLAIN = "with ADVISE", "without"
LIMIT = 1.01
"""What a read may cost with the advice, as a multiple of its cost without."""

PAGE = bytes(8_000)
WARM = 60_000
"""Reads before the first that is measured, so that the store is full."""


@dataclass
class Advised:
    """Contests by kind of read; of what is measured with the advice, the hit ratio, the rate and the copies that are simulated."""

    contests: dict[str, Contest] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def measure(pace: Pace) -> Advised:
    """Hold the contests; one that fails ends them, and is told in the table."""
    found = Advised()
    try:
        with EmbeddedServer(port=True) as server, ExitStack() as stack:
            _hold_all(found, server, pace, stack)
    except Exception as error:
        found.absent[ADVISED] = reason(error)
    return found


def _hold_all(found: Advised, server: EmbeddedServer, pace: Pace, stack: ExitStack) -> None:
    gets: dict[str, Callable[[str], object]] = {}
    caches = {}
    for name, advise in ((ADVISED, True), (PLAIN, False)):
        options = {"NEAR": True, "STATS": {"ADVISE": advise, "AUDIT": 0}}
        caches[name] = cache = Backend(DJANGO_OURS.path, options=options)(server.tcp_url())
        close_at_end(cache, stack)
        gets[name] = cache.get
    for start in range(0, NAMES, 500):
        cache.set_many({f"page:{rank}": PAGE for rank in range(start, start + 500)}, timeout=10 * TIMEOUT)
    cache.set("str", "text", timeout=10 * TIMEOUT)
    pages = [f"page:{rank}" for rank in islice(zipf(random.Random(1), 1.0), WARM)]
    for name, get in gets.items():
        wait_until_live(caches[name])
        for page in pages:
            get(page)
    turns = {name: advancing(get, cycle(pages)) for name, get in gets.items()}
    found.contests["zipf 1.0"] = hold(turns, Pace(pace.rounds, pace.turn * 4))
    found.contests["hits only"] = hold({name: calling(get, "str") for name, get in gets.items()}, pace)
    advisor, advice = caches[ADVISED].near.advisor, caches[ADVISED].near.advice()
    found.notes = [
        f"Hit ratio {advice['now']:.1%}; {advice['rate']:.2%} of the names are sampled, "
        f"{advisor.held:,} copies simulated. By then the advice says: {advice['text']}"
    ]


def tables(found: Advised) -> list[Table]:
    """Write one table."""
    rows = [
        (
            kind,
            times(contest.ratio(ADVISED, PLAIN)),
            times(contest.ratio(ADVISED, PLAIN, "cpu")),
            micros(contest.cost(ADVISED)),
            micros(contest.cost(PLAIN)),
        )
        for kind, contest in found.contests.items()
    ]
    columns = ("", "with / without ADVISE", "the same, CPU", "µs with", "µs without")
    return [Table("Near: the advice on MAX_BYTES", columns, rows, [*found.notes, *not_run(found.absent)])]
