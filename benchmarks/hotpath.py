"""Where in fleetcache does the time go?

A profile of each operation that has a target.  The profiler makes Python calls look dearer than they are:
read the shares and the number of calls, not the sum.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.awaiting import crowd
from benchmarks.contenders import OURS, aenter, enter
from benchmarks.contest import Table, micros, repeat, show, times
from benchmarks.near.misses import LIMITS, ON, cold, dearer
from benchmarks.remote import OPERATIONS
from fleetcache.testing.servers import EmbeddedServer

LINES = 14
AGET = "aget, 100 tasks"


def measure(server: EmbeddedServer) -> list[Table]:
    """Profile every operation; each table has the functions with the largest own time."""
    caches, absent = enter(server.tcp_url, [OURS])
    if absent:
        return [Table("Profiles", ("",), (), [f"{OURS} was not run: {absent[OURS]}"])]
    profiles = []
    for operation, prepare in OPERATIONS.items():
        call = prepare(caches[OURS])
        profiles.append(_profile(operation, partial(repeat(call), 2000), 2000))
    with asyncio.Runner() as runner:
        turn = crowd(runner, partial(runner.run(aenter(OURS, server.tcp_url(1))).aget, "small"), 100)
        turn(1000)
        profiles.append(_profile(AGET, partial(turn, 20_000), 20_000))
    with ExitStack() as stack:
        for operation, turns in dearer({OURS: (cold(server.tcp_url(), stack), server)}, stack).items():
            if operation in LIMITS:
                profiles.append(_profile(f"{ON}, {operation}", partial(turns[OURS], 5000), 5000))
    return profiles


def _profile(operation: str, work: Callable[[], object], count: int) -> Table:
    work()
    profiler = cProfile.Profile()
    profiler.runcall(work)
    statistics = pstats.Stats(profiler)
    functions = sorted(statistics.stats.items(), key=lambda item: -item[1][2])[:LINES]  # type: ignore[attr-defined]
    rows = [
        (_place(*where), times(calls / count), f"{own / statistics.total_tt:.0%}", micros(own / count))  # type: ignore[attr-defined]
        for where, (_, calls, own, *_rest) in functions
    ]
    return Table(f"Profile: {operation}", ("", "calls per operation", "own share", "own µs"), rows)


def _place(file: str, line: int, name: str) -> str:
    return name if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{line} {name}"


if __name__ == "__main__":
    show(lambda server, _: measure(server), __doc__)
